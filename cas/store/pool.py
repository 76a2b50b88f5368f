"""Threads that encode and decode, shared by everything in the process.

Compressing, hashing and copying let go of the interpreter, so threads are enough. They are niced:
whoever trains in this process comes first. A job never waits for another job.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Generic, TypeVar

T = TypeVar("T")
Job = Callable[[], T]

AWAY: Final = 64 * 1024  # below it a thread does not pay
MAX_WORKERS: Final = 16
NICENESS: Final = 5


class Ordered(Generic[T]):
    """Jobs at work on all cores, whose results are taken in the order in which they were given.

    `room` bounds the sum of the sizes of the jobs that are under way. An error of a job is raised
    by whichever call comes to its turn; the jobs behind it are then dropped.
    """

    def __init__(self, take: Callable[[T], None], room: int) -> None:
        self._take = take
        self._room = room
        self._jobs: deque[tuple[Future[T], int]] = deque()
        self._held = 0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def put(self, job: Job[T], size: int) -> None:
        """Start a job that holds `size` bytes; take what is done, and wait while it is too much."""
        if size < AWAY and not self._jobs:
            self._take(job())
            return
        while self._jobs and self._held + size > self._room:
            self.next()
        self._jobs.append((_start(job, _codecs), size))
        self._held += size
        while self._jobs and self._jobs[0][0].done():
            self.next()

    def settle(self) -> None:
        """Wait for all jobs and take their results."""
        while self._jobs:
            self.next()

    def drop(self) -> None:
        """Forget the jobs that are under way."""
        while self._jobs:
            self._jobs.popleft()[0].cancel()
        self._held = 0

    def next(self) -> None:
        """Wait for the first job and take its result."""
        job, size = self._jobs.popleft()
        self._held -= size
        try:
            self._take(job.result())
        except BaseException:
            self.drop()
            raise


def ordered(jobs: Iterable[tuple[Job[T], int]], room: int) -> Iterator[T]:
    """Yield the results of jobs in their order, while those behind are at work already."""
    done: deque[T] = deque()
    queue = Ordered(done.append, room)
    try:
        for job, size in jobs:
            queue.put(job, size)
            while done:
                yield done.popleft()
        while queue:
            queue.next()
            yield from done
            done.clear()
    finally:
        queue.drop()


class Lane:
    """Jobs beside the caller, one after another: each starts when the one before has ended."""

    def __init__(self) -> None:
        self._job: Future[object] | None = None

    def put(self, job: Job[object]) -> None:
        """Start a job once the last one is done; raise what that one raised."""
        self.settle()
        self._job = _start(job, _beside)

    def settle(self) -> None:
        """Wait for the last job; raise what it raised."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def drop(self) -> None:
        """Wait for the last job, whatever became of it."""
        with suppress(Exception):
            self.settle()


def workers() -> int:
    """Return how many jobs run at once: as many as this process may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    return min(MAX_WORKERS, os.cpu_count() or 1)


def _start(job: Job[T], threads: "_Threads") -> "Future[T]":
    try:
        return threads.start(job)
    except RuntimeError:  # while the interpreter ends, no thread starts any more
        done: Future[T] = Future()
        try:
            done.set_result(job())
        except Exception as error:
            done.set_exception(error)
        return done


class _Threads:
    """Threads of one purpose, made when the first job comes."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def start(self, job: Job[T]) -> "Future[T]":
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._most, self._name, initializer=_be_nice)
            return self._executor.submit(job)

    def forked(self) -> None:
        # No thread lives on in a forked child, and a lock may be held for ever.
        self._lock, self._executor = threading.Lock(), None


def _be_nice() -> None:
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


_codecs: Final = _Threads("cas-codec", workers())
_beside: Final = _Threads("cas-beside", MAX_WORKERS)
os.register_at_fork(after_in_child=_codecs.forked)
os.register_at_fork(after_in_child=_beside.forked)
