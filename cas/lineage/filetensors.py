"""Files as the tensors in them: one on disk, which somebody asks about, and those of commits.

A tensor has one id in every container, so two files are compared by ids alone.
"""

import os
import stat
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

from cas.errors import BackendError, InvalidInputError, NotFoundError
from cas.ids import BlobHasher, BlobId, ObjectId
from cas.objects.containers.files import FoundTensor, contents_in
from cas.objects.manifest import INLINE_LIMIT
from cas.progress import SILENT, Progress
from cas.repo.repo import Repo
from cas.repo.trees.tensors import tensors_of

WINDOW: Final = 4 * 1024 * 1024
REMEMBERED: Final = 100_000  # committed files whose tensors are not looked at twice

Key = tuple[BlobId, str, tuple[int, ...]]  # id, dtype and shape of a tensor
Score = tuple[int, int]  # how many tensors are equal, and how many there are


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file as it was read; `sizes` are the bytes of the tensors that can be compared.

    A file of no known kind has neither a kind nor tensors.
    """

    id: BlobId
    size: int
    kind: str | None
    tensors: int
    keys: tuple[Key, ...]
    sizes: Mapping[Key, int]

    def tells(self, found: Set[Key], equal: int) -> bool:
        """Say whether equal tensors mean anything: zeros and counters are equal everywhere."""
        if equal == len(self.keys):
            return True
        return any(key in found and size > INLINE_LIMIT for key, size in self.sizes.items())


def read_file(path: Path, progress: Progress) -> TensorFile:
    """Read a file on disk.

    Raises NotFoundError, InvalidInputError for what is no file, BackendError when it cannot be
    read.
    """
    try:
        # Not a pipe, which would be waited for, nor anything else that only looks like a file.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInputError(f"{path} is no file: name one file")
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            progress.start("read", size)
            id = _hashed(file, 0, size, progress)
            progress.finish()
            contents = contents_in(file)
            tensors = () if contents is None else contents.tensors
            keys, sizes = _keys(file, tensors)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("file", str(path)) from None
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror or error}") from error
    return TensorFile(id, size, contents.kind if contents else None, len(tensors), keys, sizes)


class Committed:
    """How many of a file's tensors the files of commits have; each is looked at once."""

    def __init__(self, repo: Repo, file: TensorFile) -> None:
        """Compare with this file."""
        self._repo = repo
        self._file = file
        self._large = {key[0] for key, size in file.sizes.items() if size > INLINE_LIMIT}
        self._least = min(file.sizes.values(), default=0)
        self.score = lru_cache(maxsize=REMEMBERED)(self._score)

    def _score(self, id: ObjectId, size: int) -> Score | None:
        """Return how many tensors of a stored file are those of this one; None for none.

        A file that was cut is opened only when its recipe names one of the tensors.
        """
        if not self._file.keys or size <= self._least or id == self._file.id:
            return None
        blob = BlobId(id)
        _, recipe = self._repo.store.shape(blob)
        pieces = {piece for piece, _ in recipe.pieces()} if recipe else self._large
        if self._large and self._large.isdisjoint(pieces):
            return None
        listing = tensors_of(self._repo, blob)
        if listing is None:
            return None
        found = {
            (tensor.id, tensor.dtype, tensor.shape)
            for tensor in listing.tensors
            if tensor.id is not None
        }
        equal = sum(key in found for key in self._file.keys)
        return (equal, len(listing.tensors)) if equal and self._file.tells(found, equal) else None


def _keys(
    file: BinaryIO, tensors: Sequence[FoundTensor]
) -> tuple[tuple[Key, ...], Mapping[Key, int]]:
    """Return the keys of the tensors that have a place in the file, and their sizes."""
    ids: dict[tuple[int, int], BlobId] = {}
    keys: list[Key] = []
    sizes: dict[Key, int] = {}
    for tensor in tensors:
        if tensor.offset is None:
            continue
        span = (tensor.offset, tensor.nbytes)
        if span not in ids:
            ids[span] = _hashed(file, *span, SILENT)
        keys.append((ids[span], tensor.dtype, tensor.shape))
        sizes[keys[-1]] = tensor.nbytes
    return tuple(keys), sizes


def _hashed(file: BinaryIO, offset: int, length: int, progress: Progress) -> BlobId:
    hasher = BlobHasher()
    file.seek(offset)
    while length:
        data = file.read(min(length, WINDOW))
        if not data:
            raise BackendError(f"{file.name} became shorter while it was read: try again")
        hasher.update(data)
        length -= len(data)
        progress.advance(len(data))
    return hasher.id()
