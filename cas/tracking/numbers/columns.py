"""The points of one metric as plain columns, and the form in which frames and series have them.

Sixteen bytes and a time for each point, and no object of its own.
"""

import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cas.ids import BlobId
from cas.objects.manifest import Column, Series, SeriesRow
from cas.tracking.numbers.aggregate import Aggregate, to_rows

POINT: Final = 8
MAX_NAME: Final = 256
MAX_SHOWN: Final = 80  # of a name that is none
COLUMNS: Final = ("steps", "values", "times")
# What is known of each epoch, as rows of the series `epochs`.
OF_EPOCH: Final = ("count", "first_step", "last", "last_step", "max", "mean", "min")

WriteBlob = Callable[[bytes], BlobId]
Part = dict[str, "array[Any]"]
# By metric, what is known of each epoch and how many points of the log had come with its last one;
# under None, of all points of a metric of which not all are kept.
Sum = tuple[int | None, int, Aggregate]
Known = Mapping[str, Sequence[Sum]]
EVER: Final = 2**63


class History:
    """The points of one metric that are kept, and what is known of all of them."""

    __slots__ = (
        *("at", "epochs", "every", "fresh", "steps"),
        *("times", "touched", "values", "whole"),
    )

    def __init__(self, every: int = 1) -> None:
        self.steps = array("q")
        self.values = array("d")
        self.times = array("d")
        self.every = every
        self.whole = Aggregate()
        # By epoch; under None all points of a metric of which not all are kept. `fresh` came since
        # the last drain, `epochs` is all before it.
        self.epochs: dict[int | None, Aggregate] = {}
        self.fresh: dict[int | None, Aggregate] = {}
        self.touched: dict[int, int] = {}  # by epoch: how many points of the log came up to now
        self.at = 0  # where points are thinned: the step of the last one that was kept

    def add(self, part: Part, epoch: int | None, count: int) -> None:
        """Take points; one is kept when it is `every` steps further than the last one kept.

        `count` is how many points of the log came up to the last of them.
        """
        steps, values = part["steps"], part["values"]
        self.whole.observe_all(steps, values)
        if self._is_summed:
            self._of(None).observe_all(steps, values)
        if self.every > 1:
            self._thin(part)
        else:
            self._append(part)
        if epoch is not None:
            self._of(epoch).observe_all(steps, values)
            self.touched[epoch] = count

    def extend(self, part: Part, *, counted: bool) -> None:
        """Take many points that are kept, drained; `counted` ones are merged as an aggregate."""
        self._append(part)
        self.at = self.steps[-1]
        if not counted:
            self.whole.observe_all(part["steps"], part["values"])
            if self._is_summed:
                known = self.epochs.setdefault(None, Aggregate())
                known.observe_all(part["steps"], part["values"])

    def merge(self, epoch: int | None, later: Aggregate, count: int) -> None:
        """Take what is known of an epoch, or of all points of a frame; it was drained."""
        if epoch is None:
            if None not in self.epochs:
                self.epochs[None] = self.whole.copy()  # all points until now were kept
            self.whole.merge(later)
        else:
            self.touched[epoch] = count
        self.epochs.setdefault(epoch, Aggregate()).merge(later)

    def drain(self) -> dict[int | None, Aggregate]:
        """Return what came since the last call of this, and count it as drained."""
        fresh, self.fresh = self.fresh, {}
        for epoch, one in fresh.items():
            self.epochs.setdefault(epoch, Aggregate()).merge(one)
        return fresh

    def by_epoch(self, since: int = -1) -> list[tuple[int, Aggregate]]:
        """Return each epoch, in order, that had a point after so many points of the log."""
        return [
            (epoch, self._merged(epoch))
            for epoch in sorted(one for one, count in self.touched.items() if count > since)
        ]

    def known(self, since: int) -> list[Sum]:
        """Return what is known of these epochs, and of all points where not all are kept."""
        whole: list[Sum] = [(None, EVER, self._merged(None))] if self._is_summed else []
        return whole + [(epoch, self.touched[epoch], one) for epoch, one in self.by_epoch(since)]

    def thin(self, every: int, drained: int) -> None:
        """Keep points that lie so far apart from here on; those that are there stay.

        `drained` is how many of these were drained.
        """
        summed, self.every = self._is_summed, every
        self.at = self.steps[-1] if self.steps else 0
        if every > 1 and not summed and self.steps:
            known = self.epochs[None] = Aggregate()
            known.observe_all(self.steps[:drained], self.values[:drained])
            self.fresh[None] = fresh = Aggregate(known.total)
            fresh.observe_all(self.steps[drained:], self.values[drained:])

    def between(self, first: int, last: int) -> Part:
        """Return a copy of the points from the `first` on, before the `last`."""
        return {
            "steps": self.steps[first:last],
            "values": self.values[first:last],
            "times": self.times[first:last],
        }

    def __len__(self) -> int:
        return len(self.times)

    def _append(self, part: Part) -> None:
        self._drop_half()
        self.steps.extend(part["steps"])
        self.values.extend(part["values"])
        self.times.extend(part["times"])

    def _drop_half(self) -> None:
        """Take back what Ctrl-C left of points that were being added: times come last."""
        del self.steps[len(self) :], self.values[len(self) :]

    def _thin(self, part: Part) -> None:
        self._drop_half()
        for step, value, time in zip(part["steps"], part["values"], part["times"], strict=True):
            if not self.steps or not 0 <= step - self.at < self.every:
                self.steps.append(step)
                self.values.append(value)
                self.times.append(time)
                self.at = step

    @property
    def _is_summed(self) -> bool:
        """Whether all points are added up, since not all of them are kept."""
        return self.every > 1 or None in self.epochs or None in self.fresh

    def _merged(self, epoch: int | None) -> Aggregate:
        whole = Aggregate()
        for part in (self.epochs, self.fresh):
            if epoch in part:
                whole.merge(part[epoch])
        return whole

    def _of(self, epoch: int | None) -> Aggregate:
        found = self.fresh.get(epoch)
        if found is None:
            before = self.epochs.get(epoch)
            found = self.fresh[epoch] = Aggregate(before.total if before else 0.0)
        return found


