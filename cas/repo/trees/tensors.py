"""The tensors of a stored file: read from its header, named by the recipe, the rest untouched.

A file that was cut at its tensors has their ids in its recipe; for any other they are computed from
its bytes.
"""

import io
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, cast

from cas.errors import CorruptionError
from cas.ids import BlobHasher, BlobId, Buffer, ObjectId, blob_id
from cas.objects.manifest import INLINE_LIMIT
from cas.store.recipe import MAX_LEVELS, Recipe

if TYPE_CHECKING:
    from typing import BinaryIO

    from cas.repo.repo import Repo
    from cas.store.packed import PackedStore

SMALL: Final = 4 * 1024 * 1024  # pieces up to this size are read whole
WINDOW: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a stored file; without an id where it is no run of bytes in it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    id: BlobId | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The tensors of a stored file, and what kind of file it is."""

    kind: str
    tensors: tuple[StoredTensor, ...]


def tensors_of(repo: "Repo", id: BlobId) -> Listing | None:
    """Return the tensors of a stored file, None when it is not one that is known.

    Raises NotFoundError when it is not there, CorruptionError when it is damaged.
    """
    from cas.objects.containers.files import contents_in

    file = StoredFile(repo.store, id)
    contents = contents_in(cast("BinaryIO", file))
    if contents is None:
        return None
    ids: dict[tuple[int, int], BlobId] = {}
    rows = []
    for tensor in contents.tensors:
        span = None if tensor.offset is None else (tensor.offset, tensor.nbytes)
        if span is not None and span not in ids:
            ids[span] = file.id_of(*span)
        found = None if span is None else ids[span]
        rows.append(StoredTensor(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes, found))
    return Listing(contents.kind, tuple(rows))


class StoredFile(io.RawIOBase):
    """A stored blob as a file to read in, at any place; only the pieces there are read."""

    def __init__(self, store: "PackedStore", id: BlobId) -> None:
        """Open a blob; raise NotFoundError when it is not there."""
        self._store = store
        self._at = 0
        self._window = (0, memoryview(b""))
        self._top = _Table(store, id)
        self._tables: dict[BlobId, _Table] = {id: self._top}

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read at any place."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, from the start or from the end."""
        self._at = offset + (self._top.size if whence == io.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        """Return the place where the next bytes are read."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, fewer where the file ends."""
        stop = self._top.size if size < 0 else min(self._at + size, self._top.size)
        parts = []
        while self._at < stop:
            start, data = self._window
            if not start <= self._at < start + len(data):
                start, data = self._window = self._loaded(stop)
            parts.append(data[self._at - start : stop - start])
            self._at += len(parts[-1])
        return b"".join(parts)

    def id_of(self, offset: int, nbytes: int) -> BlobId:
        """Return the id of a run of bytes."""
        if nbytes <= INLINE_LIMIT:
            self._at = offset
            return blob_id(self.read(nbytes))
        table, start, levels = self._top, 0, MAX_LEVELS
        while table.size != nbytes:
            id, at, size = table.piece(offset - start)
            start += at
            if start == offset and size == nbytes:
                return id
            levels -= 1
            if start + size < offset + nbytes or levels < 0 or not table.inner:
                return self._computed(offset, nbytes)
            table = self._table(id)
        return table.id

    def _computed(self, offset: int, nbytes: int) -> BlobId:
        hasher = BlobHasher()
        for data in self._store.slice(self._top.id, offset, offset + nbytes):
            hasher.update(data)
        return hasher.id()

    def _loaded(self, stop: int) -> tuple[int, memoryview]:
        """Return the bytes around the present place, and where they begin."""
        id, at, size = self._top.piece(self._at)
        if size <= SMALL:
            return at, self._joined(id, 0, size)
        low = self._at - at
        return self._at, self._joined(id, low, min(size, max(stop - at, low + WINDOW)))

    def _joined(self, id: BlobId, start: int, stop: int) -> memoryview:
        parts: list[Buffer] = list(self._store.slice(id, start, stop))
        data = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        if len(data) != stop - start:
            raise CorruptionError(f"a piece of {self._top.id} has not the size that is said")
        return data

    def _table(self, id: BlobId) -> "_Table":
        if id not in self._tables:
            self._tables[id] = _Table(self._store, id)
        return self._tables[id]


class _Table:
    """Where the pieces of one blob begin; one that is stored whole is its own only piece."""

    def __init__(self, store: "PackedStore", id: BlobId) -> None:
        self.id = id
        self.size, recipe = store.shape(id)
        self.inner = recipe is not None
        self._recipe = recipe or Recipe((self.size,), id)
        self._starts = [0, *accumulate(self._recipe.sizes)]

    def piece(self, at: int) -> tuple[BlobId, int, int]:
        """Return the id of the piece at a byte, where it begins, and its size."""
        number = bisect_right(self._starts, at, hi=len(self._recipe.sizes)) - 1
        # Of pieces without bytes, which begin at the same place, it is the last.
        id = self._recipe.ids[number * ObjectId.SIZE : (number + 1) * ObjectId.SIZE]
        return BlobId(ObjectId(id)), self._starts[number], self._recipe.sizes[number]
