"""Delta: the step of every number from its base, in planes.

Format: docs/format/codecs.md.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

from cas.codec import bits
from cas.codec.base import CodecTag
from cas.codec.bits import Words, as_bytes
from cas.codec.element import Element
from cas.codec.planes import plan_rows, split_sample
from cas.codec.rows import Coder, RowWriter, read_rows
from cas.codec.steps import Form, StepReader, StepWriter, check_sizes, steps_of, words_of
from cas.ids import Buffer


@dataclass(frozen=True, slots=True)
class Plan:
    """How steps like those of a sample are best laid out, and how small the sample became."""

    form: Form
    coders: tuple[Coder, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Delta:
    """The steps of all numbers."""

    tag: ClassVar[CodecTag] = CodecTag.DELTA

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
        sizes = [words.size] * form.width + [raw.size % form.width]
        *planes, tail = read_rows(view[Form.SIZE :], sizes).rows()
        steps = StepWriter(words, words_of(base, form.width), form)
        for start, stop in form.blocks(words.size):
            bits.join([row[start:stop] for row in planes], steps.block(start, stop))
            steps.put(start, stop)
        steps.finish()
        raw[raw.size - tail.size :] = tail


def encode(data: Buffer, base: Buffer, plan: Plan) -> memoryview:
    """Return the body for these bytes, laid out as planned."""
    form, raw = plan.form, as_bytes(data)
    words = bits.as_words(raw, form.width)
    sizes = [words.size] * form.width + [raw.size % form.width]
    writer = RowWriter(form.to_bytes(), sizes, [*plan.coders, None])
    *planes, tail = writer.rows
    steps = StepReader(words, words_of(base, form.width), form)
    for start, stop in form.blocks(words.size):
        bits.split(steps.block(start, stop), [row[start:stop] for row in planes])
    tail[:] = raw[raw.size - tail.size :]
    return writer.finish()


def plan(steps: Words, form: Form) -> Plan:
    """Return how steps like these are best laid out."""
    coders, size = plan_rows(split_sample(steps))
    return Plan(form, coders, size)


DELTA: Final = Delta()
