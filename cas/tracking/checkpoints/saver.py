"""The thread that stores checkpoints behind the training loop, one after another.

What it is given is staged already: nothing that the loop does can reach it any more. An error is
kept with the save that it belongs to, and told to whoever comes next.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cas.errors import TrackingError
from cas.ids import CommitId
from cas.store.pool import NICENESS

Job = Callable[[], CommitId | None]  # None: it was left out
Told = Callable[[Exception], None]


class Saving:
    """A checkpoint on its way: `commit` waits for it and is None where it came to nothing."""

    def __init__(self, step: int | None = None) -> None:
        self.step: Final = step
        self.error: Exception | None = None
        self._commit: CommitId | None = None
        self._done = threading.Event()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        state = self._commit or self.error or "left out" if self.done else "under way"
        return f"<checkpoint at step {self.step}: {state}>"

    @property
    def done(self) -> bool:
        """Whether it is durable, or came to nothing; does not wait."""
        return self._done.is_set()

    @property
    def commit(self) -> CommitId | None:
        """The checkpoint's commit, once it is durable."""
        self.wait()
        return self._commit

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is durable or came to nothing; say whether that is so by then."""
        if os.getpid() != self._pid:
            return self.done  # in a forked child nobody is at work on it
        return self._done.wait(seconds)

    def end(self, commit: CommitId | None = None, error: Exception | None = None) -> None:
        """Say what came of it; for who made it."""
        self._commit, self.error = commit, error
        self._done.set()


class Saver:
    """Stores what it is given, in order; `told` gets the errors, on the thread of this."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._jobs: deque[tuple[Job, Saving]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._at_work = False

    def put(self, job: Job, saving: Saving) -> None:
        """Store something behind the caller."""
        with self._changed:
            self._jobs.append((job, saving))
            self._changed.notify_all()
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._work, name="cas-saver", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter ends, or there are too many: then it is done here
            self._thread = None
            self._pass()

    def run(self, job: Job, saving: Saving) -> None:
        """Store something on the caller's thread, once all that was given before is done."""
        self.settle()
        self._do(job, saving)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until all that was given is done; say whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._at_work, seconds)

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # whoever trains in this process comes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs))
            self._pass()

    def _pass(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    return
                job, saving = self._jobs.popleft()
                self._at_work = True
            try:
                self._do(job, saving)
            except BaseException:  # a library's panic; this goes on, as whoever settles waits
                if saving.error is not None:
                    self._told(saving.error)
            finally:
                with self._changed:
                    self._at_work = False
                    self._changed.notify_all()

    def _do(self, job: Job, saving: Saving) -> None:
        error: Exception | None = None
        commit: CommitId | None = None
        try:
            commit = job()
        except Exception as caught:
            error = caught
            self._told(caught)
        except BaseException as caught:
            error = TrackingError(f"{type(caught).__name__}: {caught}")
            raise
        finally:
            saving.end(commit, error)
