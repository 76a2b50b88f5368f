"""Raw and zstd: bytes as they are, and bytes made smaller. The only home of `zstandard`.

A zstd body is one frame that states its content size and carries no checksum: the record's own
checksum and the object's id already cover it.
Format: docs/format/codecs.md.
"""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cas.codec.base import CodecTag, size_of
from cas.errors import CorruptionError, InvalidInputError
from cas.ids import Buffer

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

MAX_LEVEL: Final = 19
MAX_WINDOW: Final = 8 << 20
FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
EMPTY_FRAME: Final = b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes as they are."""

    tag: ClassVar[CodecTag] = CodecTag.RAW

    def encode(self, data: Buffer) -> Buffer:
        """Return `data` itself."""
        return data

    def decode(self, body: Buffer, size: int) -> Buffer:
        """Return `body` itself if it has `size` bytes, else raise CorruptionError."""
        if size_of(body) != size:
            raise CorruptionError(f"raw body of {size_of(body)} bytes where {size} were stored")
        return body


@dataclass(frozen=True, slots=True)
class Zstd:
    """One zstd frame that states its content size."""

    level: int = 3

    tag: ClassVar[CodecTag] = CodecTag.ZSTD

    def __post_init__(self) -> None:
        # Levels above 19 use windows that readers refuse.
        if not 1 <= self.level <= MAX_LEVEL:
            raise InvalidInputError(f"zstd level {self.level} is not between 1 and {MAX_LEVEL}")

    def encode(self, data: Buffer) -> Buffer:
        """Return the frame for these bytes."""
        return _contexts.compressor(self.level).compress(data)

    def decode(self, body: Buffer, size: int) -> Buffer:
        """Return the frame's content; raise CorruptionError unless it has `size` bytes."""
        from zstandard import ZstdError

        if size == 0:
            # The library returns no bytes for any frame that says so, without reading on.
            if bytes(body[: len(EMPTY_FRAME) + 1]) != EMPTY_FRAME:
                raise CorruptionError("not the zstd frame of no bytes")
            return b""
        _check_frame(body, size)
        try:
            data = _contexts.decompressor().decompress(
                body, max_output_size=size, read_across_frames=False, allow_extra_data=False
            )
        except ZstdError as error:
            raise CorruptionError(f"damaged zstd frame: {error}") from error
        if len(data) != size:
            raise CorruptionError(f"zstd frame held {len(data)} bytes where {size} were stored")
        return data


class _Contexts(threading.local):
    """The zstd contexts of each thread: not to be shared, and 9 microseconds to make."""

    def __init__(self) -> None:
        self._compressors: dict[int, ZstdCompressor] = {}
        self._decompressor: ZstdDecompressor | None = None

    def compressor(self, level: int) -> "ZstdCompressor":
        """Return this thread's compressor of that level."""
        found = self._compressors.get(level)
        if found is None:
            from zstandard import ZstdCompressor

            found = self._compressors[level] = ZstdCompressor(
                level=level, write_content_size=True, write_checksum=False
            )
        return found

    def decompressor(self) -> "ZstdDecompressor":
        """Return this thread's decompressor."""
        if self._decompressor is None:
            from zstandard import ZstdDecompressor

            self._decompressor = ZstdDecompressor(max_window_size=MAX_WINDOW)
        return self._decompressor


def _check_frame(body: Buffer, size: int) -> None:
    """Raise CorruptionError unless `body` starts a frame of `size` bytes with a small window."""
    from zstandard import ZstdError, get_frame_parameters

    if bytes(body[: len(FRAME_MAGIC)]) != FRAME_MAGIC:
        raise CorruptionError(f"not a zstd frame: starts with {bytes(body[:4])!r}")
    try:
        frame = get_frame_parameters(body)
    except ZstdError as error:
        raise CorruptionError(f"damaged zstd frame header: {error}") from error
    # The frame states its own size: check it first, so that a forged frame
    # cannot make us allocate more than the record header promised.
    if frame.content_size != size:
        raise CorruptionError(f"zstd frame states another size than the {size} bytes stored")
    if frame.window_size > MAX_WINDOW:
        raise CorruptionError(
            f"zstd frame asks for a window of {frame.window_size} bytes; {MAX_WINDOW} are allowed"
        )


_contexts = _Contexts()
RAW: Final = Raw()
ZSTD: Final = Zstd()
