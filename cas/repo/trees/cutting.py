"""Files of tensors into objects: cut at the tensors, so that each has one id wherever it lies.

A recognised file becomes a recipe of its tensors and of what lies between them. The header only
says where to cut: whatever it says, all bytes that are read are stored, in their order, and named
by what was read. A file is read once, front to back, in bounded memory.
Format: docs/format/cutting.md.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, repeat
from typing import BinaryIO, Final

from cas.ids import BlobHasher, BlobId
from cas.objects.containers.files import Span
from cas.objects.containers.nested import spans_in
from cas.objects.elements import element_of
from cas.progress import SILENT, Progress
from cas.store.pieces import WholeHash, recipe_of
from cas.store.pool import one_ahead
from cas.store.recipe import MAX_PIECES
from cas.store.writer import GROUP, GROUP_FROM, WHOLE_TYPED, ObjectWriter

LEAST: Final = 64 * 1024  # what has no more bytes is stored whole
WINDOW: Final = WHOLE_TYPED  # what is read at once where tensors are small
REST: Final = 2**63  # up to the end, wherever that is by now

Piece = tuple[BlobId, int]


def store_tensors(
    writer: ObjectWriter, file: BinaryIO, size: int, *, told: int = 0, progress: Progress = SILENT
) -> Piece | None:
    """Store a file of tensors; return its id and how many bytes were read.

    None for a file of `size` bytes that is not to be cut: too small, or not one that is known. Then
    nothing is stored, and the file stands at its start. It is best one without a buffer of its own.
    The first `told` bytes are not told to `progress` again: who calls has read them, too.
    Raises OSError when it cannot be read.
    """
    spans = spans_in(file, LEAST) if size > LEAST else ()
    file.seek(0)
    if not spans:
        return None
    # Nothing is read any more when the caller closes the file.
    with closing(_reads(file, spans)) as reads:
        return _Cut(writer, _Source(reads, told, progress)).run(spans, size)


class _Source:
    """A file that is read once, ahead of who takes it; all of it goes into the id of the whole."""

    def __init__(self, reads: Iterator[bytes], told: int, progress: Progress) -> None:
        self.hasher = WholeHash()
        self.size = 0
        self._reads = reads
        self._told = told
        self._progress = progress
        self._ready = memoryview(b"")

    def take(self, nbytes: int) -> Iterator[memoryview]:
        """Yield the next bytes, fewer where the file ends; no memory is used again."""
        done = 0
        while done < nbytes and (self._ready or self._read()):
            data, self._ready = self._ready[: nbytes - done], self._ready[nbytes - done :]
            done += len(data)
            yield data

    def _read(self) -> bool:
        data = next(self._reads, b"")
        self.hasher.update(data)
        self.size += len(data)
        self._progress.advance(min(len(data), max(0, self.size - self._told)))
        self._ready = memoryview(data)
        return bool(data)


def _reads(file: BinaryIO, spans: Iterable[Span]) -> Generator[bytes]:
    """Yield all of a file, each part while the next is read."""
    sizes = chain(_windows(spans), repeat(WINDOW))
    with closing(one_ahead(partial(_read_whole, file, size) for size in sizes)) as parts:
        for part in parts:
            if not part:
                return
            yield part


def _windows(spans: Iterable[Span]) -> Iterator[int]:
    """Yield the sizes of reads, for which no block of a tensor needs to be put together."""
    ready = at = 0
    for span in spans:
        for block in (*_blocks(span.offset - at), *_blocks(span.nbytes)):
            if ready + block > WINDOW:
                yield ready
                ready = 0
            ready += block
        at = span.offset + span.nbytes
    if ready:
        yield ready


def _blocks(nbytes: int) -> Iterator[int]:
    for start in range(0, nbytes, WHOLE_TYPED):
        yield min(WHOLE_TYPED, nbytes - start)


def _read_whole(file: BinaryIO, size: int) -> bytes:
    """Return the next `size` bytes, fewer only where the file ends."""
    data = file.read(size)
    while data and len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


class _Cut:
    """One file on its way into the store."""

    def __init__(self, writer: ObjectWriter, source: _Source) -> None:
        self._writer = writer
        self._source = source
        self._done: list[Piece] = []
        self._group: list[Piece] = []
        self._hasher: BlobHasher | None = None  # of the group, where there are groups

    def run(self, spans: tuple[Span, ...], size: int) -> Piece:
        """Store all pieces, then the recipe of the whole."""
        if 2 * len(spans) + 1 > MAX_PIECES:
            self._hasher = BlobHasher()
        at = 0
        for span in spans:
            self._store(span.offset - at, "", span.offset - at)
            self._store(span.nbytes, span.dtype, span.nbytes)
            at = span.offset + span.nbytes
        self._store(REST, "", size - at)
        self._close()
        id = self._source.hasher.id()
        if not self._done:  # nothing is left of the file
            id = self._writer.blob(b"")
        elif not self._writer.has(id):
            self._writer.recipe(id, recipe_of(self._done))
        return id, self._source.size

    def _store(self, nbytes: int, dtype: str, hint: int) -> None:
        """Store the next bytes as one blob, unless there are none."""
        element = element_of(dtype) if dtype else None
        # What may be a recipe of recipes stands in no group: readers go so deep and no deeper. Also
        # numbers may be stored as one, where they were opaque bytes before.
        alone = hint >= GROUP_FROM
        if alone:
            self._close()
        piece = self._writer.stream(self._hashed(nbytes), hint, element)
        if not piece[1]:
            return
        self._group.append(piece)
        if alone or (self._hasher and len(self._group) == GROUP):
            self._close()

    def _hashed(self, nbytes: int) -> Iterator[memoryview]:
        for data in self._source.take(nbytes):
            if self._hasher:
                self._hasher.update(data)
            yield data

    def _close(self) -> None:
        """End a group: its pieces get a recipe of their own where there are groups."""
        group, self._group = self._group, []
        if self._hasher is None or len(group) <= 1:
            self._done += group
        else:
            id, recipe = self._hasher.id(), recipe_of(group)
            if not self._writer.has(id):
                self._writer.recipe(id, recipe)
            self._done.append((id, recipe.size))
        if self._hasher:
            self._hasher = BlobHasher()
