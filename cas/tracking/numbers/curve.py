"""A metric as a curve: its points by step, epoch and wall time, and what is computed of them.

What is computed along a curve is of the kept points and gives arrays of NumPy; NaN is passed over.
What is one number, such as the best, is of all points, also of those that were not kept.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cas.errors import CorruptionError, InvalidInputError, NotFoundError
from cas.ids import BlobId, CommitId, ManifestId
from cas.lineage.curves import histories
from cas.objects.commit import RUN
from cas.objects.kind import Kind
from cas.objects.manifest import Column, Series, SeriesRow
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.tracking.numbers.columns import COLUMNS, OF_EPOCH, POINT
from cas.tracking.numbers.metrics import MetricLog

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Ints = np.ndarray[Any, np.dtype[np.int64]]

AXES: Final = ("step", "epoch", "time")
SUMMARY: Final = "summary.json"
SHOWN: Final = 20  # of the names of metrics in a message


@dataclass(frozen=True, slots=True)
class Epochs:
    """What is known of the points of each epoch, thinned ones too; arrays of equal length.

    `mean`, `min` and `max` are NaN for an epoch without a number.
    """

    numbers: "Ints"
    count: "Floats"
    first_step: "Floats"
    last: "Floats"
    last_step: "Floats"
    max: "Floats"
    mean: "Floats"
    min: "Floats"


@dataclass(frozen=True, slots=True)
class Curve:
    """The kept points of one metric in the order in which they were logged.

    `steps` are int64, `values` float64, `times` float64 seconds since the epoch; all of equal
    length. `times` is empty unless it was asked for. `epochs` is None for a metric without.
    `summary` is what the run's summary says of all its points, kept or not; None for a part of a
    curve, and for what was computed: then the points that are here count.
    """

    name: str
    steps: "Ints"
    values: "Floats"
    times: "Floats"
    epochs: Epochs | None = field(default=None)
    summary: Mapping[str, Any] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The value that was logged last, NaN too."""
        if self.summary is not None:
            return _float(self.summary["last"])
        return float(self.values[-1]) if len(self) else None

    @property
    def mean(self) -> float | None:
        """The mean of all numbers."""
        if self.summary is not None:
            return _float(self.summary["mean"])
        known = self._known()
        return float(known.mean()) if len(known) else None

    @property
    def min(self) -> float | None:
        """The smallest number."""
        found = self.best("min")
        return found and found[1]

    @property
    def max(self) -> float | None:
        """The largest number."""
        found = self.best("max")
        return found and found[1]

    def best(self, mode: str = "min") -> tuple[int, float] | None:
        """Return step and value of the best point, the first of equals; None without a number."""
        import numpy as np

        pick = np.nanargmin if _mode(mode) == "min" else np.nanargmax
        if self.summary is not None:
            value = _float(self.summary[mode])
            return None if value is None else (int(self.summary[f"{mode}_step"]), value)
        if not len(self._known()):
            return None
        place = int(pick(self.values))
        return int(self.steps[place]), float(self.values[place])

    def best_so_far(self, mode: str = "min") -> "Floats":
        """Return at each point the best value up to it; NaN before the first number."""
        import numpy as np

        pick = np.fmin if _mode(mode) == "min" else np.fmax
        found: Floats = pick.accumulate(self.values)
        return found

    def moving_average(self, window: int) -> "Floats":
        """Return at each point the mean of the last `window` values, of fewer at the start."""
        import numpy as np

        if window < 1:
            raise InvalidInputError(f"a window has at least one point, not {window}")
        known, finite = ~np.isnan(self.values), np.isfinite(self.values)
        ends = np.arange(1, len(self) + 1)
        starts = np.maximum(ends - window, 0)

        def within(values: "Floats") -> "Floats":
            sums = np.concatenate(([0.0], np.cumsum(values)))
            found: Floats = sums[ends] - sums[starts]
            return found

        # Sums of what is far from zero lose the digits that differ, so the mean goes first. What is
        # infinite is counted apart: it would stay in the sum when it has left the window.
        middle = float(self.values[finite].mean()) if finite.any() else 0.0
        endless = [within(self.values == value) for value in (np.inf, -np.inf)]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = within(np.where(finite, self.values - middle, 0.0)) / within(known) + middle
        found[endless[0] > 0] = np.inf
        found[endless[1] > 0] = -np.inf
        found[(endless[0] > 0) & (endless[1] > 0)] = np.nan
        return found

    def smoothed(self, weight: float = 0.9) -> "Floats":
        """Return the exponential moving average, without a bias towards zero at the start.

        Each value counts `weight` times less than the one after it, as in TensorBoard. What is
        infinite stands where it is and counts no further.
        """
        import numpy as np

        if not 0 <= weight < 1:
            raise InvalidInputError(f"a weight lies from 0 to below 1, not {weight}")
        found = np.empty(len(self))
        total = norm = 0.0
        for number, value in enumerate(self.values.tolist()):
            if math.isinf(value):
                found[number] = value
                continue
            if value == value:  # noqa: PLR0124 - NaN
                total = weight * total + (1 - weight) * value
                norm = weight * norm + (1 - weight)
            found[number] = total / norm if norm else np.nan
        return found

    def windows(self, steps: int) -> "tuple[Ints, Floats]":
        """Return the first step of each window of so many steps with a number, and their mean."""
        import numpy as np

        if steps < 1:
            raise InvalidInputError(f"a window has at least one step, not {steps}")
        known = ~np.isnan(self.values)
        starts, place = np.unique(self.steps[known] // steps * steps, return_inverse=True)
        sums = np.bincount(place, self.values[known], minlength=len(starts))
        return starts, sums / np.bincount(place, minlength=len(starts))

    def between(self, first: int, last: int) -> "Curve":
        """Return the points from one step to another, both included."""
        kept = (self.steps >= first) & (self.steps <= last)
        times = self.times[kept] if len(self.times) else self.times
        return Curve(self.name, self.steps[kept], self.values[kept], times, self.epochs)

    def along(self, axis: str = "step") -> "tuple[Any, Floats]":
        """Return the points by step, by seconds since the first one, or means by epoch."""
        if axis not in AXES:
            raise InvalidInputError(f"an axis is {', '.join(AXES)}, not {axis!r}")
        if axis == "step":
            return self.steps, self.values
        if axis == "time":
            return self.times - (self.times[:1] if len(self.times) else 0.0), self.values
        if self.epochs is None:
            raise NotFoundError("epochs", f"of {self.name}", "log with epoch= to have them")
        return self.epochs.numbers, self.epochs.mean

    def _known(self) -> "Floats":
        import numpy as np

        known: Floats = self.values[~np.isnan(self.values)]
        return known


def _float(told: Any) -> float | None:
    """Return a number of a summary, which says what JSON has no number for in words."""
    return None if told is None else float(told)


def _mode(mode: str) -> str:
    if mode not in {"min", "max"}:
        raise InvalidInputError(f"the mode of a best value is 'min' or 'max', not {mode!r}")
    return mode


def of_log(log: MetricLog, name: str) -> Curve:
    """Return a metric of an open run as it is so far; raise NotFoundError for none."""
    import numpy as np

    part, epochs, whole = log.points(name), log.by_epoch(name), log.whole(name)
    if whole is None:
        raise NotFoundError("metric", name)
    steps, values, times = (np.array(part[key]) for key in COLUMNS)
    if not epochs:
        return Curve(name, steps, values, times, summary=whole.summary())
    known = {
        which: np.array([one.summary_of(which) for _, one in epochs], float) for which in OF_EPOCH
    }
    numbers = np.array([epoch for epoch, _ in epochs], np.int64)
    return Curve(name, steps, values, times, Epochs(numbers, **known), whole.summary())


def of_logs(log: MetricLog, names: Iterable[str] | None = None) -> dict[str, Curve]:
    """Return the metrics of an open run as they are so far, all or some; raise NotFoundError."""
    known = sorted(log.mark().counts)
    return {name: of_log(log, name) for name in _wanted(names, known)}


def read_curves(
    repo: Repo, id: CommitId, names: Iterable[str] | None = None, *, times: bool = True
) -> dict[str, Curve]:
    """Return the metrics of a run up to a commit, by name; of all or of some.

    Raises NotFoundError for a name that it does not have.
    """
    read = _Columns(repo)
    pieces = histories(repo, id)
    wanted = _wanted(names, pieces)
    walls = _series(repo, id, "times") if times else {}
    epochs = _epochs(read, _series(repo, id, "epochs"))
    told = _summary(repo, id)
    return {
        name: Curve(
            name,
            read.steps(pieces[name]),
            read.values(pieces[name]),
            read.values(walls.get(name, ())),
            epochs.get(name),
            told.get(name),
        )
        for name in wanted
    }


def listed(names: Sequence[str]) -> str:
    """Return the first of many names as text."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more or "none"


def read_system(repo: Repo, id: CommitId, names: Iterable[str] | None = None) -> dict[str, Curve]:
    """Return the system metrics of a finished run: `steps` are microseconds since the epoch."""
    read = _Columns(repo)
    found = {}
    series = _series(repo, id, "system")
    for name in _wanted(names, series):
        steps = read.steps(series[name])
        found[name] = Curve(name, steps, read.values(series[name]), steps / 1e6)
    return found


def _wanted(names: Iterable[str] | None, known: Collection[str]) -> list[str]:
    """Return all known names, or those that were named; raise NotFoundError."""
    wanted = sorted(known if names is None else set(names))
    for name in wanted:
        if name not in known:
            raise NotFoundError("metric", name, f"there are: {listed(sorted(known))}")
    return wanted


class _Columns:
    """Columns as arrays; of equal ones, as the steps of many metrics are, one is read."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._known: dict[tuple[BlobId, str], Any] = {}

    def steps(self, rows: Sequence[SeriesRow]) -> "Ints":
        found: Ints = self._joined([self._one(row.steps, "<i8", row) for row in rows], "<i8")
        return found

    def values(self, rows: Sequence[SeriesRow]) -> "Floats":
        found: Floats = self._joined([self._one(row.values, "<f8", row) for row in rows], "<f8")
        return found

    def _joined(self, parts: list[Any], dtype: str) -> Any:
        import numpy as np

        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, dtype)

    def _one(self, column: Column, dtype: str, row: SeriesRow) -> Any:
        import numpy as np

        found = self._known.get((column.id, dtype))
        if found is None:
            data = column.data
            if data is None:
                data = self._repo.store.read(Kind.BLOB, column.id)
            if len(data) != row.count * POINT:
                raise CorruptionError(f"{row.name}: {row.count} points in {len(data)} bytes")
            found = self._known[column.id, dtype] = np.frombuffer(data, dtype)
        return found


