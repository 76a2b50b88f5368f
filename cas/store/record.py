"""The stored record: one object's encoded bytes behind a fixed header.

The header has one size, so a reader can step from record to record without decoding any.
Format: docs/format/record.md.
"""

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from cas.codec.base import CodecTag
from cas.errors import CorruptionError, UnsupportedError
from cas.ids import BlobId, Buffer, ObjectId, digest
from cas.objects.kind import Kind

MAGIC = b"CASR"
VERSION = 1
RECIPE = 128  # in the codec field: the body is a recipe, see cas.store.recipe
MAX_DEPTH = 8
MAX_WHOLE = 1 << 30  # what one record decodes to, unless it is a recipe
KINDS = {int(kind): kind for kind in Kind}
DELTAS = frozenset({int(CodecTag.DELTA), int(CodecTag.SPARSE_DELTA)})


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a reader needs before it touches the body; `check` covers both."""

    kind: Kind
    codec: int
    depth: int
    id: ObjectId
    size: int
    stored: int
    check: bytes

    LAYOUT: ClassVar[Struct] = Struct("<4s B B B B 32s Q I 8s")
    SIZE: ClassVar[int] = LAYOUT.size
    CHECK_SIZE: ClassVar[int] = 8
    UNCHECKED: ClassVar[bytes] = b"\0" * CHECK_SIZE

    @classmethod
    def of(
        cls, kind: Kind, codec: int, id: ObjectId, size: int, body: Buffer, *, depth: int = 0
    ) -> Self:
        """Return the header of a record with this body."""
        front = cls.LAYOUT.pack(
            MAGIC, VERSION, kind, codec, depth, id, size, len(body), cls.UNCHECKED
        )[: -cls.CHECK_SIZE]
        check = digest(front, body, size=cls.CHECK_SIZE)
        return cls(kind, codec, depth, id, size, len(body), check)

    def checksum(self, body: Buffer) -> bytes:
        """Return what `check` must be for this body."""
        front = memoryview(self.to_bytes())[: self.SIZE - self.CHECK_SIZE]
        return digest(front, body, size=self.CHECK_SIZE)

    def to_bytes(self) -> bytes:
        """Return the header as it stands on disk."""
        return self.LAYOUT.pack(
            MAGIC,
            VERSION,
            self.kind,
            self.codec,
            self.depth,
            self.id,
            self.size,
            self.stored,
            self.check,
        )

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read the header at the start of `raw`; raise CorruptionError or UnsupportedError."""
        if len(raw) < cls.LAYOUT.size:
            raise CorruptionError(f"record header cut short at {len(raw)} bytes")
        magic, version, kind, codec, depth, id_, size, stored, check = cls.LAYOUT.unpack_from(raw)
        if magic != MAGIC:
            raise CorruptionError(f"not a record: starts with {magic!r}")
        check_version("record", version, VERSION)
        if kind not in KINDS:
            raise CorruptionError(f"a record states kind {kind}")
        if depth > MAX_DEPTH:
            raise CorruptionError(f"a record states delta depth {depth}; {MAX_DEPTH} is the most")
        if codec != RECIPE and size > MAX_WHOLE:
            raise CorruptionError(f"a record states {size} bytes; {MAX_WHOLE} are the most")
        if (depth > 0) != (codec in DELTAS):
            raise CorruptionError(f"a record of codec {codec} states delta depth {depth}")
        return cls(KINDS[kind], codec, depth, ObjectId(id_), size, stored, check)


def base_of(body: Buffer) -> BlobId:
    """Return the id of the base that the body of a delta begins with."""
    if len(body) < ObjectId.SIZE:
        raise CorruptionError(f"the body of a delta is cut short at {len(body)} bytes")
    return BlobId(ObjectId(bytes(body[: ObjectId.SIZE])))


def check_version(what: str, found: int, known: int) -> None:
    """Insist on a version that this cas reads; raise UnsupportedError or CorruptionError."""
    if found > known:
        raise UnsupportedError(f"{what} version {found}; this cas reads up to {known}")
    if found < 1:
        raise CorruptionError(f"{what} states version {found}")
