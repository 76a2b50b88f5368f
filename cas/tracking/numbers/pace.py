"""How fast a run goes on: seconds for a step, samples a second, and the time that is left."""

from collections import deque
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 60.0  # seconds over which the pace is taken
GRAIN: Final = 0.25  # seconds between two looks that are kept, however often one looks


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, and how fast it was in the last minute; None for what is not known."""

    step: int
    total: int | None
    step_seconds: float | None
    samples_per_second: float | None

    @property
    def share(self) -> float | None:
        """The part of all steps that is done, from 0 to 1; the last of N steps is N - 1."""
        return min((self.step + 1) / self.total, 1.0) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the remaining steps take at this pace."""
        if self.total is None or self.step_seconds is None:
            return None
        return max(self.total - self.step - 1, 0) * self.step_seconds

    def numbers(self) -> dict[str, float]:
        """Return what is known as system metrics."""
        found = {
            "step_seconds": self.step_seconds,
            "samples_per_second": self.samples_per_second,
            "progress": self.share,
            "seconds_left": self.seconds_left,
        }
        return {name: value for name, value in found.items() if value is not None}


class Pace:
    """The pace of a run, by looks at its step now and then."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, int]] = deque()

    def look(self, now: float, step: int, samples: int, total: int | None = None) -> Progress:
        """Take where the run is at the moment `now` of any steady clock; return its progress."""
        looks = self._looks
        if looks and step < looks[-1][1]:
            looks.clear()
        if len(looks) > 1 and now - looks[-2][0] < GRAIN:
            looks.pop()
        if step >= 0:
            looks.append((now, step, samples))
        while len(looks) > 2 and now - looks[1][0] >= WINDOW:
            looks.popleft()
        if not looks:
            return Progress(step, total, None, None)
        began, first, before = looks[0]
        took, steps, given = now - began, step - first, samples - before
        return Progress(
            step,
            total,
            took / steps if steps > 0 and took > 0 else None,
            given / took if given > 0 and took > 0 else None,
        )
