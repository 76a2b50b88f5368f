"""Packs: many records in one value, with a footer that finds them.

A pack is written once, under its final name, and exists only once a root lists it. Names are
random and never used again. Metadata (manifests, trees, commits, recipes) and data go to separate
packs, since gc treats them differently; a small transaction's few data records stand in its
metadata pack.
Format: docs/format/pack.md.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from struct import Struct
from typing import ClassVar, Self

from cas.backend.base import Backend, Span
from cas.errors import CorruptionError
from cas.ids import Buffer, ObjectId, digest
from cas.store.pool import Lane
from cas.store.record import DELTAS, KINDS, RecordHeader, base_of, check_version

MAGIC = b"CASP"
FOOTER_MAGIC = b"CASF"
VERSION = 1
HEADER = Struct("<4s B B 2x 16s")
FOOTER_HEAD = Struct("<4s B 3x I I")
TRAILER = Struct("<Q 32s 4s B 3x")
ID = ObjectId.SIZE
GATHER = 1024 * 1024
WRITES = 4  # of so much, under way at once


class PackClass(IntEnum):
    """Whether gc rewrites a pack as soon as one object in it is dead."""

    METADATA = 1
    DATA = 2


@dataclass(frozen=True, slots=True)
class PackInfo:
    """What a root says of a pack: its name, how long it is and its footer's digest."""

    name: bytes
    length: int
    footer: bytes
    kind: PackClass

    NAME_SIZE: ClassVar[int] = 16

    @property
    def key(self) -> str:
        """The backend key of the pack."""
        return pack_key(self.name)


def pack_key(name: bytes) -> str:
    """Return the backend key of the pack with this name."""
    return f"packs/{name.hex()}.pack"


@dataclass(frozen=True, slots=True)
class Row:
    """Where one record stands, and what its header says."""

    id: ObjectId
    offset: int
    stored: int
    size: int
    kind: int
    codec: int
    depth: int
    pack: int = 0

    LAYOUT: ClassVar[Struct] = Struct("<32s Q I Q B B B x I")
    SIZE: ClassVar[int] = LAYOUT.size

    def to_bytes(self) -> bytes:
        """Return the row as it stands in a footer or an index."""
        return self.LAYOUT.pack(
            self.id,
            self.offset,
            self.stored,
            self.size,
            self.kind,
            self.codec,
            self.depth,
            self.pack,
        )

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read one row."""
        id_, *rest = cls.LAYOUT.unpack(raw)
        return cls(ObjectId(id_), *rest)

    @property
    def span(self) -> Span:
        """The record's bytes in its pack, header included."""
        return Span(self.offset, RecordHeader.SIZE + self.stored)

    @property
    def end(self) -> int:
        """Where the record ends in its pack."""
        return self.offset + RecordHeader.SIZE + self.stored


