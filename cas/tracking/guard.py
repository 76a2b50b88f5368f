"""What keeps a failure of tracking away from the training loop: the base of all that a run offers.

While a run is open, the first failure of each call warns (a cause once), and `finish` raises. In a
forked child the run is its parent's: there every call does nothing.
"""

import functools
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from cas.errors import CasError, InvalidInputError
from cas.repo.repo import Repo
from cas.tracking.ends import ending
from cas.tracking.journals.state import redacted_frame
from cas.tracking.live import Live
from cas.tracking.privacy.noting import noting
from cas.tracking.start import say

P = ParamSpec("P")
MOST_PROBLEMS: Final = 100  # that are kept: one that fails at each step must not fill the memory

T = TypeVar("T")
G = TypeVar("G", bound="Guarded")


class _Process:
    """Which process this is: known without asking the system, which each call would pay for."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.pid = os.getpid()


_process: Final = _Process()


def guarded(
    method: Callable[Concatenate[G, P], T],
) -> Callable[Concatenate[G, P], T | None]:
    """Keep a failure of tracking away from the training loop; `finish` raises it."""

    @functools.wraps(method)
    def guarded(self: G, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        if not self._usable(method.__name__):
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # a wrong call at step 90,000 must not end it either
            self._failed(method.__name__, error)
            return None

    return guarded


class Guarded:
    """An open run, as far as each of its calls needs it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pid = _process.pid
        self._problems: list[str] = []  # what failed, the first of them
        self._failures = 0  # how many calls did
        self._told: set[str] = set()  # which calls and which causes the user knows of
        self._late: list[tuple[str, Exception]] = []  # what failed behind the loop meanwhile
        self._ended = False
        self._told_child = mmap.mmap(-1, 1)  # of the process and all that are forked from it

    def __reduce__(self) -> Any:
        raise TypeError(
            f"run {self.name} belongs to the process that began it and cannot be sent to another "
            "(pickled) or copied: call cas.track there, or log what the other returns"
        )

    @property
    def name(self) -> str:
        """The run's full name, EXPERIMENT/NAME."""
        return self._live.state.run

    @property
    def params(self) -> dict[str, Any]:
        """The params so far; a fork has those of its checkpoint too."""
        return dict(self._live.state.params)

    @property
    def repo(self) -> Repo:
        """The repository that the run is recorded in."""
        return self._live.repo

    def _usable(self, method: str) -> bool:
        if _process.pid != self._pid:
            return self._in_child()
        if self._ended:
            raise InvalidInputError(f"run {self.name} has ended: {method} comes too late")
        ending.went_on()
        if self._late:
            self._catch_up()
        return True

    def _in_child(self) -> bool:
        """Say once, in whichever forked child it is: the run belongs to the parent of them."""
        if not self._told_child[0]:
            self._told_child[0] = 1
            say(
                f"warning: process {os.getpid()} was forked from the one that run {self.name} "
                "belongs to: what forked processes log to it is not recorded (log what they "
                "return, or call cas.track in them)"
            )
        return False

    @contextmanager
    def _telling(self, where: str) -> Iterator[None]:
        """Tell the run's report what the filter takes out of a text that is stored at `where`."""
        with noting() as taken:
            yield
        if taken:
            self._live.note(redacted_frame(where, taken))

    def _kept(self, call: str, action: Callable[[], T]) -> T | None:
        """Do a part of a call as `guarded` does the whole of it; None where that failed."""
        try:
            return action()
        except Exception as error:
            self._failed(call, error)
            return None

    def _catch_up(self) -> None:
        """Tell what failed behind the loop since the last call."""
        late, self._late = self._late, []
        for call, error in late:
            self._failed(call, error)

    def _failed(self, method: str, error: Exception) -> None:
        """Keep a failure for the end; tell the first one of each call, and each cause once.

        A wrong value at step 1 must not hide that no checkpoint can be saved at step 90,000.
        """
        text = str(error) if isinstance(error, CasError) else f"{type(error).__name__}: {error}"
        problem = f"{method}: {text}"
        self._failures += 1
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.append(problem)
        call = method.partition(":")[0]
        if not self._told & {call, text}:
            self._told |= {call, text}
            say(f"warning: {problem} (training goes on; finish() will raise)")
