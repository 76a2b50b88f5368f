"""Which commits a file on disk belongs to: by its blob id, and by the tensors in it.

A tensor has one id wherever it stands, so a weights file that cas never wrote is still known by
what is in it: by the states that have its tensors, and by the committed files of any kind. Every
tree that refs reach is looked at, each once. What was pruned is gone, the ids of its tensors
included: only kept payloads can be found.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cas.errors import CorruptionError, NotFoundError
from cas.ids import BlobId, CommitId, ManifestId, ObjectId
from cas.lineage.filetensors import Committed, Key, TensorFile, read_file
from cas.lineage.title import title
from cas.objects.commit import Commit
from cas.objects.manifest import State
from cas.objects.tree import Entry, EntryKind
from cas.progress import SILENT, Progress
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.trees.names import MAX_NESTING

NEAREST: Final = 5  # states and files that have only some of a file's tensors

Part = str | int | None
Place = tuple[CommitId, bytes]
Found = tuple[bytes, EntryKind, ObjectId]  # by its path


@dataclass(frozen=True, slots=True)
class Holder:
    """A commit that holds what was looked for, and where in it."""

    commit: CommitId
    kind: str
    title: str
    run: str
    path: str
    time: int | None
    held: bool


@dataclass(frozen=True, slots=True)
class Match:
    """A state, one part of it (`model`), or a committed file that has some of a file's tensors.

    `equal` of the file's tensors are in it; it has `tensors` itself.
    """

    equal: int
    tensors: int
    part: str | None
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a file.

    `exact` are the commits that hold these very bytes. `matches` are states and other files with
    its tensors, most equal tensors first, then the newest. `tensors` is None for a file without
    known tensors; those that are `not_compared` lie in it in another way than row by row. `pruned`
    commits have a payload that is gone.
    """

    path: str
    id: BlobId
    size_bytes: int
    format: str | None
    tensors: int | None
    not_compared: int
    exact: tuple[Holder, ...]
    matches: tuple[Match, ...]
    pruned: int

    @property
    def known(self) -> bool:
        """Whether anything was found."""
        return bool(self.exact or self.matches)


def whence(repo: Repo, path: Path, *, progress: Progress = SILENT) -> Answer:
    """Say which commits the file at `path` belongs to.

    Raises NotFoundError, InvalidInputError for what is no file, BackendError when it cannot be
    read.
    """
    file = read_file(path, progress)
    scan = _Scan(repo, file.id, Committed(repo, file))
    scan.run(progress)
    return Answer(
        path=str(path),
        id=file.id,
        size_bytes=file.size,
        format=file.kind,
        tensors=None if file.kind is None else file.tensors,
        not_compared=file.tensors - len(file.keys),
        exact=tuple(scan.holders(scan.files)),
        matches=tuple(_matches(scan, file)) if file.keys else (),
        pruned=scan.pruned,
    )


