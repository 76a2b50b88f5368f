"""Planes: the bytes of numbers regrouped, so that what is alike stands together.

The exponents of weights are alike and their mantissas are noise. So the sign goes below the
exponent, byte k of all words makes one row, and each row is compressed only where that gains.
Format: docs/format/codecs.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

import numpy as np

from cas.codec import bits
from cas.codec.base import CodecTag
from cas.codec.bits import Bytes, Words, as_bytes, as_words, scratch
from cas.codec.compress import Zstd
from cas.codec.element import WIDTHS, Element
from cas.codec.rows import QUICK, Coder, RowReader, RowWriter, coder_for, read_rows
from cas.errors import CorruptionError
from cas.ids import Buffer

# By how many bits words may be rotated. 1 takes the sign away from the exponent. More takes the
# upper bits of the exponent along, the same for all weights, and lets some of the mantissa into
# the row that is coded: it is not evenly spread. That is a row more to code: not for four bytes,
# where it gains least.
ROTATIONS: Final = {2: (1, 2, 3), 4: (1,), 8: (1, 4)}
# A rotation is smaller than this: it is one of the upper half, of two bytes one of all.
TURNED: Final = {2: 16, 4: 16, 8: 32}
# What another rotation must gain over the first, which is the fastest.
MIN_BETTER: Final = 0.004

_FRONT: Final = Struct("<BB")
_FLOAT32: Final = Element(4, floating=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """How words like those of a sample are best laid out, and how small the sample became."""

    width: int
    rotation: int
    coders: tuple[Coder, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Planes:
    """Byte planes of numbers of one kind; `decode` takes those of any kind."""

    element: Element = _FLOAT32

    tag: ClassVar[CodecTag] = CodecTag.PLANES

    def encode(self, data: Buffer) -> Buffer:
        """Return the body for these bytes, planned by all of them."""
        return encode(data, plan(as_bytes(data), self.element))

    def decode(self, body: Buffer, size: int) -> Buffer:
        """Return exactly `size` bytes, or raise CorruptionError."""
        opened = _open(body, size)
        target = np.empty(size, np.uint8)
        _join(*opened, target)
        return target.data

    def decode_into(self, body: Buffer, target: memoryview) -> None:
        """Fill exactly `target`, or raise CorruptionError."""
        _join(*_open(body, target.nbytes), as_bytes(target))


def plan(sample: Bytes, element: Element, coder: Zstd = QUICK) -> Plan:
    """Return how words like those of the sample are best laid out."""
    words = as_words(sample, element.width)
    rotations = ROTATIONS.get(element.width, (0,)) if element.floating else (0,)
    plans = [
        Plan(element.width, rotation, *plan_rows(split_sample(words, rotation), coder))
        for rotation in rotations
    ]
    best = min(plans, key=lambda made: made.size)
    return best if best.size < plans[0].size * (1 - MIN_BETTER) else plans[0]


def split_sample(words: Words, rotation: int = 0) -> list[Bytes]:
    """Return the planes of a few words."""
    planes = [scratch.bytes(f"sample {k}", words.size) for k in range(words.itemsize)]
    bits.split(words, planes, rotation)
    return planes


def plan_rows(rows: Sequence[Bytes], coder: Zstd = QUICK) -> tuple[tuple[Coder, ...], int]:
    """Return how to code rows like these, and the size of all together."""
    planned = [coder_for(row, coder) for row in rows]
    return tuple(coder for coder, _ in planned), sum(size for _, size in planned)


def encode(data: Buffer, plan: Plan) -> memoryview:
    """Return the body for these bytes, laid out as planned."""
    raw = as_bytes(data)
    words = as_words(raw, plan.width)
    sizes = [words.size] * plan.width + [raw.size % plan.width]
    front = _FRONT.pack(plan.width, plan.rotation)
    writer = RowWriter(front, sizes, [*plan.coders, None])
    *planes, tail = writer.rows
    bits.split(words, planes, plan.rotation)
    tail[:] = raw[raw.size - tail.size :]
    return writer.finish()


def _open(body: Buffer, size: int) -> tuple[RowReader, int, int]:
    """Return the rows of a body of `size` bytes, the width and the rotation."""
    view = memoryview(body).cast("B")
    if len(view) < _FRONT.size:
        raise CorruptionError(f"planes cut short at {len(view)} bytes")
    width, rotation = _FRONT.unpack_from(view)
    if width not in WIDTHS:
        raise CorruptionError(f"planes of words of {width} bytes")
    if rotation >= TURNED.get(width, 1):
        raise CorruptionError(f"planes of words of {width} bytes rotated by {rotation} bits")
    sizes = [size // width] * width + [size % width]
    return read_rows(view[_FRONT.size :], sizes), width, rotation


def _join(reader: RowReader, width: int, rotation: int, target: Bytes) -> None:
    *planes, tail = reader.rows()
    words = as_words(target, width)
    bits.join(planes, words, rotation)
    target[target.size - tail.size :] = tail


PLANES: Final = Planes()
