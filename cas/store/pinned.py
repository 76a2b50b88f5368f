"""The store as one root lists it, from the packs alone.

What gc and fsck read through: index files are disposable and nothing that deletes may believe
them, and a look-up must not wander on to a newer root halfway. Reads every footer once.
"""

from collections.abc import Sequence

from cas.backend.base import Backend
from cas.errors import CorruptionError
from cas.ids import ObjectId
from cas.store.index import Place, Segment, Segments, merge
from cas.store.pack import PackInfo
from cas.store.packed import PackedStore


class PinnedStore(PackedStore):
    """Objects by id in exactly these packs."""

    def __init__(self, backend: Backend, packs: Sequence[PackInfo]) -> None:
        """Read all footers; raise NotFoundError or CorruptionError for one that is no good."""
        super().__init__(backend, lambda: packs)
        self.packs = packs
        self._segments: _Footers = _Footers(backend, packs)

    def rows(self, pack: PackInfo) -> Segment:
        """Return the rows of one of the packs, as its footer has them."""
        return self._segments.by_pack[pack.name]

    def places(self, id: ObjectId) -> list[Place]:
        """Return every record of `id` that is not known to be damaged, the one to take first."""
        return [place for place in self.index.find(id) if not self._is_damaged(place)]

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
        footers = self.footers(packs)
        self.by_pack = {segment.packs[0]: segment for segment in footers}
        self._joined = merge(footers)

    def files(self) -> list[Segment]:
        """Return the joined footers in place of index files."""
        return [self._joined]
