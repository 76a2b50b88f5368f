"""From an object's bytes to its record: pure, so that it runs on any thread.

What a codec made smaller is decoded again before the record counts: a compressor that is wrong
once must not be found out when the source is gone.
"""

from typing import NamedTuple

from cas.codec import choose
from cas.codec.base import CodecTag, codec_for, delta_for
from cas.codec.element import Element
from cas.errors import CorruptionError, InvalidInputError
from cas.ids import BlobId, Buffer, ObjectId
from cas.objects.kind import ID_OF, Kind
from cas.store.pool import AWAY
from cas.store.record import MAX_DEPTH, MAX_WHOLE, RecordHeader


class Record(NamedTuple):
    """A record as it is appended to a pack."""

    header: RecordHeader
    body: Buffer


class Base(NamedTuple):
    """What a delta is taken against: a blob of the same size, and how deep its own record is."""

    id: BlobId
    data: Buffer
    depth: int


def encode(kind: Kind, id: ObjectId, data: Buffer, element: Element | None = None) -> Record:
    """Return the record of an object by itself."""
    if len(data) > MAX_WHOLE:
        raise InvalidInputError(
            f"a {kind.name.lower()} of {len(data)} bytes is too large: {MAX_WHOLE} are the most"
        )
    tag, body = CodecTag.RAW, data
    # Ids fill most of a commit; raw, a list of runs needs no decompressor.
    if kind is not Kind.COMMIT:
        tag, body = choose.encode(data, element)
    if tag == CodecTag.RAW:
        # It is written later than it was hashed: only what nobody can change may wait for that.
        intact = is_fixed(body)
        # A small part of a large buffer would keep all of that in memory.
        body = body if intact and len(body) >= AWAY else bytes(body)
        intact = intact or ID_OF[kind](body) == id
    else:
        intact = ID_OF[kind](codec_for(tag).decode(body, len(data))) == id
    if not intact:
        raise _wrong(tag, id)
    return Record(RecordHeader.of(kind, tag, id, len(data), body), body)


def encode_delta(
    id: BlobId, data: Buffer, base: Base, element: Element | None, *, thorough: bool = False
) -> Record | None:
    """Return the record of a blob as a delta against `base`; None when that gains nothing."""
    if base.depth >= MAX_DEPTH or len(base.data) != len(data):
        return None
    found = choose.encode_delta(data, base.data, element, thorough=thorough)
    if found is None:
        return None
    tag, delta = found
    decoded = bytearray(len(data))
    delta_for(tag).decode_into(delta, base.data, memoryview(decoded))
    if decoded != data:
        raise _wrong(tag, id)
    body = b"".join((base.id, delta))
    header = RecordHeader.of(Kind.BLOB, tag, id, len(data), body, depth=base.depth + 1)
    return Record(header, body)


def is_fixed(data: Buffer) -> bool:
    """Say whether nobody can change these bytes."""
    return isinstance(data.obj if isinstance(data, memoryview) else data, bytes)


def _wrong(tag: CodecTag, id: ObjectId) -> CorruptionError:
    return CorruptionError(
        f"codec {tag.name.lower()} does not give {id} back, or the memory was changed meanwhile: "
        "nothing was committed"
    )
