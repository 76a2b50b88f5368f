"""Steps: how far each number is from the one in its place in the base. Both deltas stand on it.

Format: docs/format/codecs.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np

from cas.codec import bits
from cas.codec.bits import Bytes, Words, scratch
from cas.codec.element import WIDTHS, Element
from cas.codec.grouped import EXPONENTS, Groups
from cas.errors import CorruptionError, InvalidInputError
from cas.ids import Buffer

_FLOATING: Final = 1
_GROUPED: Final = 2


@dataclass(frozen=True, slots=True)
class Form:
    """What steps are made of, and in which order they stand."""

    width: int
    floating: bool
    grouped: bool = False

    SIZE: ClassVar[int] = 2

    @classmethod
    def of(cls, element: Element, *, grouped: bool = False) -> Self:
        """Return the form for numbers of one kind."""
        return cls(element.width, element.floating, grouped)

    @property
    def groupable(self) -> bool:
        """Whether steps may stand in groups: by the exponents of their bases, so only of floats."""
        return self.width in EXPONENTS and self.floating

    def to_bytes(self) -> bytes:
        """Return the form as a body starts with it."""
        return bytes([self.width, self.floating * _FLOATING | self.grouped * _GROUPED])

    @classmethod
    def from_bytes(cls, body: memoryview) -> Self:
        """Read the form at the start of a body; raise CorruptionError."""
        if len(body) < cls.SIZE:
            raise CorruptionError(f"delta cut short at {len(body)} bytes")
        width, flags = body[0], body[1]
        form = cls(width, bool(flags & _FLOATING), bool(flags & _GROUPED))
        if width not in WIDTHS or flags >> 2 or (form.grouped and not form.groupable):
            raise CorruptionError(f"delta of words of {width} bytes with flags {flags}")
        return form

    def blocks(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield the blocks that `count` words are taken in."""
        return bits.spans(count, self.width)


def check_sizes(size: int, base_size: int) -> None:
    """Raise InvalidInputError unless a base has the size of what is stored against it."""
    if size != base_size:
        raise InvalidInputError(f"{size} bytes cannot be a delta against {base_size}")


def words_of(data: Buffer, width: int) -> Words:
    """Return the whole words of these bytes."""
    return bits.as_words(bits.as_bytes(data), width)


def all_steps(raw: Bytes, base: Bytes, form: Form) -> Words:
    """Return the steps of a few words: all in one go, and as they stand."""
    words = bits.as_words(raw, form.width)
    steps = np.empty_like(words)
    bits.difference(words, bits.as_words(base, form.width), steps, floating=form.floating)
    return steps


def steps_of(data: Buffer, base: Buffer, element: Element) -> tuple[Words, Form]:
    """Return all steps of some numbers; raise InvalidInputError for a base of another size."""
    form, raw, base_raw = Form.of(element), bits.as_bytes(data), bits.as_bytes(base)
    check_sizes(raw.size, base_raw.size)
    return all_steps(raw, base_raw, form), form


class StepReader:
    """The steps of words against their base, block by block."""

    def __init__(self, words: Words, base: Words, form: Form) -> None:
        self._words, self._base, self._form = words, base, form
        self._grouped: Words | None = None
        if form.grouped:
            self._grouped = scratch.words("grouped", form.width, words.size)
            groups = Groups(base)
            for chunk, (start, stop) in enumerate(groups.chunks()):
                groups.gather(chunk, self._steps(start, stop), self._grouped)

    def block(self, start: int, stop: int) -> Words:
        """Return the steps from `start` to `stop`, valid until the next call."""
        if self._grouped is not None:
            return self._grouped[start:stop]
        return self._steps(start, stop)

    def _steps(self, start: int, stop: int) -> Words:
        words, base = self._words[start:stop], self._base[start:stop]
        steps = scratch.words("steps", self._form.width, words.size)
        bits.difference(words, base, steps, floating=self._form.floating)
        return steps


class StepWriter:
    """The words that are given steps away from their base, block by block."""

    def __init__(self, words: Words, base: Words, form: Form) -> None:
        self._words, self._base, self._form = words, base, form
        self._grouped = scratch.words("grouped", form.width, words.size) if form.grouped else None

    def block(self, start: int, stop: int) -> Words:
        """Return where to write the steps from `start` to `stop`; `put` takes them from there."""
        if self._grouped is not None:
            return self._grouped[start:stop]
        return scratch.words("steps", self._form.width, stop - start)

    def put(self, start: int, stop: int) -> None:
        """Take the steps of this block, which now are written."""
        if self._grouped is None:
            self._restore(scratch.words("steps", self._form.width, stop - start), start)

    def finish(self) -> None:
        """Write the words that could not be written before all steps were there."""
        if self._grouped is None:
            return
        groups = Groups(self._base)
        for chunk, (start, stop) in enumerate(groups.chunks()):
            steps = scratch.words("steps", self._form.width, stop - start)
            groups.scatter(chunk, self._grouped, steps)
            self._restore(steps, start)

    def _restore(self, steps: Words, start: int) -> None:
        place = slice(start, start + steps.size)
        bits.restore(steps, self._base[place], self._words[place], floating=self._form.floating)
