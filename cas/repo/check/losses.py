"""Which commits are not whole, and what of each is lost: by ref, path and tensor."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from cas.errors import CasError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import Commit
from cas.objects.edges import parse, references
from cas.objects.kind import Kind
from cas.objects.manifest import Series, State
from cas.objects.node import Node, raw_name
from cas.repo.layout import HOLDS
from cas.repo.retain.choice import reached
from cas.repo.root import Root
from cas.store.pinned import PinnedStore
from cas.store.record import DELTAS

MOST: Final = 100  # paths that are named of one commit


@dataclass(frozen=True, slots=True)
class Loss:
    """A commit of which something cannot be read.

    `paths` are at most 100; where it is not known what the commit held, there are none.
    """

    commit: CommitId
    ref: str  # one that leads to it
    name: str  # what it is, for people
    paths: tuple[str, ...]
    record: bool  # something of the record is lost, not of the payload alone


def by_commit(store: PinnedStore, root: Root, bad: Collection[ObjectId]) -> Iterator[Loss]:
    """Yield each commit that is kept and needs one of these objects."""
    if not bad:
        return
    looking = _Tainted(store, bad)
    held = {id for name, id in root.refs.items() if name.startswith(HOLDS)}
    for ref, id, commit in _commits(looking, root):
        if commit is None:
            if id in bad:
                yield Loss(id, ref, f"commit {id.short}", (), record=True)
            continue
        roots = [commit.tree]
        if commit.payload is not None and id in held:
            roots.append(commit.payload)
        paths = [path for tree in roots for path in looking.paths(Kind.TREE, tree)]
        if paths:
            record = looking.is_tainted(Kind.TREE, commit.tree)
            yield Loss(id, ref, _title(id, commit), tuple(paths[:MOST]), record)


def _commits(looking: "_Tainted", root: Root) -> Iterator[tuple[str, CommitId, Commit | None]]:
    """Yield every commit that the refs keep, None where it cannot be read."""
    seen: set[CommitId] = set()
    # Holds last: a run's or tag's name says more.
    for ref in sorted(root.refs, key=lambda name: (name.startswith(HOLDS), name)):
        for id, commit in reached([root.refs[ref]], looking.commit, seen):
            yield ref, id, commit


def _title(id: CommitId, commit: Commit) -> str:
    run = "/".join(part for part in (commit.experiment, commit.run) if part)
    step = "" if commit.step is None else f" at step {commit.step}"
    return f"{commit.kind} {id.short}{f' of {run}' if run else ''}{step}"


class _Tainted:
    """Which objects need one that is bad; each is looked at once."""

    def __init__(self, store: PinnedStore, bad: Collection[ObjectId]) -> None:
        self._store = store
        self._bad = bad
        self._known: dict[ObjectId, bool] = {}

    def commit(self, id: CommitId) -> Commit | None:
        if id in self._bad:
            return None
        try:
            return Commit.from_bytes(self._store.read(Kind.COMMIT, id))
        except CasError:
            return None

    def is_tainted(self, kind: Kind, id: ObjectId) -> bool:
        """Say whether an object or anything below it is bad."""
        known = self._known.get(id)
        if known is None:
            self._known[id] = id in self._bad  # where it leads to itself
            known = id in self._bad or any(self.is_tainted(*edge) for edge in self._below(kind, id))
            self._known[id] = known
        return known

    def paths(self, kind: Kind, id: ObjectId, name: str = "") -> list[str]:
        """Return the paths of what is lost at or below an object, some of them."""
        if not self.is_tainted(kind, id):
            return []
        if kind is Kind.BLOB or id in self._bad:
            return [name or "."]
        found: list[str] = []
        for below, edge, part in self._named(kind, id):
            if len(found) < MOST:
                found += self.paths(
                    below, edge, f"{name}/{part}" if name and part else name or part
                )
        return found

    def _below(self, kind: Kind, id: ObjectId) -> Iterator[tuple[Kind, ObjectId]]:
        try:
            if kind is Kind.BLOB:
                yield from ((Kind.BLOB, below) for below in self._leant_on(id))
            else:
                yield from references(parse(kind, self._store.read(kind, id)))
        except CasError:
            return  # it was bad itself, and a tombstone says so

    def _leant_on(self, id: ObjectId) -> Iterator[ObjectId]:
        """Yield the pieces of a blob, or the base of its delta."""
        for place in self._store.places(id)[:1]:
            if place.row.codec in DELTAS:
                base = self._store.base(place)
                if base is not None:
                    yield base
            elif (recipe := self._store.recipe(place)) is not None:
                yield from (piece for piece, _ in recipe.pieces())

    def _named(self, kind: Kind, id: ObjectId) -> Iterator[tuple[Kind, ObjectId, str]]:
        """Yield what a container holds, with the name that it has there."""
        obj = parse(kind, self._store.read(kind, id))
        names: dict[ObjectId, str] = {}
        match obj:
            case Node(level=0):
                for row, name in enumerate(obj.names):
                    names[obj.id_at(row)] = raw_name(name).decode("utf-8", "replace")
            case State(rows=rows):
                names = {row.id: row.label for row in rows}
            case Series(rows=histories):
                names = {id: row.name for row in histories for id in (row.steps.id, row.values.id)}
        for below, edge in references(obj):
            yield below, edge, names.get(edge, "")
