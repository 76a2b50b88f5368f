"""A large blob as pieces: cutting the buffers that it comes in, and putting its recipe together.

Format: docs/format/cutting.md, docs/format/recipe.md.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from cas.codec.chunker import Chunker
from cas.errors import InvalidInputError
from cas.ids import BlobHasher, BlobId, Buffer
from cas.store.pool import Lane
from cas.store.recipe import MAX_PIECES, Recipe

GATHER: Final = 1024 * 1024  # bytes that are worth a job


def cut(buffers: Iterable[Buffer], chunker: Chunker) -> Iterator[memoryview]:
    """Yield the chunks of what the buffers hold together; only one that spans two is copied."""
    rest = memoryview(b"")  # no chunk ends in it yet
    for buffer in buffers:
        data = memoryview(buffer)
        if rest:
            # A cut depends only on what came since the last: so much tells where this chunk ends.
            head = memoryview(b"".join((rest, data[: chunker.max_size])))
            lengths = chunker.cut(head, final=False)
            if not lengths:
                rest = head
                continue
            if lengths[0] < len(rest):
                head = memoryview(b"".join((rest, data)))
                data = head[lengths[0] :]
            else:
                data = data[lengths[0] - len(rest) :]
            yield head[: lengths[0]]
        at = 0
        for length in chunker.cut(data, final=False):
            yield data[at : at + length]
            at += length
        rest = data[at:]
    at = 0
    for length in chunker.cut(rest, final=True):
        yield rest[at : at + length]
        at += length


class WholeHash:
    """The id of a blob that comes in buffers, computed beside the caller.

    The buffers must not change until `id` is asked for.
    """

    def __init__(self) -> None:
        self._hasher = BlobHasher()
        self._lane = Lane()
        self._gathered: list[Buffer] = []
        self._gathered_bytes = 0

    def update(self, data: Buffer) -> None:
        """Take the next bytes."""
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHER:
            self._lane.put(partial(self._hash, self._gathered))
            self._gathered, self._gathered_bytes = [], 0

    def id(self) -> BlobId:
        """Return the id of all bytes taken."""
        self._lane.settle()
        self._hash(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        return self._hasher.id()

    def _hash(self, buffers: list[Buffer]) -> None:
        for data in buffers:
            self._hasher.update(data)


def recipe_of(pieces: list[tuple[BlobId, int]]) -> Recipe:
    """Return the recipe of these pieces; raise InvalidInputError when they are too many."""
    if len(pieces) > MAX_PIECES:
        raise InvalidInputError("the source grew far beyond its stated size while it was read")
    return Recipe(tuple(size for _, size in pieces), b"".join(id for id, _ in pieces))
