"""Two commits side by side, by what they mean.

Params and settings value by value, metrics with the step where they part, what was logged beside
them by key and step, code as a patch, inputs by role, artifacts and files by id, weights tensor by
tensor. What differs in every run (times, host, log text) is not looked at. A payload that was
pruned is compared by its id, and that is said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cas.errors import NotFoundError
from cas.ids import CommitId, ObjectId, TreeId
from cas.lineage.curves import MetricChange, metric_changes
from cas.lineage.logged import LoggedChange, logged_changes
from cas.lineage.patch import FilePatch, code_patch
from cas.lineage.title import input_name, title
from cas.lineage.values import ADDED, CHANGED, REMOVED, ValueChange, changes
from cas.lineage.weights import Weights, compare_weights
from cas.objects.commit import COMMIT, DRAFT, INPUT, PREVIOUS, RUN, Commit, Parent
from cas.objects.tree import Entry, EntryKind
from cas.progress import SILENT, Progress
from cas.repo.repo import Repo
from cas.repo.trees.diff import diff

ARTIFACTS: Final = b"artifacts"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two commits."""

    id: CommitId
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Input:
    """What a commit was made from, as the edge names it."""

    commit: CommitId
    name: str
    split: str | None
    path: str


@dataclass(frozen=True, slots=True)
class InputChange:
    """An input that is not the same commit, not used in the same way, or on one side only."""

    role: str
    how: str
    old: Input | None
    new: Input | None


@dataclass(frozen=True, slots=True)
class FileChange:
    """An artifact or file whose content, kind or mode differs."""

    path: str
    how: str
    old: ObjectId | None
    new: ObjectId | None
    old_bytes: int | None
    new_bytes: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two commits; every part is empty where nothing does."""

    old: Side
    new: Side
    params: tuple[ValueChange, ...]
    metrics: tuple[MetricChange, ...]
    logged: tuple[LoggedChange, ...]
    code: tuple[FilePatch, ...]
    packages: tuple[ValueChange, ...]
    environment: tuple[ValueChange, ...]
    command: tuple[ValueChange, ...]
    seeds: tuple[ValueChange, ...]
    inputs: tuple[InputChange, ...]
    artifacts: tuple[FileChange, ...]
    files: tuple[FileChange, ...]
    weights: Weights | None
    notes: tuple[str, ...]

    PARTS: ClassVar = (
        *("params", "metrics", "logged", "code", "packages", "environment", "command"),
        *("seeds", "inputs", "artifacts", "files", "notes"),
    )

    @property
    def same(self) -> bool:
        """Whether nothing is known to differ."""
        parts = any(getattr(self, name) for name in self.PARTS)
        return not parts and (self.weights is None or self.weights.same)


def compare(
    repo: Repo,
    old: CommitId,
    new: CommitId,
    *,
    measure: bool = True,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare two commits; without `measure` tensors are compared by id and none is read."""
    before, after = repo.commit(old), repo.commit(new)
    environment = _documents(repo, before, after, "environment.json")
    artifacts, lost = _artifact_changes(repo, (old, before), (new, after))
    files, unread = _file_changes(repo, (old, before), (new, after))
    return Comparison(
        old=Side(old, before.kind, title(repo, old)),
        new=Side(new, after.kind, title(repo, new)),
        params=changes(*(repo.document(commit.tree, "params.json") for commit in (before, after))),
        metrics=metric_changes(repo, old, new),
        logged=logged_changes(repo, before, after),
        code=code_patch(repo, old, new),
        packages=changes(*(side.get("packages") for side in environment)),
        environment=changes(*map(_without_packages, environment)),
        command=changes(*_documents(repo, before, after, "command.json")),
        seeds=changes(*_documents(repo, before, after, "seeds.json")),
        inputs=tuple(_input_changes(repo, before, after)),
        artifacts=artifacts,
        files=files,
        weights=compare_weights(repo, old, new, measure=measure, progress=progress),
        notes=lost + unread,
    )


def _documents(repo: Repo, old: Commit, new: Commit, name: str) -> list[Mapping[str, Any]]:
    """Return a document of both commits, both empty unless both have it."""
    found = [repo.document(commit.tree, name) for commit in (old, new)]
    kept: list[Mapping[str, Any]] = [value for value in found if isinstance(value, dict)]
    return kept if len(kept) == 2 else [{}, {}]


def _without_packages(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in environment.items() if key != "packages"}


def _input_changes(repo: Repo, old: Commit, new: Commit) -> Iterator[InputChange]:
    before, after = _inputs(repo, old), _inputs(repo, new)
    for role in sorted(before.keys() | after.keys()):
        left, right = before.get(role, []), after.get(role, [])
        left, right = _without(left, right), _without(right, left)
        if len(left) == len(right) == 1:
            yield InputChange(role, CHANGED, left[0], right[0])
            continue
        names = dict.fromkeys((one.name, one.split) for one in left + right)
        for name in names:
            yield from _paired(role, *(_named(side, name) for side in (left, right)))


