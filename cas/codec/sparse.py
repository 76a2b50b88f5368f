"""Sparse delta: which numbers differ from the base, and the steps of those alone.

An entropy coder needs a bit for each number at least; a mask costs less when few differ.
Format: docs/format/codecs.md.
"""

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from cas.codec import bits
from cas.codec.base import CodecTag
from cas.codec.bits import Bytes, Words, as_bytes, scratch
from cas.codec.delta import Plan
from cas.codec.element import Element
from cas.codec.planes import plan_rows, split_sample
from cas.codec.rows import RowWriter, coder_for, read_rows
from cas.codec.steps import Form, StepReader, StepWriter, check_sizes, steps_of, words_of
from cas.errors import CorruptionError
from cas.ids import Buffer

_SIZES: Final = Struct("<II")
_FRONT: Final = Form.SIZE + _SIZES.size


@dataclass(frozen=True, slots=True)
class SparseDelta:
    """A mask, and the steps of the numbers that differ."""

    tag: ClassVar[CodecTag] = CodecTag.SPARSE_DELTA

    def encode(self, data: Buffer, base: Buffer, element: Element) -> Buffer:
        """Return the body for these bytes; raise InvalidInputError for a base of another size."""
        return encode(data, base, plan(*steps_of(data, base, element)))

    def decode_into(self, body: Buffer, base: Buffer, target: memoryview) -> None:
        """Fill exactly `target`, as long as `base`, or raise CorruptionError."""
        check_sizes(target.nbytes, memoryview(base).nbytes)
        view = memoryview(body).cast("B")
        form = Form.from_bytes(view)
        raw = as_bytes(target)
        words = bits.as_words(raw, form.width)
        changed = _changed(view, raw.size, form)
        tail_size = raw.size % form.width
        sizes = [_mask_size(words.size), *[changed] * form.width, tail_size]
        mask, *planes, tail = read_rows(view[_FRONT:], sizes).rows()
        _check_end(mask, words.size)
        steps = StepWriter(words, words_of(base, form.width), form)
        place = 0
        for start, stop in form.blocks(words.size):
            where = _where(mask, start, stop)
            count = int(np.count_nonzero(where))
            if place + count > changed:
                raise CorruptionError(f"mask of a sparse delta marks more than {changed} words")
            values = scratch.words("values", form.width, count)
            bits.join([row[place : place + count] for row in planes], values)
            values += 1
            block = steps.block(start, stop)
            block[:] = 0
            block[where] = values
            steps.put(start, stop)
            place += count
        if place != changed:
            raise CorruptionError(f"mask of a sparse delta marks {place} words, not {changed}")
        steps.finish()
        raw[raw.size - tail_size :] = tail


def encode(data: Buffer, base: Buffer, plan: Plan) -> memoryview:
    """Return the body for these bytes, laid out as planned."""
    form, raw = plan.form, as_bytes(data)
    words = bits.as_words(raw, form.width)
    mask, values = _taken_apart(
        StepReader(words, words_of(base, form.width), form), words.size, form
    )
    sizes = [mask.size, *[values.size] * form.width, raw.size % form.width]
    front = form.to_bytes() + _SIZES.pack(raw.size, values.size)
    writer = RowWriter(front, sizes, [*plan.coders, None])
    mask_row, *planes, tail = writer.rows
    mask_row[:] = mask
    bits.split(values, planes)
    tail[:] = raw[raw.size - tail.size :]
    return writer.finish()


def plan(steps: Words, form: Form) -> Plan:
    """Return how steps like these are best laid out."""
    differs = steps != 0
    mask_coder, mask_size = coder_for(np.packbits(differs, bitorder="little"))
    coders, size = plan_rows(split_sample(steps[differs] - 1))
    return Plan(form, (mask_coder, *coders), mask_size + size)


def _taken_apart(steps: StepReader, count: int, form: Form) -> tuple[Bytes, Words]:
    """Return the mask, and the steps that are not 0, less 1."""
    mask = scratch.bytes("mask", _mask_size(count))
    values = scratch.words("values", form.width, count)
    place = 0
    for start, stop in form.blocks(count):
        block = steps.block(start, stop)
        differs = block != 0
        mask[start // 8 : _mask_size(stop)] = np.packbits(differs, bitorder="little")
        found = block[differs]
        np.subtract(found, 1, out=values[place : place + found.size])
        place += found.size
    return mask, values[:place]


def _changed(body: memoryview, size: int, form: Form) -> int:
    """Return how many words a body says to differ; raise CorruptionError if that cannot be."""
    if len(body) < _FRONT:
        raise CorruptionError(f"sparse delta cut short at {len(body)} bytes")
    # The size stands there because masks of some sizes are of one length.
    stated, changed = _SIZES.unpack_from(body, Form.SIZE)
    if stated != size:
        raise CorruptionError(f"sparse delta of {stated} bytes where {size} were stored")
    if changed > size // form.width:
        raise CorruptionError(f"sparse delta of {changed} words in {size} bytes")
    return int(changed)


def _check_end(mask: Bytes, count: int) -> None:
    """Raise CorruptionError if a mask marks words behind the last."""
    if count % 8 and mask[-1] >> count % 8:
        raise CorruptionError(f"mask of a sparse delta marks more than {count} words")


def _where(mask: Bytes, start: int, stop: int) -> NDArray[np.bool_]:
    packed = mask[start // 8 : _mask_size(stop)]
    return np.unpackbits(packed, count=stop - start, bitorder="little").view(np.bool_)


def _mask_size(count: int) -> int:
    return (count + 7) // 8


SPARSE_DELTA: Final = SparseDelta()
