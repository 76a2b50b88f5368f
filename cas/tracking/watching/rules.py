"""The rules of a watch: what they make of the points of a run, without a clock or a thread.

A rule speaks when something begins to hold, and again only after it has held no more.
"""

import math
from collections import deque
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Final, Protocol

from cas.tracking.numbers.monitor import is_loss, is_validation, monitor, subject
from cas.tracking.watching.watch import Watch

JUMP_WINDOW: Final = 100
JUMP_LEAST: Final = 20  # so few values say nothing of what is usual
FLAT: Final = 0.01  # the least deviation that counts, as a share of the mean
DISK_WINDOW: Final = 600.0
DISK_LEAST: Final = 30.0  # seconds that have to lie between two looks at the disk


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


class Jump:
    """A loss far above what it was of late."""

    def __init__(self, deviations: float) -> None:
        self._deviations = deviations
        self._recent: dict[str, deque[float]] = {}
        self._high: set[str] = set()

    def see(self, metric: str, step: int, value: float) -> Finding | None:
        """Speak when a loss lies too many standard deviations above the mean of its last values."""
        if not is_loss(metric) or not math.isfinite(value):
            return None
        recent = self._recent.setdefault(metric, deque(maxlen=JUMP_WINDOW))
        found = None
        if len(recent) >= JUMP_LEAST:
            mean = fmean(recent)
            usual = max(pstdev(recent, mean), FLAT * abs(mean))
            if value <= mean + self._deviations * usual:
                self._high.discard(metric)
            elif metric not in self._high:
                self._high.add(metric)
                text = f"{metric} jumped from about {mean:.4g} to {value:.4g} at step {step}"
                found = Finding("jump", text, metric, step)
        recent.append(value)
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
        self._training: dict[frozenset[str], list[float]] = {}
        self._gaps: dict[str, deque[float]] = {}
        self._told: set[str] = set()

    def see(self, metric: str, step: int, value: float) -> Finding | None:
        """Speak when validation fell behind further at that many validations in a row."""
        if not math.isfinite(value):
            return None
        about = subject(metric)
        if not is_validation(metric):
            self._training.setdefault(about, []).append(value)
            return None
        training = self._training.get(about)
        if not training:
            return None
        mean = fmean(training)
        training.clear()
        gap = value - mean if is_loss(metric) else mean - value
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
        return Finding("stalled", f"nothing was logged for {silent:.0f} s", step=max(step, 0))


class DiskFull:
    """A disk that fills up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._looks: deque[tuple[float, float]] = deque()
        self._told = False

    def tick(self, now: float, free: float) -> Finding | None:
        """Speak when the disk would be full in time, filling as it did in the last ten minutes."""
        self._looks.append((now, free))
        while now - self._looks[0][0] > DISK_WINDOW:
            self._looks.popleft()
        began, before = self._looks[0]
        if now - began < DISK_LEAST:
            return None
        rate = (before - free) / (now - began)
        if rate <= 0 or free / rate > self._seconds:
            self._told = False
            return None
        if self._told:
            return None
        self._told = True
        minutes = free / rate / 60
        text = f"the disk will be full in {minutes:.0f} min: {free / 1e9:.1f} GB are free"
        return Finding("disk_full", text)


def point_rules(watch: Watch) -> list[PointRule]:
    """Return the rules about metrics that a watch asks for."""
    rules: list[PointRule] = []
    if watch.not_finite:
        rules.append(NotFinite())
    if watch.jump is not None:
        rules.append(Jump(watch.jump))
    if watch.patience is not None:
        rules.append(Patience(int(watch.patience), watch.monitor, watch.mode))
    if watch.gap is not None:
        rules.append(Gap(int(watch.gap)))
    return rules
