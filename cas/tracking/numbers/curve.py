"""A metric as a curve: its points by step, epoch and wall time, and what is computed of them.

Every function is of the kept points alone and gives arrays of NumPy; NaN is passed over.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cas.errors import CorruptionError, InvalidInputError, NotFoundError
from cas.ids import BlobId, CommitId, ManifestId
from cas.lineage.curves import histories
from cas.objects.commit import RUN
from cas.objects.kind import Kind
from cas.objects.manifest import Column, Series, SeriesRow
from cas.repo import place
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.repo.revision import resolve
from cas.tracking.numbers.columns import COLUMNS, OF_EPOCH, POINT
from cas.tracking.numbers.metrics import MetricLog
from cas.tracking.start import asked_for, author

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Ints = np.ndarray[Any, np.dtype[np.int64]]

AXES: Final = ("step", "epoch", "time")


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
    """

    name: str
    steps: "Ints"
    values: "Floats"
    times: "Floats"
    epochs: Epochs | None = field(default=None)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The value that was logged last, NaN too."""
        return float(self.values[-1]) if len(self) else None

    @property
    def mean(self) -> float | None:
        """The mean of all numbers."""
        known = self._known()
        return float(known.mean()) if len(known) else None

    @property
    def min(self) -> float | None:
        """The smallest number."""
        known = self._known()
        return float(known.min()) if len(known) else None

    @property
    def max(self) -> float | None:
        """The largest number."""
        known = self._known()
        return float(known.max()) if len(known) else None

    def best(self, mode: str = "min") -> tuple[int, float] | None:
        """Return step and value of the best point, the first of equals; None without a number."""
        import numpy as np

        if not len(self._known()):
            return None
        place = int((np.nanargmin if _mode(mode) == "min" else np.nanargmax)(self.values))
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
        known = ~np.isnan(self.values)
        ends = np.arange(1, len(self) + 1)
        starts = np.maximum(ends - window, 0)
        # Sums of what is far from zero lose the digits that differ, so the mean goes first.
        middle = float(self.values[np.isfinite(self.values)].mean()) if known.any() else 0.0
        sums = np.concatenate(([0.0], np.cumsum(np.where(known, self.values - middle, 0.0))))
        counts = np.concatenate(([0], np.cumsum(known)))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = (sums[ends] - sums[starts]) / (counts[ends] - counts[starts]) + middle
        return found

    def smoothed(self, weight: float = 0.9) -> "Floats":
        """Return the exponential moving average, without a bias towards zero at the start.

        Each value counts `weight` times less than the one after it, as in TensorBoard.
        """
        import numpy as np

        if not 0 <= weight < 1:
            raise InvalidInputError(f"a weight lies from 0 to below 1, not {weight}")
        found = np.empty(len(self))
        total = norm = 0.0
        for number, value in enumerate(self.values.tolist()):
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


def _mode(mode: str) -> str:
    if mode not in {"min", "max"}:
        raise InvalidInputError(f"the mode of a best value is 'min' or 'max', not {mode!r}")
    return mode


def of_log(log: MetricLog, name: str) -> Curve:
    """Return a metric of an open run as it is so far; raise NotFoundError for none."""
    import numpy as np

    part, epochs = log.points(name), log.by_epoch(name)
    if not part["steps"]:
        raise NotFoundError("metric", name)
    steps, values, times = (np.array(part[key]) for key in COLUMNS)
    if not epochs:
        return Curve(name, steps, values, times)
    known = {
        which: np.array([one.summary_of(which) for _, one in epochs], float) for which in OF_EPOCH
    }
    numbers = np.array([epoch for epoch, _ in epochs], np.int64)
    return Curve(name, steps, values, times, Epochs(numbers, **known))


def read_metrics(
    rev: str, *names: str, repo: str | os.PathLike[str] | None = None
) -> dict[str, Curve]:
    """Return the metrics of a run up to a revision as curves, by name; of all, or of some.

    Raises NotFoundError for a metric that there is none of.
    """
    at = Path(asked_for(repo) or ".").absolute()
    opened = Repo.open(place.find(at), who=author())
    return read_curves(opened, resolve(opened, rev), names or None)


def read_curves(
    repo: Repo, id: CommitId, names: Iterable[str] | None = None, *, times: bool = True
) -> dict[str, Curve]:
    """Return the metrics of a run up to a commit, by name; of all or of some.

    Raises NotFoundError for a name that it does not have.
    """
    read = _Columns(repo)
    pieces = histories(repo, id)
    wanted = list(pieces) if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in pieces:
            known = ", ".join(sorted(pieces)) or "none"
            raise NotFoundError("metric", name, f"there are: {known}")
    walls = _series(repo, id, "times") if times else {}
    epochs = _epochs(read, _series(repo, id, "epochs"))
    return {
        name: Curve(
            name,
            read.steps(pieces[name]),
            read.values(pieces[name]),
            read.values(walls.get(name, ())),
            epochs.get(name),
        )
        for name in sorted(wanted)
    }


def read_system(repo: Repo, id: CommitId) -> dict[str, Curve]:
    """Return the system metrics of a finished run: `steps` are microseconds since the epoch."""
    read = _Columns(repo)
    found = {}
    for name, rows in _series(repo, id, "system").items():
        steps = read.steps(rows)
        found[name] = Curve(name, steps, read.values(rows), steps / 1e6)
    return found


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


def _series(repo: Repo, id: CommitId, what: str) -> Mapping[str, list[SeriesRow]]:
    """Return a series of a run up to a commit: by name its pieces, oldest first."""
    pieces: dict[str, list[SeriesRow]] = {}
    for _, commit in segment(repo.commit, id):
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
