"""Checkpoints that nobody planned: a signal says that this process is about to end.

A signal may come in the middle of a step, when half of the weights are of the next one. So it is
only noted down: the loop saves at its next boundary between two steps, and then the handler that
was there before is called. Where no boundary comes in time it is called without.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from cas.tracking.checkpoints.saver import Saving
from cas.tracking.start import say

GRACE_SECONDS: Final = 20.0  # clusters mostly kill 30 s after SIGTERM
SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1)
END_SECONDS: Final = 5.0

Settle = Callable[[float | None], bool]


class Emergency:
    """The signals of one run, from `install` to `remove`.

    `settle` waits for the saves that are under way, `end` ends the run when the process dies of it.
    """

    def __init__(self, settle: Settle, end: Callable[[str], None]) -> None:
        self.grace = GRACE_SECONDS
        self._settle = settle
        self._end = end
        self._before: dict[int, Any] = {}
        self._pending: int | None = None
        self._passing: int | None = None
        self._timer: threading.Timer | None = None
        self._pid = os.getpid()

    @property
    def is_pending(self) -> bool:
        """Whether a signal waits for a checkpoint."""
        return self._pending is not None

    def install(self) -> None:
        """Stand in for the handlers that are there; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)

    def remove(self) -> None:
        """Give the signals back, but those that somebody else has taken since."""
        self._cancel()
        for number, before in self._before.items():
            with suppress(ValueError, TypeError):  # not the main thread; no handler of Python's
                if signal.getsignal(number) == self._on_signal:
                    signal.signal(number, before)
        self._before = {}

    def saved(self, saving: Saving) -> None:
        """Go on with the signal that waits, if any: this is the checkpoint for it."""
        number = self._pending
        if number is None:
            return
        self._cancel()
        if saving.commit is not None:
            say(f"{_name(number)}: checkpoint {saving.commit.short} at step {saving.step} is saved")
        if self._pending == number:  # else another one came meanwhile, and wants one of its own
            self._cancel()
            self._pending = None
        if threading.current_thread() is threading.main_thread():
            self._pass_on(number, None)
            return
        # A loop on another thread: handlers are for the main one, which comes to them again.
        self._passing = number
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._in_child(number, frame)
            return
        if self._passing == number:
            self._passing = None
            self._pass_on(number, frame)
            return
        if self._pending != number:
            self._cancel()
            self._pending = number
            say(f"{_name(number)}: a checkpoint is saved after this step")
            self._timer = threading.Timer(self.grace, os.kill, (self._pid, number))
            self._timer.daemon = True
            self._timer.start()
            return
        self._cancel()
        self._pending = None
        say(f"{_name(number)}: no checkpoint is saved, the step took too long")
        self._settle(END_SECONDS)
        self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Do what the signal would have done without us; SIGUSR1 then ends no process."""
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL and number == signal.SIGTERM:
            # On a thread: what was interrupted here may hold what the end of the run waits for.
            ends = threading.Thread(target=self._end, args=(_name(number),), daemon=True)
            with suppress(RuntimeError):
                ends.start()
                ends.join(END_SECONDS)
            signal.signal(number, signal.SIG_DFL)
            os.kill(self._pid, number)

    def _in_child(self, number: int, frame: FrameType | None) -> None:
        """In a forked child the run is its parent's, and the signal is the child's own."""
        before: Mapping[int, Any] = self._before
        if callable(before.get(number)):
            before[number](number, frame)
        elif before.get(number, signal.SIG_DFL) == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _name(number: int) -> str:
    return signal.Signals(number).name
