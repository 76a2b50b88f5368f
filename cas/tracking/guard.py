"""What keeps a failure of tracking away from the training loop: the base of all that a run offers.

While a run is open, a failure warns once, is kept, and is raised by `finish`. In a forked child the
run is its parent's: there every call does nothing.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from cas.errors import CasError, InvalidInputError
from cas.repo.repo import Repo
from cas.tracking.ends import ending
from cas.tracking.live import Live
from cas.tracking.start import say

P = ParamSpec("P")
T = TypeVar("T")
G = TypeVar("G", bound="Guarded")


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
        self._pid = os.getpid()
        self._problems: list[str] = []
        self._late: list[tuple[str, Exception]] = []  # what failed behind the loop meanwhile
        self._ended = False

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
        if os.getpid() != self._pid:
            return False  # a forked child: the run belongs to its parent
        if self._ended:
            raise InvalidInputError(f"run {self.name} has ended: {method} comes too late")
        ending.went_on()
        if self._late:
            self._catch_up()
        return True

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
        """Keep a failure for the end, and tell the first one."""
        text = str(error) if isinstance(error, CasError) else f"{type(error).__name__}: {error}"
        problem = f"{method}: {text}"
        self._problems.append(problem)
        if len(self._problems) == 1:
            say(f"warning: {problem} (training goes on; finish() will raise)")
