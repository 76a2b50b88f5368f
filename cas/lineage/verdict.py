"""Did it come out the same? Two runs compared by the ids of their results.

*Identical* means that every artifact, every checkpoint's payload and every metric's steps and
values have the same ids; *equivalent* that the metrics agree within a tolerance. Times, host,
system metrics and log text are stored apart and never looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import NotFoundError
from cas.ids import CommitId
from cas.lineage.curves import parting, points, series
from cas.lineage.values import changes
from cas.objects.commit import CHECKPOINT, Commit
from cas.objects.manifest import SeriesRow
from cas.objects.tree import EntryKind
from cas.repo.choice import segment
from cas.repo.repo import Repo

IDENTICAL: Final = "identical"
EQUIVALENT: Final = "equivalent"
DIVERGED: Final = "diverged"
FAILED: Final = "failed"
NOT_COMPARED: Final = frozenset({"log.txt"})


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first point at which a metric is not what it was; None where one of them has none."""

    metric: str
    step: int
    original: float | None
    again: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a reproduction came out, and what may explain a difference."""

    verdict: str
    metrics: int = 0
    checkpoints: int = 0
    artifacts: int = 0
    first: Divergence | None = None
    differences: tuple[str, ...] = ()
    explanations: tuple[str, ...] = ()
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """What a run left that is compared."""

    metrics: Mapping[str, SeriesRow]
    checkpoints: Mapping[str, str]
    artifacts: Mapping[str, str]
    status: str | None


def judge(repo: Repo, original: CommitId, again: CommitId, tolerance: float = 0.0) -> Verdict:
    """Compare two finishing commits; a `tolerance` above 0 is relative, and allows *equivalent*."""
    old, new = results(repo, original), results(repo, again)
    differences = tuple(_differences(old, new))
    counts = (len(old.metrics), len(old.checkpoints), len(old.artifacts))
    if not differences:
        return Verdict(IDENTICAL, *counts)
    first = _first(repo, old.metrics, new.metrics, 0.0)
    close = _first(repo, old.metrics, new.metrics, tolerance) is None
    verdict = EQUIVALENT if tolerance > 0 and close and old.status == new.status else DIVERGED
    explained = tuple(explain(repo, original, again))
    return Verdict(verdict, *counts, first=first, differences=differences, explanations=explained)


def results(repo: Repo, id: CommitId) -> Results:
    """Gather what is compared of the run that ends with this commit."""
    commit = repo.commit(id)
    own = [found for _, found in segment(repo.commit, id) if found.kind == CHECKPOINT]
    checkpoints = {
        f"{number}: step {found.step}": str(found.payload)
        for number, found in enumerate(reversed(own))
    }
    metrics = series(repo, commit)
    return Results(metrics, checkpoints, dict(_artifacts(repo, commit)), commit.status)


def explain(repo: Repo, original: CommitId, again: CommitId) -> Iterator[str]:
    """Yield what differs in params, code, environment and hardware between two runs."""
    old, new = repo.commit(original).tree, repo.commit(again).tree
    for name, what in (("params.json", "param"), ("seeds.json", "seed")):
        yield from _changed(what, repo.document(old, name), repo.document(new, name))
    code = [repo.lookup(tree, b"code") for tree in (old, new)]
    if code[0] is not None and code[1] is not None and code[0].id != code[1].id:
        yield "the code is not the same"
    before, after = (repo.document(tree, "environment.json") for tree in (old, new))
    yield from _changed("environment", before, after)
    mine, theirs = (_hardware(repo.document(tree, "host.json")) for tree in (old, new))
    yield from _changed("hardware", mine, theirs)


def _differences(old: Results, new: Results) -> Iterator[str]:
    if old.status != new.status:
        yield f"status was {old.status}, is {new.status}"
    for name in sorted(old.metrics.keys() | new.metrics.keys()):
        a, b = old.metrics.get(name), new.metrics.get(name)
        if a is None or b is None:
            yield f"metric {name} is only in the {'reproduction' if a is None else 'original'}"
        elif (a.steps.id, a.values.id) != (b.steps.id, b.values.id):
            yield f"metric {name} differs"
    pairs = (
        ("checkpoint", old.checkpoints, new.checkpoints),
        ("artifact", old.artifacts, new.artifacts),
    )
    for what, before, after in pairs:
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                missing = "" if name in after else " is missing" if name in before else ""
                yield f"{what} {name}{missing or ' differs'}"


def _first(
    repo: Repo, old: Mapping[str, SeriesRow], new: Mapping[str, SeriesRow], tolerance: float
) -> Divergence | None:
    """Return the earliest point at which any metric differs by more than the tolerance."""
    found: list[Divergence] = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a and b and (a.steps.id, a.values.id) == (b.steps.id, b.values.id):
            continue
        before, after = (points(repo, row) if row else () for row in (a, b))
        parted = parting(before, after, tolerance)
        if parted is not None:
            found.append(Divergence(name, parted.step, parted.old, parted.new))
    return min(found, key=lambda one: (one.step, one.metric), default=None)


def _artifacts(repo: Repo, commit: Commit) -> Iterator[tuple[str, str]]:
    for top in (commit.tree, commit.payload):
        if top is None:
            continue
        try:
            folder = repo.lookup(top, b"artifacts")
        except NotFoundError:
            yield f"(pruned payload {str(top)[:10]})", str(top)
            continue
        if folder is not None and folder.kind is EntryKind.TREE:
            for entry in repo.entries(folder.id):
                name = entry.name.decode("utf-8", "replace")
                if name not in NOT_COMPARED:
                    yield name, str(entry.id)


def _hardware(document: object) -> dict[str, Any]:
    known = document if isinstance(document, dict) else {}
    return {key: known.get(key) for key in ("cpu", "cpu_usable", "gpus", "gpu_driver")}


def _changed(what: str, old: object, new: object) -> Iterator[str]:
    for change in changes(old, new):
        yield f"{what} {change.path}: {change.old!r} → {change.new!r}"
