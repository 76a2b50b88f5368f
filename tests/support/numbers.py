"""Numbers as tensors hold them: real-like, repetitive, and the odd ones of each format."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cas.codec.element import Element

Array = NDArray[Any]

# Every kind of element that a tensor may have.
ELEMENTS = [
    Element(width, floating=floating) for width in (1, 2, 4, 8) for floating in (False, True)
]
SIGN = {width: 1 << (8 * width - 1) for width in (1, 2, 4, 8)}


def unsigned(width: int) -> np.dtype[Any]:
    return np.dtype(f"<u{width}")


def weights(count: int, width: int, *, seed: int = 0, scale: float = 0.02) -> bytes:
    """Floats of a trained tensor: bell-shaped; bfloat16 where the width is 2."""
    made = np.random.default_rng(seed).standard_normal(count) * scale
    if width == 8:
        return made.tobytes()
    bits = made.astype("<f4").view("<u4") >> (8 * (4 - width))
    return bits.astype(unsigned(width)).tobytes()


def stepped(data: bytes, width: int, *, share: float = 1.0, most: int = 3, seed: int = 1) -> bytes:
    """The same numbers, a share of them a few last places away."""
    words = np.frombuffer(data, unsigned(width), len(data) // width).copy()
    rng = np.random.default_rng(seed)
    steps = rng.integers(-most, most + 1, words.size) * (rng.random(words.size) < share)
    words += steps.astype(np.int64).view(np.uint64).astype(words.dtype)
    return words.tobytes() + data[words.nbytes :]


def odd_ones(width: int) -> bytes:
    """Zeros and infinities of both signs, NaN payloads, denormals, the extremes."""
    top, ones = SIGN[width], 2 * SIGN[width] - 1
    found = {0, 1, 2, 3, top, top + 1, top - 1, ones, ones - 1}
    if width > 1:
        exponent = {2: 0x7C00, 4: 0x7F800000, 8: 0x7FF0000000000000}[width]
        found |= {exponent, exponent + 1, exponent | top, exponent | top | 5, exponent - 1}
        found |= {0x7F80, 0xFF80, 0x7FC1} if width == 2 else set()
    words = sorted(found)
    return b"".join(word.to_bytes(width, "little") for word in words + words[::-1])
