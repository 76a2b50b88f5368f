"""Pick a codec for given bytes, by a sample: what does not compress is stored raw.

Format: docs/format/codecs.md.
"""

from collections.abc import Iterator
from typing import Final

from cas.codec.base import CodecTag, size_of
from cas.codec.compress import Zstd
from cas.codec.element import Element
from cas.ids import Buffer

# Below this a frame's own bytes eat the gain.
MIN_SIZE: Final = 64
SAMPLES: Final = 3
SAMPLE_SIZE: Final = 16 << 10
# A body must be this much smaller: less is not worth the time that every read would pay.
MIN_GAIN: Final = 0.03

_FAST: Final = Zstd(level=1)
_THOROUGH: Final = Zstd(level=3)


def encode(data: Buffer, element: Element | None = None) -> tuple[CodecTag, Buffer]:
    """Return the codec that suits these bytes and the body, which may be `data` itself.

    `element` is what the bytes are made of, None where nothing is known of them. Views must be
    contiguous.
    """
    size = size_of(data)
    if size < MIN_SIZE or not _sample_gains(data, size):
        return CodecTag.RAW, data
    body = _THOROUGH.encode(data)
    if not _gains(size_of(body), size):
        return CodecTag.RAW, data
    return CodecTag.ZSTD, body


def _sample_gains(data: Buffer, size: int) -> bool:
    """Return whether a few windows compress; true of what is too small for a sample to pay."""
    if size <= SAMPLES * SAMPLE_SIZE:
        return True
    windows = list(_windows(memoryview(data).cast("B"), size))
    return _gains(sum(size_of(_FAST.encode(window)) for window in windows), sum(map(len, windows)))


def _windows(data: memoryview, size: int) -> Iterator[memoryview]:
    """Yield windows at the start, in the middle and at the end of `data`."""
    for number in range(SAMPLES):
        start = (size - SAMPLE_SIZE) * number // (SAMPLES - 1)
        yield data[start : start + SAMPLE_SIZE]


def _gains(encoded: int, size: int) -> bool:
    return encoded <= size * (1 - MIN_GAIN)
