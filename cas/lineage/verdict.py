"""Did it come out the same? Two runs compared by the ids of their results.

*Identical* means that every artifact, every checkpoint's payload, everything that was logged and
every metric's steps and values have the same ids; *equivalent* that the metrics agree within a
tolerance. Times, host, system metrics and log text are stored apart and never looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import NotFoundError
from cas.ids import CommitId, ObjectId
from cas.lineage.curves import parting, points, series
from cas.lineage.logged import LoggedChange, logged_changes, shown
from cas.lineage.values import ADDED, REMOVED, changes
from cas.objects.commit import CHECKPOINT, EVALUATES, PREVIOUS, REPRODUCES, Commit
from cas.objects.manifest import SeriesRow
from cas.objects.tree import EntryKind
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment

IDENTICAL: Final = "identical"
EQUIVALENT: Final = "equivalent"
DIVERGED: Final = "diverged"
FAILED: Final = "failed"
# Edges that say what a run was made from; the others say what came before or after.
NO_INPUTS: Final = frozenset({PREVIOUS, REPRODUCES, EVALUATES})


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first point at which a metric is not what it was; None where one of them has none."""

    metric: str
    step: int
    original: float | None
    again: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a reproduction came out, and what may explain a difference.

    The counts say what was compared: `logged` are the keys of what is no number.
    """

    verdict: str
    metrics: int = 0
    checkpoints: int = 0
    artifacts: int = 0
    logged: int = 0
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
    heavy: Mapping[str, str] | None  # artifacts in the payload; None when it was pruned
    status: str | None


def judge(repo: Repo, original: CommitId, again: CommitId, tolerance: float = 0.0) -> Verdict:
    """Compare two finishing commits; a `tolerance` above 0 is relative, and allows *equivalent*."""
    old, new = results(repo, original), results(repo, again)
    sides = repo.commit(original), repo.commit(again)
    logged = (_said(one) for one in logged_changes(repo, *sides))
    differences = (*_differences(old, new), *logged)
    artifacts = old.artifacts.keys() | _both(old, new)[0].keys()
    known = len(shown(repo, sides[0]).keys)
    counts = (len(old.metrics), len(old.checkpoints), len(artifacts), known)
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
    heavy: dict[str, str] | None = {}
    if commit.payload is not None:
        try:
            heavy = _artifacts(repo, commit.payload)
        except NotFoundError:
            heavy = None
    return Results(metrics, checkpoints, _artifacts(repo, commit.tree), heavy, commit.status)


def explain(repo: Repo, original: CommitId, again: CommitId) -> Iterator[str]:
    """Yield what differs in params, inputs, code, environment and hardware between two runs."""
    old, new = repo.commit(original).tree, repo.commit(again).tree
    for name, what in (("params.json", "param"), ("seeds.json", "seed")):
        yield from _changed(what, repo.document(old, name), repo.document(new, name))
    inputs = [_inputs(repo.commit(id)) for id in (original, again)]
    yield from _changed("input", *inputs)
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
    yield from _unequal("checkpoint", old.checkpoints, new.checkpoints)
    yield from _unequal("artifact", old.artifacts, new.artifacts)
    yield from _unequal("artifact", *_both(old, new))


def _said(change: LoggedChange) -> str:
    what = f"logged {change.kind} {change.key}"
    if change.how in {ADDED, REMOVED}:
        return f"{what} is {'new' if change.how == ADDED else 'missing'}"
    if not change.steps:
        return f"{what} differs"
    others = f" and {change.differing - 1} more" if change.differing > 1 else ""
    return f"{what} differs at step {change.steps[0]}{others}"


def _both(old: Results, new: Results) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the artifacts in the payloads, of none when those of one run were pruned."""
    return ({}, {}) if old.heavy is None or new.heavy is None else (old.heavy, new.heavy)


def _unequal(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"{what} {name} is missing"
        elif before.get(name) != after[name]:
            yield f"{what} {name} {'differs' if name in before else 'is new'}"


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


def _artifacts(repo: Repo, tree: ObjectId) -> dict[str, str]:
    folder = repo.lookup(tree, b"artifacts")
    if folder is None or folder.kind is not EntryKind.TREE:
        return {}
    return {
        entry.name.decode("utf-8", "backslashreplace"): str(entry.id)
        for entry in repo.entries(folder.id)
    }


def _inputs(commit: Commit) -> dict[str, str]:
    """Return what a run was made from, by role and place; its own name where it had no place."""
    return {
        f"{parent.role} {parent.attrs.get('at', number)!s}": parent.commit.short
        for number, parent in enumerate(commit.parents)
        if parent.role not in NO_INPUTS
    }


def _hardware(document: object) -> dict[str, Any]:
    known = document if isinstance(document, dict) else {}
    return {key: known.get(key) for key in ("cpu", "cpu_usable", "gpus", "gpu_driver")}


def _changed(what: str, old: object, new: object) -> Iterator[str]:
    for change in changes(old, new):
        yield f"{what} {change.path}: {change.old!r} → {change.new!r}"
