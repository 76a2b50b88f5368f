"""An open run of this process as far as nothing is committed of it: what it is told, and when.

All of it goes through `feed` into the journal of the run.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cas.repo.repo import Repo
from cas.tracking import record
from cas.tracking.journals.feed import Feed, Worker
from cas.tracking.journals.state import RunState
from cas.tracking.record import Moment


class Opened:
    """The state of an open run, its journal and its clock."""

    def __init__(self, repo: Repo, state: RunState, feed: Feed) -> None:
        self.repo = repo
        self.state = state
        self._author = record.settings(repo).get("author") or repo.who
        self._feed = feed
        self._ahead = 0  # microseconds by which the clock of the run is ahead of this host's
        self._first: list[Callable[[], None]] = []

    @property
    def journal(self) -> Path:
        """The file that has all that this process was told so far."""
        return self._feed.path

    @property
    def tell(self) -> Callable[[str], None]:
        """How the user is told a line about this run."""
        return self._feed.tell

    @tell.setter
    def tell(self, tell: Callable[[str], None]) -> None:
        self._feed.tell = tell

    def note(self, frame: Mapping[str, Any]) -> None:
        """Take one frame, into the state and the journal."""
        self._feed.note(frame)

    def add_points(
        self,
        points: Mapping[str, object],
        step: object,
        time: float,
        epoch: object = None,
        *,
        leads: bool = True,
    ) -> int:
        """Take one point of each metric, within the second in the journal; return the step.

        Points that do not lead leave the step of the others as it is.
        """
        return self.state.metrics.add(points, step, time, epoch, leads=leads)

    def clock(self) -> int:
        """Return now, in microseconds since the epoch; later than all that the run has told."""
        return self.repo.clock() + self._ahead

    def not_before(self, moment: int) -> None:
        """Let the run's clock go on from here: that of the host before may have been ahead."""
        self._ahead = max(0, moment + 1 - self.repo.clock())

    def beside(self, worker: Worker) -> None:
        """Let something work beside the run until that ends."""
        self._feed.beside(worker)

    def flush(self) -> None:
        """Write everything that has come up to the journal."""
        self._feed.flush()

    def before_checkpoints(self, settle: Callable[[], None]) -> None:
        """Have this done before each checkpoint is committed; what it raises it does not hinder."""
        self._first.append(settle)

    def settle(self) -> None:
        """Have everything stored that was shown so far, and noted in the journal."""
        for settle in list(self._first):
            with suppress(Exception):
                settle()

    def moment(self, status: str, step: int | None = None, message: str = "") -> Moment:
        """Return the circumstances of a commit made now."""
        return Moment(self.clock(), self._author, status, message, step)
