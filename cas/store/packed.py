"""Reading objects by id from the packs that a root lists.

Bytes are checked against their id before anyone sees them. A record that turns out damaged leaves
look-ups at once: another record of the same object is taken where there is one, and the next
write of its content stores it anew. A reader that misses a pack looks on in newer roots.
"""

from collections.abc import Callable, Iterator, Sequence

from cas.backend.base import Backend
from cas.codec.base import codec_for
from cas.errors import CorruptionError, NotFoundError
from cas.ids import (
    BlobId,
    Buffer,
    ObjectId,
)
from cas.objects.kind import ID_OF, Kind
from cas.store.index import Index, Place, Segments
from cas.store.pack import PackInfo
from cas.store.recipe import MAX_LEVELS, Recipe
from cas.store.record import RECIPE, RecordHeader


class PackedStore:
    """Objects by id over the packs of the newest root."""

    def __init__(self, backend: Backend, packs: Callable[[], Sequence[PackInfo]]) -> None:
        """Read from `backend`; `packs` returns what the newest root lists."""
        self._backend = backend
        self._newest = packs
        self._segments = Segments(backend)
        self._packs: tuple[PackInfo, ...] | None = None
        self._index: Index | None = None
        self._damaged: set[tuple[bytes, int]] = set()

    @property
    def index(self) -> Index:
        """The index over the packs that were listed when it was last refreshed."""
        if self._index is None:
            self.refresh()
        assert self._index is not None
        return self._index

    def refresh(self) -> bool:
        """Look up in what the newest root lists from now on; say whether that changed."""
        packs = tuple(self._newest())
        while packs != self._packs:
            try:
                self._packs, self._index = packs, Index(self._segments, packs)
            except NotFoundError as error:
                # A pack was collected since its root was read: the newest one lists others.
                before, packs = packs, tuple(self._newest())
                if packs == before:
                    # A lost pack must not keep anybody from what stands in the others.
                    self._segments.missing.add(error.name)
            else:
                return True
        return False

    def locate(self, id: ObjectId) -> Place | None:
        """Return the record that everybody takes for `id`, without looking for a newer root."""
        for place in self.index.find(id):
            if (place.pack.name, place.row.offset) not in self._damaged:
                return place
        return None

    def find(self, id: ObjectId) -> Place | None:
        """Return the record of `id`; on a miss look on in newer roots before giving up."""
        place = self.locate(id)
        while place is None and self.refresh():
            place = self.locate(id)
        return place

    def read(self, kind: Kind, id: ObjectId) -> bytes:
        """Return an object's bytes; raise NotFoundError or CorruptionError."""
        return b"".join(self._pieces(kind, id, MAX_LEVELS))

    def pieces(self, id: BlobId) -> Iterator[Buffer]:
        """Yield a blob's bytes piece by piece, each checked, in bounded memory."""
        return self._pieces(Kind.BLOB, id, MAX_LEVELS)

    def fill(self, id: BlobId, target: memoryview) -> None:
        """Write a blob's bytes into `target`, which has exactly its size."""
        at = 0
        for piece in self.pieces(id):
            if at + len(piece) > len(target):
                break
            target[at : at + len(piece)] = piece
            at += len(piece)
        else:
            if at == len(target):
                return
        raise CorruptionError(f"blob {id} does not have the {len(target)} bytes it was named with")

    def body(self, place: Place) -> tuple[RecordHeader, memoryview]:
        """Return one record's header and stored body, the checksum compared."""
        row = place.row
        (raw,) = self._backend.read(place.pack.key, [row.span])
        header = RecordHeader.from_bytes(raw)
        body = memoryview(raw)[RecordHeader.SIZE :]
        stated = (header.id, header.kind, header.codec, header.size, header.stored)
        if stated != (row.id, row.kind, row.codec, row.size, row.stored):
            raise CorruptionError(f"the record of {row.id} is not what its index says")
        if header.checksum(body) != header.check:
            raise CorruptionError(f"the record of {row.id} is damaged")
        return header, body

    def recipe(self, place: Place) -> Recipe | None:
        """Return the recipe of an object that is stored as one."""
        if place.row.codec != RECIPE:
            return None
        _, body = self.body(place)
        return Recipe.from_bytes(body, place.row.size)

    def _pieces(self, kind: Kind, id: ObjectId, levels: int) -> Iterator[Buffer]:
        whole, recipe = self._open(kind, id)
        if recipe is None:
            yield whole
            return
        if levels <= 0:
            raise CorruptionError(f"the recipe of {id} is nested more than {MAX_LEVELS} deep")
        for piece, size in recipe.pieces():
            got = 0
            for part in self._pieces(Kind.BLOB, piece, levels - 1):
                got += len(part)
                yield part
            if got != size:
                raise CorruptionError(f"a piece of {id} has {got} bytes instead of {size}")

    def _open(self, kind: Kind, id: ObjectId) -> tuple[Buffer, Recipe | None]:
        """Return an object whole, or its recipe, from the first record that is not damaged."""
        problem: CorruptionError | None = None
        while (place := self.find(id)) is not None:
            if place.row.kind != kind:
                # Whoever named it is wrong, not the record: it stays in look-ups.
                raise CorruptionError(f"{id} is not a {kind.name.lower()}")
            try:
                return self._decode(kind, place)
            except CorruptionError as error:
                self._damaged.add((place.pack.name, place.row.offset))
                problem = error
            except NotFoundError:
                # The pack was collected since its root was read: look in what the newest lists.
                if not self.refresh():
                    self._damaged.add((place.pack.name, place.row.offset))
                    problem = CorruptionError(f"{place.pack.key} is listed, and missing")
        raise problem or self._nowhere(kind, id)

    def _nowhere(self, kind: Kind, id: ObjectId) -> NotFoundError | CorruptionError:
        lost = sorted(self._segments.missing)
        if not lost:
            return NotFoundError(kind.name.lower(), str(id))
        return CorruptionError(
            f"{kind.name.lower()} {id} cannot be found: {lost[0]} is listed, and missing: "
            "restore it from a copy, and look with `cas fsck`"
        )

    def _decode(self, kind: Kind, place: Place) -> tuple[Buffer, Recipe | None]:
        if place.row.codec == RECIPE:
            if kind is not Kind.BLOB:
                raise CorruptionError(f"{place.row.id} is a {kind.name.lower()} as a recipe")
            return b"", self.recipe(place)
        header, body = self.body(place)
        data = codec_for(header.codec).decode(body, header.size)
        if ID_OF[kind](data) != header.id:
            raise CorruptionError(f"the bytes stored for {header.id} are not its bytes")
        return data, None
