"""Threads that encode and decode, shared by everything in the process.

Compressing, hashing and copying let go of the interpreter, so threads are enough. They are niced:
whoever trains in this process comes first. A job never waits for another job.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
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

    def __init__(self, take: Callable[[T], None], room: int, *, beside: bool = False) -> None:
        """`beside` is for jobs that wait for the disk more than they compute."""
        self._take = take
        self._threads = _beside if beside else _codecs
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
        small = size < AWAY and self._threads is _codecs
        if small and not self._jobs:
            self._turn(job)
            return
        while self._jobs and self._held + size > self._room:
            self.next()
        self._jobs.append((self._done(job) if small else _start(job, self._threads), size))
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

    def _done(self, job: Job[T]) -> "Future[T]":
        """Do a job that is too small for a thread; what comes of it waits for its turn."""
        from concurrent.futures import Future

        future: Future[T] = Future()
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)
        except BaseException as error:  # it does not wait
            self._error = error
            self.drop()
            raise
        return future

    def _check(self) -> None:
        # Who took no notice of an error must not take what was dropped for done.
        if self._error is not None:
            raise self._error


def ordered(jobs: Iterable[tuple[Job[T], int]], room: int, *, beside: bool = False) -> Generator[T]:
    """Yield the results of jobs in their order, while those behind are at work already."""
    done: deque[T] = deque()
    queue = Ordered(done.append, room, beside=beside)
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


def one_ahead(reads: Iterable[Job[T]]) -> Generator[T]:
    """Yield what reads return, one after another; the next is under way meanwhile.

    None is any more when this is closed.
    """
    return ordered(((read, 1) for read in reads), 1, beside=True)


class Lane:
    """Jobs beside the caller, one after another: each starts when the one before has ended.

    Of a job that fails, and of those behind it, none is done any more.
    """

    def __init__(self, waiting: int = 1) -> None:
        """At most `waiting` jobs are under way before `put` waits for the first of them."""
        self._waiting = waiting
        self._jobs: deque[Future[object]] = deque()
        self._pid = os.getpid()

    def put(self, job: Job[object]) -> None:
        """Start a job once those before are done; raise what one of them raised, each time."""
        while self._jobs and (len(self._jobs) >= self._waiting or self._jobs[0].done()):
            self._first()
        self._jobs.append(_start_after(self._jobs[-1] if self._jobs else None, job))

    def settle(self) -> None:
        """Wait for all jobs; raise what the first that failed raised, each time."""
        while self._jobs:
            self._first()

    def drop(self) -> None:
        """Wait for all jobs, whatever became of them."""
        while self._jobs:
            _wait(self._jobs[0], self._pid)
            self._jobs.popleft()

    def _first(self) -> None:
        self._jobs[0].result()  # where this is interrupted, or raises, it stays the first
        self._jobs.popleft()


def workers() -> int:
    """Return how many jobs run at once: as many as this process may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    return min(MAX_WORKERS, os.cpu_count() or 1)


def _wait(job: "Future[T]", pid: int) -> None:
    """Wait for a job of this process, whatever becomes of it."""
    if os.getpid() == pid:  # in a forked child nobody is at work, and none ever ends
        job.exception()


def _start(job: Job[T], threads: "_Threads", future: "Future[T] | None" = None) -> "Future[T]":
    from concurrent.futures import Future

    future = future or Future()
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


def _start_after(before: "Future[object] | None", job: Job[object]) -> "Future[object]":
    from concurrent.futures import Future

    if before is None:
        return _start(job, _beside)
    future: Future[object] = Future()

    def start(done: "Future[object]") -> None:
        error = done.exception()
        if error is None:
            _start(job, _beside, future)
        else:
            future.set_exception(error)

    before.add_done_callback(start)
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
