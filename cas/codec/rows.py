"""Rows: runs of bytes of known sizes in one body, each as it is or as a zstd frame.

What planes and deltas are made of. The raw rows come first, so that they are written in place
before anybody knows how long the frames will be.
Format: docs/format/codecs.md.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final

import numpy as np

from cas.codec.bits import Bytes, as_bytes, scratch
from cas.codec.compress import Zstd, check_frame, gains
from cas.errors import CorruptionError

QUICK: Final = Zstd(level=1, entropy=True)

Coder = Zstd | None  # None: as it is


class RowWriter:
    """A body under construction: fill `rows`, then `finish`."""

    def __init__(self, front: bytes, sizes: Sequence[int], coders: Sequence[Coder]) -> None:
        """Lay out a body that starts with `front` and has rows of these sizes, coded like this."""
        self._coders = coders
        self._lengths = _lengths(len(sizes))
        self._lengths_at = len(front)
        self._end = len(front) + self._lengths.size
        # A frame of what does not compress is longer than the row, by less than this.
        spare = sum((size >> 8) + 128 for size in self._coded(sizes))
        whole = self._end + sum(sizes) + spare
        self._body = np.empty(whole, np.uint8)
        self._body[: len(front)] = as_bytes(front)
        staged = scratch.bytes("staged", sum(self._coded(sizes)))
        self.rows: list[Bytes] = []
        place = 0
        for size, coder in zip(sizes, coders, strict=True):
            if coder is None:
                self.rows.append(self._body[self._end : self._end + size])
                self._end += size
            else:
                self.rows.append(staged[place : place + size])
                place += size

    def finish(self) -> memoryview:
        """Return the body with the rows as they are now."""
        lengths = []
        for row, coder in zip(self.rows, self._coders, strict=True):
            frame = b"" if coder is None else coder.encode(row.data)
            self._body[self._end : self._end + len(frame)] = as_bytes(frame)
            self._end += len(frame)
            lengths.append(len(frame))
        self._lengths.pack_into(self._body.data, self._lengths_at, *lengths)
        return self._body.data[: self._end]

    def _coded(self, sizes: Sequence[int]) -> list[int]:
        return [size for size, coder in zip(sizes, self._coders, strict=True) if coder is not None]


def read_rows(body: memoryview, sizes: Sequence[int]) -> "RowReader":
    """Check the body of rows of these sizes; raise CorruptionError unless they fill it."""
    layout = _lengths(len(sizes))
    if len(body) < layout.size:
        raise CorruptionError(f"rows cut short at {len(body)} bytes")
    lengths = layout.unpack_from(body)
    stored = [length or size for length, size in zip(lengths, sizes, strict=True)]
    if layout.size + sum(stored) != len(body):
        raise CorruptionError(f"rows of {layout.size + sum(stored)} bytes in a body of {len(body)}")
    parts: list[memoryview] = [body] * len(sizes)
    place = layout.size
    for coded in (False, True):
        for number, length in enumerate(lengths):
            if bool(length) == coded:
                parts[number] = body[place : place + stored[number]]
                place += stored[number]
    for part, length, size in zip(parts, lengths, sizes, strict=True):
        if length:
            check_frame(part, size)
    return RowReader(parts, [bool(length) for length in lengths], list(sizes))


class RowReader:
    """The rows of a body whose lengths were found to agree."""

    def __init__(self, parts: list[memoryview], coded: list[bool], sizes: list[int]) -> None:
        self._parts = parts
        self._coded = coded
        self._sizes = sizes

    def rows(self) -> list[Bytes]:
        """Return the rows, valid until this thread reads or writes others; or CorruptionError."""
        wanted = [size for size, coded in zip(self._sizes, self._coded, strict=True) if coded]
        staged = scratch.bytes("staged", sum(wanted))
        rows = []
        for part, coded, size in zip(self._parts, self._coded, self._sizes, strict=True):
            if coded:
                row, staged = staged[:size], staged[size:]
                _DECODER.decode_into(part, row.data)
                rows.append(row)
            else:
                rows.append(as_bytes(part))
        return rows


def coder_for(row: Bytes, coder: Zstd = QUICK) -> tuple[Coder, int]:
    """Return how to code a row like this one, and how long it then is."""
    if row.size:
        coded = len(coder.encode(row.data))
        if gains(coded, row.size):
            return coder, coded
    return None, row.size


def _lengths(count: int) -> Struct:
    return Struct(f"<{count}I")


_DECODER: Final = Zstd()
