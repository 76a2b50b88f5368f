"""Metrics of a run: columns of steps, values and wall times, and a summary of each.

Points stand in plain arrays, sixteen bytes and a time each, so that logging costs microseconds and
a million points cost no objects. Steps and values are compared between runs, times never: they
leave in a series of their own.
"""

import operator
import re
import sys
import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError
from cas.ids import BlobId
from cas.objects.manifest import Column, Series, SeriesRow

MAX_NAME: Final = 256
MAX_STEP: Final = 2**63 - 1
POINT: Final = 8

# By these words of its name a metric is told to be of a validation set, an error, or a score.
_VALIDATION: Final = frozenset({"val", "valid", "validation", "dev", "eval", "test"})
_ERRORS: Final = frozenset(
    {"error", "err", "mse", "rmse", "mae", "mape", "nll", "ppl", "perplexity", "wer", "cer", "fid"}
    | {"kl", "ece", "bpb", "bpc", "rmsle"}
)
_SCORES: Final = frozenset(
    {"acc", "accuracy", "top1", "top5", "f1", "auc", "auroc", "auprc", "ap", "map", "precision"}
    | {"recall", "bleu", "rouge", "dice", "iou", "miou", "r2", "psnr", "ssim", "reward", "return"}
    | {"score", "wins", "elo", "mcc", "ndcg", "mrr"}
)
_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")

WriteBlob = Callable[[bytes], BlobId]


@dataclass(frozen=True, slots=True)
class Mark:
    """How many points each metric had at some moment."""

    counts: Mapping[str, int] = field(default_factory=dict)


