"""Metrics of a run: columns of steps, values and wall times, and a summary of each.

Logging a point only checks it and puts it in a queue; who wants to know something takes in what is
queued, which is mostly the thread of the journal. Points then stand in plain arrays, so that a
million of them cost no objects. Steps and values are compared between runs, times never: they leave
in a series of their own. `every` thins what is kept; the summary and the epochs count all points.
"""

import threading
from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cas.errors import CorruptionError
from cas.objects.manifest import Series, SeriesRow
from cas.tracking.numbers.aggregate import Aggregate, from_rows, to_rows
from cas.tracking.numbers.columns import (
    History,
    Known,
    Part,
    WriteBlob,
    as_frame,
    by_epoch,
    checked,
    column,
    of_frame,
    sum_rows,
)
from cas.tracking.numbers.intake import Calls, Intake, Key, columns
from cas.tracking.numbers.tap import Chunk, Tap

Every = int | Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """How many points each metric had at some moment, and how many had come of all."""

    counts: Mapping[str, int] = field(default_factory=dict)
    total: int = -1


class MetricLog(Intake):
    """Every point of a run; safe to use from several threads. Its frames have the type `kind`."""

    def __init__(self, kind: str = "points", *, every: Every = 1) -> None:
        super().__init__()
        self.tap: Tap | None = None  # what was taken in is put here too
        self._kind = kind
        self._every = every
        self._histories: dict[str, History] = {}
        self._total = 0
        self._drained: dict[str, int] = {}
        self._arrived: deque[tuple[Key, Calls]] = deque()
        self._turn = threading.RLock()  # of all but the intake

    @property
    def every(self) -> Every:
        """How many steps lie between two points that are kept, of all metrics or by name."""
        return self._every

    @every.setter
    def every(self, every: Every) -> None:
        with self._turn:
            self.take_in()
            self._every = every
            for name, history in self._histories.items():
                history.thin(self._every_of(name), self._drained.get(name, 0))

    @property
    def total(self) -> int:
        """How many points have come, of all metrics."""
        with self._turn:
            self.take_in()
            return self._total

    @property
    def kept(self) -> int:
        """How many points are kept, of all metrics: they stay in memory, 24 bytes each."""
        return sum(self.mark().counts.values())

    def mark(self) -> Mark:
        """Return how far the log has come."""
        with self._turn:
            self.take_in()
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
        return by_epoch(self.known(since), _total(since), write_blob)

    def sums(self, since: Mark | None) -> list[list[Any]]:
        """Return the same, and what is known of points that are not kept, as a frame has it."""
        return sum_rows(self.known(since), _total(since))

    def known(self, since: Mark | None) -> Known:
        """Return what is known beyond the kept points, of epochs those with a point since then."""
        with self._turn:
            self.take_in()
            return {name: one.known(_total(since)) for name, one in self._histories.items()}

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return last, min, max, mean and count of each metric, by name; NaN is only counted.

        Of equal extremes the first counts. A metric that was never a number has none, nor a mean.
        """
        with self._turn:
            self.take_in()
            return {name: self._histories[name].whole.summary() for name in sorted(self._histories)}

    def points(self, name: str) -> Part:
        """Return a copy of the points that are kept of a metric, none for an unknown one."""
        with self._turn:
            self.take_in()
            history = self._histories.get(name, History())
            return history.between(0, len(history))

    def whole(self, name: str) -> Aggregate | None:
        """Return what is known of all points of a metric, None for an unknown one."""
        with self._turn:
            self.take_in()
            history = self._histories.get(name)
            return None if history is None else history.whole.copy()

    def by_epoch(self, name: str) -> list[tuple[int, Aggregate]]:
        """Return each epoch of a metric, in order, and what is known of its points."""
        with self._turn:
            self.take_in()
            history = self._histories.get(name)
            return [] if history is None else history.by_epoch()

    def drain(self) -> dict[str, Any] | None:
        """Return the points since the last call as one frame of a journal, None without any."""
        with self._turn:
            self.take_in()
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
            for name, _ in sums:
                checked(name)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"points in the journal are damaged: {error}") from error
        with self._turn:
            self.take_in()
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

    def take_in(self) -> None:
        """Move what waits into the columns."""
        with self._turn:
            self._arrived.extend(self._waiting())
            while self._arrived:  # those first that an interruption has left
                self._take(*self._arrived.popleft())

    def _take(self, key: Key, calls: Calls) -> None:
        names, epoch = key
        stepped, timed, valued = columns(key, calls)
        steps, times = array("q", stepped), array("d", timed)
        values = tuple(array("d", one) for one in valued)
        self._total += len(names) * len(steps)
        for name, numbers in zip(names, values, strict=True):
            points: Part = {"steps": steps, "values": numbers, "times": times}
            self._history(name).add(points, epoch, self._total)
        if self.tap is not None:
            self.tap.put(Chunk(names, steps, times, values))

    def _history(self, name: str) -> History:
        found = self._histories.get(name)
        if found is None:
            found = self._histories[name] = History(self._every_of(name))
        return found

    def _every_of(self, name: str) -> int:
        return self._every if isinstance(self._every, int) else self._every.get(name, 1)

    def _counts(self) -> dict[str, int]:
        return {name: len(history) for name, history in self._histories.items()}

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
        first, last = since.counts if since else {}, (until or self.mark()).counts
        rows = []
        for name in sorted(name for name in last if last[name] > first.get(name, 0)):
            with self._turn:  # one metric at a time: all of them may be as much again as is there
                history = self._histories[name]
                part = [
                    getattr(history, key)[first.get(name, 0) : last[name]]
                    for key in ("steps", values)
                ]
            steps, numbers = (column(one, write_blob) for one in part)
            rows.append(SeriesRow(name, len(part[0]), steps, numbers))
        return Series(tuple(rows))


def _total(since: Mark | None) -> int:
    return since.total if since else -1
