"""Large blobs put together of their pieces while these come by, for fsck.

A blob that is stored as a recipe has an id over all of its bytes. Its pieces mostly stand side by
side, in order, so that hashing each as it is checked spares reading it a second time. What does not
come in order is read again in the end.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from cas.errors import CasError, CorruptionError
from cas.ids import BlobHasher, BlobId, Buffer, ObjectId
from cas.objects.kind import Kind
from cas.repo.headers import Mask
from cas.store.pinned import PinnedStore
from cas.store.pool import Job, ordered
from cas.store.recipe import MAX_LEVELS
from cas.store.record import RECIPE
from cas.store.rowtable import NOWHERE, RowTable, ids_of

AT_ONCE: Final = 20_000  # blobs whose hashes are under way, of about 2 KB each
PIECE: Final = 4 * 1024 * 1024
ROOM: Final = 96 * 1024 * 1024


class Rebuilds:
    """All blobs that are stored as recipes, each put together once."""

    def __init__(self, store: PinnedStore, table: RowTable) -> None:
        self._store = store
        self._table = table
        self._waiting: dict[int, list[_Rebuild]] = {}
        self._all: list[_Rebuild] = []
        self.asked: Mask = np.zeros(len(table), bool)  # records whose bytes are wanted

    def expect(self) -> None:
        """Begin with every recipe that can be read; the others are told of as what they are."""
        rows = self._table.rows
        for number in np.flatnonzero((rows["codec"] == RECIPE) & (rows["kind"] == Kind.BLOB)):
            leaves = self._leaves(int(number), MAX_LEVELS)
            if leaves:
                one = _Rebuild(int(number), leaves)
                self._all.append(one)
                self.asked[leaves] = True
        for one in self._all[:AT_ONCE]:
            self._waiting.setdefault(one.next, []).append(one)

    def feed(self, number: int, data: Buffer) -> None:
        """Take the bytes of a record."""
        for one in self._waiting.pop(number, ()):
            while one.next == number:
                one.take(data)
            if not one.is_done:
                self._waiting.setdefault(one.next, []).append(one)

    def findings(self) -> Iterator[tuple[int, CasError]]:
        """Read what has not come in order, and yield the recipes that make something else."""
        rows = self._table.rows
        left = [one for one in self._all if not one.is_done]
        jobs: Iterator[tuple[Job[None], int]] = ((partial(self._end, one), PIECE) for one in left)
        for _ in ordered(jobs, ROOM):
            pass
        for one in self._all:
            if one.is_done and one.id() != rows["id"][one.number].tobytes():
                yield one.number, CorruptionError("its pieces together are not what the id names")
        self._all = []

    def _end(self, one: "_Rebuild") -> None:
        rows = self._table.rows
        while not one.is_done:
            try:
                piece = BlobId(ObjectId(rows["id"][one.next].tobytes()))
                one.take(self._store.whole(piece))
            except CasError:
                return  # a piece that is damaged or missing is told of itself

    def _leaves(self, number: int, levels: int) -> list[int]:
        """Return the records that make up a blob, nothing where not all are there."""
        leaves: list[int] = []
        for piece in self._pieces(number) if levels else ():
            is_recipe = self._table.rows["codec"][piece] == RECIPE
            below = self._leaves(piece, levels - 1) if is_recipe else [piece]
            if not below:
                return []
            leaves += below
        return leaves

    def _pieces(self, number: int) -> list[int]:
        """Return the records of the pieces of a recipe, nothing where not all are there."""
        try:
            recipe = self._store.recipe(self._table.place(number))
        except CasError:
            return []
        if recipe is None:
            return []
        pieces = self._table.find(ids_of(recipe.ids))
        sizes = self._table.rows["size"][pieces]
        fit = np.array_equal(sizes, np.array(recipe.sizes, np.uint64))
        there = bool((pieces != NOWHERE).all())
        return list(map(int, pieces)) if fit and there else []


class _Rebuild:
    """One blob on its way: what has been hashed, and the record that comes next."""

    __slots__ = ("_at", "_hasher", "_leaves", "number")

    def __init__(self, number: int, leaves: list[int]) -> None:
        self.number = number
        self._leaves = np.array(leaves, np.uint32)
        self._hasher: BlobHasher | None = None
        self._at = 0

    @property
    def next(self) -> int:
        """The record that comes next, NOWHERE after the last."""
        return NOWHERE if self.is_done else int(self._leaves[self._at])

    @property
    def is_done(self) -> bool:
        """Whether all has been hashed."""
        return self._at == len(self._leaves)

    def take(self, data: Buffer) -> None:
        """Hash the bytes of the next record."""
        self._hasher = self._hasher or BlobHasher()
        self._hasher.update(data)
        self._at += 1

    def id(self) -> BlobId:
        """Return the id of all bytes."""
        return (self._hasher or BlobHasher()).id()