def by_epoch(known: Known, since: int, write_blob: WriteBlob) -> Series:
    """Return what is known of each epoch that had a point after so many points of the log.

    A row for each metric and each of OF_EPOCH, named METRIC/WHICH; its steps are the epochs.
    """
    rows = []
    for name, sums in known.items():
        epochs = [(epoch, one) for epoch, count, one in sums if epoch is not None and count > since]
        numbers = array("q", [epoch for epoch, _ in epochs])
        for which in OF_EPOCH if epochs else ():
            values = array("d", [one.summary_of(which) for _, one in epochs])
            steps = column(numbers[:], write_blob)
            row = SeriesRow(f"{name}/{which}", len(epochs), steps, column(values, write_blob))
            rows.append(row)
    return Series(tuple(sorted(rows, key=lambda row: row.name)))


def sum_rows(known: Known, since: int) -> list[list[Any]]:
    """Return the same, and what is known of points that are not kept, as a frame has it."""
    sums = {
        (name, epoch): one
        for name in sorted(known)
        for epoch, count, one in known[name]
        if count > since and one.count
    }
    return to_rows(sums)


def as_frame(kind: str, parts: Mapping[str, Part], sums: list[list[Any]]) -> dict[str, Any] | None:
    """Return points, and what is known of others, as one frame of a journal; None for nothing."""
    if not parts and not sums:
        return None
    columns = {key: [to_bytes(part[key]) for part in parts.values()] for key in COLUMNS}
    return {"t": kind, "names": list(parts), **columns} | ({"sums": sums} if sums else {})


def of_frame(frame: Mapping[str, Any]) -> dict[str, Part]:
    """Return the columns of each metric in a frame; raise ValueError and its like."""
    parts = {}
    columns = [frame[key] for key in COLUMNS]
    for name, *raw in zip(frame["names"], *columns, strict=True):
        steps, values, times = (_array(*one) for one in zip("qdd", raw, strict=True))
        if not len(steps) == len(values) == len(times):
            raise ValueError(f"columns of {name} differ in length")
        parts[checked(name)] = {"steps": steps, "values": values, "times": times}
    return parts


def checked(name: object) -> str:
    """Return the name of a metric; raise ValueError for what is none."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        told = repr(name if not isinstance(name, str) else name[:MAX_SHOWN])
        more = "..." if isinstance(name, str) and len(name) > MAX_SHOWN else ""
        raise ValueError(
            f"metrics are named by up to {MAX_NAME} characters that print, not {told}{more}"
        )
    return name


def column(values: "array[Any]", write_blob: WriteBlob) -> Column:
    """Return a column of a series, written unless it stands inline."""
    data = to_bytes(values)
    found = Column.of(data)
    return found if found.data is not None else Column(write_blob(data), None)


def to_bytes(column: "array[Any]") -> bytes:
    """Return the numbers of a column as they are stored, little-endian."""
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _array(code: str, raw: object) -> "array[Any]":
    if not isinstance(raw, bytes) or not raw or len(raw) % POINT:
        raise ValueError("a column is whole numbers of eight bytes")
    found: array[Any] = array(code, raw)
    if sys.byteorder == "big":
        found.byteswap()
    return found
