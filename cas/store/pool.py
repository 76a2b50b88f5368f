"""Threads that encode and decode, shared by everything in the process.

Compressing, hashing and copying let go of the interpreter, so threads are enough. They are niced:
whoever trains in this process comes first. A job never waits for another job.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")
Job = Callable[[], T]

AWAY: Final = 64 * 1024  # below it a thread does not pay
MAX_WORKERS: Final = 16
NICENESS: Final = 5


class Ordered(Generic[T]):
    """Jobs at work on all cores, whose results are taken in the order in which they were given.

    `room` bounds the sum of the sizes of the jobs that are under way. An error of a job is raised
    by whichever call comes to its turn, and by every later one: the jobs behind it are dropped.
    """

    def __init__(self, take: Callable[[T], None], room: int) -> None:
        self._take = take
        self._room = room
        self._jobs: deque[tuple[Future[T], int]] = deque()
        self._held = 0
        self._pid = os.getpid()
        self._error: BaseException | None = None

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def put(self, job: Job[T], size: int) -> None:
        """Start a job that holds `size` bytes; take what is done, and wait while it is too much."""
        self._check()
        if size < AWAY and not self._jobs:
            self._turn(job)
            return
        while self._jobs and self._held + size > self._room:
            self.next()
        self._jobs.append((_start(job, _codecs), size))
        self._held += size
        while self._jobs and self._jobs[0][0].done():
            self.next()

    def settle(self) -> None:
        """Wait for all jobs and take their results."""
        self._check()
        while self._jobs:
            self.next()

    def drop(self) -> None:
        """Forget the jobs that are under way; none is at work any more when this returns."""
        jobs = [job for job, _ in self._jobs]
        self._jobs.clear()
        self._held = 0
        for job in [job for job in jobs if not job.cancel()]:
            _wait(job, self._pid)

    def next(self) -> None:
        """Wait for the first job and take its result."""
        job, size = self._jobs[0]
        self._turn(job.result)
        self._jobs.popleft()
        self._held -= size

    def _turn(self, result: Job[T]) -> None:
        try:
            self._take(result())
        except BaseException as error:
            self._error = error
            self.drop()
            raise

    def _check(self) -> None:
        # Who took no notice of an error must not take what was dropped for done.
        if self._error is not None:
            raise self._error


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
        self._pid = os.getpid()

    def put(self, job: Job[object]) -> None:
        """Start a job once the last one is done; raise what that one raised, each time."""
        self.settle()
        self._job = _start(job, _beside)

    def settle(self) -> None:
        """Wait for the last job; raise what it raised, each time."""
        if self._job is not None:
            self._job.result()  # where this is interrupted, it stays the last job
            self._job = None

    def drop(self) -> None:
        """Wait for the last job, whatever became of it."""
        if self._job is not None:
            _wait(self._job, self._pid)
            self._job = None


def workers() -> int:
    """Return how many jobs run at once: as many as this process may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    return min(MAX_WORKERS, os.cpu_count() or 1)


def _wait(job: "Future[T]", pid: int) -> None:
    """Wait for a job of this process, whatever becomes of it."""
    if os.getpid() == pid:  # in a forked child nobody is at work, and none ever ends
        job.exception()


def _start(job: Job[T], threads: "_Threads") -> "Future[T]":
    from concurrent.futures import Future

    future: Future[T] = Future()
    waiting = [job]

    def run() -> None:
        try:
            job = waiting.pop()
        except IndexError:
            return  # it ran already
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

    try:
        threads.start(run)
    except RuntimeError:
        # No thread starts: the interpreter ends, or there are too many. In the second case it is
        # queued all the same, and must not run again when a thread comes to it.
        run()
    return future


class _Threads:
    """Threads of one purpose, made when the first job comes."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def start(self, job: Job[None]) -> None:
        """Have a job run; RuntimeError where no thread starts, which says nothing of the job."""
        with self._lock:
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor

                self._executor = ThreadPoolExecutor(self._most, self._name, initializer=_be_nice)
            self._executor.submit(job)

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
