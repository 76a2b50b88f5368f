"""What can be saved of a damaged pack: every record that is whole, and the rest as bytes.

A record has its own checksum, so that it vouches for itself, with or without a footer. Where the
footer is good it also says where records stand, and what the header of a damaged one said.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cas.backend.base import Span
from cas.backend.local import LocalBackend
from cas.codec.base import codec_for, delta_for
from cas.errors import BackendError, CasError, UnsupportedError
from cas.ids import ObjectId
from cas.objects.kind import ID_OF, Kind
from cas.store.pack import HEADER, PackInfo, Row, read_footer
from cas.store.packed import PackedStore
from cas.store.recipe import Recipe
from cas.store.record import DELTAS, KINDS, MAGIC, RECIPE, RecordHeader, base_of

STEP: Final = 4 * 1024 * 1024
BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class Saved:
    """A record that is whole."""

    offset: int
    header: RecordHeader
    body: bytes


@dataclass(frozen=True, slots=True)
class Ruined:
    """Bytes that are no whole record, from where in the pack."""

    offset: int
    data: bytes


def salvaged(
    backend: LocalBackend, pack: PackInfo, store: PackedStore | None = None
) -> Iterator[Saved | Ruined]:
    """Yield what a pack file holds from front to back, each byte of its records once.

    With a `store`, deltas are tried on their bases where only that tells.
    """
    yield from _Salvage(backend, pack, store).parts()


class _Salvage:
    """One pack file, gone through from front to back."""

    def __init__(self, backend: LocalBackend, pack: PackInfo, store: PackedStore | None) -> None:
        self._backend = backend
        self._key = pack.key
        self._store = store
        self._rows: Mapping[int, Row] = {}
        self._end = backend.size(pack.key) or 0
        # Without a footer every record must vouch for itself.
        with suppress(CasError):
            self._rows = {row.offset: row for row in read_footer(backend, pack)}
            self._end = min(self._end, max(map(_end, self._rows.values()), default=HEADER.size))

    def parts(self) -> Iterator[Saved | Ruined]:
        at = min(HEADER.size, self._end)
        while at < self._end:
            found = self._record(at) or self._by_footer(at)
            if found is not None:
                yield found
                at += RecordHeader.SIZE + found.header.stored
                continue
            after = self._next(at + 1)
            yield Ruined(at, self._read(at, after))
            at = after

    def _record(self, at: int) -> Saved | None:
        """Return the record that stands here, None when it is not whole."""
        try:
            header = RecordHeader.from_bytes(self._read(at, at + RecordHeader.SIZE))
            stop = at + RecordHeader.SIZE + header.stored
            if stop > self._end:
                return None
            body = self._read(at + RecordHeader.SIZE, stop)
            good = header.checksum(body) == header.check and _is_what_it_says(header, body)
        except CasError:
            return None
        return Saved(at, header, body) if good else None

    def _by_footer(self, at: int) -> Saved | None:
        """Return a record of which only the header is damaged: the footer has all that it said."""
        row = self._rows.get(at)
        if row is None or row.kind not in KINDS or _end(row) > self._end:
            return None
        body = self._read(at + RecordHeader.SIZE, _end(row))
        kind = KINDS[row.kind]
        header = RecordHeader.of(kind, row.codec, row.id, row.size, body, depth=row.depth)
        try:
            return Saved(at, header, body) if _proven(header, body, self._store) else None
        except CasError:
            return None

    def _next(self, at: int) -> int:
        """Return where the next record begins: as the footer says, else where a whole one does."""
        if self._rows:
            return min((offset for offset in self._rows if offset >= at), default=self._end)
        while at < self._end:
            stop = min(at + STEP, self._end)
            chunk = self._read(at, min(stop + len(MAGIC) - 1, self._end))
            found = chunk.find(MAGIC)
            while found >= 0:
                if self._record(at + found) is not None:
                    return at + found
                found = chunk.find(MAGIC, found + 1)
            at = stop
        return self._end

    def _read(self, start: int, stop: int) -> bytes:
        """Return bytes of the pack; where the medium gives no answer, zeros, block by block."""
        length = min(stop, self._end) - start
        try:
            (raw,) = self._backend.read(self._key, [Span(start, length)])
        except BackendError:
            if length <= BLOCK:
                return b"\0" * length
            middle = start + length // 2
            return self._read(start, middle) + self._read(middle, start + length)
        return raw


def _end(row: Row) -> int:
    return row.offset + RecordHeader.SIZE + row.stored


def _is_what_it_says(header: RecordHeader, body: bytes) -> bool:
    """Say whether a record whose checksum is right makes what its id names, as far as it shows."""
    if header.codec in DELTAS:
        return True
    try:
        return _proven(header, body, None)
    except UnsupportedError:
        return True  # a newer cas can read it


def _proven(header: RecordHeader, body: bytes, store: PackedStore | None) -> bool:
    if header.codec == RECIPE:
        Recipe.from_bytes(body, header.size)  # has a digest of its own
        return header.kind is Kind.BLOB
    if header.codec in DELTAS:
        if store is None:
            return False
        data = bytearray(header.size)
        base = store.whole(base_of(body))
        delta_for(header.codec).decode_into(body[ObjectId.SIZE :], base, memoryview(data))
        return ID_OF[header.kind](data) == header.id
    return ID_OF[header.kind](codec_for(header.codec).decode(body, header.size)) == header.id
