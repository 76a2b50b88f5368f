"""The rules of a watch: what they make of the points of a run, without a clock or a thread.

A rule speaks when something begins to hold, and again only after it has held no more.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Final, Protocol

from cas.tracking.numbers.monitor import is_loss, is_validation, monitor, subject
from cas.tracking.watching.watch import Watch

JUMP_WINDOW: Final = 100
JUMP_LEAST: Final = 20  # so few values say nothing of what is usual
FLAT: Final = 0.01  # the least deviation that counts, as a share of the mean
DISK_WINDOW: Final = 3600.0
DISK_LEAST: Final = 30.0  # seconds that have to lie between two looks at the disk
DISK_AHEAD: Final = 3  # nothing is said of more than so many times what was seen
DISK_NOTHING: Final = 64e6  # bytes that are as good as none
# Metrics are few, their points many.
_is_loss = lru_cache(10_000)(is_loss)
_is_validation = lru_cache(10_000)(is_validation)
_subject = lru_cache(10_000)(subject)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found."""

    rule: str
    text: str
    metric: str = ""
    step: int | None = None


class PointRule(Protocol):
    """A rule about metrics; it sees every point, in order."""

    def see(self, metric: str, step: int, value: float) -> Finding | None:
        """Take one point; return what is to be told."""


class NotFinite:
    """A metric that is NaN or infinite."""

    def __init__(self) -> None:
        self._bad: set[str] = set()

    def see(self, metric: str, step: int, value: float) -> Finding | None:
        """Speak at the first value of a metric that is no finite number."""
        if math.isfinite(value):
            self._bad.discard(metric)
            return None
        if metric in self._bad:
            return None
        self._bad.add(metric)
        return Finding("not_finite", f"{metric} is {value} at step {step}", metric, step)

    def see_all(
        self, metric: str, steps: Sequence[int], values: Sequence[float]
    ) -> Iterator[Finding]:
        """Take many points of one metric; yield what is to be told."""
        if metric not in self._bad and math.isfinite(sum(values)):
            return
        for step, value in zip(steps, values, strict=True):
            found = self.see(metric, step, value)
            if found is not None:
                yield found


class _Recent:
    """The last values of a metric, their mean and deviation; a further one costs the same always.

    Sums of what is far from zero lose the digits that differ, so they are of the differences from a
    mean, which is taken anew with each window.
    """

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=JUMP_WINDOW)
        self._middle = self._sum = self._squares = 0.0
        self._since = 0

    def add(self, value: float) -> None:
        if len(self.values) == JUMP_WINDOW:
            self._count(self.values[0], -1)
        self.values.append(value)
        self._count(value, 1)
        self._since += 1
        if self._since >= JUMP_WINDOW or not math.isfinite(self._squares):
            self._since = 0
            self._middle, self._sum, self._squares = fmean(self.values), 0.0, 0.0
            for one in self.values:
                self._count(one, 1)

    def usual(self) -> tuple[float, float]:
        """Return the mean and the standard deviation."""
        mean = self._sum / len(self.values)
        variance = self._squares / len(self.values) - mean * mean
        return self._middle + mean, math.sqrt(max(variance, 0.0))

    def _count(self, value: float, sign: int) -> None:
        apart = value - self._middle
        self._sum += sign * apart
        self._squares += sign * apart * apart


class Jump:
    """A loss far above what it was of late."""

    def __init__(self, deviations: float) -> None:
        self._deviations = deviations
        self._recent: dict[str, _Recent] = {}
        self._high: set[str] = set()

    def see(self, metric: str, step: int, value: float) -> Finding | None:
        """Speak when a loss lies too many standard deviations above the mean of its last values."""
        if not _is_loss(metric) or not math.isfinite(value):
            return None
        recent = self._recent.get(metric) or self._recent.setdefault(metric, _Recent())
        found = None
        if len(recent.values) >= JUMP_LEAST:
            mean, deviation = recent.usual()
            usual = max(deviation, FLAT * abs(mean))
            if value <= mean + self._deviations * usual:
                self._high.discard(metric)
            elif metric not in self._high:
                self._high.add(metric)
                text = f"{metric} jumped from about {mean:.4g} to {value:.4g} at step {step}"
                found = Finding("jump", text, metric, step)
        recent.add(value)
        return found


