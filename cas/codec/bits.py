"""Words and their byte planes: how numbers are taken apart and put together again.

Compiled code does it in one pass, without the interpreter's lock. Where it was not compiled, NumPy
does the same block by block, so that each pass over a block finds it in the cache: four to five
times as fast as passes over the whole. The blocks in between are kept for each thread.
Format: docs/format/codecs.md.
"""

import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cas.ids import Buffer

compiled: ModuleType | None
try:
    from cas.codec import _words as compiled
except ImportError:  # no compiler was at hand, or the machine is another than it was made for
    compiled = None

Bytes = NDArray[np.uint8]
Words = NDArray[Any]  # unsigned, little-endian, of 1, 2, 4 or 8 bytes

BLOCK_SIZE: Final = 256 << 10  # of NumPy's passes
LARGE_BLOCK: Final = 1 << 20  # of compiled ones, which are worth a change of threads
# Larger scratch is given back after use: blocks of tensors are 4 MiB, with a mask a little more.
KEPT_SIZE: Final = 5 << 20

UNSIGNED: Final = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}
SIGNED: Final = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}


def as_bytes(data: Buffer) -> Bytes:
    """Return the bytes of a contiguous buffer, not copied."""
    view = memoryview(data)
    return np.frombuffer(view.cast("B"), np.uint8) if view.nbytes else np.empty(0, np.uint8)


def as_words(raw: Bytes, width: int) -> Words:
    """Return the whole words at the start of these bytes, not copied."""
    return raw[: raw.size // width * width].view(UNSIGNED[width])


class _Scratch(threading.local):
    """The arrays that each thread keeps for its blocks and planes."""

    def __init__(self) -> None:
        self._kept: dict[str, Bytes] = {}

    def bytes(self, name: str, size: int) -> Bytes:
        """Return `size` bytes of any content, the same ones at each call of this thread."""
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = np.empty(size, np.uint8)
            if size <= KEPT_SIZE:
                self._kept[name] = kept
        return kept[:size]

    def words(self, name: str, width: int, count: int) -> Words:
        """Return `count` words of any content, the same ones at each call of this thread."""
        return self.bytes(f"{name} {width}", count * width).view(UNSIGNED[width])


scratch: Final = _Scratch()


def spans(count: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the blocks of `count` words."""
    step = (BLOCK_SIZE if compiled is None else LARGE_BLOCK) // width
    for start in range(0, count, step):
        yield start, min(start + step, count)


def split(words: Words, planes: Sequence[Bytes], turn: int = 0) -> None:
    """Write byte k of each word into `planes[k]`.

    The upper half of each word, or a word of two bytes, is rotated by `turn` bits to the left.
    """
    if compiled is not None:
        compiled.split(words, planes, words.itemsize, turn)
        return
    for start, stop in spans(words.size, words.itemsize):
        _split(words[start:stop], [row[start:stop] for row in planes], turn)


def join(planes: Sequence[Bytes], words: Words, turn: int = 0) -> None:
    """Make each word from its bytes: the inverse of `split`."""
    if compiled is not None:
        compiled.join(planes, words, words.itemsize, turn)
        return
    for start, stop in spans(words.size, words.itemsize):
        _join([row[start:stop] for row in planes], words[start:stop], turn)


def _split(words: Words, planes: Sequence[Bytes], turn: int) -> None:
    width = words.itemsize
    if width == 1:
        planes[0][:] = words
        return
    half = width // 2
    if half == 1 and turn:
        words = _turned(words, turn)
    shifted = scratch.words("shifted", width, words.size)
    np.right_shift(words, 8 * half, out=shifted)
    for part, rows, by in ((words, planes[:half], 0), (shifted, planes[half:], turn)):
        if half == 1:
            np.copyto(rows[0], part, casting="unsafe")
        else:
            narrow = scratch.words("narrow", half, words.size)
            np.copyto(narrow, part, casting="unsafe")
            _split(_turned(narrow, by) if by else narrow, rows, 0)


def _join(planes: Sequence[Bytes], words: Words, turn: int) -> None:
    width = words.itemsize
    if width == 1:
        words[:] = planes[0]
        return
    half = width // 2
    if half == 1:
        low, high = planes
    else:
        low = high = scratch.words("narrow", half, words.size)
        _join(planes[half:], high, 0)
        if turn:
            high = _turned(high, 8 * half - turn)
    np.copyto(words, high)
    np.left_shift(words, 8 * half, out=words)
    if half == 1:
        np.bitwise_or(words, low, out=words)
        if turn:
            words[:] = _turned(words, 16 - turn)
        return
    _join(planes[:half], low, 0)
    wide = scratch.words("shifted", width, words.size)
    np.copyto(wide, low)
    np.bitwise_or(words, wide, out=words)


def _turned(words: Words, by: int) -> Words:
    turned = scratch.words("turned", words.itemsize, words.size)
    rotate(words, by, turned)
    return turned


def rotate(words: Words, by: int, out: Words) -> None:
    """Write the words with their highest `by` bits moved to the lower end; `out` is another."""
    bits = 8 * words.itemsize
    low = scratch.words("rotated", words.itemsize, words.size)
    np.right_shift(words, bits - by, out=low)
    np.left_shift(words, by, out=out)
    np.bitwise_or(out, low, out=out)


def difference(words: Words, base: Words, out: Words, *, floating: bool) -> None:
    """Write how far each word is from its base: small numbers for small steps of either sign.

    Floats are taken as the integers that have their order, so that a step to the next float is 1
    everywhere, across zero too; then the difference modulo 2^n, zig-zag.
    """
    width = words.itemsize
    if compiled is not None:
        compiled.difference(words, base, out, width, floating)
        return
    if floating:
        mapped = scratch.words("mapped", width, words.size)
        _ordered(base, mapped)
        _ordered(words, out)
        np.subtract(out, mapped, out=out)
    else:
        np.subtract(words, base, out=out)
    sign = scratch.words("sign", width, words.size)
    _signs(out, sign)
    np.left_shift(out, 1, out=out)
    np.bitwise_xor(out, sign, out=out)


def restore(steps: Words, base: Words, out: Words, *, floating: bool) -> None:
    """Write the words that are so far from their base; `steps` are spoilt."""
    width = steps.itemsize
    if compiled is not None:
        compiled.restore(steps, base, out, width, floating)
        return
    sign = scratch.words("sign", width, steps.size)
    np.bitwise_and(steps, 1, out=sign)
    np.negative(sign, out=sign)
    np.right_shift(steps, 1, out=steps)
    np.bitwise_xor(steps, sign, out=steps)
    if not floating:
        np.add(steps, base, out=out)
        return
    mapped = scratch.words("mapped", width, steps.size)
    _ordered(base, mapped)
    np.add(steps, mapped, out=steps)
    _ordered(steps, out)


def _ordered(words: Words, out: Words) -> None:
    """Map floats to integers of the same order, and back: a map that is its own inverse."""
    sign = scratch.words("sign", words.itemsize, words.size)
    _signs(words, sign)
    np.right_shift(sign, 1, out=sign)
    np.bitwise_xor(words, sign, out=out)


def _signs(words: Words, out: Words) -> None:
    """Write all ones for each word whose highest bit is set, else 0."""
    signed = SIGNED[words.itemsize]
    np.right_shift(words.view(signed), 8 * words.itemsize - 1, out=out.view(signed))
