"""The store as one root lists it, from the packs alone.

What gc and fsck read through: index files are disposable and nothing that deletes may believe
them, and a look-up must not wander on to a newer root halfway. Reads every footer once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cas.backend.base import Backend, Span
from cas.errors import CorruptionError, NotFoundError
from cas.ids import BlobId, ObjectId
from cas.store.index import Place, Segments
from cas.store.joined import Joined
from cas.store.pack import PackInfo, read_footer
from cas.store.packed import PackedStore
from cas.store.record import DELTAS, RecordHeader, base_of
from cas.store.segment import Searched, Segment

if TYPE_CHECKING:
    from cas.store.rowtable import RowTable


class PinnedStore(PackedStore):
    """Objects by id in exactly these packs."""

    def __init__(self, backend: Backend, packs: Sequence[PackInfo]) -> None:
        """Read all footers; raise NotFoundError or CorruptionError for one that is no good."""
        super().__init__(backend, lambda: packs)
        self.backend = backend
        self.packs = packs
        self._segments: _Footers = _Footers(backend, packs)

    def rows(self, pack: PackInfo) -> Segment:
        """Return the rows of one of the packs, as its footer has them."""
        return self._segments.rows(pack.name)

    @property
    def joined(self) -> Joined:
        """The rows of all packs, each with its number; packs count as in `packs`."""
        return self._segments.joined

    def span(self, pack: PackInfo) -> tuple[int, int]:
        """Return the number of a pack's first row, and the one after its last."""
        return self.joined.span(self._segments.numbers[pack.name])

    def number(self, place: Place) -> int:
        """Return the number of a record's row."""
        low, high = self.span(place.pack)
        for number in self.joined.numbers(place.row.id):
            if low <= number < high and self.joined.row(number).offset == place.row.offset:
                return number
        raise NotFoundError("record of", str(place.row.id))

    def place(self, number: int) -> Place:
        """Return the record whose row has this number."""
        row = self.joined.row(number)
        return Place(row, self.packs[row.pack])

    def table(self) -> "RowTable":
        """Return the rows of all packs as arrays."""
        return self.joined.table(self.packs)

    def places(self, id: ObjectId) -> list[Place]:
        """Return every record of `id` that is not known to be damaged, the one to take first."""
        return [place for place in self.index.find(id) if not self._is_damaged(place)]

    def base(self, place: Place) -> BlobId | None:
        """Return what a record is a delta against, None for one that is no delta."""
        if place.row.codec not in DELTAS:
            return None
        span = Span(place.row.offset + RecordHeader.SIZE, ObjectId.SIZE)
        (raw,) = self._backend.read(place.pack.key, [span])
        return base_of(raw)

    def bases(self, pack: PackInfo) -> list[BlobId]:
        """Return the ids that deltas in a pack need and that are not in it."""
        raw = read_footer(self._backend, pack).bases
        size = ObjectId.SIZE
        return [BlobId(ObjectId(raw[at : at + size])) for at in range(0, len(raw), size)]

    def sound(self, place: Place) -> bool:
        """Read one record and compare its checksum; a damaged one leaves look-ups."""
        try:
            self.body(place)
        except CorruptionError:
            self.spurn(place)
            return False
        return True

    def spurn(self, place: Place) -> None:
        """Take a damaged record out of look-ups."""
        self._damaged.add((place.pack.name, place.row.offset))

    def _is_damaged(self, place: Place) -> bool:
        return (place.pack.name, place.row.offset) in self._damaged


class _Footers(Segments):
    """Segments made of footers alone, joined into one."""

    def __init__(self, backend: Backend, packs: Sequence[PackInfo]) -> None:
        super().__init__(backend, strict=True)
        # One by one: they are joined, and none is kept by itself.
        self.joined = Joined((info.name, read_footer(backend, info).rows) for info in packs)
        self.numbers = {info.name: number for number, info in enumerate(packs)}

    def files(self) -> list[Searched]:
        """Return the joined footers in place of index files."""
        return [self.joined]

    def rows(self, name: bytes) -> Segment:
        """Return the rows of one pack."""
        return self.joined.part(self.numbers[name])
