"""Pieces of blobs that stand one after another in a pack, to be read in one go.

A disk answers one large read sooner than many small ones, and a file of tensors has a small piece
between any two of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from cas.backend.base import Span
from cas.ids import BlobId, Buffer
from cas.store.index import Place

TOGETHER: Final = 4 * 1024 * 1024  # bytes that are read at once, and no more when decoded
GAP: Final = 32 * 1024  # what is read between two records though nobody wants it


@dataclass(frozen=True, slots=True)
class Part:
    """What is wanted of a blob that is stored whole."""

    id: BlobId
    size: int
    start: int
    stop: int
    place: Place


class Wanted(NamedTuple):
    """A whole piece, and where its bytes go."""

    part: Part
    target: memoryview


class Group:
    """Pieces in the order in which they stand in one pack, at least one; `size` is that of all."""

    __slots__ = ("size", "wanted")

    def __init__(self, first: Wanted) -> None:
        self.wanted = [first]
        self.size = first.part.size

    @property
    def key(self) -> str:
        """The key of their pack."""
        return self.wanted[0].part.place.pack.key

    @property
    def span(self) -> Span:
        """Where their records stand in it."""
        start, end = self._first.row.offset, self._last.row.end
        return Span(start, end - start)

    def add(self, wanted: Wanted) -> None:
        """Read one more with these, which was said to be worth it."""
        self.wanted.append(wanted)
        self.size += wanted.part.size

    def takes(self, part: Part) -> bool:
        """Say whether a piece is to be read together with these."""
        place = part.place
        return (
            place.pack == self._first.pack
            and 0 <= place.row.offset - self._last.row.end <= GAP
            and place.row.end - self._first.row.offset <= TOGETHER
            and self.size + part.size <= TOGETHER
        )

    def records(self, raw: Buffer) -> Iterator[tuple[Wanted, memoryview]]:
        """Yield each piece with its record, from the bytes of the whole span."""
        view, start = memoryview(raw), self._first.row.offset
        for wanted in self.wanted:
            row = wanted.part.place.row
            yield wanted, view[row.offset - start : row.end - start]

    @property
    def _first(self) -> Place:
        return self.wanted[0].part.place

    @property
    def _last(self) -> Place:
        return self.wanted[-1].part.place


def grouped(wanted: Iterable[Wanted]) -> Iterator[Group]:
    """Yield pieces in their order, in groups that are worth one read each."""
    group: Group | None = None
    for one in wanted:
        if group is not None and group.takes(one.part):
            group.add(one)
            continue
        if group is not None:
            yield group
        group = Group(one)
    if group is not None:
        yield group