@dataclass(slots=True)
class _Scan:
    """One look at every commit that refs reach, and at every tree of theirs."""

    repo: Repo
    wanted: BlobId
    committed: Committed
    commits: dict[CommitId, Commit] = field(default_factory=dict)
    files: list[Place] = field(default_factory=list)
    similar: dict[BlobId, list[Place]] = field(default_factory=dict)
    states: dict[ManifestId, list[Place]] = field(default_factory=dict)
    pruned: int = 0
    _trees: dict[ObjectId, tuple[Found, ...]] = field(default_factory=dict)

    def run(self, progress: Progress) -> None:
        """Look at everything."""
        self._find_commits()
        progress.start("look at commits", len(self.commits))
        for id, commit in self.commits.items():
            self._take(id, self._inside(commit.tree, 0))
            if commit.payload is not None:
                try:
                    self._take(id, self._inside(commit.payload, 0))
                except NotFoundError:
                    self.pruned += 1
            progress.advance()
        progress.finish()

    def holders(self, places: list[Place]) -> Iterator[Holder]:
        """Yield the commits of these places, the newest first."""
        refs = self.repo.root.refs

        def age(place: Place) -> tuple[int, int, bytes]:
            commit = self.commits[place[0]]
            return -(commit.time or 0), -commit.seq, place[1]

        for id, path in sorted(places, key=age):
            commit = self.commits[id]
            yield Holder(
                commit=id,
                kind=commit.kind,
                title=title(self.repo, id),
                run=commit.full_name or "",
                path=path.decode("utf-8", "surrogateescape"),
                time=commit.time,
                held=commit.payload is None or f"{HOLDS}{id}" in refs,
            )

    def newest(self, places: list[Place]) -> int:
        """Return the time of the newest commit of these places."""
        return max((self.commits[id].time or 0 for id, _ in places), default=0)

    def _find_commits(self) -> None:
        pending = list(dict.fromkeys(self.repo.refresh().refs.values()))
        while pending:
            id = pending.pop()
            if id not in self.commits:
                commit = self.commits[id] = self.repo.commit(id)
                pending.extend(parent.commit for parent in commit.parents)

    def _take(self, id: CommitId, inside: tuple[Found, ...]) -> None:
        for path, kind, found in inside:
            if kind is EntryKind.STATE:
                self.states.setdefault(ManifestId(found), []).append((id, path))
            elif found == self.wanted:
                self.files.append((id, path))
            else:
                self.similar.setdefault(BlobId(found), []).append((id, path))

    def _inside(self, tree: ObjectId, depth: int) -> tuple[Found, ...]:
        """Return what is of interest in a directory; each is read once."""
        if tree in self._trees:
            return self._trees[tree]
        if depth > MAX_NESTING:
            raise CorruptionError(f"tree {tree} is nested more than {MAX_NESTING} folders deep")
        found: list[Found] = []
        for entry in self.repo.entries(tree):
            if entry.kind is EntryKind.TREE and entry.stored:
                below = self._inside(entry.id, depth + 1)
                found.extend((entry.name + b"/" + path, kind, id) for path, kind, id in below)
            elif self._matters(entry):
                found.append((entry.name, entry.kind, entry.id))
        self._trees[tree] = tuple(found)
        return self._trees[tree]

    def _matters(self, entry: Entry) -> bool:
        if entry.kind is EntryKind.FILE and entry.id == self.wanted:
            return True
        if entry.kind is EntryKind.FILE and entry.stored:
            return self.committed.score(entry.id, entry.size) is not None
        return entry.kind is EntryKind.STATE and entry.stored


def _matches(scan: _Scan, file: TensorFile) -> Iterator[Match]:
    """Yield what has all of the tensors, or else what has most of them."""
    ranked = [*_of_states(scan, file), *_of_files(scan)]
    ranked.sort(key=lambda row: (-row.equal, -row.newest, row.id))
    whole = [row for row in ranked if row.equal == len(file.keys)]
    for row in whole or ranked[:NEAREST]:
        part = None if row.part is None else str(row.part)
        yield Match(row.equal, row.tensors, part, tuple(scan.holders(row.places)))


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A state or file with some of the tensors."""

    equal: int
    newest: int
    id: ObjectId
    tensors: int
    part: Part
    places: list[Place]


def _of_states(scan: _Scan, file: TensorFile) -> Iterator[_Ranked]:
    for id, places in scan.states.items():
        state = scan.repo.manifest(id)
        if isinstance(state, State):
            equal, size, part = _best_part(state, file.keys)
            found = {(row.id, row.dtype, row.shape) for row in state.rows} if equal else set()
            if equal and file.tells(found, equal):
                yield _Ranked(equal, scan.newest(places), id, size, part, places)


def _of_files(scan: _Scan) -> Iterator[_Ranked]:
    for id, places in scan.similar.items():
        size = scan.repo.store.shape(id)[0]
        score = scan.committed.score(id, size)
        if score is not None:
            yield _Ranked(score[0], scan.newest(places), id, score[1], None, places)


def _best_part(state: State, keys: tuple[Key, ...]) -> tuple[int, int, Part]:
    """Return how many tensors are equal in the part that has most of them, its size and name.

    The whole state comes last: `model` says more, where it has just as many.
    """
    parts: dict[Part, set[Key]] = {}
    sizes: dict[Part, int] = {}
    for row in state.rows:
        key = (row.id, row.dtype, row.shape)
        # A list of arrays, or a bare one, has no parts.
        names: tuple[Part, ...] = (row.path[0], None) if len(row.path) > 1 else (None,)
        for name in names:
            parts.setdefault(name, set()).add(key)
            sizes[name] = sizes.get(name, 0) + 1
    counts = {name: sum(key in found for key in keys) for name, found in parts.items()}
    best = max(counts, key=lambda name: (counts[name], name is not None), default=None)
    return (counts[best], sizes[best], best) if counts else (0, 0, None)
