"""The rows of many footers, searched as one: for who reads every footer anyway.

The rows stay as they are in the footers, pack after pack; beside them stands their order by key.
That takes twelve bytes a row, and no second copy of the rows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cas.ids import Buffer
from cas.store.merge import MANY
from cas.store.pack import PackInfo, Row
from cas.store.segment import FIRST, KEY, Segment, key_of, row_at

if TYPE_CHECKING:
    from cas.store.rowarray import Found, Ids
    from cas.store.rowtable import RowTable


class Joined:
    """Sorted rows of several packs, whatever their rows say of the pack."""

    def __init__(self, footers: Iterable[tuple[bytes, Buffer]]) -> None:
        """Take the name of each pack and its rows."""
        rows = bytearray()
        names: list[bytes] = []
        self._starts = [0]
        for name, part in footers:
            rows += part
            names.append(name)
            self._starts.append(len(rows) // Row.SIZE)
        self.packs = tuple(names)
        self._rows = memoryview(rows).toreadonly()
        self._keys, self._order = _ordered(self._rows)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def rows(self) -> memoryview:
        """All rows, pack after pack; a row's number is its place here."""
        return self._rows

    def span(self, number: int) -> tuple[int, int]:
        """Return the number of the first row of one pack, and the one after its last."""
        return self._starts[number], self._starts[number + 1]

    def numbers(self, id: bytes) -> list[int]:
        """Return the numbers of the rows of one id."""
        key = key_of(id)
        return list(self._numbers(bisect_left(self._keys, key), key, id))

    def table(self, packs: Sequence[PackInfo]) -> "RowTable":
        """Return all rows as arrays; `packs` are those whose names were given."""
        from cas.store.rowtable import RowTable

        return RowTable(packs, self._rows, self._starts)

    def part(self, number: int) -> Segment:
        """Return the rows of one pack, as its footer has them."""
        low, high = self._starts[number] * Row.SIZE, self._starts[number + 1] * Row.SIZE
        return Segment(self._rows[low:high], (self.packs[number],))

    def find(self, id: bytes, key: int) -> Sequence[Row]:
        """Return the rows of one id, whose key is `key`."""
        return list(self._among(bisect_left(self._keys, key), key, id))

    def starting(self, prefix: bytes) -> Iterator[Row]:
        """Yield the rows whose ids begin with `prefix`, in the order of their keys."""
        low = key_of(prefix[:KEY].ljust(KEY, b"\0"))
        high = key_of(prefix[:KEY].ljust(KEY, b"\xff"))
        return self._among(bisect_left(self._keys, low), high, prefix)

    def matches(self, ids: "Ids") -> "Found":
        """Return the rows of many ids."""
        from cas.store import rowarray

        return rowarray.matches_in_order(self._rows, self._keys, self._order, self._starts, ids)

    def row(self, number: int) -> Row:
        """Return the row with this number, whose pack is that of its footer."""
        return self._row(number)

    def _among(self, number: int, high: int, prefix: bytes) -> Iterator[Row]:
        return map(self._row, self._numbers(number, high, prefix))

    def _numbers(self, number: int, high: int, prefix: bytes) -> Iterator[int]:
        while number < len(self._keys) and self._keys[number] <= high:
            at = self._order[number]
            if self._rows[at * Row.SIZE : at * Row.SIZE + len(prefix)] == prefix:
                yield at
            number += 1

    def _row(self, at: int) -> Row:
        row = row_at(self._rows, at)
        return Row(
            row.id,
            row.offset,
            row.stored,
            row.size,
            row.kind,
            row.codec,
            row.depth,
            bisect_right(self._starts, at) - 1,
        )


def _ordered(rows: Buffer) -> tuple[Sequence[int], Sequence[int]]:
    """Return the keys of the rows in order, and which row each is of."""
    if len(rows) >= MANY * Row.SIZE:
        from cas.store import rowarray

        return rowarray.key_order(rows)
    found = [key for (key,) in FIRST.iter_unpack(rows)]
    numbers = sorted(range(len(found)), key=found.__getitem__)
    return [found[number] for number in numbers], numbers
