"""Which commits a file on disk belongs to: by its blob id, and by the tensors in it.

A tensor has one id wherever it stands, so a weights file that cas never wrote is still known by
what is in it. Every tree that refs reach is looked at, each once. What was pruned is gone, the ids
of its tensors included: only kept payloads can be found.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from cas.errors import BackendError, CorruptionError, InvalidInputError, NotFoundError
from cas.ids import BlobHasher, BlobId, CommitId, ManifestId, ObjectId
from cas.lineage.title import title
from cas.objects.commit import Commit
from cas.objects.containers.files import FoundTensor, format_of, tensors_in
from cas.objects.manifest import INLINE_LIMIT, State
from cas.objects.tree import EntryKind
from cas.progress import SILENT, Progress
from cas.repo.layout import HOLDS
from cas.repo.names import MAX_NESTING
from cas.repo.repo import Repo

WINDOW: Final = 4 * 1024 * 1024
NEAREST: Final = 5  # states that have only some of a file's tensors

Key = tuple[BlobId, str, tuple[int, ...]]  # id, dtype and shape of a tensor
Part = str | int | None


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
    """A state, or one part of it (`model`), that has some of a file's tensors.

    `equal` of the file's tensors are in it; it has `tensors` itself.
    """

    equal: int
    tensors: int
    part: str | None
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a file.

    `exact` are the commits that hold these very bytes. `matches` are states with its tensors, most
    equal tensors first, then the newest. `tensors` is None for a file without known tensors; those
    that are `not_compared` lie in it in another way than row by row. `pruned` commits have a
    payload that is gone.
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
    contents = _read(path, progress)
    scan = _Scan(repo, contents.id)
    scan.run(progress)
    keys = [key for key in contents.keys if key is not None]
    return Answer(
        path=str(path),
        id=contents.id,
        size_bytes=contents.size,
        format=contents.format,
        tensors=None if contents.format is None else len(contents.keys),
        not_compared=len(contents.keys) - len(keys),
        exact=tuple(scan.holders(scan.files)),
        matches=tuple(_matches(scan, keys)) if keys else (),
        pruned=scan.pruned,
    )


@dataclass(frozen=True, slots=True)
class _Contents:
    """A file as it was read; a key is None for a tensor that cannot be compared."""

    id: BlobId
    size: int
    format: str | None
    keys: tuple[Key | None, ...]


def _read(path: Path, progress: Progress) -> _Contents:
    try:
        # Not a pipe, which would be waited for, nor anything else that only looks like a file.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInputError(f"{path} is no file: name one file")
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            progress.start("read", size)
            id = _hashed(file, 0, size, progress)
            progress.finish()
            found = tensors_in(file)
            kind = None if found is None else format_of(file)
            ids: dict[tuple[int, int], BlobId] = {}
            keys = tuple(_key(file, tensor, ids) for tensor in found or ())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("file", str(path)) from None
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror or error}") from error
    return _Contents(id, size, kind, keys)


def _key(file: BinaryIO, tensor: FoundTensor, ids: dict[tuple[int, int], BlobId]) -> Key | None:
    if tensor.offset is None:
        return None
    span = (tensor.offset, tensor.nbytes)
    if span not in ids:
        ids[span] = _hashed(file, *span, SILENT)
    return ids[span], tensor.dtype, tensor.shape


def _hashed(file: BinaryIO, offset: int, length: int, progress: Progress) -> BlobId:
    hasher = BlobHasher()
    file.seek(offset)
    while length:
        data = file.read(min(length, WINDOW))
        if not data:
            raise BackendError(f"{file.name} became shorter while it was read: try again")
        hasher.update(data)
        length -= len(data)
        progress.advance(len(data))
    return hasher.id()


@dataclass(frozen=True, slots=True)
class _Inside:
    """What is of interest in a directory, by path below it."""

    files: tuple[bytes, ...] = ()
    states: tuple[tuple[bytes, ManifestId], ...] = ()


@dataclass(slots=True)
class _Scan:
    """One look at every commit that refs reach, and at every tree of theirs."""

    repo: Repo
    wanted: BlobId
    commits: dict[CommitId, Commit] = field(default_factory=dict)
    files: list[tuple[CommitId, bytes]] = field(default_factory=list)
    states: dict[ManifestId, list[tuple[CommitId, bytes]]] = field(default_factory=dict)
    pruned: int = 0
    _trees: dict[ObjectId, _Inside] = field(default_factory=dict)

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

    def holders(self, places: list[tuple[CommitId, bytes]]) -> Iterator[Holder]:
        """Yield the commits of these places, the newest first."""
        refs = self.repo.root.refs

        def age(place: tuple[CommitId, bytes]) -> tuple[int, int, bytes]:
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

    def newest(self, places: list[tuple[CommitId, bytes]]) -> int:
        """Return the time of the newest commit of these places."""
        return max((self.commits[id].time or 0 for id, _ in places), default=0)

    def _find_commits(self) -> None:
        pending = list(dict.fromkeys(self.repo.refresh().refs.values()))
        while pending:
            id = pending.pop()
            if id not in self.commits:
                commit = self.commits[id] = self.repo.commit(id)
                pending.extend(parent.commit for parent in commit.parents)

    def _take(self, id: CommitId, inside: _Inside) -> None:
        self.files.extend((id, path) for path in inside.files)
        for path, state in inside.states:
            self.states.setdefault(state, []).append((id, path))

    def _inside(self, tree: ObjectId, depth: int) -> _Inside:
        """Return what is of interest in a directory; each is read once."""
        if tree in self._trees:
            return self._trees[tree]
        if depth > MAX_NESTING:
            raise CorruptionError(f"tree {tree} is nested more than {MAX_NESTING} folders deep")
        files: list[bytes] = []
        states: list[tuple[bytes, ManifestId]] = []
        for entry in self.repo.entries(tree):
            if entry.kind is EntryKind.FILE and entry.id == self.wanted:
                files.append(entry.name)
            elif entry.kind is EntryKind.STATE and entry.stored:
                states.append((entry.name, ManifestId(entry.id)))
            elif entry.kind is EntryKind.TREE and entry.stored:
                below = self._inside(entry.id, depth + 1)
                files.extend(entry.name + b"/" + path for path in below.files)
                states.extend((entry.name + b"/" + path, id) for path, id in below.states)
        self._trees[tree] = _Inside(tuple(files), tuple(states))
        return self._trees[tree]


def _matches(scan: _Scan, keys: list[Key]) -> Iterator[Match]:
    """Yield the states that have all of the tensors, or else those that have most of them."""
    ranked = []
    for id, places in scan.states.items():
        state = scan.repo.manifest(id)
        if isinstance(state, State):
            equal, size, part = _best_part(state, keys)
            if equal and _tells(state, keys, equal):
                ranked.append((-equal, -scan.newest(places), id, size, part))
    ranked.sort(key=lambda row: row[:3])
    whole = [row for row in ranked if -row[0] == len(keys)]
    for equal, _, id, size, part in whole or ranked[:NEAREST]:
        holders = tuple(scan.holders(scan.states[id]))
        yield Match(-equal, size, None if part is None else str(part), holders)


def _best_part(state: State, keys: list[Key]) -> tuple[int, int, Part]:
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


def _tells(state: State, keys: list[Key], equal: int) -> bool:
    """Say whether equal tensors mean anything: zeros and counters are equal everywhere."""
    if equal == len(keys):
        return True
    sizes: Mapping[Key, int] = {(row.id, row.dtype, row.shape): row.nbytes for row in state.rows}
    return any(sizes.get(key, 0) > INLINE_LIMIT for key in keys)
