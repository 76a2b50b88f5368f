"""Reach: what the refs of a root keep, walked object by object, with words for what is wrong.

Two rules and no third. Any ref keeps its commit and, along every role, all ancestors as records:
the commit and its `tree`. A hold keeps its commit's payload. What an entry only names is not
followed, what has a tombstone may be missing. Commits are walked first, then trees. What is stored
as a delta keeps its base, and that its own.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from cas.errors import BackendError, CasError, CorruptionError, NotFoundError, UnsupportedError
from cas.ids import BlobId, CommitId, ObjectId
from cas.objects.commit import Commit
from cas.objects.edges import Edge, Object, parse, references
from cas.objects.kind import Kind
from cas.objects.manifest import Series, State
from cas.objects.node import Node, raw_name
from cas.repo.layout import HOLDS
from cas.store.index import Place
from cas.store.pinned import PinnedStore
from cas.store.recipe import MAX_LEVELS, Recipe
from cas.store.record import DELTAS, RECIPE


@dataclass(frozen=True, slots=True)
class Where:
    """How a walk came to an object: a container, and how it came to that one."""

    ref: str
    kind: Kind = Kind.COMMIT
    id: ObjectId | None = None
    up: "Where | None" = None

    def inside(self, kind: Kind, id: ObjectId) -> "Where":
        """Return the place inside of an object that was found here."""
        return Where(self.ref, kind, id, self)


@dataclass(frozen=True, slots=True)
class Visit:
    """One object that is kept, and the record that everybody takes for it."""

    kind: Kind
    id: ObjectId
    place: Place


@dataclass(frozen=True, slots=True)
class Trouble:
    """A live object that is missing, damaged or not what it is named as.

    `is_tip` says that a ref points right at it.
    """

    kind: Kind
    id: ObjectId
    where: str
    error: CasError
    is_tip: bool = False

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.id.short} at {self.where}: {self.error}"


def based(store: PinnedStore, place: Place) -> BlobId:
    """Return the base of a delta; raise CorruptionError when it is not stored as a base must be.

    That it is there at all is not looked at.
    """
    base = store.base(place)
    if base is None:
        raise CorruptionError("it is no delta")
    found = store.places(base)
    if found and found[0].row.depth >= place.row.depth:
        raise CorruptionError(f"its base {base.short} is a delta that is no less deep")
    return base


def needs(obj: Object) -> Iterator[Edge]:
    """Yield what must be there when an object is; a payload may be gone with its hold."""
    payload = obj.payload if isinstance(obj, Commit) else None
    return (edge for edge in references(obj) if edge[1] != payload)


def refuse(trouble: Trouble) -> None:
    """Take no trouble: raise CorruptionError, or what the storage or a too new object raised."""
    if isinstance(trouble.error, UnsupportedError):
        raise UnsupportedError(str(trouble)) from trouble.error
    if isinstance(trouble.error, BackendError):
        raise trouble.error
    raise CorruptionError(str(trouble)) from trouble.error


Item = tuple[Kind, ObjectId, int, Where]


class Walk:
    """One walk over everything that some refs keep; each object comes once."""

    def __init__(
        self,
        store: PinnedStore,
        refs: Mapping[str, CommitId],
        tombstones: Collection[ObjectId] = (),
        *,
        trouble: Callable[[Trouble], None] = refuse,
    ) -> None:
        """Walk in `store`; `trouble` is told of what cannot be read, and the walk goes on."""
        self._store = store
        self._refs = refs
        self._tombstones = tombstones
        self._trouble = trouble
        self._bases: list[Item] = []
        self.seen: set[ObjectId] = set()
        self.deltas: dict[ObjectId, ObjectId] = {}  # each with its base
        self.only_bases: set[ObjectId] = set()

    def visits(self) -> Iterator[Visit]:
        """Yield every object that is kept: commits, trees and what is below them, then bases."""
        held = {id for name, id in self._refs.items() if name.startswith(HOLDS)}
        trees: list[tuple[ObjectId, Where]] = []
        # Holds last: a run's or tag's name says more when something is wrong.
        for name in sorted(self._refs, key=lambda name: (name.startswith(HOLDS), name)):
            yield from self._history(self._refs[name], Where(name), held, trees)
        for tree, where in trees:
            yield from self._closure((Kind.TREE, tree, 0, where))
        while self._bases:
            for visit in self._closure(self._bases.pop()):
                self.only_bases.add(visit.id)
                yield visit

    def _history(
        self,
        start: CommitId,
        where: Where,
        held: Collection[ObjectId],
        trees: list[tuple[ObjectId, Where]],
    ) -> Iterator[Visit]:
        pending = [start]
        while pending:
            id = pending.pop()
            found = self._visit(Kind.COMMIT, id, where)
            if found is None:
                continue
            yield found[0]
            commit = found[1]
            assert isinstance(commit, Commit)
            inside = where.inside(Kind.COMMIT, id)
            trees.append((commit.tree, inside))
            if commit.payload is not None and id in held:
                trees.append((commit.payload, inside))
            pending.extend(parent.commit for parent in commit.parents)

    def _closure(self, item: Item) -> Iterator[Visit]:
        pending: list[Item] = [item]
        while pending:
            kind, id, level, at = pending.pop()
            found = self._visit(kind, id, at)
            if found is None:
                continue
            visit, obj = found
            yield visit
            if obj is not None:
                inside = at.inside(kind, id)
                below = [(*edge, 0, inside) for edge in references(obj)]
                pending.extend(reversed(below))
            elif kind is Kind.BLOB and visit.place.row.codec in DELTAS:
                self._keep_base(visit, at)
            elif kind is Kind.BLOB:
                pending.extend(self._pieces(visit, level, at))

    def _keep_base(self, visit: Visit, where: Where) -> None:
        """Note down the base of a delta, to be visited when all else was."""
        try:
            base = based(self._store, visit.place)
        except CasError as error:
            self._report(visit.kind, visit.id, where, error)
            return
        self.deltas[visit.id] = base
        self._bases.append((Kind.BLOB, base, 0, where.inside(Kind.BLOB, visit.id)))

    def _pieces(self, visit: Visit, level: int, where: Where) -> list[Item]:
        """Return the pieces of a blob that is stored as a recipe."""
        try:
            recipe = self._recipe(visit.place, level)
        except CasError as error:
            self._report(visit.kind, visit.id, where, error)
            return []
        if recipe is None:
            return []
        inside = where.inside(Kind.BLOB, visit.id)
        return [(Kind.BLOB, piece, level + 1, inside) for piece, _ in recipe.pieces()]

    def _recipe(self, place: Place, level: int) -> Recipe | None:
        recipe = self._store.recipe(place)
        if recipe is not None and level >= MAX_LEVELS:
            raise CorruptionError(f"its recipes are nested more than {MAX_LEVELS} deep")
        return recipe

    def _visit(
        self, kind: Kind, id: ObjectId, where: Where
    ) -> "tuple[Visit, Object | None] | None":
        """Return an object that was not seen yet, None when it was or is not there."""
        if id in self.seen:
            return None
        self.seen.add(id)
        try:
            return self._open(kind, id)
        except NotFoundError as error:
            if id not in self._tombstones:
                self._report(kind, id, where, error)
        except CasError as error:
            self._report(kind, id, where, error)
        return None

    def _open(self, kind: Kind, id: ObjectId) -> "tuple[Visit, Object | None]":
        # Read before it is placed: a damaged record leaves look-ups, and another is taken.
        obj = None if kind is Kind.BLOB else parse(kind, self._store.read(kind, id))
        place = self._take(id)
        if place is None:
            raise NotFoundError(kind.name.lower(), str(id))
        if place.row.kind != kind or (obj is not None and place.row.codec == RECIPE):
            raise CorruptionError(f"what is stored under its id is no whole {kind.name.lower()}")
        return Visit(kind, id, place), obj

    def _take(self, id: ObjectId) -> Place | None:
        """Return the record that everybody takes.

        Where there are several, gc gives up the others, so the first one must be good.
        """
        places = self._store.places(id)
        while len(places) > 1 and not self._store.sound(places[0]):
            places = self._store.places(id)
        return places[0] if places else None

    def _report(self, kind: Kind, id: ObjectId, where: Where, error: CasError) -> None:
        is_tip = where.id is None and self._refs.get(where.ref) == id
        self._trouble(Trouble(kind, id, self._told(id, where), error, is_tip))

    def _told(self, id: ObjectId, where: Where) -> str:
        """Return ref, commit and path of an object, by reading again what led to it."""
        names: list[str] = []
        at: Where | None = where
        commit = ""
        while at is not None and at.id is not None:
            if at.kind is Kind.COMMIT:
                commit = f" ({at.id.short})"
            else:
                names.append(self._name(at.kind, at.id, id))
            id, at = at.id, at.up
        path = "/".join(name for name in reversed(names) if name)
        return f"{where.ref}{commit}{f': {path}' if path else ''}"

    def _name(self, kind: Kind, container: ObjectId, id: ObjectId) -> str:
        if kind is Kind.BLOB:
            return ""  # a piece has no name of its own
        try:
            obj = parse(kind, self._store.read(kind, container))
        except CasError:
            return ""
        match obj:
            case Node(level=0):
                rows = range(len(obj.names))
                found = (obj.names[row] for row in rows if obj.id_at(row) == id)
                return raw_name(next(found, "")).decode("utf-8", "replace")
            case State(rows=rows):
                return next((row.label for row in rows if row.id == id), "")
            case Series(rows=rows):
                return next((row.name for row in rows if id in {row.steps.id, row.values.id}), "")
        return ""
