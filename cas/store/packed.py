"""Reading objects by id from the packs that a root lists.

Bytes are checked against their id before anyone sees them. A record that turns out damaged leaves
look-ups at once: another record of the same object is taken where there is one, and the next
write of its content stores it anew. A reader that misses a pack looks on in newer roots.
"""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from copy import copy
from functools import partial
from typing import Final

from cas.backend.base import Backend, Holding, Uncached
from cas.codec.base import codec_for, delta_for
from cas.errors import CasError, CorruptionError, NotFoundError
from cas.ids import (
    BlobId,
    Buffer,
    ObjectId,
)
from cas.objects.kind import ID_OF, Kind
from cas.store.grouping import Group, Part, Wanted, grouped
from cas.store.index import Index, Place, Segments
from cas.store.pack import PackInfo
from cas.store.pool import ordered
from cas.store.recipe import MAX_LEVELS, Recipe
from cas.store.record import DELTAS, MAX_DEPTH, RECIPE, RecordHeader, base_of

ROOM: Final = 48 * 1024 * 1024  # bytes that are being decoded
POURED: Final = 16 * 1024 * 1024  # the same, where as much again waits to be written
AHEAD: Final = 2  # groups of pieces that are read before they are decoded


class PackedStore:
    """Objects by id over the packs of the newest root."""

    def __init__(self, backend: Backend, packs: Callable[[], Sequence[PackInfo]]) -> None:
        """Read from `backend`; `packs` returns what the newest root lists."""
        self._backend = backend
        self._newest = packs
        self._segments = Segments(backend)
        self._packs: tuple[PackInfo, ...] | None = None
        self.size_bytes = 0  # of all packs together
        self._index: Index | None = None
        self._damaged: set[tuple[bytes, int]] = set()
        self._lock = threading.RLock()
        _everyone.add(self)

    @property
    def index(self) -> Index:
        """The index over the packs that were listed when it was last refreshed."""
        if self._index is None:
            self.refresh()
        assert self._index is not None
        return self._index

    @property
    def missing(self) -> Collection[str]:
        """Keys of the listed packs that were looked for and are not there."""
        return self._segments.missing

    def forked(self) -> None:
        """Start afresh in a forked child, where no thread lives on that held the lock."""
        self._lock = threading.RLock()

    def refresh(self) -> bool:
        """Look up in what the newest root lists from now on; say whether that changed."""
        with self._lock:
            return self._refresh()

    def _refresh(self) -> bool:
        packs = tuple(self._newest())
        if self._packs is not None and not set(self._packs) <= set(packs):
            self._let_go()
        while packs != self._packs:
            try:
                self._packs, self._index = packs, Index(self._segments, packs)
                self.size_bytes = sum(info.length for info in packs)
            except NotFoundError as error:
                # A pack was collected since its root was read: the newest one lists others.
                before, packs = packs, tuple(self._newest())
                if packs == before:
                    # A lost pack must not keep anybody from what stands in the others.
                    self._segments.missing.add(error.name)
            else:
                return True
        return False

    def _let_go(self) -> None:
        """Hold no file open of a pack that was collected: its space would not be free."""
        if isinstance(self._backend, Holding):
            self._backend.close()

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

    def for_bulk(self) -> "PackedStore":
        """Return this store as one that reads much once; the two share what they know."""
        if not isinstance(self._backend, Uncached):
            return self
        other = copy(self)
        other._backend = self._backend.uncached()
        _everyone.add(other)
        return other

    def read(self, kind: Kind, id: ObjectId) -> bytes:
        """Return an object's bytes; raise NotFoundError or CorruptionError."""
        if kind is Kind.BLOB:
            return b"".join(self.pieces(BlobId(id)))
        return bytes(self._joined(kind, id))

    def whole(self, id: BlobId) -> Buffer:
        """Return a blob's bytes, read on this thread: a job of the pool waits for no other."""
        return self._joined(Kind.BLOB, id)

    def pieces(self, id: BlobId) -> Iterator[Buffer]:
        """Yield a blob's bytes piece by piece, each checked, in bounded memory."""
        return self.slice(id)

    def slice(self, id: BlobId, start: int = 0, stop: int | None = None) -> Iterator[Buffer]:
        """Yield a blob's bytes from `start` up to `stop`; only the pieces there are read.

        Each piece is checked against its id. Less is yielded where the blob ends before `stop`.
        """
        parts = self._spread(id, None, start, stop, MAX_LEVELS)
        return ordered(((partial(self._part, part), part.size) for part in parts), ROOM)

    def pour(self, id: BlobId, room: Callable[[int], memoryview]) -> Iterator[int]:
        """Put a blob's pieces where `room` says, which is asked for each in order.

        Yields the size of each piece in order, once it is there. Nothing is written any more when
        this ends.
        """
        parts = self._spread(id, None, 0, None, MAX_LEVELS)
        return self._filled((Wanted(part, room(part.size)) for part in parts), POURED)

    def fill(self, id: BlobId, target: memoryview) -> None:
        """Write a blob's bytes into `target`, which has exactly its size."""
        self.fill_all([(id, target)])

    def fill_all(self, wanted: Iterable[tuple[BlobId, memoryview]]) -> None:
        """Write blobs into targets of exactly their sizes, on all cores."""
        for _ in self._filled(self._targets(wanted), ROOM):
            pass

    def body(self, place: Place) -> tuple[RecordHeader, memoryview]:
        """Return one record's header and stored body, the checksum compared."""
        header, body = self._record(place)
        if header.checksum(body) != header.check:
            raise CorruptionError(f"the record of {header.id} is damaged")
        return header, body

    def recipe(self, place: Place) -> Recipe | None:
        """Return the recipe of an object that is stored as one."""
        if place.row.codec != RECIPE:
            return None
        _, body = self.body(place)
        return Recipe.from_bytes(body, place.row.size)

    def _targets(self, wanted: Iterable[tuple[BlobId, memoryview]]) -> Iterator[Wanted]:
        for id, target in wanted:
            at = 0
            for part in self._spread(id, len(target), 0, None, MAX_LEVELS):
                yield Wanted(part, target[at : at + part.size])
                at += part.size

    def _filled(self, wanted: Iterable[Wanted], room: int) -> Iterator[int]:
        """Write pieces into their targets, and yield the size of each once it is there.

        What stands together is read together, while what came before is decoded.
        """
        groups: deque[Group] = deque()

        def reads() -> Iterator[tuple[Callable[[], bytes | None], int]]:
            for group in grouped(wanted):
                groups.append(group)
                yield partial(self._read_group, group), 1

        def fills() -> Iterator[tuple[Callable[[], list[int]], int]]:
            for raw in ordered(reads(), AHEAD, beside=True):
                group = groups.popleft()
                yield partial(self._fill_group, group, raw), group.size

        with closing(ordered(fills(), room)) as done:
            for sizes in done:
                yield from sizes

    def _read_group(self, group: Group) -> bytes | None:
        """Return the bytes of a group; None where each record has to be looked for by itself."""
        try:
            (raw,) = self._backend.read(group.key, [group.span])
        except CasError:
            return None
        return raw

    def _fill_group(self, group: Group, raw: bytes | None) -> list[int]:
        if raw is None:
            return [self._fill(part, target) for part, target in group.wanted]
        return [self._fill(*wanted, record) for wanted, record in group.records(raw)]

    def _record(self, place: Place, raw: Buffer | None = None) -> tuple[RecordHeader, memoryview]:
        row = place.row
        if raw is None:
            (raw,) = self._backend.read(place.pack.key, [row.span])
        header = RecordHeader.from_bytes(raw)
        stated = (header.id, header.kind, header.codec, header.depth, header.size, header.stored)
        if stated != (row.id, row.kind, row.codec, row.depth, row.size, row.stored):
            raise CorruptionError(f"the record of {row.id} is not what its index says")
        return header, memoryview(raw)[RecordHeader.SIZE :]

    def _spread(
        self, id: BlobId, expected: int | None, start: int, stop: int | None, levels: int
    ) -> Iterator[Part]:
        """Yield the pieces stored whole that hold a blob's bytes from `start` up to `stop`."""
        place, recipe = self._found(id)
        size = place.row.size
        if expected is not None and size != expected:
            raise CorruptionError(f"blob {id} does not have the {expected} bytes it is named with")
        stop = size if stop is None else min(stop, size)
        if recipe is None:
            if start < stop or not size:
                yield Part(id, size, start, stop, place)
            return
        if levels <= 0:
            raise CorruptionError(f"the recipe of {id} is nested more than {MAX_LEVELS} deep")
        at = 0
        for piece, length in recipe.pieces():
            if start < at + length and at < stop:
                low, high = max(start - at, 0), min(stop - at, length)
                yield from self._spread(piece, length, low, high, levels - 1)
            at += length

    def shape(self, id: BlobId) -> tuple[int, Recipe | None]:
        """Return the size of a blob, and its recipe when it is stored as one."""
        place, recipe = self._found(id)
        return place.row.size, recipe

    def _found(self, id: BlobId) -> tuple[Place, Recipe | None]:
        place, recipe = self.find(id), None
        if place is not None and place.row.codec == RECIPE:
            _, recipe = self._open(Kind.BLOB, id, place=place)
            place = self.find(id)
        if place is None:
            raise self._nowhere(Kind.BLOB, id)
        return place, recipe

    def _part(self, part: Part) -> Buffer:
        data = self._joined(Kind.BLOB, part.id, place=part.place)
        if (part.start, part.stop) == (0, len(data)):
            return data
        return memoryview(data)[part.start : part.stop]

    def _fill(self, part: Part, target: memoryview, record: Buffer | None = None) -> int:
        data = self._joined(Kind.BLOB, part.id, target, place=part.place, record=record)
        if data is not target:
            target[:] = data
        return len(target)

    def _joined(
        self,
        kind: Kind,
        id: ObjectId,
        target: memoryview | None = None,
        *,
        below: int = MAX_DEPTH + 1,
        levels: int = MAX_LEVELS,
        place: Place | None = None,
        record: Buffer | None = None,
        size: int | None = None,
    ) -> Buffer:
        """Return an object whole, on this thread; in `target` where that could be done.

        Where it must have a `size`, nothing is read of one that has another.
        """
        if size is not None:
            place = place or self.find(id)
            if place is not None and place.row.size != size:
                raise CorruptionError(f"{id} has {place.row.size} bytes, not {size} bytes as named")
        whole, recipe = self._open(kind, id, target, below=below, place=place, record=record)
        if recipe is None:
            return whole
        if levels <= 0:
            raise CorruptionError(f"the recipe of {id} is nested more than {MAX_LEVELS} deep")
        pieces = [
            self._joined(Kind.BLOB, piece, below=below, levels=levels - 1, size=size)
            for piece, size in recipe.pieces()
        ]
        if [len(piece) for piece in pieces] != list(recipe.sizes):
            raise CorruptionError(f"the pieces of {id} have not the sizes that its recipe says")
        return b"".join(pieces)

    def _open(
        self,
        kind: Kind,
        id: ObjectId,
        target: memoryview | None = None,
        *,
        below: int = MAX_DEPTH + 1,
        place: Place | None = None,
        record: Buffer | None = None,
    ) -> tuple[Buffer, Recipe | None]:
        """Return an object whole, or its recipe, from the first record that is not damaged.

        `place` is where it was found just now, if it was, and `record` what was read there.
        """
        problem: CorruptionError | None = None
        place = place or self.find(id)
        while place is not None:
            if place.row.kind != kind:
                # Whoever named it is wrong, not the record: it stays in look-ups.
                raise CorruptionError(f"{id} is not a {kind.name.lower()}")
            if place.row.depth >= below:
                raise CorruptionError(f"{id} is the base of a delta that is not deeper than it")
            try:
                return self._decode(kind, place, target, record)
            except CorruptionError as error:
                self._damaged.add((place.pack.name, place.row.offset))
                problem = error
            except NotFoundError:
                # The pack was collected since its root was read: look in what the newest lists.
                if not self.refresh():
                    self._damaged.add((place.pack.name, place.row.offset))
                    problem = CorruptionError(f"{place.pack.key} is listed, and missing")
            place, record = self.find(id), None
        raise problem or self._nowhere(kind, id)

    def _nowhere(self, kind: Kind, id: ObjectId) -> NotFoundError | CorruptionError:
        lost = sorted(self._segments.missing)
        if not lost:
            return NotFoundError(kind.name.lower(), str(id))
        return CorruptionError(
            f"{kind.name.lower()} {id} cannot be found: {lost[0]} is listed, and missing: "
            "restore it from a copy, and look with `cas fsck`"
        )

    def _base(self, id: BlobId, header: RecordHeader) -> Buffer:
        try:
            return self._joined(Kind.BLOB, id, below=header.depth, size=header.size)
        except NotFoundError as error:
            # Of this record: another of the same object may do without.
            raise CorruptionError(f"the base {id} of {header.id} is missing") from error

    def _decode(
        self, kind: Kind, place: Place, target: memoryview | None, record: Buffer | None
    ) -> tuple[Buffer, Recipe | None]:
        if place.row.codec == RECIPE:
            if kind is not Kind.BLOB:
                raise CorruptionError(f"{place.row.id} is a {kind.name.lower()} as a recipe")
            return b"", self.recipe(place)
        header, body = self._record(place, record)
        if target is not None and len(target) != header.size:
            raise CorruptionError(f"{header.id} has {header.size} bytes, not {len(target)}")
        data: Buffer
        if header.codec in DELTAS:
            base = self._base(base_of(body), header)
            data = memoryview(bytearray(header.size)) if target is None else target
            delta_for(header.codec).decode_into(body[ObjectId.SIZE :], base, data)
        elif target is None:
            data = codec_for(header.codec).decode(body, header.size)
        else:
            data = target
            codec_for(header.codec).decode_into(body, target)
        # The id says more than the record's checksum: that one is left to who does not decode.
        if ID_OF[kind](data) != header.id:
            raise CorruptionError(f"the bytes stored for {header.id} are not its bytes")
        return data, None


_everyone: "weakref.WeakSet[PackedStore]" = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_everyone):
        store.forked()


os.register_at_fork(after_in_child=_after_fork)
