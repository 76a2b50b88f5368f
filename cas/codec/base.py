"""The codec seam: bytes to bytes and back, and the tags that stored records carry.

Format: docs/format/codecs.md.
"""

from enum import IntEnum
from typing import Protocol

from cas.errors import UnsupportedError
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
    - a body that is cut short, damaged or of another size is CorruptionError, and nothing beyond
      `size` bytes is allocated for it;
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


def codec_for(tag: int) -> Codec:
    """Return the codec that reads bodies with this tag; raise UnsupportedError for a newer one."""
    # Imported here because both name the tags above; zstandard comes in with the first body.
    from cas.codec.compress import RAW, ZSTD

    match tag:
        case CodecTag.RAW:
            return RAW
        case CodecTag.ZSTD:
            return ZSTD
    names = {known.value: f" ({known.name.lower()})" for known in CodecTag}
    raise UnsupportedError(
        f"codec {tag}{names.get(tag, '')} is not known to this version: use a newer cas"
    )


def size_of(data: Buffer) -> int:
    """Return the number of bytes in `data`, also for a view whose items are wider than one."""
    return data.nbytes if isinstance(data, memoryview) else len(data)
