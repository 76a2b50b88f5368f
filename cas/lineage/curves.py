"""The metrics of two commits: their histories, and the first step where these part."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cas.ids import CommitId, ManifestId
from cas.objects.commit import RUN, Commit
from cas.objects.kind import Kind
from cas.objects.manifest import Column, Series, SeriesRow
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment

Point = tuple[int, float]
Histories = Mapping[str, Sequence[SeriesRow]]  # by metric: its pieces, oldest first


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step at which two histories differ; None for the one that has no point there."""

    step: int
    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a summary says of a metric; None for what it does not say."""

    last: float | None
    last_step: int | None
    min: float | None
    max: float | None
    count: int | None


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric that is not the same; `mode` says which extreme is best, where a commit says so."""

    name: str
    mode: str | None
    old: Reading | None
    new: Reading | None
    parting: Parting | None


def metric_changes(repo: Repo, old: CommitId, new: CommitId) -> tuple[MetricChange, ...]:
    """Return the metrics that differ between two commits, by name."""
    before, after = repo.commit(old), repo.commit(new)
    summaries = [_summary(repo, commit) for commit in (before, after)]
    left, right = histories(repo, old), histories(repo, new)
    modes = _modes(before, after)
    found = []
    for name in sorted({*left, *right, *summaries[0], *summaries[1]}):
        parted = _parting(repo, left.get(name, ()), right.get(name, ()))
        was, now = (_reading(summary.get(name)) for summary in summaries)
        if parted is not None or was != now:
            found.append(MetricChange(name, modes.get(name), was, now, parted))
    return tuple(found)


def series(repo: Repo, commit: Commit) -> Mapping[str, SeriesRow]:
    """Return the metrics that stand in one commit's record."""
    entry = repo.lookup(commit.tree, b"metrics")
    found = repo.manifest(ManifestId(entry.id)) if entry is not None else None
    return {row.name: row for row in found.rows} if isinstance(found, Series) else {}


def histories(repo: Repo, id: CommitId) -> Histories:
    """Return the whole history of each metric up to a commit.

    The end of a run has it in one piece; a checkpoint has what came since the commit before. Of a
    run that broke off and went on, the first checkpoint behind that has all of it again.
    """
    pieces: dict[str, list[SeriesRow]] = {}
    for at, commit in segment(repo.commit, id):
        if commit.kind == RUN and at != id:
            break
        for name, row in series(repo, commit).items():
            pieces.setdefault(name, []).insert(0, row)
        if commit.kind == RUN:
            break
    return pieces


def points(repo: Repo, row: SeriesRow) -> list[Point]:
    """Return the steps and values of one piece of a history."""
    return list(zip(_column(repo, row.steps, "q"), _column(repo, row.values, "d"), strict=True))


def parting(old: Iterable[Point], new: Iterable[Point], tolerance: float = 0.0) -> Parting | None:
    """Return the first step at which values differ by more than a relative tolerance.

    Of several values at one step the last counts; NaN is equal to itself.
    """
    before, after = dict(old), dict(new)
    for step in sorted(before.keys() | after.keys()):
        left, right = before.get(step), after.get(step)
        if not _close(left, right, tolerance):
            return Parting(step, left, right)
    return None


def _parting(repo: Repo, old: Sequence[SeriesRow], new: Sequence[SeriesRow]) -> Parting | None:
    # What both have from the start is not read: equal pieces have equal ids.
    shared = 0
    while shared < min(len(old), len(new)) and _ids(old[shared]) == _ids(new[shared]):
        shared += 1
    before, after = (
        [point for row in rows[shared:] for point in points(repo, row)] for rows in (old, new)
    )
    return parting(before, after)


def _ids(row: SeriesRow) -> tuple[bytes, bytes]:
    return row.steps.id, row.values.id


def _close(left: float | None, right: float | None, tolerance: float) -> bool:
    if left is None or right is None:
        return left is right
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return left == right or math.isclose(left, right, rel_tol=tolerance, abs_tol=0.0)


def _summary(repo: Repo, commit: Commit) -> Mapping[str, Any]:
    document = repo.document(commit.tree, "summary.json")
    return document if isinstance(document, dict) else {}


def _reading(told: object) -> Reading | None:
    if not isinstance(told, dict):
        return None
    known = {name: _number(told.get(name)) for name in ("last", "min", "max")}
    whole = {name: told.get(name) for name in ("last_step", "count")}
    steps = {name: value if type(value) is int else None for name, value in whole.items()}
    return Reading(known["last"], steps["last_step"], known["min"], known["max"], steps["count"])


def _number(value: object) -> float | None:
    # NaN as None: a reading is compared, and NaN is no value that could be better or worse.
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def _modes(*commits: Commit) -> dict[str, str]:
    monitors = [commit.monitor for commit in commits if commit.monitor is not None]
    return {monitor.metric: monitor.mode for monitor in monitors}


def _column(repo: Repo, column: Column, code: str) -> Any:
    import sys
    from array import array

    data = column.data if column.data is not None else repo.store.read(Kind.BLOB, column.id)
    values = array(code, data)
    if sys.byteorder == "big":
        values.byteswap()
    return values
