"""How this process ends, as far as a run that is still open then must know.

Runs are ended by `with` or by `finish`. What neither has ended is ended when the interpreter is: as
failed after an exception that nobody caught or a `sys.exit` with a code, else as finished. The
hooks stand only while a run is open, and a forked child has none of its parent's runs.
"""

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

FINISHED = "finished"
FAILED = "failed"
INTERRUPTED = "interrupted"
CRASHED = "crashed"  # committed by somebody else, from what its journal says

End = Callable[[str, str | None], None]  # with the status, and a traceback if there is one


class _Hooks:
    """What is known of the end so far, and the open runs that will be told."""

    def __init__(self) -> None:
        self.open: list[End] = []
        self.status = FINISHED
        self.crash: str | None = None
        # What ours stand in for; None while they do not.
        self._excepthook: Callable[..., Any] | None = None
        self._exit: Callable[..., NoReturn] | None = None

    def install(self) -> None:
        """Stand in for the interpreter's own hooks."""
        self.forget()
        if self._excepthook is None:
            self._excepthook, sys.excepthook = sys.excepthook, self._on_exception
        if self._exit is None:
            self._exit, sys.exit = sys.exit, self._on_exit
        atexit.register(self._at_exit)

    def remove(self) -> None:
        """Give the hooks back; one that somebody has since put another before stays behind it."""
        atexit.unregister(self._at_exit)
        if self._excepthook is not None and sys.excepthook == self._on_exception:
            sys.excepthook, self._excepthook = self._excepthook, None
        if self._exit is not None and sys.exit == self._on_exit:
            sys.exit, self._exit = self._exit, None

    def forget(self) -> None:
        """Count nothing as the end: the program goes on."""
        self.status, self.crash = FINISHED, None

    def _on_exception(
        self, kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        self.status, self.crash = status_of(error), told(error)
        (self._excepthook or sys.__excepthook__)(kind, error, where)

    def _on_exit(self, code: Any = None, /) -> NoReturn:
        error = SystemExit(code)
        if threading.current_thread() is threading.main_thread():  # in another it ends only that
            self.status = status_of(error)
            self.crash = told(error) if self.status == FAILED else None
        if self._exit is not None:
            self._exit(code)
        raise error

    def _at_exit(self) -> None:
        for end in reversed(list(self.open)):
            end(self.status, self.crash)


_hooks = _Hooks()


def watch(end: End) -> None:
    """Call `end` when the interpreter ends."""
    if not _hooks.open:
        _hooks.install()
    _hooks.open.append(end)


def leave(end: End) -> None:
    """Call `end` no more."""
    if end in _hooks.open:
        _hooks.open.remove(end)
        if not _hooks.open:
            _hooks.remove()


def runs_are_open() -> bool:
    """Say whether this process has a run that has not ended."""
    return bool(_hooks.open)


def went_on() -> None:
    """Say that the program is still at work: what looked like its end was caught."""
    if _hooks.crash is not None and threading.current_thread() is threading.main_thread():
        _hooks.forget()


def status_of(error: BaseException | None) -> str:
    """Return the status of a run that ends with this exception, None for a calm end."""
    if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
        return FINISHED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED


def told(error: BaseException) -> str:
    """Return an exception with its traceback, as Python prints it."""
    return "".join(traceback.format_exception(error))


def _in_child() -> None:
    if _hooks.open:
        _hooks.open.clear()
        _hooks.remove()


os.register_at_fork(after_in_child=_in_child)
