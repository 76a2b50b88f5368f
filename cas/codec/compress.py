"""Raw and zstd: bytes as they are, and bytes made smaller. The only home of `zstandard`.

A zstd body is one frame that states its content size and carries no checksum: the record's own
checksum and the object's id already cover it.
Format: docs/format/codecs.md.
"""

import threading
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cas.codec.base import CodecTag, size_of
from cas.errors import CorruptionError, InvalidInputError
from cas.ids import Buffer

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

MAX_LEVEL: Final = 19
# What is made smaller must be this much smaller: less is not worth the time of every read.
MIN_GAIN: Final = 0.03
MAX_WINDOW: Final = 8 << 20
FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
EMPTY_FRAME: Final = b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"
# From here on a stream, which takes longer to set up, beats a copy.
DIRECT_SIZE: Final = 64 << 10

_REPEATED_BYTE: Final = 1  # the kind of a block that stores one byte for all of its content


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

    def decode_into(self, body: Buffer, target: memoryview) -> None:
        """Copy `body` to `target`; raise CorruptionError unless it has as many bytes."""
        target[:] = memoryview(self.decode(body, target.nbytes)).cast("B")


@dataclass(frozen=True, slots=True)
class Zstd:
    """One zstd frame that states its content size.

    With `entropy`, for bytes in which some values are frequent and nothing repeats: matches are
    hardly looked for, which is three times as fast there and smaller too.
    """

    level: int = 3
    _: KW_ONLY
    entropy: bool = False

    tag: ClassVar[CodecTag] = CodecTag.ZSTD

    def __post_init__(self) -> None:
        # Levels above 19 use windows that readers refuse.
        if not 1 <= self.level <= MAX_LEVEL:
            raise InvalidInputError(f"zstd level {self.level} is not between 1 and {MAX_LEVEL}")

    def encode(self, data: Buffer) -> Buffer:
        """Return the frame for these bytes."""
        return _contexts.compressor(self).compress(data)

    def decode(self, body: Buffer, size: int) -> Buffer:
        """Return the frame's content; raise CorruptionError unless it has `size` bytes."""
        from zstandard import ZstdError

        if size == 0:
            _check_empty(body)
            return b""
        check_frame(body, size)
        try:
            data = _contexts.decompressor().decompress(
                body, max_output_size=size, read_across_frames=False, allow_extra_data=False
            )
        except ZstdError as error:
            raise CorruptionError(f"damaged zstd frame: {error}") from error
        if len(data) != size:
            raise CorruptionError(f"zstd frame held {len(data)} bytes where {size} were stored")
        return data

    def decode_into(self, body: Buffer, target: memoryview) -> None:
        """Fill `target` with the frame's content; raise CorruptionError if it has another size."""
        size = target.nbytes
        if size == 0:
            _check_empty(body)
        elif size < DIRECT_SIZE:
            target[:] = self.decode(body, size)
        else:
            _read_frame(memoryview(body).cast("B"), target)


def gains(encoded: float, size: float) -> bool:
    """Return whether bytes became so much smaller that reading them may take longer."""
    return encoded <= size * (1 - MIN_GAIN)


class _Contexts(threading.local):
    """The zstd contexts of each thread: not to be shared, and 9 microseconds to make."""

    def __init__(self) -> None:
        self._compressors: dict[Zstd, ZstdCompressor] = {}
        self._decompressor: ZstdDecompressor | None = None

    def compressor(self, codec: Zstd) -> "ZstdCompressor":
        """Return this thread's compressor with these parameters."""
        found = self._compressors.get(codec)
        if found is None:
            found = self._compressors[codec] = _compressor(codec)
        return found

    def decompressor(self) -> "ZstdDecompressor":
        """Return this thread's decompressor."""
        if self._decompressor is None:
            from zstandard import ZstdDecompressor

            self._decompressor = ZstdDecompressor(max_window_size=MAX_WINDOW)
        return self._decompressor


def _compressor(codec: Zstd) -> "ZstdCompressor":
    from zstandard import ZstdCompressionParameters, ZstdCompressor

    if not codec.entropy:
        return ZstdCompressor(level=codec.level, write_content_size=True, write_checksum=False)
    parameters = ZstdCompressionParameters.from_level(
        codec.level,
        min_match=7,
        hash_log=6,
        chain_log=6,
        write_content_size=True,
        write_checksum=False,
    )
    return ZstdCompressor(compression_params=parameters)


def _read_frame(body: memoryview, target: memoryview) -> None:
    """Decompress straight into `target`, which `decompress` has no way to do."""
    from zstandard import ZstdError

    check_frame(body, target.nbytes)
    _check_end(body)
    try:
        with _contexts.decompressor().stream_reader(body, closefd=False) as reader:
            read = reader.readinto(target)
    except ZstdError as error:
        raise CorruptionError(f"damaged zstd frame: {error}") from error
    if read != target.nbytes:
        raise CorruptionError(f"zstd frame held {read} bytes where {target.nbytes} were stored")


def _check_end(body: memoryview) -> None:
    """Raise CorruptionError unless the frame's last block ends where `body` does.

    A stream stops behind the frame and does not tell whether anything follows.
    """
    from zstandard import frame_header_size, get_frame_parameters

    place, last = frame_header_size(body), False
    while not last:
        header = int.from_bytes(body[place : place + 3], "little")
        last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
        place += 3 + (1 if kind == _REPEATED_BYTE else length)
        if place > len(body):
            raise CorruptionError(f"zstd frame cut short at {len(body)} bytes")
    if get_frame_parameters(body).has_checksum:
        place += 4
    if place != len(body):
        raise CorruptionError(f"zstd frame of {place} bytes in a body of {len(body)}")


def _check_empty(body: Buffer) -> None:
    """Raise CorruptionError unless this is the one frame of no bytes.

    The library returns no bytes for any frame that says so, without reading on.
    """
    if bytes(body[: len(EMPTY_FRAME) + 1]) != EMPTY_FRAME:
        raise CorruptionError("not the zstd frame of no bytes")


def check_frame(body: Buffer, size: int) -> None:
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
