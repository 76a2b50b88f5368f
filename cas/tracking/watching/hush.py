"""Saying the same less and less often.

A metric that is NaN at every other step is worth an event or two, not a hundred thousand.
"""

from collections.abc import Hashable
from typing import Final

FIRST: Final = 10.0  # seconds between the first and the second time; each pause is twice the last
MOST: Final = 3600.0


class Hush:
    """Decides what is told, by the seconds of a steady clock."""

    def __init__(self) -> None:
        self._until: dict[Hashable, float] = {}
        self._pause: dict[Hashable, float] = {}
        self._held: dict[Hashable, int] = {}

    def held(self, what: Hashable, now: float) -> int | None:
        """Return how often this was not told since it was told last; None not to tell it now."""
        until = self._until.get(what)
        if until is not None and now < until:
            self._held[what] = self._held.get(what, 0) + 1
            return None
        pause = min(2 * self._pause.get(what, FIRST / 2), MOST)
        if until is not None and now - until > pause:
            pause = FIRST  # it was over for long
        self._pause[what], self._until[what] = pause, now + pause
        return self._held.pop(what, 0)