def _paired(role: str, left: list[Input], right: list[Input]) -> Iterator[InputChange]:
    shared = min(len(left), len(right))
    for old, new in zip(left, right, strict=False):
        yield InputChange(role, CHANGED, old, new)
    for gone in left[shared:]:
        yield InputChange(role, REMOVED, gone, None)
    for come in right[shared:]:
        yield InputChange(role, ADDED, None, come)


def _inputs(repo: Repo, commit: Commit) -> dict[str, list[Input]]:
    found: dict[str, list[Input]] = {}
    for parent in commit.parents:
        if parent.role != PREVIOUS:
            found.setdefault(parent.role, []).append(_input(repo, parent))
    return found


def _input(repo: Repo, parent: Parent) -> Input:
    split = parent.attrs.get("split")
    commit = repo.commit(parent.commit)
    name = input_name(repo, commit) if commit.kind == INPUT else None
    return Input(
        commit=parent.commit,
        name=name or title(repo, parent.commit),
        split=split if isinstance(split, str) else None,
        path=parent.path,
    )


def _without(these: list[Input], those: list[Input]) -> list[Input]:
    return [one for one in these if one not in those]


def _named(inputs: list[Input], name: tuple[str, str | None]) -> list[Input]:
    return [one for one in inputs if (one.name, one.split) == name]


def _artifact_changes(
    repo: Repo, old: tuple[CommitId, Commit], new: tuple[CommitId, Commit]
) -> tuple[tuple[FileChange, ...], tuple[str, ...]]:
    """Return the artifacts that differ, and what cannot be said because it was pruned."""
    sides: list[list[TreeId | None]] = []
    notes = []
    for id, commit in (old, new):
        heavy = None
        try:
            heavy = _artifacts(repo, commit.payload)
        except NotFoundError:
            if commit.kind in {RUN, DRAFT} and old[1].payload != new[1].payload:
                notes.append(
                    f"the payload of {id.short} was pruned: "
                    "large artifacts, and what was logged in it, are not compared"
                )
        sides.append([_artifacts(repo, commit.tree), heavy])
    before, after = sides
    # By path, as one that has grown is in the record of one commit and the payload of the other.
    found: dict[bytes, tuple[Entry | None, Entry | None]] = {}
    for change in diff(repo, before[0], after[0]):
        found[change.path] = _leaf(change.old), _leaf(change.new)
    for change in diff(repo, before[1], after[1]):
        light = found.get(change.path, (None, None))
        found[change.path] = _leaf(change.old) or light[0], _leaf(change.new) or light[1]
    differing = (_file(_text(path), *found[path]) for path in sorted(found))
    return tuple(one for one in differing if one), tuple(notes)


def _artifacts(repo: Repo, tree: TreeId | None) -> TreeId | None:
    entry = None if tree is None else repo.lookup(tree, ARTIFACTS)
    if entry is None or entry.kind is not EntryKind.TREE or not entry.stored:
        return None
    return TreeId(entry.id)


def _leaf(entry: Entry | None) -> Entry | None:
    """Return what is no folder: of those only what is in them counts."""
    return None if entry is None or (entry.kind is EntryKind.TREE and entry.stored) else entry


def _file_changes(
    repo: Repo, old: tuple[CommitId, Commit], new: tuple[CommitId, Commit]
) -> tuple[tuple[FileChange, ...], tuple[str, ...]]:
    """Return what differs in the files of two commits that consist of files."""
    if any(commit.kind not in {COMMIT, INPUT} for _, commit in (old, new)):
        return (), ()
    payloads = [commit.payload for _, commit in (old, new)]
    try:
        found = [
            _file(_text(change.path), change.old, change.new) for change in diff(repo, *payloads)
        ]
    except NotFoundError:
        pruned = [id.short for id, commit in (old, new) if not _there(repo, commit.payload)]
        which = " and of ".join(dict.fromkeys(pruned))
        return (), (f"the payload of {which} was pruned: by their ids the files differ",)
    return tuple(one for one in found if one is not None), ()


def _there(repo: Repo, tree: TreeId | None) -> bool:
    return tree is None or repo.store.find(tree) is not None


def _file(path: str, old: Entry | None, new: Entry | None) -> FileChange | None:
    if old is new is None:
        return None
    if old is not None and new is not None and _look(old) == _look(new):
        return None
    how = ADDED if old is None else REMOVED if new is None else CHANGED
    return FileChange(
        path,
        how,
        old.id if old else None,
        new.id if new else None,
        old.size if old else None,
        new.size if new else None,
    )


def _look(entry: Entry) -> tuple[object, ...]:
    return entry.kind, entry.id, entry.mode


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