class Patience:
    """The monitored metric, not improved for a number of steps."""

    def __init__(self, steps: int, metric: str | None, mode: str | None) -> None:
        self._steps = steps
        self._named = metric, mode
        self._seen: set[str] = set()
        self._chosen: tuple[str, str] | None = None
        self._best: tuple[float, int] | None = None
        self._told = False

    def see(self, metric: str, step: int, value: float) -> Finding | None:
        """Speak when the best value is that many steps old."""
        if metric not in self._seen:
            self._seen.add(metric)
            chosen = monitor(self._seen, *self._named)
            if chosen != self._chosen:
                self._chosen, self._best, self._told = chosen, None, False
        if self._chosen is None or metric != self._chosen[0] or math.isnan(value):
            return None
        sign = 1 if self._chosen[1] == "min" else -1
        if self._best is None or sign * value < sign * self._best[0]:
            self._best, self._told = (value, step), False
            return None
        best, at = self._best
        if self._told or step - at < self._steps:
            return None
        self._told = True
        text = f"{metric} has not improved for {step - at} steps: it was {best:.4g} at step {at}"
        return Finding("patience", text, metric, step)


class Gap:
    """A metric of training and the same of validation that move apart."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._training: dict[frozenset[str], tuple[float, int]] = {}  # sum and count
        self._gaps: dict[str, deque[float]] = {}
        self._told: set[str] = set()

    def see(self, metric: str, step: int, value: float) -> Finding | None:
        """Speak when validation fell behind further at that many validations in a row."""
        if not math.isfinite(value):
            return None
        about = _subject(metric)
        total, count = self._training.get(about, (0.0, 0))
        if not _is_validation(metric):
            self._training[about] = total + value, count + 1
            return None
        if not count:
            return None
        mean = total / count
        del self._training[about]
        gap = value - mean if _is_loss(metric) else mean - value
        gaps = self._gaps.setdefault(metric, deque(maxlen=self._times + 1))
        if gaps and gap <= gaps[-1]:
            gaps.clear()
            self._told.discard(metric)
        gaps.append(gap)
        if len(gaps) <= self._times or gap <= 0 or metric in self._told:
            return None
        self._told.add(metric)
        text = (
            f"{metric} falls behind training: {gaps[0]:.4g} apart, then {gap:.4g}, "
            f"{self._times} validations later (step {step})"
        )
        return Finding("gap", text, metric, step)


class Stalled:
    """No point for a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._told = False

    def tick(self, silent: float, step: int) -> Finding | None:
        """Speak when nothing was logged for so many seconds; `step` is the last one."""
        if silent < self._seconds:
            self._told = False
            return None
        if self._told:
            return None
        self._told = True
        text = f"nothing was logged for {silent:.0f} s"
        return Finding("stalled", text, step=step if step >= 0 else None)


class DiskFull:
    """A disk that fills up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._looks: deque[tuple[float, float]] = deque()
        self._told = False

    def tick(self, now: float, free: float) -> Finding | None:
        """Speak when the disk is full, or would be in time, filling as it did in the last hour.

        What one checkpoint takes is no trend: a quarter of what was free has to be gone.
        """
        self._looks.append((now, free))
        while now - self._looks[0][0] > DISK_WINDOW:
            self._looks.popleft()
        began, before = self._looks[0]
        took, gone = now - began, before - free
        left = free / gone * took if gone > 0 else math.inf
        fills = took >= DISK_LEAST and gone >= free / DISK_AHEAD and left <= self._seconds
        if not fills and free >= DISK_NOTHING:
            self._told = False
            return None
        if self._told:
            return None
        self._told = True
        if free < DISK_NOTHING:
            return Finding("disk_full", f"the disk is full: {free / 1e6:.0f} MB are free")
        text = f"the disk will be full in {left / 60:.0f} min: {free / 1e9:.1f} GB are free"
        return Finding("disk_full", text)


def column_rules(watch: Watch) -> list[NotFinite]:
    """Return the rules that see all points, column by column."""
    return [NotFinite()] if watch.not_finite else []


def point_rules(watch: Watch) -> list[PointRule]:
    """Return the rules that see the points of all metrics in the order in which they came."""
    rules: list[PointRule] = []
    if watch.jump is not None:
        rules.append(Jump(watch.jump))
    if watch.patience is not None:
        rules.append(Patience(int(watch.patience), watch.monitor, watch.mode))
    if watch.gap is not None:
        rules.append(Gap(int(watch.gap)))
    return rules
