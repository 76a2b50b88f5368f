"""What a run is told, on its way into its journal, and the thread that brings it there.

Adding points costs microseconds; the thread writes what has come up to the journal at most a second
behind, and gives a sign of life. All else is rare and is written at once. A journal that cannot be
written is only told of: the frames wait for the next try, and the next commit has them anyway. One
that was lost is written anew from what is known.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from cas.errors import CasError, InvalidInputError
from cas.objects import canonical
from cas.repo.layout import JOURNALS
from cas.repo.repo import Repo
from cas.tracking.captured.environment import here
from cas.tracking.journals.journal import MAX_FRAME, Header
from cas.tracking.journals.journalwriter import JournalWriter
from cas.tracking.journals.state import RunState, moved_frame
from cas.tracking.numbers.aggregate import Aggregate
from cas.tracking.numbers.columns import COLUMNS, POINT, of_frame

BEHIND_SECONDS: Final = 0.5
ANEW_SECONDS: Final = 10.0  # between two attempts to write a lost journal anew
POINTS: Final = 500_000  # of one metric in one frame, far from the largest that a journal takes
SUMS: Final = 100_000  # in one frame, likewise
REPLAYED: Final = frozenset({"points", "system"})


class Worker(Protocol):
    """What works beside an open run on a thread of its own."""

    def start(self) -> None:
        """Begin; called once."""

    def halt(self) -> None:
        """End; what it still has to say it says before this returns."""


class Feed:
    """The way from an open run of this process to its journal."""

    def __init__(self, repo: Repo, state: RunState, journal: JournalWriter) -> None:
        self.tell: Callable[[str], None] = lambda _: None
        self.begun = (state.run, state.ref)
        self._repo = repo
        self._state = state
        self._journal = journal
        self._queue: list[dict[str, Any]] = []
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._told = False
        self._anew_at = 0.0
        self._workers: list[Worker] = []
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="cas-journal", daemon=True)

    @property
    def path(self) -> Path:
        """Where the journal is."""
        return self._journal.path

    def start(self) -> None:
        """Begin to write points by themselves."""
        self._thread.start()

    def beside(self, worker: Worker) -> None:
        """Let something work until this is halted."""
        self._workers.append(worker)
        worker.start()

    def note(self, frame: Mapping[str, Any]) -> None:
        """Take one frame, into the state and the journal."""
        # What cannot be written would stop all that comes behind it, so it is refused here.
        if len(canonical.encode(dict(frame))) > MAX_FRAME:
            raise InvalidInputError(f"more than {MAX_FRAME} bytes at once: log them as an artifact")
        with self._lock:
            if frame.get("t") in REPLAYED:
                self._queue += self._points()  # our own come before those of another process
            self._state.apply(frame)
            self._queue.append(dict(frame))
        self.flush_or_tell()

    def flush(self) -> None:
        """Write everything that has come up to the journal."""
        with self._writing:
            with self._lock:
                frames = [*self._queue, *self._points()]
                self._queue = []
            try:
                if self._is_due_anew():
                    self._state.position = self._begin_anew()
                elif frames:
                    self._state.position = self._journal.append(frames)
            except BaseException:
                with self._lock:
                    self._queue = frames + self._queue
                raise

    def flush_or_tell(self) -> None:
        """Write what has come up; that it cannot be is said once."""
        self._or_tell(self.flush)

    def halt(self) -> None:
        """End the thread; what comes after is written when it is noted."""
        while self._workers:  # one that Ctrl-C interrupts is halted by the next call
            with suppress(Exception):  # what it watches over has ended
                self._workers[-1].halt()
            self._workers.pop()
        self._halted.set()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        """Close the journal as it is."""
        self._journal.close()

    def drop(self) -> None:
        """Remove the journal: it is not needed any more."""
        with suppress(CasError, OSError):  # one that is left over is seen to be of no use
            self._journal.close(delete=True)

    def _drain(self) -> None:
        while not self._halted.wait(BEHIND_SECONDS):
            self.flush_or_tell()
            self._or_tell(self._tend)

    def _tend(self) -> None:
        self._journal.tend(time.monotonic())

    def _is_due_anew(self) -> bool:
        """Say whether the journal is lost, and if so, whether to write it anew now."""
        if not self._journal.lost():
            return False
        # A repository that is gone must not come back as a fragment: the next commit tells of it.
        if time.monotonic() < self._anew_at or not self._repo.path.is_dir():
            return False
        self._anew_at = time.monotonic() + ANEW_SECONDS  # a disk that fails is not to be filled
        return True

    def _begin_anew(self) -> int:
        """Write the journal again from what is known: somebody removed it, or it cannot go on."""
        with self._lock:
            frames = self._state.frames()
            for log in (self._state.metrics, self._state.system):
                frames += pieces(log.drained())
            run, ref = self.begun
            header = replace(header_of(self._repo, self._state), run=run, ref=ref)
            if self._state.ref != ref:
                frames.append(moved_frame(self._state.run, self._state.ref))
        return self._journal.begin_anew(header, frames)

    def _points(self) -> list[dict[str, Any]]:
        """Return the points that have come up since the last time, as frames."""
        logs = (self._state.metrics, self._state.system)
        return [frame for log in logs for frame in pieces(log.drain())]

    def _or_tell(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            if not self._told:
                self._told = True
                self.tell(f"warning: {error} (what is logged would be lost if the process died)")


def _rest(row: list[Any], columns: Mapping[str, bytes], at: int) -> list[Any]:
    """Return what a metric's row says of the points that are not among the first `at` bytes."""
    if not at:
        return row
    name, _, known = row
    first = {key: [column[:at]] for key, column in columns.items()}
    part = of_frame({"names": [name], **first})[name]
    whole = Aggregate.from_bytes(known)
    before = Aggregate(whole.base)
    before.observe_all(part["steps"], part["values"])
    return [name, None, whole.rest(before).to_bytes()]


