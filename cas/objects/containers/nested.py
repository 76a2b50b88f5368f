"""Files of tensors inside of a tensor: they are cut at their own tensors.

A tensor that is the bytes of such a file would else be a blob whose recipe lists tensors again, one
level deeper with each file around it, and readers go only so deep.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, Final, cast

from cas.objects.containers.files import HEAD, contents_in, may_be_known
from cas.objects.containers.found import MAX_TENSORS, OddError, Span

MAX_NESTING: Final = 8
MAX_FILES: Final = 64


def spans_in(file: BinaryIO, least: int) -> tuple[Span, ...]:
    """Return where to cut a file, and files of more than `least` bytes in its tensors.

    There are none in a file of no known kind, or when it holds too much: it is opaque bytes.
    """
    walk = _Walk(file, least)
    try:
        return tuple(walk.spans(0, file.seek(0, os.SEEK_END), 0) or ())
    except OddError:
        return ()


class _Walk:
    """One look at a file and at all files in it."""

    def __init__(self, file: BinaryIO, least: int) -> None:
        self._file = file
        self._least = least
        self._files = 0
        self._count = 0

    def spans(self, start: int, nbytes: int, depth: int) -> list[Span] | None:
        """Return the spans of the file that lies in these bytes; None when there is none."""
        if nbytes <= self._least:
            return None
        self._file.seek(start)
        if not may_be_known(self._file.read(HEAD)):
            return None
        contents = contents_in(cast("BinaryIO", _Part(self._file, start, nbytes)))
        if contents is None or not contents.spans:
            return None
        self._files += 1
        self._count += len(contents.spans)
        if depth > MAX_NESTING or self._files > MAX_FILES or self._count > MAX_TENSORS:
            raise OddError("too many files in a file")
        return list(self._inner(start, contents.spans, depth))

    def _inner(self, start: int, spans: tuple[Span, ...], depth: int) -> Iterator[Span]:
        for span in spans:
            offset = start + span.offset
            below = self.spans(offset, span.nbytes, depth + 1)
            yield from [replace(span, offset=offset)] if below is None else below


class _Part(io.RawIOBase):
    """Some bytes of a file as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, from the start or from the end."""
        self._at = offset + (self._size if whence == io.SEEK_END else 0)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, fewer where they end."""
        left = max(self._size - self._at, 0)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data
