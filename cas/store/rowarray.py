"""Rows as NumPy arrays, for what is done to very many at once.

Imported inside functions only: where rows are few, NumPy takes longer to load than it saves.
Rows and ids are never of a string type, which would drop the zeros at their ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cas.ids import Buffer, ObjectId
from cas.store.pack import ID, Row
from cas.store.record import RECIPE
from cas.store.segment import KEY

Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.void]

WHOLE: Final = np.dtype(f"V{Row.SIZE}")
ROW: Final = np.dtype(
    {
        "names": ["id", "key", "offset", "stored", "size", "kind", "codec", "depth", "pack"],
        "formats": [f"V{ID}", ">u8", "<u8", "<u4", "<u8", "u1", "u1", "u1", "<u4"],
        "offsets": [0, 0, 32, 40, 44, 52, 53, 54, 56],
        "itemsize": Row.SIZE,
    }
)


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids in the order of their keys."""

    whole: Rows
    keys: Keys

    @classmethod
    def of(cls, ids: Sequence[ObjectId]) -> "tuple[Ids, Numbers]":
        """Return the ids in order, and the place of each in `ids`."""
        whole = np.frombuffer(b"".join(ids), f"V{ID}")
        keys = whole.view(f">u{KEY}")[:: ID // KEY].astype(np.uint64)
        order = np.argsort(keys, kind="stable")
        return cls(whole[order], keys[order]), order

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> "Ids":
        return Ids(self.whole[part], self.keys[part])


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that were found, each with the number of its id among those asked for."""

    ids: Numbers
    rows: Rows

    def moved(self, by: int) -> "Found":
        """Return the same with ids that count from another start."""
        return Found(self.ids + by, self.rows)


def joined(found: Sequence[Found]) -> Found:
    """Return all of these as one."""
    if len(found) == 1:
        return found[0]
    whole = [np.empty(0, WHOLE), *(part.rows.view(WHOLE) for part in found)]
    ids = [np.empty(0, np.int64), *(part.ids for part in found)]
    return Found(np.concatenate(ids), np.concatenate(whole).view(ROW))


def matches(rows: Buffer, ids: Ids) -> Found:
    """Return those of these sorted rows that have one of the ids."""
    keys = np.frombuffer(rows, ROW)["key"].astype(np.uint64)
    numbers, found = pairs(rows, keys, None, ids)
    return Found(numbers, np.frombuffer(rows, WHOLE)[found].view(ROW))


def pairs(
    rows: Buffer, keys: Keys, order: "npt.NDArray[np.uint32] | None", ids: Ids
) -> tuple[Numbers, Numbers]:
    """Return the numbers of ids and of rows that belong together.

    `keys` are those of the rows in order; `order` says which row each is of, where rows are not.
    """
    own = np.frombuffer(rows, ROW)["id"]
    at = np.searchsorted(keys, ids.keys)
    which = np.arange(len(ids))
    ids_found, rows_found = [which[:0]], [which[:0]]
    while len(at):
        inside = at < len(keys)
        at, which = at[inside], which[inside]
        same = keys[at] == ids.keys[which]
        at, which = at[same], which[same]
        row = at if order is None else order[at].astype(np.int64)
        exact = own[row] == ids.whole[which]
        ids_found.append(which[exact])
        rows_found.append(row[exact])
        at = at + 1
    return np.concatenate(ids_found), np.concatenate(rows_found)


def matches_in_order(
    rows: Buffer, keys: Sequence[int], order: Sequence[int], starts: Sequence[int], ids: Ids
) -> Found:
    """Return those of these rows that have one of the ids; see `pairs` for keys and order.

    The rows of each pack begin at its number in `starts`, and get that as their pack's.
    """
    in_order = np.asarray(keys, np.uint64), np.asarray(order, np.uint32)
    numbers, found = pairs(rows, *in_order, ids)
    own = np.frombuffer(rows, WHOLE)[found].view(ROW)
    own["pack"] = np.searchsorted(np.asarray(starts), found, "right") - 1
    return Found(numbers, own)


def key_order(rows: Buffer) -> tuple[memoryview, memoryview]:
    """Return the keys of these rows in order, and the number of the row that each is of."""
    keys = np.frombuffer(rows, ROW)["key"].astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    return keys[order].data, order.astype(np.uint32).data


def merged(parts: Sequence[tuple[Buffer, Sequence[int]]]) -> bytes:
    """Return the rows of all parts in order, each once, their packs numbered anew.

    With each part comes the new number of each of its packs, -1 for one that is left out.
    """
    rows = np.concatenate([np.empty(0, WHOLE), *(_renumbered(*part) for part in parts)])
    keys = rows.view(ROW)["key"].astype(np.uint64)
    order = np.argsort(keys)
    keys = keys[order]
    rows = rows[order]
    tied = np.zeros(len(rows), bool)
    tied[1:] = keys[1:] == keys[:-1]
    tied[:-1] |= tied[1:]
    # Among equal keys all bytes decide; there are few, so that comparing them whole is no matter.
    places = np.flatnonzero(tied)
    rows[places] = np.sort(rows[places])
    fresh = np.ones(len(rows), bool)
    fresh[1:] = rows[1:] != rows[:-1]
    return rows[fresh].tobytes()


def best(
    found: Sequence[Found], numbers: Sequence[Sequence[int]]
) -> Iterator[tuple[int, int, Row]]:
    """Yield for each id that was found the row to take, between their numbers: id, pack, row.

    `numbers` has for each part the places of its packs in the root, -1 for one passed over.
    """
    packs = [_looked_up(part.rows, own) for part, own in zip(found, numbers, strict=True)]
    pack = np.concatenate([np.empty(0, np.int64), *packs])
    whole = joined(found)
    ids, rows, pack = whole.ids[pack >= 0], whole.rows[pack >= 0], pack[pack >= 0]
    # A recipe has no depth, so whole comes before recipe before delta.
    recipe = rows["codec"] == RECIPE
    order = np.lexsort((rows["offset"], pack, recipe, rows["depth"], ids))
    first = np.ones(len(order), bool)
    first[1:] = ids[order][1:] != ids[order][:-1]
    taken = order[first]
    for id, number, (digest, _, *rest) in zip(
        ids[taken].tolist(), pack[taken].tolist(), rows[taken].tolist(), strict=True
    ):
        yield id, number, Row(ObjectId(digest), *rest)


def are_in_order(rows: Buffer, before: bytes, packs: int) -> bool:
    """Say whether these rows come after the row `before`, each after the last, of `packs` packs.

    No may also be said of rows whose keys are equal, which are few.
    """
    found = np.frombuffer(rows, ROW)
    keys = found["key"].astype(np.uint64)
    ascending = bool((keys[1:] > keys[:-1]).all()) and bytes(rows[: Row.SIZE]) > before
    return ascending and bool((found["pack"] < packs).all())


def _renumbered(raw: Buffer, numbers: Sequence[int]) -> Rows:
    """Return the rows whose packs have a number, with that."""
    rows = np.frombuffer(raw, ROW)
    packs = _looked_up(rows, numbers)
    kept = rows.view(WHOLE)[packs >= 0]
    kept.view(ROW)["pack"] = packs[packs >= 0]
    return kept


def _looked_up(rows: Rows, numbers: Sequence[int]) -> Numbers:
    """Return the number that the pack of each row has here, -1 where there is no such pack."""
    table: Numbers = np.array([*numbers, -1], np.int64)
    found: Numbers = table[np.minimum(rows["pack"], len(numbers))]
    return found