def _summary(repo: Repo, id: CommitId) -> Mapping[str, Any]:
    tree = repo.commit(id).tree
    if repo.lookup(tree, SUMMARY.encode()) is None:
        return {}
    told = repo.document(tree, SUMMARY)
    return told if isinstance(told, dict) else {}


def _series(repo: Repo, id: CommitId, what: str) -> Mapping[str, list[SeriesRow]]:
    """Return a series of a run up to a commit: by name its pieces, oldest first."""
    pieces: dict[str, list[SeriesRow]] = {}
    for at, commit in segment(repo.commit, id):
        if commit.kind == RUN and at != id:
            break  # it broke off here: the first checkpoint after that has all of it again
        entry = repo.lookup(commit.tree, what.encode())
        found = repo.manifest(ManifestId(entry.id)) if entry is not None else None
        for row in found.rows if isinstance(found, Series) else ():
            pieces.setdefault(row.name, []).insert(0, row)
        if commit.kind == RUN:
            break
    return pieces


def _epochs(read: _Columns, series: Mapping[str, list[SeriesRow]]) -> dict[str, Epochs]:
    """Return the epochs of each metric; of what two commits say of one, the later counts."""
    import numpy as np

    told: dict[str, dict[str, dict[int, float]]] = {}
    for named, rows in series.items():
        name, _, which = named.rpartition("/")
        if which in OF_EPOCH:
            numbers = read.steps(rows).tolist()
            values = read.values(rows).tolist()
            told.setdefault(name, {})[which] = dict(zip(numbers, values, strict=True))
    found = {}
    for name, known in told.items():
        epochs = sorted(known.get("count", {}))
        columns = {
            which: np.array([known.get(which, {}).get(epoch, np.nan) for epoch in epochs], float)
            for which in OF_EPOCH
        }
        found[name] = Epochs(np.array(epochs, np.int64), **columns)
    return found
