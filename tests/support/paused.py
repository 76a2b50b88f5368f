"""A program of the real code that stops before it changes the disk, and goes on when it is told.

paused = Paused(lambda ops: collect(path, ops), Dates())
while paused.go_on():
    ...  # somebody else does something
paused.result()
"""

import os
import threading
from collections.abc import Callable, Sequence
from hashlib import shake_128
from typing import Generic, TypeVar

from cas.backend.files import FileOps
from cas.ids import Buffer
from tests.support.crashing import Quick
from tests.support.schedule import Cut, ProcessOps

T = TypeVar("T")
R = TypeVar("R")
STUCK_SECONDS = 60.0
START_NS = 1_900_000_000_000_000_000
# Before each of these others may do something that matters to it, or it to them.
STOPS = frozenset({"open_new", "link", "unlink", "scandir", "stat"})
SHARED = ("/packs/", "/roots/", "/index/", "/snapshots/")


class Dates:
    """The clock of the file system: it goes on with each write, and may jump."""

    def __init__(self) -> None:
        self._now_ns = START_NS

    def stamp(self, fd: int) -> None:
        """Date an open file as of now."""
        self._now_ns += 1_000_000
        os.utime(fd, ns=(self._now_ns, self._now_ns))

    def jump(self, seconds: int) -> None:
        """Go on from another time."""
        self._now_ns += seconds * 1_000_000_000


class Paused(Generic[T]):
    """One such program, which has not begun yet."""

    def __init__(self, program: Callable[[FileOps], T], dates: Dates) -> None:
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._program = program
        self._cut = False
        self._ended = False
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        self._ops = _PausingOps(self._pause, dates)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_on(self) -> bool:
        """Run until it stops before something, or to its end; say whether it is under way still."""
        if not self._ended:
            self._go.release()
            assert self._stopped.acquire(timeout=STUCK_SECONDS), "it waits for somebody"
        return not self._ended

    def end(self) -> None:
        """End its process where it stopped."""
        self._cut = True
        while self.go_on():
            pass

    def result(self) -> T | None:
        """Hand out what it returned, None when its process ended; raise what it raised.

        What it returned is kept no longer: a plan holds the repository, whose open files are closed
        when it goes, by the operations of this very program.
        """
        assert self._ended
        for error in self._errors:
            raise error
        return self._results.pop() if self._results else None

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._results.append(self._program(self._ops))
        except Cut:
            self._ops.end()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._ended = True
            self._stopped.release()

    def _pause(self, operation: str, path: str) -> None:
        if not self._cut and _stops(operation, path):
            self._stopped.release()
            self._go.acquire()
        if self._cut:
            raise Cut


class Drawn:
    """In place of `os.urandom`: the same names whenever the same is done again."""

    def __init__(self) -> None:
        self._drawn = 0

    def again(self) -> None:
        """Begin from the start."""
        self._drawn = 0

    def __call__(self, size: int) -> bytes:
        self._drawn += 1
        return shake_128(b"%d" % self._drawn).digest(size)


class DatedOps(Quick):
    """File operations that nothing but `dates` tells the time."""

    def __init__(self, dates: Dates) -> None:
        self._dates = dates

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        written = super().write(fd, buffers)
        self._dates.stamp(fd)
        return written


class _PausingOps(ProcessOps):
    """File operations that pause."""

    def __init__(self, pause: Callable[[str, str], None], dates: Dates) -> None:
        super().__init__()
        self._pause = pause
        self._dates = dates

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        written = super().write(fd, buffers)
        self._dates.stamp(fd)
        return written

    def watch(self, operation: str, path: str, run: Callable[[], R]) -> R:
        self._pause(operation, path)
        return run()

    def lock(self, fd: int, how: int) -> None:
        FileOps.lock(self, fd, how)  # who holds one is never waited for: it may be paused


def _stops(operation: str, path: str) -> bool:
    if operation == "open_read":
        return "/roots/" in path
    return operation in STOPS and any(part in f"{path}/" for part in SHARED)
