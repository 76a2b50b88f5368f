"""A run as it was at one moment, while more comes.

A checkpoint that is stored behind the loop says what was known when it was asked for.
"""

from dataclasses import dataclass, replace
from typing import Any

from cas.objects.manifest import Series
from cas.tracking.journals.state import RunState
from cas.tracking.numbers.columns import Known, WriteBlob
from cas.tracking.numbers.metrics import Mark, MetricLog


class PastMetrics(MetricLog):
    """A log up to now; `since` is where the newest checkpoint ended that is stored already."""

    def __init__(self, log: MetricLog, since: Mark | None) -> None:
        super().__init__()
        self._log = log
        self._until = log.mark()
        self._told = log.summary()
        # Points only ever come behind those that are there. What is known of an epoch changes.
        self._known_then = log.known(since)

    def mark(self) -> Mark:
        """Return how far the log had come."""
        return self._until

    def summary(self) -> dict[str, dict[str, object]]:
        """Return what the log's summary was."""
        return self._told

    def series(
        self, since: Mark | None, write_blob: WriteBlob, until: Mark | None = None
    ) -> Series:
        """Return steps and values of the points up to then."""
        return self._log.series(since, write_blob, until or self._until)

    def times(self, since: Mark | None, write_blob: WriteBlob, until: Mark | None = None) -> Series:
        """Return steps and wall times of the same points."""
        return self._log.times(since, write_blob, until or self._until)

    def known(self, since: Mark | None) -> Known:
        """Return what was known of epochs then; who asks passes over those from before `since`."""
        return self._known_then


@dataclass(frozen=True, slots=True)
class Now:
    """What a checkpoint says of its run, as it was when somebody asked for it."""

    params: dict[str, Any]
    metrics: PastMetrics
    position: int

    def of(self, state: RunState) -> RunState:
        """Return a run's state with what was known then."""
        return replace(state, params=self.params, metrics=self.metrics, position=self.position)
