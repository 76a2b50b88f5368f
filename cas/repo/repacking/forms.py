"""As what pieces are stored, what reading them costs, and which of several forms to take.

The rule is the cost of reading: a delta is taken only while the stored bytes that are needed to
decode it, bases included, stay within twice those of the full form. Its base is the piece of the
commit before for as long as that is so, then the full form at the end of that piece's bases, the
key frame. A key frame is left behind for a new one when a delta against it takes more than its
pieces do on average, key frame included: later ones would take more still.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cas.ids import BlobId, Buffer, ObjectId
from cas.store.index import Place
from cas.store.pack import Row
from cas.store.pinned import PinnedStore
from cas.store.record import DELTAS, MAX_DEPTH, RECIPE, RecordHeader, base_of
from cas.store.segment import row_at

REACH: Final = 2  # reading a delta and its bases, in full forms
CODEC: Final = Row.LAYOUT.size - 7  # where a row says how its record is encoded
GAIN: Final = 0.97  # of the full form: a delta that is hardly smaller is not worth its base
HOPE: Final = 0.7  # of the base's own delta: what the next one is hoped to be at best


@dataclass(frozen=True, slots=True)
class Form:
    """A piece as it is stored: its depth, its bytes, and those that reading it takes."""

    id: BlobId
    depth: int
    stored: int
    cost: int
    key: BlobId
    base: BlobId | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """A key frame with all deltas that lead to it: how many they are, and their bytes."""

    pieces: int
    stored: int

    @property
    def mean(self) -> float:
        """The bytes of one of them on average."""
        return self.stored / self.pieces


@dataclass(frozen=True, slots=True)
class Option:
    """A base that may be tried; a delta of more than `most` bytes is not taken."""

    base: Form
    most: int


class Forms:
    """The form of each piece: as a store has it, but for those that were decided on since."""

    def __init__(self, store: PinnedStore) -> None:
        self._store = store
        self._made: dict[BlobId, Form] = {}
        self._families: dict[BlobId, Family] = {}
        self.pinned: set[ObjectId] = set()  # bases: they must not become deeper
        # Kept here, because the packs that they are read from go one by one.
        self._bases: dict[BlobId, BlobId] = {}
        for place, base in deltas(store):
            self.pinned.add(base)
            taken = store.places(place.row.id)[0]
            if (taken.pack, taken.row.offset) == (place.pack, place.row.offset):
                self._bases[BlobId(place.row.id)] = base
        for id in self._bases:
            if (form := self.of(id)) is not None:
                self._count(form, 1)

    def of(self, id: BlobId, below: int = MAX_DEPTH + 1) -> Form | None:
        """Return the form that is read for a piece; None when it is not there in one record.

        One that is not less deep than `below` is no form either: it could not be read.
        """
        if id in self._made:
            return self._made[id]
        places = self._store.places(id)
        if not places or places[0].row.codec == RECIPE:
            return None
        row = places[0].row
        if row.depth >= below:
            return None
        if row.codec not in DELTAS:
            return Form(id, 0, row.stored, row.stored, id)
        base = self._bases.get(id)
        under = None if base is None else self.of(base, row.depth)
        if under is None:
            return None
        return Form(id, row.depth, row.stored, row.stored + under.cost, under.key, under.id)

    def decided(self, header: RecordHeader, body: Buffer) -> None:
        """Take note of a piece's new record: a delta."""
        base = self.of(base_of(body))
        assert base is not None
        id = BlobId(header.id)
        if (before := self.of(id)) is not None and before.depth:
            self._count(before, -1)
        cost = header.stored + base.cost
        self._made[id] = Form(id, header.depth, header.stored, cost, base.key, base.id)
        self._count(self._made[id], 1)
        self.pinned.add(base.id)

    def undo(self, ids: Iterable[BlobId]) -> None:
        """Forget what was decided on pieces: their records were not listed."""
        for id in ids:
            if (form := self._made.pop(id, None)) is not None:
                self._count(form, -1)
                before = self.of(id)
                if before is not None and before.depth:
                    self._count(before, 1)

    def options(self, id: BlobId, bases: Iterable[BlobId], *, smallest: bool) -> list[Option]:
        """Return the bases to try for a piece, the best first; none when it stays as it is."""
        form = self.of(id)
        if form is None or id in self.pinned or (form.depth and not smallest):
            return []
        found: dict[BlobId, Option] = {}
        for near in filter(None, map(self.of, bases)):
            key = near if near.key == near.id else self.of(near.key)
            for base in (near, key) if key is not None else ():
                if base.id == form.base:
                    return list(found.values())  # what would come next is what it has
                most = self._most(form, base, near, smallest=smallest)
                if most > 0 and base.id != id:
                    found.setdefault(base.id, Option(base, most))
        return list(found.values())

    def _most(self, form: Form, base: Form, near: Form, *, smallest: bool) -> int:
        """Return the most bytes that a delta against this base may have, 0 for none at all."""
        most = int(form.stored * GAIN)
        if base.depth >= MAX_DEPTH:
            return 0
        if smallest:
            return most
        most = min(most, REACH * form.stored - base.cost)
        if base.depth and most < base.stored * HOPE:
            return 0
        if base is not near and near.depth == 1:
            # The pieces before are deltas against the key frame too, from ever further away.
            most = min(most, int(self._families[base.id].mean))
        return most

    def _count(self, form: Form, pieces: int) -> None:
        """Add a delta to the family of its key frame, or take it out."""
        key = self.of(form.key)
        family = self._families.get(form.key, Family(1, key.stored if key else 0))
        stored = family.stored + pieces * form.stored
        self._families[form.key] = Family(family.pieces + pieces, stored)


def deltas(store: PinnedStore) -> Iterator[tuple[Place, BlobId]]:
    """Yield every delta in the packs of a store, with its base."""
    for pack in store.packs:
        rows = store.rows(pack)
        codecs = bytes(memoryview(rows.rows)[CODEC :: Row.SIZE])
        for number, codec in enumerate(codecs):
            if codec in DELTAS:
                place = Place(row_at(rows.rows, number), pack)
                base = store.base(place)
                assert base is not None
                yield place, base