class MetricLog:
    """Every point of a run; safe to use from several threads."""

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}
        self._last_step = -1
        self._drained: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, points: Mapping[str, object], step: object | None, time: float) -> int:
        """Take one point for each metric, all or none; return the step.

        Without a step it is one further than the furthest so far. A value is a number, also one of
        NumPy or a tensor of one element; infinities and NaN are kept.
        """
        numbers = [(name, _number(name, value)) for name, value in points.items()]
        at = None if step is None else _step(step)
        with self._lock:
            for name, _ in numbers:
                if name not in self._histories:
                    self._histories[_checked(name)] = _History()
            if at is None:
                at = self._last_step + 1
            for name, number in numbers:
                self._histories[name].append(at, number, time)
            self._last_step = max(self._last_step, at)
        return at

    def go_on_after(self, step: int) -> None:
        """Let the next point without a step be one further than this, or than the furthest."""
        with self._lock:
            self._last_step = max(self._last_step, step)

    def mark(self) -> Mark:
        """Return how far the log has come."""
        with self._lock:
            return Mark(self._counts())

    def series(
        self, since: Mark | None, write_blob: WriteBlob, until: Mark | None = None
    ) -> Series:
        """Return steps and values of the points between two marks, writing the larger columns."""
        return self._series(since, write_blob, until, "values")

    def times(self, since: Mark | None, write_blob: WriteBlob, until: Mark | None = None) -> Series:
        """Return steps and wall times of the same points."""
        return self._series(since, write_blob, until, "times")

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return last, min, max, mean and count of each metric, by name; NaN is only counted.

        Of equal extremes the first counts. A metric that was never a number has none, nor a mean.
        """
        with self._lock:
            return {name: self._histories[name].summary() for name in sorted(self._histories)}

    def drain(self) -> dict[str, Any] | None:
        """Return the points since the last call as one frame of a journal, None without any."""
        with self._lock:
            counts = self._counts()
            parts = self._slices(self._drained, counts)
            self._drained = counts
        return _frame(parts)

    def drained(self) -> dict[str, Any] | None:
        """Return all points up to the last `drain` as one frame of a journal, None without any."""
        with self._lock:
            return _frame(self._slices({}, self._drained))

    def replay(self, frames: Iterable[Mapping[str, Any]]) -> None:
        """Take the points of drained frames again; frames of other kinds are passed over."""
        for frame in frames:
            if frame.get("t") == "points":
                self._replay(frame)

    def _replay(self, frame: Mapping[str, Any]) -> None:
        try:
            parts = _parts(frame)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"points in the journal are damaged: {error}") from error
        with self._lock:
            for name, steps, values, times in parts:
                history = self._histories.setdefault(name, _History())
                history.extend(steps, values, times)
                self._last_step = max(self._last_step, *steps)
                self._drained[name] = self._drained.get(name, 0) + len(steps)

    def _counts(self) -> dict[str, int]:
        return {name: len(history.steps) for name, history in self._histories.items()}

    def _slices(
        self, first: Mapping[str, int], last: Mapping[str, int]
    ) -> dict[str, dict[str, "array[Any]"]]:
        """Return the columns between two counts of every metric that has points there."""
        return {
            name: history.between(first.get(name, 0), last.get(name, 0))
            for name, history in self._histories.items()
            if last.get(name, 0) > first.get(name, 0)
        }

    def _series(
        self, since: Mark | None, write_blob: WriteBlob, until: Mark | None, values: str
    ) -> Series:
        with self._lock:
            counts = until.counts if until else self._counts()
            parts = self._slices(since.counts if since else {}, counts)
        rows = [
            SeriesRow(
                name,
                len(part["steps"]),
                _column(_bytes(part["steps"]), write_blob),
                _column(_bytes(part[values]), write_blob),
            )
            for name, part in sorted(parts.items())
        ]
        return Series(tuple(rows))


def _frame(parts: "Mapping[str, dict[str, array[Any]]]") -> dict[str, Any] | None:
    if not parts:
        return None
    columns = {
        key: [_bytes(part[key]) for part in parts.values()] for key in ("steps", "values", "times")
    }
    return {"t": "points", "names": list(parts), **columns}


def monitor(
    metrics: Collection[str], metric: str | None = None, mode: str | None = None
) -> tuple[str, str] | None:
    """Return the metric by which checkpoints are compared, and whether `min` or `max` is best.

    What the user names counts, or nothing until it is logged. Otherwise: the loss of a validation
    set, `loss`, any other loss; then a score such as accuracy, and an error such as `mse`, of a
    validation set first; else the first metric by name, smallest best.
    """
    if mode not in {None, "min", "max"}:
        raise InvalidInputError(f"the mode of a monitor is 'min' or 'max', not {mode!r}")
    if metric is None:
        metric = min(metrics, key=_rank, default=None)
    if metric is None or metric not in metrics:
        return None
    return metric, mode or ("max" if _is_score(metric) else "min")


class _History:
    """The points of one metric, and what is known of them without looking at them again."""

    __slots__ = ("count", "max", "max_step", "min", "min_step", "steps", "times", "total", "values")

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")
        self.times = array("d")
        self.min = self.max = self.total = 0.0
        self.min_step = self.max_step = self.count = 0

    def append(self, step: int, value: float, time: float) -> None:
        """Take one point."""
        self.steps.append(step)
        self.values.append(value)
        self.times.append(time)
        self._observe(step, value)

    def extend(self, steps: "array[int]", values: "array[float]", times: "array[float]") -> None:
        """Take many points."""
        self.steps.extend(steps)
        self.values.extend(values)
        self.times.extend(times)
        for step, value in zip(steps, values, strict=True):
            self._observe(step, value)

    def between(self, first: int, last: int) -> dict[str, "array[Any]"]:
        """Return a copy of the points from the `first` on, before the `last`."""
        return {
            "steps": self.steps[first:last],
            "values": self.values[first:last],
            "times": self.times[first:last],
        }

    def summary(self) -> dict[str, Any]:
        """Return what is known of the points."""
        known = self.count > 0
        return {
            "last": self.values[-1],
            "last_step": self.steps[-1],
            "min": self.min if known else None,
            "min_step": self.min_step if known else None,
            "max": self.max if known else None,
            "max_step": self.max_step if known else None,
            "mean": self.total / self.count if known else None,
            "count": len(self.steps),
        }

    def _observe(self, step: int, value: float) -> None:
        if value != value:  # noqa: PLR0124 - NaN, and the fastest way to ask
            return
        if not self.count or value < self.min:
            self.min, self.min_step = value, step
        if not self.count or value > self.max:
            self.max, self.max_step = value, step
        self.total += value
        self.count += 1


def _number(name: str, value: object) -> float:
    if type(value) is float:
        return value
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


def _step(step: object) -> int:
    try:
        at = operator.index(step)  # type: ignore[arg-type]  # it raises TypeError for all else
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"a step is a whole number, not {step!r}") from error
    if not -MAX_STEP - 1 <= at <= MAX_STEP:
        raise InvalidInputError(f"step {at} is out of range: it has 64 bits")
    return at


def _checked(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidInputError(f"metrics are named by up to {MAX_NAME} characters, not {name!r}")
    return name


def _column(data: bytes, write_blob: WriteBlob) -> Column:
    column = Column.of(data)
    return column if column.data is not None else Column(write_blob(data), None)


def _bytes(column: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _parts(frame: Mapping[str, Any]) -> list[tuple[str, "array[Any]", "array[Any]", "array[Any]"]]:
    """Return name and columns of each metric in a frame; raise ValueError and its like."""
    columns = (frame["steps"], frame["values"], frame["times"])
    parts = []
    for name, steps, values, times in zip(frame["names"], *columns, strict=True):
        part = (_checked(name), _array("q", steps), _array("d", values), _array("d", times))
        if not len(part[1]) == len(part[2]) == len(part[3]):
            raise ValueError(f"columns of {name} differ in length")
        parts.append(part)
    return parts


def _array(code: str, raw: object) -> "array[Any]":
    if not isinstance(raw, bytes) or not raw or len(raw) % POINT:
        raise ValueError("a column is whole numbers of eight bytes")
    column: array[Any] = array(code, raw)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _rank(metric: str) -> tuple[int, str]:
    """Return how early a metric is chosen as monitor."""
    words = _words(metric)
    validation = not _VALIDATION.isdisjoint(words)
    if "loss" in words:
        rank = 0 if validation else 1 if words == {"loss"} else 2
    elif _is_score(metric):
        rank = 3 if validation else 5
    elif not _ERRORS.isdisjoint(words):
        rank = 4 if validation else 6
    else:
        rank = 7
    return rank, metric


def _is_score(metric: str) -> bool:
    words = _words(metric)
    return not _SCORES.isdisjoint(words) and words.isdisjoint(_ERRORS) and "loss" not in words


def _words(metric: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(metric)}
