"""Metrics of a run: columns of steps, values and wall times, and a summary of each.

Logging a point only checks it and puts it in a queue; who wants to know something takes in what is
queued, which is mostly the thread of the journal. Points then stand in plain arrays, so that a
million of them cost no objects. Steps and values are compared between runs, times never: they leave
in a series of their own. `every` thins what is kept; the summary and the epochs count all points.
"""

import math
import operator
import threading
from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError
from cas.objects.manifest import Series, SeriesRow
from cas.tracking.numbers.aggregate import Aggregate, from_rows, to_rows
from cas.tracking.numbers.columns import (
    OF_EPOCH,
    History,
    Part,
    WriteBlob,
    as_frame,
    checked,
    column,
    of_frame,
)

MAX_STEP: Final = 2**63 - 1
# So many calls wait at most; the one after takes them in, in a few milliseconds.
QUEUED: Final = 4096

Key = tuple[tuple[str, ...], int | None]  # the metrics of a call, and the epoch
Call = tuple[int, float, Key, list[float]]  # step and time, then what was logged
Every = int | Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """How many points each metric had at some moment, and how many had come of all."""

    counts: Mapping[str, int] = field(default_factory=dict)
    total: int = -1


class MetricLog:
    """Every point of a run; safe to use from several threads. Its frames have the type `kind`."""

    def __init__(self, kind: str = "points", *, every: Every = 1) -> None:
        self.every: Every = every
        self.tap: deque[Call] | None = None  # each call that was taken in is put here too
        self._kind = kind
        self._histories: dict[str, History] = {}
        self._names: set[str] = set()
        self._queue: deque[Call] = deque()
        self._last_step = -1
        self._total = 0
        self._drained: dict[str, int] = {}
        self._lock = threading.Lock()  # of steps, for a moment
        self._turn = threading.RLock()  # of all else

    def add(
        self,
        points: Mapping[str, object],
        step: object,
        time: float,
        epoch: object = None,
        *,
        leads: bool = True,
    ) -> int:
        """Take one point for each metric, all or none; return the step.

        Without a step it is one further than the furthest so far. A value is a number, also one of
        NumPy or a tensor of one element; infinities and NaN are kept. Points of an epoch, which may
        be a fraction further than its whole number, are also added up for it. Points that do not
        lead leave the step of the others as it is.
        """
        values = [
            value if type(value) is float else _number(name, value)
            for name, value in points.items()
        ]
        at = step if type(step) is int and -MAX_STEP <= step <= MAX_STEP else _step(step)
        of = None if epoch is None else _epoch(epoch)
        names = tuple(points)
        if not self._names.issuperset(names):
            self._names.update([_named(name) for name in names])
        with self._lock:
            if at is None:
                at = self._last_step + 1
            if at > self._last_step and leads:
                self._last_step = at
            self._queue.append((at, time, (names, of), values))
        if len(self._queue) >= QUEUED:
            with self._turn:
                self._take_in()
        return at

    def go_on_after(self, step: int) -> None:
        """Let the next point without a step be one further than this, or than the furthest."""
        with self._lock:
            self._last_step = max(self._last_step, step)

    @property
    def last_step(self) -> int:
        """The furthest step so far, -1 before the first."""
        return self._last_step

    def mark(self) -> Mark:
        """Return how far the log has come."""
        with self._turn:
            self._take_in()
            return Mark(self._counts(), self._total)

    def series(
        self, since: Mark | None, write_blob: WriteBlob, until: Mark | None = None
    ) -> Series:
        """Return steps and values of the points between two marks, writing the larger columns."""
        return self._series(since, write_blob, until, "values")

    def times(self, since: Mark | None, write_blob: WriteBlob, until: Mark | None = None) -> Series:
        """Return steps and wall times of the same points."""
        return self._series(since, write_blob, until, "times")

    def epochs(self, since: Mark | None, write_blob: WriteBlob) -> Series:
        """Return what is known of each epoch that had a point since the mark.

        A row for each metric and each of OF_EPOCH, named METRIC/WHICH; its steps are the epochs.
        """
        with self._turn:
            self._take_in()
            total = since.total if since else -1
            found = {name: one.by_epoch(total) for name, one in self._histories.items()}
        rows = [
            SeriesRow(
                f"{name}/{which}",
                len(epochs),
                column(array("q", [epoch for epoch, _ in epochs]), write_blob),
                column(array("d", [one.summary_of(which) for _, one in epochs]), write_blob),
            )
            for name, epochs in found.items()
            if epochs
            for which in OF_EPOCH
        ]
        return Series(tuple(sorted(rows, key=lambda row: row.name)))

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return last, min, max, mean and count of each metric, by name; NaN is only counted.

        Of equal extremes the first counts. A metric that was never a number has none, nor a mean.
        """
        with self._turn:
            self._take_in()
            return {name: self._histories[name].whole.summary() for name in sorted(self._histories)}

    def points(self, name: str) -> Part:
        """Return a copy of the points that are kept of a metric, none for an unknown one."""
        with self._turn:
            self._take_in()
            history = self._histories.get(name) or History()
            return history.between(0, len(history.steps))

    def by_epoch(self, name: str) -> list[tuple[int, Aggregate]]:
        """Return each epoch of a metric, in order, and what is known of its points."""
        with self._turn:
            self._take_in()
            history = self._histories.get(name)
            return history.by_epoch() if history else []

    def drain(self) -> dict[str, Any] | None:
        """Return the points since the last call as one frame of a journal, None without any."""
        with self._turn:
            self._take_in()
            counts = self._counts()
            parts = self._slices(self._drained, counts)
            sums = {
                (name, epoch): one
                for name, history in self._histories.items()
                for epoch, one in history.drain().items()
            }
            self._drained = counts
        return as_frame(self._kind, parts, to_rows(sums))

    def drained(self) -> dict[str, Any] | None:
        """Return all points up to the last `drain` as one frame of a journal, None without any."""
        with self._turn:
            parts = self._slices({}, self._drained)
            sums = {
                (name, epoch): one
                for name, history in self._histories.items()
                for epoch, one in history.epochs.items()
            }
            return as_frame(self._kind, parts, to_rows(sums))

    def replay(self, frames: Iterable[Mapping[str, Any]]) -> None:
        """Take the points of drained frames again; frames of other kinds are passed over.

        What was added since the last `drain` must have been drained before.
        """
        for frame in frames:
            if frame.get("t") == self._kind:
                self._replay(frame)

    def _replay(self, frame: Mapping[str, Any]) -> None:
        try:
            parts = of_frame(frame)
            sums = from_rows(frame.get("sums", []))
            self._names.update(map(checked, [*parts, *(name for name, _ in sums)]))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"points in the journal are damaged: {error}") from error
        with self._turn:
            self._take_in()
            last = self._last_step
            for name, part in parts.items():
                count = len(part["steps"])
                self._history(name).extend(part, counted=(name, None) in sums)
                self._drained[name] = self._drained.get(name, 0) + count
                self._total += count
                furthest = max(part["steps"])
                last = max(last, furthest)
            for (name, epoch), one in sums.items():
                self._total += one.count
                self._history(name).merge(epoch, one, self._total)
                last = max(last, one.last_step)
            self.go_on_after(last)

    def _take_in(self) -> None:
        """Move what waits in the queue into the columns; with the turn."""
        queue, tap = self._queue, self.tap
        # Not what is added meanwhile: that could go on for ever.
        calls = [queue.popleft() for _ in range(len(queue))]
        if tap is not None:
            tap.extend(calls)
        for (names, epoch), part in _alike(calls):
            steps = array("q", [call[0] for call in part])
            times = array("d", [call[1] for call in part])
            self._total += len(names) * len(part)
            columns = zip(*[call[3] for call in part], strict=True)
            for name, values in zip(names, columns, strict=True):
                points = {"steps": steps, "values": array("d", values), "times": times}
                self._history(name).add(points, epoch, self._total)

    def _history(self, name: str) -> History:
        found = self._histories.get(name)
        if found is None:
            every = self.every if isinstance(self.every, int) else self.every.get(name, 1)
            found = self._histories[name] = History(every)
        return found

    def _counts(self) -> dict[str, int]:
        return {name: len(history.steps) for name, history in self._histories.items()}

    def _slices(self, first: Mapping[str, int], last: Mapping[str, int]) -> dict[str, Part]:
        """Return the columns between two counts of every metric that has points there."""
        return {
            name: history.between(first.get(name, 0), last.get(name, 0))
            for name, history in self._histories.items()
            if last.get(name, 0) > first.get(name, 0)
        }

    def _series(
        self, since: Mark | None, write_blob: WriteBlob, until: Mark | None, values: str
    ) -> Series:
        with self._turn:
            self._take_in()
            counts = until.counts if until else self._counts()
            parts = self._slices(since.counts if since else {}, counts)
        rows = [
            SeriesRow(
                name,
                len(part["steps"]),
                column(part["steps"], write_blob),
                column(part[values], write_blob),
            )
            for name, part in sorted(parts.items())
        ]
        return Series(tuple(rows))


def _alike(calls: list[Call]) -> Iterable[tuple[Key, list[Call]]]:
    """Return calls of the same metrics and epoch together; those of one metric stay in order."""
    groups: dict[Key, list[Call]] = {}
    for call in calls:
        groups.setdefault(call[2], []).append(call)
    names = [name for names, _ in groups for name in names]
    if len(names) == len(set(names)):
        return groups.items()
    return ((key, list(part)) for key, part in groupby(calls, itemgetter(2)))


def _number(name: str, value: object) -> float:
    # NumPy and torch scalars: asked by what they can do, so that neither has to be imported.
    item = getattr(value, "item", None)
    try:
        number = item() if callable(item) else value
        if isinstance(number, int | float):
            return float(number)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InvalidInputError(f"metric {name!r} is not one number: {error}") from error
    kind = type(value).__name__
    raise InvalidInputError(f"metric {name!r} is a {kind}; metrics are numbers, one at a time")


def _step(step: object) -> int | None:
    if step is None:
        return None
    try:
        at = operator.index(step)  # type: ignore[arg-type]  # it raises TypeError for all else
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"a step is a whole number, not {step!r}") from error
    if not -MAX_STEP - 1 <= at <= MAX_STEP:
        raise InvalidInputError(f"step {at} is out of range: it has 64 bits")
    return at


def _epoch(epoch: object) -> int:
    if type(epoch) is int and -MAX_STEP - 1 <= epoch <= MAX_STEP:
        return epoch
    number = _number("epoch", epoch)
    if not abs(number) < MAX_STEP:
        raise InvalidInputError(f"an epoch is a finite number, not {epoch!r}")
    return math.floor(number)


def _named(name: object) -> str:
    try:
        return checked(name)
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