@dataclass(frozen=True, slots=True)
class Footer:
    """A pack's rows, sorted by id, and the delta bases it needs from elsewhere."""

    rows: bytes
    bases: bytes = b""

    @classmethod
    def of(cls, rows: Sequence[Row], bases: Iterable[ObjectId] = ()) -> Self:
        """Return the footer of these rows, in any order, whose deltas have these bases."""
        elsewhere = set(bases).difference(row.id for row in rows)
        return cls(b"".join(sorted(row.to_bytes() for row in rows)), b"".join(sorted(elsewhere)))

    def __len__(self) -> int:
        return len(self.rows) // Row.SIZE

    def __iter__(self) -> Iterator[Row]:
        for at in range(0, len(self.rows), Row.SIZE):
            yield Row.from_bytes(self.rows[at : at + Row.SIZE])

    def to_bytes(self) -> bytes:
        """Return the footer as it stands in the pack."""
        head = FOOTER_HEAD.pack(FOOTER_MAGIC, VERSION, len(self), len(self.bases) // ID)
        return head + self.rows + self.bases

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read a footer; raise CorruptionError or UnsupportedError."""
        if len(raw) < FOOTER_HEAD.size:
            raise CorruptionError(f"pack footer cut short at {len(raw)} bytes")
        magic, version, rows, bases = FOOTER_HEAD.unpack_from(raw)
        if magic != FOOTER_MAGIC:
            raise CorruptionError(f"not a pack footer: starts with {magic!r}")
        check_version("pack footer", version, VERSION)
        split = FOOTER_HEAD.size + rows * Row.SIZE
        if len(raw) != split + bases * ID:
            raise CorruptionError(f"a pack footer of {rows} rows has {len(raw)} bytes")
        view = memoryview(raw)
        return cls(bytes(view[FOOTER_HEAD.size : split]), bytes(view[split:]))


class PackWriter:
    """Writes one pack; nothing of it exists for anyone until a root lists it."""

    def __init__(self, backend: Backend, name: bytes, kind: PackClass) -> None:
        self._sink = backend.create(pack_key(name))
        self.name = name
        self.kind = kind
        self.rows: list[Row] = []
        self._bases: set[ObjectId] = set()
        self._gathered: list[Buffer] = []
        self._gathered_bytes = 0
        self._lane = Lane(WRITES)  # on which it goes to the sink
        self._write([HEADER.pack(MAGIC, VERSION, kind, name)], at=0)

    def add(self, header: RecordHeader, body: Buffer) -> Row:
        """Append one record."""
        row = Row(
            header.id,
            self.length,
            header.stored,
            header.size,
            header.kind,
            header.codec,
            header.depth,
        )
        self._write([header.to_bytes(), body], at=self.length)
        self.rows.append(row)
        if header.codec in DELTAS:
            self._bases.add(base_of(body))
        return row

    def seal(self) -> PackInfo:
        """Write the footer and make every byte durable; the name needs `Backend.sync` still."""
        footer = Footer.of(self.rows, self._bases).to_bytes()
        check = digest(footer)
        end = [footer, TRAILER.pack(self.length, check, FOOTER_MAGIC, VERSION)]
        # Nothing more goes on the lane: sealing may itself be a job, which waits for no later one.
        self._lane.settle()
        self._sink.write([*self._gathered, *end])
        self._sink.seal()
        self.length += sum(map(len, end))
        return PackInfo(self.name, self.length, check, self.kind)

    def discard(self) -> None:
        """Remove what was written."""
        self._lane.drop()
        self._sink.discard()

    def _write(self, buffers: Sequence[Buffer], at: int) -> None:
        size = sum(len(buffer) for buffer in buffers)
        self.length = at + size
        self._gathered += buffers
        self._gathered_bytes += size
        # One call for many small records.
        if self._gathered_bytes >= GATHER:
            self._lane.put(partial(self._sink.write, self._gathered))
            self._gathered, self._gathered_bytes = [], 0


def read_footer(backend: Backend, info: PackInfo) -> Footer:
    """Return the footer of a listed pack, checked against what the root says of it."""
    at = info.length - TRAILER.size
    if at < HEADER.size:
        raise CorruptionError(f"pack {info.name.hex()} is listed with {info.length} bytes")
    (raw,) = backend.read(info.key, [Span(at, TRAILER.size)])
    start, check, magic, version = TRAILER.unpack(raw)
    if magic != FOOTER_MAGIC or check != info.footer or not HEADER.size <= start <= at:
        raise CorruptionError(f"pack {info.name.hex()} does not end as its root says")
    check_version("pack", version, VERSION)
    (raw,) = backend.read(info.key, [Span(start, at - start)])
    if digest(raw) != check:
        raise CorruptionError(f"the footer of pack {info.name.hex()} is damaged")
    return Footer.from_bytes(raw)


def check_header(raw: Buffer, info: PackInfo) -> None:
    """Insist that a pack begins as the pack it is listed as."""
    magic, version, kind, name = HEADER.unpack(raw)
    if magic != MAGIC or name != info.name or kind != info.kind:
        raise CorruptionError(f"pack {info.name.hex()} does not begin as its root says")
    check_version("pack", version, VERSION)


def walk(backend: Backend, info: PackInfo, end: int) -> Iterator[tuple[int, RecordHeader]]:
    """Yield every record header up to `end` by stepping over the bodies; needs no footer."""
    at = HEADER.size
    while at + RecordHeader.SIZE <= end:
        (raw,) = backend.read(info.key, [Span(at, RecordHeader.SIZE)])
        if bytes(raw[:4]) == FOOTER_MAGIC:
            return
        header = RecordHeader.from_bytes(raw)
        yield at, header
        at += RecordHeader.SIZE + header.stored


def rebuilt_footer(backend: Backend, info: PackInfo) -> Footer:
    """Return the rows of all records up to the first that is damaged, by walking them."""
    rows: list[Row] = []
    bases: list[ObjectId] = []
    with suppress(CorruptionError):
        for at, head in walk(backend, info, info.length):
            if head.codec in DELTAS:
                (raw,) = backend.read(info.key, [Span(at + RecordHeader.SIZE, ID)])
                bases.append(base_of(raw))
            kind, codec = head.kind, head.codec
            rows.append(Row(head.id, at, head.stored, head.size, kind, codec, head.depth))
    return Footer.of(rows, bases)


def known_kind(row: Row) -> bool:
    """Say whether this version knows the kind that a row states."""
    return row.kind in KINDS
