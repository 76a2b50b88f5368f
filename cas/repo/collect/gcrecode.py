"""Deltas that a collection writes whole, because their bases are kept for nothing else.

When the checkpoint that others lean on is let go of, its pieces stay as their bases. Those that
hang together go when all that leans on them takes less room written whole than they do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cas.ids import BlobId, ObjectId
from cas.repo.marks import Live
from cas.repo.repacking.recode import as_whole, element_in
from cas.store.encoding import Record
from cas.store.index import Place
from cas.store.pack import Row
from cas.store.packed import PackedStore
from cas.store.pinned import PinnedStore
from cas.store.pool import ordered

ROOM: Final = 96 * 1024 * 1024  # bytes that are being encoded
COPIES: Final = 3


@dataclass(slots=True)
class _Group:
    """Bases that hang together, and the live deltas that lean on them."""

    bases: list[Row] = field(default_factory=list)
    leaning: list[Place] = field(default_factory=list)


def whole_again(store: PinnedStore, live: Live) -> dict[ObjectId, int]:
    """Return the deltas to write whole, each with the bytes of its body then."""
    found: dict[ObjectId, int] = {}
    for group in _groups(store, live):
        frees = sum(row.stored for row in group.bases)
        now = sum(place.row.stored for place in group.leaning)
        if _hoped(store, live, group) - now >= frees:
            continue
        jobs = (
            (partial(_stored, store, place), COPIES * place.row.size) for place in group.leaning
        )
        sizes = list(ordered(jobs, ROOM))
        if sum(sizes) - now < frees:
            found |= {place.row.id: size for place, size in zip(group.leaning, sizes, strict=True)}
    return found


def whole(store: PackedStore, pinned: PinnedStore, place: Place) -> Record:
    """Return a delta as a record by itself; for any thread."""
    _, body = pinned.body(place)
    return as_whole(store, BlobId(place.row.id), element_in(body))


def _stored(store: PinnedStore, place: Place) -> int:
    return whole(store, store, place).header.stored


def _groups(store: PinnedStore, live: Live) -> Iterator[_Group]:
    """Yield bases that are kept for nothing else, with what leans on them."""
    heads: dict[ObjectId, ObjectId] = {}
    only_bases = live.only_bases

    def head(id: ObjectId) -> ObjectId:
        while (base := live.deltas.get(id)) in only_bases:
            assert base is not None
            id = base
        return id

    groups: dict[ObjectId, _Group] = {}
    for id in only_bases:
        heads[id] = head(id)
        groups.setdefault(heads[id], _Group()).bases.append(store.places(id)[0].row)
    for id, base in live.deltas.items():
        if base in heads and id not in only_bases:
            groups[heads[base]].leaning.append(store.places(id)[0])
    yield from groups.values()


def _hoped(store: PinnedStore, live: Live, group: _Group) -> int:
    """Return about how many bytes the deltas of a group take written whole: as their key does."""
    id: ObjectId = group.bases[0].id
    while (base := live.deltas.get(id)) is not None:
        id = base
    return store.places(id)[0].row.stored * len(group.leaning)
