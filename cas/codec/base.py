"""The codec seam: bytes to bytes and back, and the tags that stored records carry.

Format: docs/format/codecs.md.
"""

from enum import IntEnum
from typing import Protocol

from cas.codec.element import Element
from cas.errors import InvalidInputError, UnsupportedError
from cas.ids import Buffer


class CodecTag(IntEnum):
    """How a stored body was encoded; the byte that a record carries."""

    RAW = 0
    ZSTD = 1
    PLANES = 2
    DELTA = 3
    SPARSE_DELTA = 4


class Codec(Protocol):
    """A reversible transform of bytes.

    Every codec promises:

    - `decode(encode(data), size=len(data))` is `data`, for all data;
    - a body that is cut short, damaged or of another size is CorruptionError, and what it claims
      costs no memory: `size` and the target alone do;
    - one codec may be used from several threads at once.

    `tests/property/test_codecs.py` holds each implementation to these promises.
    """

    @property
    def tag(self) -> CodecTag:
        """The tag that a body of this codec is stored under."""

    def encode(self, data: Buffer) -> Buffer:
        """Return the body for these bytes; it may be `data` itself."""

    def decode(self, body: Buffer, size: int) -> Buffer:
        """Return exactly `size` bytes, or raise CorruptionError; it may be `body` itself."""

    def decode_into(self, body: Buffer, target: memoryview) -> None:
        """Fill exactly `target`, contiguous bytes, or raise CorruptionError."""


class DeltaCodec(Protocol):
    """A reversible transform of bytes against a base: other bytes of the same size.

    It promises what a Codec does. A base that is not the one of `encode` gives bytes that are
    wrong, not an error: whoever decodes checks the id.
    """

    @property
    def tag(self) -> CodecTag:
        """The tag that a body of this codec is stored under."""

    def encode(self, data: Buffer, base: Buffer, element: Element) -> Buffer:
        """Return the body for these bytes; raise InvalidInputError for a base of another size."""

    def decode_into(self, body: Buffer, base: Buffer, target: memoryview) -> None:
        """Fill exactly `target`, as long as `base`, or raise CorruptionError."""


def codec_for(tag: int) -> Codec:
    """Return the codec that reads bodies with this tag; raise UnsupportedError for a newer one."""
    # Imported here because all name the tags above; zstandard and numpy come in when they are used.
    from cas.codec.compress import RAW, ZSTD

    match tag:
        case CodecTag.RAW:
            return RAW
        case CodecTag.ZSTD:
            return ZSTD
        case CodecTag.PLANES:
            from cas.codec.planes import PLANES

            return PLANES
        case CodecTag.DELTA | CodecTag.SPARSE_DELTA:
            raise InvalidInputError(f"codec {tag} is a delta: it needs its base, see delta_for")
    raise _unknown(tag)


def delta_for(tag: int) -> DeltaCodec:
    """Return the codec that reads deltas with this tag; raise UnsupportedError for a newer one."""
    match tag:
        case CodecTag.DELTA:
            from cas.codec.delta import DELTA

            return DELTA
        case CodecTag.SPARSE_DELTA:
            from cas.codec.sparse import SPARSE_DELTA

            return SPARSE_DELTA
        case CodecTag.RAW | CodecTag.ZSTD | CodecTag.PLANES:
            raise InvalidInputError(f"codec {tag} is no delta: it has no base, see codec_for")
    raise _unknown(tag)


def size_of(data: Buffer) -> int:
    """Return the number of bytes in `data`, also for a view whose items are wider than one."""
    return data.nbytes if isinstance(data, memoryview) else len(data)


def _unknown(tag: int) -> UnsupportedError:
    return UnsupportedError(f"codec {tag} is not known to this version: use a newer cas")
