"""The window of stored bytes that `fsck --data` reads: each run goes on where the last one ended.

Records are in the order of their packs' names, which never change, so that a position means the
same in a repository that others write to. Runs of p % read everything in 100 / p runs.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Self

import numpy as np

from cas.store.pack import PackInfo
from cas.store.rowarray import Numbers
from cas.store.rowtable import RowTable


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next window begins: at the first record that stands here or behind it."""

    pack: bytes = b""
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.pack.hex()}:{self.offset}"

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read a position; nonsense is the start."""
        pack, _, offset = (text or "").partition(":")
        try:
            found = cls(bytes.fromhex(pack), int(offset))
        except ValueError:
            return cls()
        return found if len(found.pack) == PackInfo.NAME_SIZE and found.offset >= 0 else cls()


@dataclass(frozen=True, slots=True)
class Window:
    """The records to read, the first bytes of which stand at `start`, and where the next begins."""

    records: Numbers
    start: Position
    next: Position


def window(table: RowTable, percent: Fraction, start: Position) -> Window:
    """Return records that take at least so much of all bytes, from a position on and round."""
    order = _in_order(table)
    if not len(order):
        return Window(order, start, start)
    sizes = (table.ends - table.rows["offset"].astype(np.int64))[order]
    first = _first(table, order, start)
    rolled = np.roll(np.arange(len(order)), -first)
    share = min(ceil(int(sizes.sum()) * percent / 100), int(sizes.sum()))
    count = int(np.searchsorted(np.cumsum(sizes[rolled]), share)) + 1
    taken = order[rolled[:count]]
    after = order[rolled[count % len(order)]]
    return Window(taken, _position(table, int(taken[0])), _position(table, int(after)))


def _in_order(table: RowTable) -> Numbers:
    names = sorted(range(len(table.packs)), key=lambda number: table.packs[number].name)
    rank = np.empty(len(names), np.int64)
    rank[names] = np.arange(len(names))
    order: Numbers = np.lexsort((table.rows["offset"], rank[table.pack]))
    return order


def _first(table: RowTable, order: Numbers, start: Position) -> int:
    """Return which record in order is the first at or behind a position; round to the first."""
    behind = np.array([info.name > start.pack for info in table.packs], bool)
    same = np.array([info.name == start.pack for info in table.packs], bool)
    pack = table.pack[order]
    there = behind[pack] | (same[pack] & (table.rows["offset"][order] >= start.offset))
    return int(np.argmax(there))


def _position(table: RowTable, number: int) -> Position:
    place = table.place(number)
    return Position(place.pack.name, place.row.offset)
