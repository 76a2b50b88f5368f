"""Grouped: the steps of small floats put in the order of their bases' size.

The steps of a training run are much the same for all weights, so in units of the last place they
are large where the weight is small. Taken by the size of the base, which the reader has too, they
stand among their like, and each block of an entropy coder gets a table of its own.
Format: docs/format/codecs.md.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cas.codec.bits import Words, scratch

# Sorted chunk by chunk: indices of this many words stay in the cache.
CHUNK: Final = 64 << 10
GROUPS: Final = 256
# By the size of a word: where the eight bits start that it is grouped by.
EXPONENTS: Final = {2: 7, 4: 23}


class Groups:
    """The places of words, ordered by the eight bits below the sign of their bases."""

    def __init__(self, base: Words) -> None:
        self._keys = scratch.bytes("keys", base.size)
        low = EXPONENTS[base.itemsize]
        counts = []
        for start, stop in self.chunks():
            keys = self._keys[start:stop]
            np.copyto(keys, base[start:stop] >> low, casting="unsafe")
            counts.append(np.bincount(keys, minlength=GROUPS))
        self._counts = np.array(counts, np.int64).reshape(len(counts), GROUPS)
        flat = np.cumsum(self._counts.T.ravel())
        self._ends = flat.reshape(GROUPS, len(counts)).T

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yield where each chunk starts and stops."""
        for start in range(0, self._keys.size, CHUNK):
            yield start, min(start + CHUNK, self._keys.size)

    def gather(self, chunk: int, words: Words, out: Words) -> None:
        """Put the words of one chunk at their places in `out`."""
        ordered = words[self._order(chunk)]
        for inside, outside in self._runs(chunk):
            out[outside] = ordered[inside]

    def scatter(self, chunk: int, grouped: Words, out: Words) -> None:
        """Take the words of one chunk from their places in `grouped`."""
        ordered = scratch.words("ordered", out.itemsize, out.size)
        for inside, outside in self._runs(chunk):
            ordered[inside] = grouped[outside]
        out[self._order(chunk)] = ordered

    def _order(self, chunk: int) -> NDArray[np.intp]:
        return np.argsort(self._keys[chunk * CHUNK : (chunk + 1) * CHUNK], kind="stable")

    def _runs(self, chunk: int) -> Iterator[tuple[slice, slice]]:
        """Yield where each group of a chunk stands in the sorted chunk, and in the whole."""
        counts = self._counts[chunk]
        place = 0
        for group in np.flatnonzero(counts).tolist():
            count, end = int(counts[group]), int(self._ends[chunk, group])
            yield slice(place, place + count), slice(end - count, end)
            place += count
