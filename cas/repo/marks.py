"""What is live, as one byte for each row of the packs: what `marking` finds and gc decides by.

A repository has millions of objects, so nothing here makes a Python object for each. A mark stands
at the record that everybody takes of an object; other records of it have none.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from cas.ids import ObjectId
from cas.store.index import Place
from cas.store.pack import PackInfo, Row
from cas.store.pinned import PinnedStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cas.store.rowarray import Rows

LIVE: Final = 1
BASE: Final = 2  # kept for nothing but deltas that lean on it


@dataclass(frozen=True, slots=True)
class Live:
    """Everything that a set of refs keeps; a mark for each row of `store`.

    `deltas` leads from each object that is taken as a delta to its base.
    """

    store: PinnedStore = field(repr=False)
    marks: bytearray = field(repr=False)
    commits: int = 0
    deltas: Mapping[ObjectId, ObjectId] = field(default_factory=dict, repr=False)

    @property
    def objects(self) -> int:
        """How many objects are kept."""
        return len(self.marks) - self.marks.count(0)

    @property
    def stored_bytes(self) -> int:
        """How much room their records take, headers included."""
        from cas.store.record import RecordHeader

        rows, marks = self.rows(), self.array()
        return int(rows["stored"][marks > 0].sum()) + RecordHeader.SIZE * self.objects

    @property
    def only_bases(self) -> frozenset[ObjectId]:
        """What is kept for nothing but deltas."""
        return frozenset(self.ids(BASE))

    def __contains__(self, id: ObjectId) -> bool:
        return any(self.marks[number] for number in self.store.joined.numbers(id))

    def ids(self, *marks: int) -> Iterator[ObjectId]:
        """Yield the ids that have one of these marks; any mark when none is named."""
        for number, mark in enumerate(self.marks):
            if mark and (not marks or mark in marks):
                yield self.store.joined.row(number).id

    def needs(self, id: ObjectId) -> bool:
        """Say whether an object is kept for more than deltas that lean on it."""
        return any(self.marks[number] == LIVE for number in self.store.joined.numbers(id))

    def place(self, id: ObjectId) -> Place | None:
        """Return the record that everybody takes of a live object."""
        numbers = self.store.joined.numbers(id)
        found = next((number for number in numbers if self.marks[number]), None)
        return None if found is None else self.store.place(found)

    def takes(self, place: Place) -> bool:
        """Say whether a record is the one that everybody takes of a live object."""
        return bool(self.marks[self.store.number(place)])

    def rows(self, pack: PackInfo | None = None) -> "Rows":
        """Return the rows of one pack as an array, or those of all."""
        import numpy as np

        from cas.store.rowarray import ROW

        low, high = self._span(pack)
        raw = self.store.joined.rows[low * Row.SIZE : high * Row.SIZE]
        return np.frombuffer(raw, ROW)

    def array(self, pack: PackInfo | None = None) -> "npt.NDArray[np.uint8]":
        """Return the marks of the rows of one pack, or of all."""
        import numpy as np

        low, high = self._span(pack)
        return np.frombuffer(memoryview(self.marks)[low:high], np.uint8)

    def marked(self, places: Iterable[Place], mark: int = LIVE) -> "Live":
        """Return the same with these records as well."""
        marks = bytearray(self.marks)
        for place in places:
            marks[self.store.number(place)] = mark
        return replace(self, marks=marks)

    def without(self, recoded: Iterable[ObjectId]) -> "Live":
        """Return what is live when these deltas need their bases no more."""
        gone_deltas = set(recoded)
        deltas = {id: base for id, base in self.deltas.items() if id not in gone_deltas}
        bases = self.only_bases
        needed = {base for id, base in deltas.items() if id not in bases}
        pending = list(needed)
        while pending:
            base = deltas.get(pending.pop())
            if base is not None and base not in needed:
                needed.add(base)
                pending.append(base)
        gone = bases - needed
        marks = bytearray(self.marks)
        for id in gone:
            for number in self.store.joined.numbers(id):
                marks[number] = 0
        left = {id: base for id, base in deltas.items() if id not in gone}
        return replace(self, marks=marks, deltas=left)

    def onto(self, store: PinnedStore) -> "Live":
        """Return the same in other packs: all that stands in a new one counts as live.

        So it is for packs that hold copies of what was live, and for those that others have added.
        """
        known = {pack.name: self._span(pack) for pack in self.store.packs}
        bases = self.only_bases
        marks = bytearray()
        for number, pack in enumerate(store.packs):
            low, high = store.joined.span(number)
            if pack.name in known:
                start, end = known[pack.name]
                marks += self.marks[start:end]
            else:
                rows = map(store.joined.row, range(low, high) if bases else ())
                marks += bytes(BASE if row.id in bases else LIVE for row in rows)
                marks += bytes([LIVE]) * (high - len(marks))
        return replace(self, store=store, marks=marks)

    def _span(self, pack: PackInfo | None) -> tuple[int, int]:
        if pack is None:
            return 0, len(self.marks)
        return self.store.span(pack)
