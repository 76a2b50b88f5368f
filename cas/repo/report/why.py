"""Why an object is kept: the shortest way to it from a ref, and how many other refs keep it.

Every container that is live is opened once, and asked what it names. From the object the way goes
back to those that name it, and so on up to the refs. A payload is kept by its commit's hold alone:
there the way ends, whatever leads to the commit.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.errors import AmbiguousError, CasError, InvalidInputError, NotFoundError, RefusedError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import Commit
from cas.objects.edges import parse
from cas.objects.kind import Kind
from cas.objects.manifest import Series, State, manifest_from_bytes
from cas.objects.node import Node, raw_name
from cas.progress import SILENT, Progress
from cas.repo.bulkread import BulkReader
from cas.repo.collect.replace import refused
from cas.repo.layout import HOLDS
from cas.repo.marking import mark
from cas.repo.marks import Live
from cas.repo.repo import Repo
from cas.store.pinned import PinnedStore
from cas.store.recipe import Recipe
from cas.store.record import KINDS, RECIPE, RecordHeader

if TYPE_CHECKING:
    from cas.store.rowarray import Numbers

MIN_DIGITS: Final = 4
RECORD: Final = "record"
PAYLOAD: Final = "payload"
PIECE: Final = "piece"
DELTA: Final = "delta"  # what is a delta against the next
SIZE: Final = ObjectId.SIZE


@dataclass(frozen=True, slots=True)
class Step:
    """One object on the way, and what the next one is in it: a name, a role, a piece."""

    kind: Kind
    id: ObjectId
    to: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """What keeps an object: the ref, the way from it, and the other refs that keep it too.

    `ref` is None when nothing does; `stored_bytes` is what gc then takes.
    """

    kind: Kind
    id: ObjectId
    stored_bytes: int
    ref: str | None = None
    steps: tuple[Step, ...] = ()
    others: tuple[str, ...] = ()


def why(repo: Repo, id: ObjectId, *, progress: Progress = SILENT) -> Reason:
    """Return what keeps an object; raise NotFoundError for one that is not stored.

    Raises RefusedError when something that is kept cannot be read.
    """
    root = repo.refresh()
    store = PinnedStore(repo.backend, root.packs)
    places = store.places(id)
    if not places:
        raise NotFoundError("object", str(id), "no pack has it")
    row = places[0].row
    found = Reason(KINDS[row.kind], id, row.stored + RecordHeader.SIZE)
    try:
        live = mark(store, root.refs, root.tombstones, progress=progress)
        if id not in live:
            return found
        ways = _Ways(live, root.refs)
        return ways.reason(found)
    except CasError as error:
        raise refused(error, "told") from error


def starting(repo: Repo, digits: str) -> ObjectId:
    """Return the stored object whose id begins with these hex digits.

    Raises InvalidInputError, NotFoundError, and AmbiguousError when there are several.
    """
    low = digits.lower()
    if len(low) < MIN_DIGITS or not set(low) <= set("0123456789abcdef") or len(low) > 2 * SIZE:
        raise InvalidInputError(f"{digits!r} is no id: {MIN_DIGITS} to {2 * SIZE} hex digits")
    prefix = bytes.fromhex(low[: len(low) // 2 * 2])
    found = {place.row.id for place in repo.store.index.starting(prefix)}
    same = sorted(id for id in found if id.hex().startswith(low))
    if not same:
        raise NotFoundError("object", digits)
    if len(same) > 1:
        raise AmbiguousError(digits, [str(id) for id in same[:8]])
    return same[0]


class _Ways:
    """Who names whom, as far as it leads to one object."""

    def __init__(self, live: Live, refs: Mapping[str, CommitId]) -> None:
        self._live = live
        self._table = live.store.table()
        self._reader = BulkReader(live.store, self._table)
        self._held = {id for name, id in refs.items() if name.startswith(HOLDS)}
        self._refs: dict[ObjectId, list[str]] = {}
        for name, id in refs.items():
            self._refs.setdefault(id, []).append(name)
        self._above: dict[ObjectId, list[tuple[ObjectId, str]]] = {}

    def reason(self, found: Reason) -> Reason:
        """Return the reason with the way that was found."""
        blobs = self._blobs(found.id) if found.kind is Kind.BLOB else set[ObjectId]()
        self._manifests(blobs)
        self._trees(blobs)
        self._commits()
        return self._nearest(found)

    def _blobs(self, id: ObjectId) -> set[ObjectId]:
        """Return the blob and those that are stored by way of it; note who needs whom."""
        recipes = list(self._recipes())
        wanted, new = {id}, {id}
        while new:
            more: set[ObjectId] = set()
            for blob, ids in recipes:
                more |= self._noted(blob, (piece for piece in new if _among(piece, ids)), PIECE)
            for blob, base in self._live.deltas.items():
                if base in new:
                    more |= self._noted(blob, (base,), DELTA)
            new = more - wanted
            wanted |= new
        return wanted

    def _noted(self, above: ObjectId, below: Iterable[ObjectId], how: str) -> set[ObjectId]:
        found = set[ObjectId]()
        for id in below:
            self._above.setdefault(id, []).append((above, how))
            found.add(above)
        return found

    def _recipes(self) -> Iterator[tuple[ObjectId, bytes]]:
        rows = self._table.rows
        for number, body in self._reader.bodies(self._numbers(rows["codec"] == RECIPE)):
            yield self._reader.id(number), Recipe.from_bytes(body, int(rows["size"][number])).ids

    def _manifests(self, blobs: Collection[ObjectId]) -> None:
        if not blobs:
            return
        for number, raw in self._objects(Kind.MANIFEST):
            named = blobs & set(manifest_from_bytes(raw).blobs())  # type: ignore[operator]
            self._noted(self._reader.id(number), named, "")

    def _trees(self, blobs: Collection[ObjectId]) -> None:
        from cas.objects.edges import TARGETS

        for number, raw in self._objects(Kind.TREE):
            node, id = Node.from_bytes(raw), self._reader.id(number)
            if node.level:
                self._noted(id, (node.id_at(row) for row in range(len(node.names))), "")
                continue
            for row, byte in enumerate(node.kinds):
                kind = TARGETS.get(byte)
                if kind is not None and (kind is not Kind.BLOB or node.id_at(row) in blobs):
                    self._noted(id, (node.id_at(row),), "")

    def _commits(self) -> None:
        for number, raw in self._objects(Kind.COMMIT):
            commit, id = Commit.from_bytes(raw), self._reader.id(number)
            self._noted(id, (commit.tree,), RECORD)
            if commit.payload is not None and id in self._held:
                self._noted(id, (commit.payload,), PAYLOAD)
            for parent in commit.parents:
                self._noted(id, (parent.commit,), parent.role)

    def _objects(self, kind: Kind) -> Iterator[tuple[int, bytes]]:
        rows = self._table.rows
        is_whole = (rows["kind"] == kind) & (rows["codec"] != RECIPE)
        return self._reader.objects(self._numbers(is_whole), kind)

    def _numbers(self, mask: "Numbers") -> "Numbers":
        import numpy as np

        return self._reader.in_place(np.flatnonzero(mask & (self._live.array() > 0)))

    def _nearest(self, found: Reason) -> Reason:
        """Go up from the object until there is nothing above any more."""
        down: dict[tuple[ObjectId, bool], tuple[ObjectId, bool, str] | None]
        down = {(found.id, False): None}
        level = [(found.id, False)]
        first: tuple[str, tuple[ObjectId, bool]] | None = None
        refs: set[str] = set()
        while level:
            named = [(name, at) for at in level for name in self._named(*at)]
            refs.update(name for name, _ in named)
            if first is None and named:
                # A name that somebody gave says more than a hold.
                first = min(named, key=lambda one: (one[0].startswith(HOLDS), one[0]))
            above = []
            for id, ends in level:
                for container, how in self._above.get(id, ()) if not ends else ():
                    at = (container, how == PAYLOAD)
                    if at not in down:
                        down[at] = (id, ends, how)
                        above.append(at)
            level = above
        if first is None:
            raise RefusedError(f"no way to {found.id.short} was found: look with `cas fsck`")
        ref, at = first
        others = tuple(sorted(refs - {ref}, key=lambda name: (name.startswith(HOLDS), name)))
        steps = tuple(self._steps(at, down))
        return Reason(found.kind, found.id, found.stored_bytes, ref, steps, others)

    def _named(self, id: ObjectId, ends: bool) -> list[str]:
        names = self._refs.get(id, [])
        return [name for name in names if name.startswith(HOLDS)] if ends else names

    def _steps(
        self,
        at: tuple[ObjectId, bool],
        down: Mapping[tuple[ObjectId, bool], tuple[ObjectId, bool, str] | None],
    ) -> Iterator[Step]:
        while (below := down[at]) is not None:
            id, ends, how = below
            kind = self._kind(at[0])
            yield Step(kind, at[0], how or self._name(kind, at[0], id))
            at = (id, ends)
        yield Step(self._kind(at[0]), at[0])

    def _kind(self, id: ObjectId) -> Kind:
        return KINDS[self._live.store.places(id)[0].row.kind]

    def _name(self, kind: Kind, container: ObjectId, id: ObjectId) -> str:
        """Return what an object is called in what names it."""
        match parse(kind, self._live.store.read(kind, container)):
            case Node(level=0) as node:
                rows = (row for row in range(len(node.names)) if node.id_at(row) == id)
                return raw_name(node.names[next(rows)]).decode("utf-8", "replace")
            case State(rows=rows):
                return next(row.label for row in rows if row.id == id)
            case Series(rows=rows):
                return next(row.name for row in rows if id in {row.steps.id, row.values.id})
        return ""


def _among(id: ObjectId, ids: bytes) -> bool:
    at = ids.find(id)
    while at >= 0 and at % SIZE:
        at = ids.find(id, at + 1)
    return at >= 0
