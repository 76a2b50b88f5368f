"""Pick a codec for numbers: planes or zstd, or a delta against a base, by a sample.

Format: docs/format/codecs.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from cas.codec import bits, delta, planes, sparse
from cas.codec.base import CodecTag
from cas.codec.bits import Bytes, Words, as_bytes
from cas.codec.compress import Zstd, gains
from cas.codec.element import Element
from cas.codec.grouped import Groups
from cas.codec.rows import QUICK
from cas.codec.steps import Form, all_steps
from cas.ids import Buffer

# What a sample is: windows, and the bytes of each. They must be long to see rows that repeat.
WINDOWS: Final = (4, 12 << 10)
# Of what is smaller than this, less: the sample would take as long as the rest. Not of two-byte
# floats, of which more is coded than one row.
SMALL: Final = 1 << 20
SMALL_WINDOWS: Final = (2, 8 << 10)
# For steps many, to see rows that changed among those that did not.
STEP_WINDOWS: Final = (8, 4 << 10)
# For groups long again: their order is seen by tables for parts, which need some bytes to be true.
GROUP_WINDOWS: Final = (8, 16 << 10)
PARTS: Final = 8
# Grouping costs two thirds of the speed.
MIN_GROUPED_GAIN: Final = 0.05
MIN_THOROUGH_GAIN: Final = 0.01
# A sparse delta takes longer to read.
MIN_SPARSE_GAIN: Final = 0.02
# Of what is smaller than this at level 1, some repeats: it is looked at more closely.
REPETITIVE: Final = 0.7

_FAST: Final = Zstd(level=1)
_THOROUGH: Final = Zstd(level=3)


@dataclass(frozen=True, slots=True)
class Choice:
    """How to store numbers like those of a sample, None for raw; and the share that is left."""

    way: Zstd | planes.Plan | None
    share: float


def encode_numbers(data: Buffer, element: Element) -> tuple[CodecTag, Buffer]:
    """Return the codec that suits these numbers and the body, which may be `data` itself."""
    raw = as_bytes(data)
    small = raw.size < SMALL and not (element.floating and element.width == 2)
    way = choose(_sample(raw, SMALL_WINDOWS if small else WINDOWS), element).way
    body: Buffer
    match way:
        case None:
            return CodecTag.RAW, data
        case Zstd():
            tag, body = CodecTag.ZSTD, way.encode(raw.data)
        case planes.Plan():
            tag, body = CodecTag.PLANES, planes.encode(raw.data, way)
    return (tag, body) if gains(len(body), raw.size) else (CodecTag.RAW, data)


def encode_steps(
    data: Buffer, base: Buffer, element: Element, *, thorough: bool = False
) -> tuple[CodecTag, Buffer] | None:
    """Return the delta that suits these numbers, or None where `encode_numbers` is as good.

    Floats of four bytes are put in groups only when it is to be `thorough`.
    """
    raw, base_raw = as_bytes(data), as_bytes(base)
    form = Form.of(element)
    grouping = form.groupable and (thorough or form.width == 2)
    windows = GROUP_WINDOWS if grouping else STEP_WINDOWS
    sample, base_sample = _sample(raw, windows), _sample(base_raw, windows)
    steps = all_steps(sample, base_sample, form)
    if grouping:
        least = MIN_THOROUGH_GAIN if thorough else MIN_GROUPED_GAIN
        steps, form = _ordered(steps, bits.as_words(base_sample, form.width), form, least)
    dense, thin = delta.plan(steps, form), sparse.plan(steps, form)
    full = choose(sample, element).share
    if not gains(min(dense.size, thin.size) / sample.size, full):
        return None
    body: Buffer
    if thin.size < dense.size * (1 - MIN_SPARSE_GAIN):
        tag, body = CodecTag.SPARSE_DELTA, sparse.encode(raw.data, base_raw.data, thin)
    else:
        tag, body = CodecTag.DELTA, delta.encode(raw.data, base_raw.data, dense)
    return (tag, body) if gains(len(body), raw.size * full) else None


def choose(sample: Bytes, element: Element) -> Choice:
    """Return what suits numbers like these."""
    size = sample.size
    plain = len(_FAST.encode(sample.data))
    ways: list[tuple[int, Zstd | planes.Plan | None]] = [(size, None)]
    if element.width == 1:
        ways.append((len(QUICK.encode(sample.data)), QUICK))
    else:
        planned = planes.plan(sample, element)
        ways.append((planned.size, planned))
    if plain < size * REPETITIVE:
        ways.append((len(_THOROUGH.encode(sample.data)), _THOROUGH))
        if element.width > 1:
            closer = planes.plan(sample, element, _THOROUGH)
            ways.append((closer.size, closer))
    best, way = min(ways, key=lambda made: made[0])
    if not gains(best, size):
        return Choice(None, 1)
    return Choice(way, best / size)


def _ordered(steps: Words, base: Words, form: Form, least: float) -> tuple[Words, Form]:
    """Return the steps in groups where that gains so much at least, else as they stand."""
    grouped = np.empty_like(steps)
    groups = Groups(base)
    for chunk, (start, stop) in enumerate(groups.chunks()):
        groups.gather(chunk, steps[start:stop], grouped)
    if _by_parts(grouped) < _by_parts(steps) * (1 - least):
        return grouped, Form(form.width, form.floating, grouped=True)
    return steps, form


def _by_parts(steps: Words) -> int:
    """Return the size of these steps when every part has tables of its own."""
    size = -(-steps.size // PARTS)
    parts = (steps[start : start + size] for start in range(0, steps.size, size))
    return sum(planes.plan_rows(planes.split_sample(part))[1] for part in parts)


def window_starts(whole: int, count: int, size: int) -> Iterator[int]:
    """Yield where windows start: in the middle of equal parts, at multiples of 8 bytes."""
    for number in range(count):
        yield (whole * (2 * number + 1) // count - size) // 16 * 8


def _sample(raw: Bytes, windows: tuple[int, int]) -> Bytes:
    """Return windows spread over these bytes, joined; all of what is not much larger."""
    count, size = windows
    if raw.size <= 2 * count * size:
        return raw
    starts = window_starts(raw.size, count, size)
    return np.concatenate([raw[start : start + size] for start in starts])
