"""What a commit holds, as one folder: its payload first, then its record.

A name in both is the payload's, unless both are directories: those are seen as one. The payload of
a pruned commit is passed over once gc has taken it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import attrgetter
from typing import Final

from cas.errors import CorruptionError, InvalidInputError, NotFoundError
from cas.ids import CommitId, TreeId
from cas.objects.tree import Entry, EntryKind
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.trees.names import MAX_NESTING, shown

PAYLOAD: Final = "payload"
RECORD: Final = "record"


@dataclass(frozen=True, slots=True)
class Held:
    """An entry, its path in the commit, and the part of the commit that it stands in."""

    part: str
    path: bytes
    entry: Entry

    @property
    def folder(self) -> bool:
        """Whether there is something inside to list."""
        return self.entry.kind is EntryKind.TREE and self.entry.stored


def kept(repo: Repo, id: CommitId) -> bool:
    """Say whether a commit's payload is held; one without a payload is not."""
    return f"{HOLDS}{id}" in repo.root.refs


def parts(repo: Repo, id: CommitId) -> list[tuple[str, TreeId]]:
    """Return the trees of a commit that are there, payload first."""
    commit = repo.commit(id)
    found = [(RECORD, commit.tree)]
    if commit.payload is not None and _present(repo, id, commit.payload):
        found.insert(0, (PAYLOAD, commit.payload))
    return found


def top(repo: Repo, id: CommitId) -> Iterator[list[Held]]:
    """Yield what a commit holds, in order of the names; two directories may be seen as one."""
    return _merged([(part, b"", repo.entries(tree)) for part, tree in parts(repo, id)])


def inside(repo: Repo, folders: Sequence[Held]) -> Iterator[list[Held]]:
    """Yield what is in a directory, which may stand in both parts."""
    for held in folders:
        if held.path.count(b"/") >= MAX_NESTING:
            raise CorruptionError(f"{shown(held.path)} is nested more than {MAX_NESTING} deep")
    return _merged([(held.part, held.path + b"/", repo.entries(held.entry.id)) for held in folders])


def at(repo: Repo, id: CommitId, path: bytes) -> list[Held]:
    """Return what is at a path: one item, or two directories seen as one; raise NotFoundError."""
    trees = parts(repo, id)
    found = [
        Held(part, path, entry)
        for part, tree in trees
        if (entry := repo.lookup(tree, path)) is not None
    ]
    if not found:
        raise NotFoundError("path", shown(path), _why(repo, id, trees))
    return found if all(held.folder for held in found) else found[:1]


def file_at(repo: Repo, id: CommitId, path: bytes) -> Entry:
    """Return the entry of what can be read at a path; raise InvalidInputError for a directory."""
    if not path:
        raise InvalidInputError("a path is wanted: REV:PATH; `cas ls REV` lists them")
    entry = at(repo, id, path)[0].entry
    if entry.kind is EntryKind.TREE:
        raise InvalidInputError(f"{shown(path)} is a directory: `cas ls` lists it")
    if not entry.stored:
        raise NotFoundError("content of", shown(path), "it was only named, not stored")
    return entry


def _merged(folders: Sequence[tuple[str, bytes, Iterator[Entry]]]) -> Iterator[list[Held]]:
    # The order of the parts decides among equal names: merge keeps it.
    rows = [_rows(part, front, entries) for part, front, entries in folders]
    for _, group in groupby(merge(*rows, key=attrgetter("path")), key=attrgetter("path")):
        same = list(group)
        yield same if all(held.folder for held in same) else same[:1]


def _rows(part: str, front: bytes, entries: Iterator[Entry]) -> Iterator[Held]:
    return (Held(part, front + entry.name, entry) for entry in entries)


def _present(repo: Repo, id: CommitId, payload: TreeId) -> bool:
    try:
        repo.node(payload)
    except NotFoundError:
        if kept(repo, id):
            raise CorruptionError(f"the payload of {id.short} is missing: `cas fsck`") from None
        return False
    return True


def _why(repo: Repo, id: CommitId, trees: list[tuple[str, TreeId]]) -> str:
    if len(trees) == 1 and repo.commit(id).payload is not None:
        return f"the payload of {id.short} was pruned"
    return f"`cas ls {id.short}` lists what is there"
