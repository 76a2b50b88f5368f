"""Pick a codec for given bytes, by a sample: what does not compress is stored raw.

Format: docs/format/codecs.md.
"""

from collections.abc import Iterator
from typing import Final

from cas.codec.base import CodecTag, size_of
from cas.codec.compress import Zstd, gains
from cas.codec.element import Element
from cas.errors import InvalidInputError
from cas.ids import Buffer

# Below this a frame's own bytes eat the gain.
MIN_SIZE: Final = 64
SAMPLES: Final = 3
SAMPLE_SIZE: Final = 16 << 10

_FAST: Final = Zstd(level=1)
_THOROUGH: Final = Zstd(level=3)
_ENTROPY: Final = Zstd(level=1, entropy=True)


def encode(data: Buffer, element: Element | None = None) -> tuple[CodecTag, Buffer]:
    """Return the codec that suits these bytes and the body, which may be `data` itself.

    `element` is what the bytes are made of, None where nothing is known of them. Views must be
    contiguous.
    """
    size = size_of(data)
    if size < MIN_SIZE:
        return CodecTag.RAW, data
    if element is not None and element.width > 1:
        from cas.codec.numbers import encode_numbers

        return encode_numbers(data, element)
    coder = _coder(data, size)
    if coder is None:
        return CodecTag.RAW, data
    body = coder.encode(data)
    if not gains(len(body), size):
        return CodecTag.RAW, data
    return CodecTag.ZSTD, body


def encode_delta(
    data: Buffer, base: Buffer, element: Element | None = None, *, thorough: bool = False
) -> tuple[CodecTag, Buffer] | None:
    """Return a body against a base of the same size, or None where it gains nothing.

    It gains 3 % over what `encode` makes of a sample of the same bytes, at the least. With
    `thorough` also such forms are tried as are slower to read.
    """
    size = size_of(data)
    if size != size_of(base):
        raise InvalidInputError(f"{size} bytes cannot be a delta against {size_of(base)}")
    if size < MIN_SIZE:
        return None
    from cas.codec.numbers import encode_steps

    return encode_steps(data, base, element or Element(1), thorough=thorough)


def _coder(data: Buffer, size: int) -> Zstd | None:
    """Return what compresses a few windows best; the thorough one where no sample would pay."""
    if size <= SAMPLES * SAMPLE_SIZE:
        return _THOROUGH
    windows = list(_windows(memoryview(data).cast("B"), size))
    taken = sum(map(len, windows))
    fast = _encoded(_FAST, windows)
    if not gains(fast, taken):
        return None
    # Where looking for matches finds none, it only costs.
    return _ENTROPY if _encoded(_ENTROPY, windows) <= fast else _THOROUGH


def _encoded(coder: Zstd, windows: list[memoryview]) -> int:
    return sum(len(coder.encode(window)) for window in windows)


def _windows(data: memoryview, size: int) -> Iterator[memoryview]:
    """Yield windows at the start, in the middle and at the end of `data`."""
    for number in range(SAMPLES):
        start = (size - SAMPLE_SIZE) * number // (SAMPLES - 1)
        yield data[start : start + SAMPLE_SIZE]
