"""A run as it was at one moment, while more comes.

A checkpoint that is stored behind the loop says what was known when it was asked for.
"""

from dataclasses import dataclass, replace
from typing import Any

from cas.ids import BlobId, blob_id
from cas.objects.manifest import Series
from cas.tracking.journals.state import RunState
from cas.tracking.numbers.columns import WriteBlob
from cas.tracking.numbers.metrics import Mark, MetricLog


class PastMetrics(MetricLog):
    """A log up to now; `since` is where the checkpoint that was asked for before it ended."""

    def __init__(self, log: MetricLog, since: Mark | None) -> None:
        super().__init__()
        self._log = log
        self._until = log.mark()
        self._told = log.summary()
        # Points only ever come behind those that are there. What is known of an epoch changes.
        self._columns: list[bytes] = []
        self._of_epochs = log.epochs(since, self._take)

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

    def epochs(self, since: Mark | None, write_blob: WriteBlob) -> Series:
        """Return what was known of each epoch that had a point since the checkpoint before."""
        for data in self._columns:
            write_blob(data)
        return self._of_epochs

    def _take(self, data: bytes) -> BlobId:
        self._columns.append(data)
        return blob_id(data)


@dataclass(frozen=True, slots=True)
class Now:
    """What a checkpoint says of its run, as it was when somebody asked for it."""

    params: dict[str, Any]
    metrics: PastMetrics
    position: int

    def of(self, state: RunState) -> RunState:
        """Return a run's state with what was known then."""
        return replace(state, params=self.params, metrics=self.metrics, position=self.position)
