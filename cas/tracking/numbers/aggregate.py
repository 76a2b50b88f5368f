"""What is known of many points of one metric without the points: extremes, mean, first, last.

Aggregates of points that came one after the other merge into that of all of them. So points can be
left out of the columns and still count, and each epoch has one of its own. Floats add up to other
last digits in another order. So a part begins with the sum before it, its base, and equal runs have
equal sums wherever they were parted.

Format: `sums` in docs/format/journal.md.
"""

import math
from array import array
from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, Self

_ROW: Final = Struct("<qqqqqqddddd")


class Aggregate:
    """The points of one metric, or some of them, added up; NaN is only counted."""

    __slots__ = (
        *("base", "count", "first_step", "known", "last", "last_step"),
        *("max", "max_step", "min", "min_step", "total"),
    )

    SIZE: Final = _ROW.size

    def __init__(self, base: float = 0.0) -> None:
        self.base = base  # the sum of the points before
        self.count = 0  # of all points
        self.known = 0  # of those that are a number
        self.first_step = self.last_step = self.min_step = self.max_step = 0
        self.last = self.min = self.max = 0.0
        self.total = base  # of these points and those before

    def observe(self, step: int, value: float) -> None:
        """Take one more point."""
        if not self.count:
            self.first_step = step
        self.count += 1
        self.last, self.last_step = value, step
        if value != value:  # noqa: PLR0124 - NaN, and the fastest way to ask
            return
        if not self.known:
            self.min = self.max = value
            self.min_step = self.max_step = step
        elif value < self.min:
            self.min, self.min_step = value, step
        elif value > self.max:
            self.max, self.max_step = value, step
        self.total += value
        self.known += 1

    def observe_all(self, steps: "array[int]", values: "array[float]") -> None:
        """Take many points at once."""
        total = self.total
        for value in values:
            total += value
        if total != total:  # noqa: PLR0124 - there may be NaN among them
            for step, value in zip(steps, values, strict=True):
                self.observe(step, value)
            return
        if not len(values):
            return
        low, high = min(values), max(values)
        if not self.known or low < self.min:
            self.min, self.min_step = low, steps[values.index(low)]
        if not self.known or high > self.max:
            self.max, self.max_step = high, steps[values.index(high)]
        if not self.count:
            self.first_step = steps[0]
        self.count += len(values)
        self.known += len(values)
        self.last, self.last_step = values[-1], steps[-1]
        self.total = total

    def copy(self) -> "Aggregate":
        """Return another one that says the same."""
        found = Aggregate()
        for name in self.__slots__:
            setattr(found, name, getattr(self, name))
        return found

    def rest(self, part: "Aggregate") -> "Aggregate":
        """Return what completes `part`, the first of these points: it merges with it into this."""
        found = self.copy()
        found.base, found.count = part.total, self.count - part.count
        found.known = self.known - part.known
        return found

    def merge(self, later: "Aggregate") -> None:
        """Take points that came later; of equal extremes the smaller step counts."""
        if not later.count:
            return
        if not self.count:
            self.first_step = later.first_step
        self.last, self.last_step = later.last, later.last_step
        if later.known:
            first = not self.known
            if first or (later.min, later.min_step) < (self.min, self.min_step):
                self.min, self.min_step = later.min, later.min_step
            if first or (-later.max, later.max_step) < (-self.max, self.max_step):
                self.max, self.max_step = later.max, later.max_step
        follows = self.total == later.base
        self.total = later.total if follows else self.total + (later.total - later.base)
        self.count += later.count
        self.known += later.known

    @property
    def mean(self) -> float | None:
        """The mean of the numbers, None without any."""
        return (self.total - self.base) / self.known if self.known else None

    def summary(self) -> dict[str, Any]:
        """Return last, min, max, mean and count with their steps, as `summary.json` has them."""
        known = self.known > 0
        return {
            "last": self.last,
            "last_step": self.last_step,
            "min": self.min if known else None,
            "min_step": self.min_step if known else None,
            "max": self.max if known else None,
            "max_step": self.max_step if known else None,
            "mean": self.mean,
            "count": self.count,
        }

    def summary_of(self, which: str) -> float:
        """Return one of the numbers; NaN for the mean and the extremes of none."""
        value = getattr(self, which)
        return math.nan if which in {"mean", "min", "max"} and not self.known else value

    def to_bytes(self) -> bytes:
        """Return the form in which a journal has it."""
        steps = (self.first_step, self.last_step, self.min_step, self.max_step)
        values = (self.last, self.min, self.max, self.base, self.total)
        return _ROW.pack(self.count, self.known, *steps, *values)

    @classmethod
    def from_bytes(cls, raw: object) -> Self:
        """Read one; raise ValueError or TypeError for what is none."""
        if not isinstance(raw, bytes):
            raise TypeError("an aggregate is bytes")
        if len(raw) != cls.SIZE:
            raise ValueError(f"an aggregate has {cls.SIZE} bytes, not {len(raw)}")
        fields = _ROW.unpack(raw)
        found = cls()
        found.count, found.known, found.first_step, found.last_step = fields[:4]
        found.min_step, found.max_step = fields[4:6]
        found.last, found.min, found.max, found.base, found.total = fields[6:]
        if not 0 <= found.known <= found.count or not found.count:
            raise ValueError("the counts of an aggregate contradict each other")
        return found


Sums = Mapping[tuple[str, int | None], Aggregate]


def to_rows(sums: Sums) -> list[list[Any]]:
    """Return aggregates as a frame has them: metric, epoch or null, and the numbers."""
    return [[name, epoch, one.to_bytes()] for (name, epoch), one in sums.items()]


def from_rows(rows: object) -> dict[tuple[str, int | None], Aggregate]:
    """Read the aggregates of a frame; raise ValueError or TypeError."""
    if not isinstance(rows, list):
        raise TypeError("sums are a list")
    found = {}
    for row in rows:
        name, epoch, raw = row
        if not isinstance(name, str) or not (epoch is None or type(epoch) is int):
            raise ValueError(f"sums of {name!r} in epoch {epoch!r}")
        found[name, epoch] = Aggregate.from_bytes(raw)
    return found