def open_feed(repo: Repo, state: RunState, name: str) -> Feed:
    """Create a journal of a run and lock it for the life of this process."""
    return Feed(repo, state, create_journal(repo, state, name))


def create_journal(repo: Repo, state: RunState, name: str) -> JournalWriter:
    """Create a journal of a run in its repository."""
    path = repo.path / JOURNALS / name
    return JournalWriter.create(path, header_of(repo, state), ops=repo.ops)


def header_of(repo: Repo, state: RunState) -> Header:
    """Return the header of a journal that this process writes."""
    place = here()
    return Header(
        run=state.run,
        ref=state.ref,
        uid=state.uid,
        host=place.host,
        boot=place.boot,
        pidns=place.pidns,
        pid=os.getpid(),
        started=repo.clock(),
    )


def pieces(points: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield a frame of points as frames of bounded size."""
    if points is None:
        return
    size, sums = POINTS * POINT, points.get("sums", [])
    if sum(map(len, points["steps"])) <= size and len(sums) <= SUMS:
        yield dict(points)
        return
    for number, name in enumerate(points["names"]):
        whole = {key: points[key][number] for key in COLUMNS}
        unkept = [row for row in sums if row[0] == name and row[1] is None]
        for at in range(0, len(whole["steps"]), size):
            last = at + size >= len(whole["steps"])
            yield (
                {"t": points["t"], "names": [name]}
                | {key: [column[at : at + size]] for key, column in whole.items()}
                | ({"sums": [_rest(unkept[0], whole, at)]} if unkept and last else {})
            )
    sums = [row for row in sums if row[1] is not None or row[0] not in points["names"]]
    for at in range(0, len(sums), SUMS):
        nothing: dict[str, list[bytes]] = {key: [] for key in COLUMNS}
        yield {"t": points["t"], "names": [], **nothing, "sums": sums[at : at + SUMS]}
