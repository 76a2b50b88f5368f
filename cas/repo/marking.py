"""Marking: which records the refs of a root keep, in little time and memory for each.

The rules are those of `reach`. What is new at each step is looked up at once, as arrays, and what
has to be opened is read in large spans, pack by pack. Nothing here says what is wrong: where
something is, the slow walk of `reach` goes the same way again and tells it by ref, commit and path.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cas.codec.base import codec_for
from cas.errors import CasError
from cas.ids import CommitId, ObjectId
from cas.objects import canonical
from cas.objects.commit import Commit
from cas.objects.edges import TARGETS
from cas.objects.kind import ID_OF, Kind
from cas.objects.manifest import VERSION as MANIFEST_VERSION
from cas.objects.manifest import Series, State
from cas.objects.node import Node
from cas.progress import SILENT, Progress
from cas.repo.bulkread import BulkReader
from cas.repo.layout import HOLDS
from cas.repo.marks import BASE, LIVE, Live
from cas.repo.reach import Walk
from cas.store.pinned import PinnedStore
from cas.store.recipe import MAX_LEVELS, Recipe
from cas.store.record import RECIPE

if TYPE_CHECKING:
    from cas.repo.repo import Repo
    from cas.repo.root import Root
    from cas.store.rowarray import Numbers

SIZE: Final = ObjectId.SIZE
# Of each kind of manifest: where its ids stand, and where the data of those that need no blob.
COLUMNS: Final[dict[object, dict[str, str]]] = {
    State.KIND: {"ids": "data"},
    Series.KIND: {"steps": "steps_data", "values": "values_data"},
}
SOME: Final = 512  # containers that are opened before what they name is looked up
FEW: Final = 4  # objects that are looked up one by one
MANY: Final = 128 * 1024  # blobs that are looked up at once


def reach(repo: "Repo", root: "Root", refs: Mapping[str, CommitId] | None = None) -> Live:
    """Return what the refs of `root` (or others in their stead) keep; raise CorruptionError."""
    store = PinnedStore(repo.backend, root.packs)
    return mark(store, root.refs if refs is None else refs, root.tombstones)


def mark(
    store: PinnedStore,
    refs: Mapping[str, CommitId],
    tombstones: Collection[ObjectId] = (),
    *,
    progress: Progress = SILENT,
) -> Live:
    """Return what these refs keep in the packs of `store`; raise CorruptionError."""
    progress.start("mark")
    try:
        return Marker(store, tombstones, progress).run(refs)
    except (OddError, CasError, IndexError, KeyError, ValueError):
        return _slowly(store, refs, tombstones)
    finally:
        progress.finish()


class OddError(Exception):
    """Something is not as it should be; the slow walk says what."""


class Marker:
    """One marking at work; raises some error where anything is not as it should be."""

    def __init__(
        self, store: PinnedStore, tombstones: Collection[ObjectId], progress: Progress
    ) -> None:
        import numpy as np

        self._store = store
        self._table = store.table()
        self._reader = BulkReader(store, self._table)
        self._marks = np.zeros(len(self._table), np.uint8)
        self._tombstones = tombstones
        self._progress = progress
        self._commits = 0
        self._deltas: dict[ObjectId, ObjectId] = {}
        self._bases = bytearray()
        self._value = LIVE

    def run(self, refs: Mapping[str, CommitId]) -> Live:
        """Mark what these refs keep."""
        held = {id for name, id in refs.items() if name.startswith(HOLDS)}
        self.history(set(refs.values()), held)
        marks = bytearray(self._marks.data)
        return Live(self._store, marks, self._commits, self._deltas)

    def history(self, tips: Iterable[CommitId], held: Collection[ObjectId]) -> None:
        """Mark commits along every role with their records, and payloads of those that are held."""
        self.content(self._histories(b"".join(tips), held))

    def content(
        self,
        trees: bytearray,
        manifests: bytearray | None = None,
        blobs: bytearray | None = None,
    ) -> None:
        """Mark trees, manifests and blobs, and all that they need."""
        self._closure(trees, manifests or bytearray(), blobs or bytearray())
        self._value = BASE
        while self._bases:
            bases, self._bases = self._bases, bytearray()
            self._blobs(bytes(bases), 0)
        self._value = LIVE

    def _histories(self, tips: bytes, held: Collection[ObjectId]) -> bytearray:
        """Mark commits along every role; return the trees that they keep."""
        trees, frontier = bytearray(), tips
        while frontier:
            above: set[CommitId] = set()
            for number, raw in self._new(frontier, Kind.COMMIT):
                commit = Commit.from_bytes(raw)
                trees += commit.tree
                if commit.payload is not None and self._reader.id(number) in held:
                    trees += commit.payload
                above.update(parent.commit for parent in commit.parents)
                self._commits += 1
            frontier = b"".join(above)
        return trees

    def _closure(self, trees: bytearray, manifests: bytearray, blobs: bytearray) -> None:
        while trees or manifests or blobs:
            some = trees[-SOME * SIZE :]
            del trees[-SOME * SIZE :]
            for _, raw in self._new(bytes(some), Kind.TREE):
                _below(Node.from_bytes(raw), trees, manifests, blobs)
            for _, raw in self._new(bytes(manifests), Kind.MANIFEST):
                blobs += _blobs_of(raw)
            manifests.clear()
            if len(blobs) >= MANY * SIZE or not trees:
                self._blobs(bytes(blobs), 0)
                blobs.clear()

    def _blobs(self, ids: bytes, level: int) -> None:
        from cas.store.rowtable import IS_DELTA

        if not ids:
            return
        fresh = self._fresh(ids, Kind.BLOB)
        codecs = self._table.rows["codec"][fresh]
        is_recipe, is_delta = codecs == RECIPE, IS_DELTA[codecs]
        if is_delta.any():
            self._lean(self._reader.in_place(fresh[is_delta]))
        if not is_recipe.any():
            return
        recipes = self._reader.in_place(fresh[is_recipe])
        if level >= MAX_LEVELS:
            raise OddError
        pieces = bytearray()
        for number, body in self._reader.bodies(recipes):
            pieces += Recipe.from_bytes(body, int(self._table.rows["size"][number])).ids
            if len(pieces) >= MANY * SIZE:
                self._blobs(bytes(pieces), level + 1)
                pieces.clear()
        self._blobs(bytes(pieces), level + 1)

    def _lean(self, deltas: "Numbers") -> None:
        """Note down the bases of deltas, to be marked when all else was."""
        pairs = list(self._reader.bases(deltas))
        bases = b"".join(base for _, base in pairs)
        depth = self._table.rows["depth"]
        found = self._found(bases)
        there = found >= 0
        own = depth[[number for number, _ in pairs]]
        if (depth[found[there]] >= own[there]).any():
            raise OddError
        self._deltas.update((self._reader.id(number), base) for number, base in pairs)
        self._bases += bases

    def _new(self, ids: bytes, kind: Kind) -> Iterator[tuple[int, bytes]]:
        """Mark these objects; yield the bytes of those that had no mark."""
        if len(ids) > FEW * SIZE:
            yield from self._reader.objects(self._reader.in_place(self._fresh(ids, kind)), kind)
            return
        # As along a history, where each commit names the one before it: arrays of one take longer.
        for at in range(0, len(ids), SIZE):
            for number in self._fresh_one(ids[at : at + SIZE], kind):
                yield number, self._read(number, kind)

    def _fresh_one(self, id: bytes, kind: Kind) -> Sequence[int]:
        """Do as `_fresh`, for one object."""
        import numpy as np

        numbers = self._store.joined.numbers(id)
        if len(numbers) != 1 or self._table.rows["kind"][numbers[0]] != kind:
            found: list[int] = self._fresh(id, kind).tolist()
            return found
        claimed: list[int] = self._claimed(np.array(numbers)).tolist()
        self._progress.advance(len(claimed))
        return claimed

    def _read(self, number: int, kind: Kind) -> bytes:
        header, body = self._store.body(self._table.place(number))
        data = codec_for(header.codec).decode(body, header.size)
        if ID_OF[kind](data) != header.id:
            raise OddError
        return bytes(data)

    def _fresh(self, ids: bytes, kind: Kind) -> "Numbers":
        """Mark the records of these objects; return those that had no mark."""
        import numpy as np

        found = self._found(ids)
        lost = np.flatnonzero(found < 0).tolist()
        if any(ObjectId(ids[at * SIZE : at * SIZE + SIZE]) not in self._tombstones for at in lost):
            raise OddError
        found = self._claimed(found[found >= 0])
        if not len(found):
            return found
        rows = self._table.rows
        if (rows["kind"][found] != kind).any():
            raise OddError
        self._progress.advance(len(found))
        return found

    def _claimed(self, found: "Numbers") -> "Numbers":
        """Mark records; return those that had no mark."""
        new = each_once(found[self._marks[found] == 0])
        self._marks[new] = self._value
        return new

    def _found(self, ids: bytes) -> "Numbers":
        """Return the record that everybody takes of each object, -1 where there is none.

        Where there are several, gc gives up the others, so the first one must be good.
        """
        import numpy as np

        table = self._table
        whole = np.frombuffer(ids, f"V{SIZE}")
        while True:
            found = table.find(whole)
            there = found[found >= 0]
            doubtful = each_once(there[table.twins[there]])
            doubtful = doubtful[self._marks[doubtful] == 0]
            bad = [n for n in doubtful.tolist() if not self._store.sound(table.place(n))]
            if not bad:
                return found
            table.bad[bad] = True


def _blobs_of(raw: bytes) -> bytes:
    """Return the ids of the blobs that a manifest needs, one after another.

    Its id vouches for the bytes. To build its rows only to look at their ids would take most of
    the time of a marking.
    """
    value = canonical.decode(raw)
    if not isinstance(value, dict) or value.get("v") != MANIFEST_VERSION:
        raise OddError
    found = bytearray()
    for name, inline in COLUMNS.get(value.get("kind"), {"": ""}).items():
        ids, data = value.get(name), value.get(inline)
        if type(ids) is not bytes or type(data) is not list or len(ids) != SIZE * len(data):
            raise OddError
        for row, item in enumerate(data):
            if item is None:
                found += ids[row * SIZE : row * SIZE + SIZE]
    return bytes(found)


def each_once(numbers: "Numbers") -> "Numbers":
    """Return these numbers in order; ten times as fast as `np.unique` here."""
    import numpy as np

    found = np.sort(numbers)
    first = np.ones(len(found), bool)
    first[1:] = found[1:] != found[:-1]
    once: Numbers = found[first]
    return once


def _below(node: Node, trees: bytearray, manifests: bytearray, blobs: bytearray) -> None:
    """Take apart what a node names by kind."""
    if node.level:
        trees += node.ids
        return
    targets = {Kind.TREE: trees, Kind.MANIFEST: manifests, Kind.BLOB: blobs}
    kinds = set(node.kinds)
    if len(kinds) == 1:
        kind = TARGETS.get(kinds.pop())
        if kind is not None:
            targets[kind] += node.ids
        return
    for row, byte in enumerate(node.kinds):
        kind = TARGETS.get(byte)
        if kind is not None:
            targets[kind] += node.ids[row * SIZE : row * SIZE + SIZE]


def _slowly(
    store: PinnedStore, refs: Mapping[str, CommitId], tombstones: Collection[ObjectId]
) -> Live:
    marks = bytearray(len(store.joined))
    commits = 0
    walk = Walk(store, refs, tombstones)
    for visit in walk.visits():
        commits += visit.kind is Kind.COMMIT
        number = store.number(visit.place)
        marks[number] = LIVE
        if visit.id in walk.only_bases:
            marks[number] = BASE
    return Live(store, marks, commits, walk.deltas)
