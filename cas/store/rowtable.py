"""Every record of some packs as arrays: for who looks at all of them.

A record is its number here, pack after pack and in the order of each footer. Imported inside
functions only, as `rowarray`.
"""

from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cas.ids import Buffer, ObjectId
from cas.store.index import Place
from cas.store.pack import ID, PackInfo, Row
from cas.store.record import DELTAS, KINDS, RECIPE
from cas.store.rowarray import ROW, Ids, Keys, Numbers, Rows, pairs

NOWHERE = -1


def _table(values: Collection[int]) -> npt.NDArray[np.bool_]:
    """Return for each byte whether it is one of these: for columns of bytes, faster than `isin`."""
    table = np.zeros(256, bool)
    table[list(values)] = True
    return table


IS_DELTA = _table(DELTAS)  # by codec
IS_KIND = _table(KINDS)  # by kind


class RowTable:
    """The rows of packs, each with the number of its pack; `bad` ones leave look-ups."""

    def __init__(self, packs: Sequence[PackInfo], rows: Buffer, starts: Sequence[int]) -> None:
        """Take the rows of all packs joined; those of each begin at its number in `starts`."""
        self.packs = tuple(packs)
        self.rows = np.frombuffer(rows, ROW)
        self.starts = np.asarray(starts, np.int64)
        self.pack = np.repeat(np.arange(len(self.packs)), np.diff(self.starts))
        self.bad = np.zeros(len(self.rows), bool)
        self._raw = rows
        keys = self.rows["key"].astype(np.uint64)
        self._order = np.argsort(keys, kind="stable").astype(np.uint32)
        self._keys: Keys = keys[self._order]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def ends(self) -> Numbers:
        """Where in its pack each record ends."""
        from cas.store.record import RecordHeader

        size = RecordHeader.SIZE
        ends: Numbers = self.rows["offset"].astype(np.int64) + size + self.rows["stored"]
        return ends

    def of_pack(self, number: int) -> Numbers:
        """Return the records of one pack in the order in which they stand."""
        low, high = self.starts[number], self.starts[number + 1]
        found: Numbers = low + np.argsort(self.rows["offset"][low:high], kind="stable")
        return found

    def place(self, number: int) -> Place:
        """Return where one record stands."""
        id, _, offset, stored, size, kind, codec, depth, _ = self.rows[number].tolist()
        pack = int(self.pack[number])
        row = Row(ObjectId(id), offset, stored, size, kind, codec, depth, pack)
        return Place(row, self.packs[pack])

    def find(self, ids: Rows, *, bad: bool = False) -> Numbers:
        """Return the record that everybody takes for each id, NOWHERE where there is none.

        Those that are known to be damaged count when `bad`.
        """
        keys = ids.view(">u8")[:: ID // 8].astype(np.uint64)
        order = np.argsort(keys, kind="stable")
        which, rows = pairs(self._raw, self._keys, self._order, Ids(ids[order], keys[order]))
        good = slice(None) if bad else ~self.bad[rows]
        which, rows = order[which[good]], rows[good]
        if self._has_twins:
            # The best comes last, and stays.
            best_last = np.lexsort((-self._rank[rows], which))
            which, rows = which[best_last], rows[best_last]
        found: Numbers = np.full(len(ids), NOWHERE, np.int64)
        found[which] = rows
        return found

    @cached_property
    def twins(self) -> npt.NDArray[np.bool_]:
        """Which records may have another one of the same object beside them."""
        same = np.zeros(len(self.rows), bool)
        equal = self._keys[1:] == self._keys[:-1]
        same[self._order[1:][equal]] = True
        same[self._order[:-1][equal]] = True
        return same

    @cached_property
    def _has_twins(self) -> bool:
        return bool(self.twins.any())

    @cached_property
    def _rank(self) -> Numbers:
        """Whole before recipe before delta, then depth, then the order of packs."""
        rows = self.rows
        keys = (rows["offset"], self.pack, rows["codec"] == RECIPE, rows["depth"])
        order = np.lexsort(keys)
        rank: Numbers = np.empty(len(rows), np.int64)
        rank[order] = np.arange(len(rows))
        return rank


def ids_of(raw: Buffer) -> Rows:
    """Return ids that stand one after another."""
    return np.frombuffer(raw, f"V{ID}")
