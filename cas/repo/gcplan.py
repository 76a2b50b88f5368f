"""What a collection would do: which packs go, which are written anew, and what that frees.

A record counts as live when it is the one that everybody takes of a live object. A metadata pack
with anything else in it is always replaced: whatever a look-up finds must be whole, because writers
rely on it without walking. For the same reason a data pack that stays keeps the bases of all its
deltas. That holds for a plan as a whole, never for a part of it.
Format: docs/format/ordering.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cas.backend.base import Exists
from cas.errors import CorruptionError
from cas.ids import ObjectId
from cas.objects.kind import Kind
from cas.repo.reach import Live
from cas.repo.root import Root
from cas.store.index import Place
from cas.store.pack import FOOTER_HEAD, HEADER, TRAILER, PackClass, PackInfo, Row
from cas.store.pinned import PinnedStore
from cas.store.record import DELTAS, RECIPE, RecordHeader
from cas.store.writer import PACK_LIMIT

SMALL_DATA: Final = 16 * 1024**2  # a data pack below it is rewritten for any dead record
WORTH: Final = 4  # a larger one when that frees at least one part in so many
SMALL_METADATA: Final = 4 * 1024**2
MANY: Final = 8  # small metadata packs beyond so many are merged into one
NOTHING: Final[Mapping[ObjectId, int]] = {}
OVERHEAD: Final = HEADER.size + FOOTER_HEAD.size + TRAILER.size


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A pack that is replaced, and where in it the records stand that go on to a new one.

    Those at the offsets in `whole` are deltas that are written without their bases.
    """

    pack: PackInfo
    offsets: tuple[int, ...]
    whole: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What a collection does, decided on one root; sizes are those of pack files.

    `recoded` are deltas that are written whole, so that their bases can go, each with the bytes
    that its body then has.
    """

    base: Root = field(repr=False)
    live: Live = field(repr=False)
    dead: tuple[PackInfo, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    orphans: tuple[PackInfo, ...] = ()
    leftovers: tuple[PackInfo, ...] = ()
    recoded: Mapping[ObjectId, int] = field(default_factory=dict)
    freed_bytes: int = 0
    freed_objects: int = 0
    new_bytes: int = 0
    kept_bytes: int = 0

    @property
    def live_objects(self) -> int:
        """How many objects the refs keep."""
        return len(self.live.places)

    @property
    def root(self) -> int:
        """The number of the root that this was decided on."""
        return self.base.seq

    @property
    def leaving(self) -> tuple[PackInfo, ...]:
        """The packs that become condemned: dead, replaced and orphaned."""
        return self.dead + tuple(rewrite.pack for rewrite in self.rewrites) + self.orphans

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.leaving and not self.leftovers


@dataclass(slots=True)
class _Contents:
    """What stands in one listed pack."""

    pack: PackInfo
    records: int
    live: list[Row]
    spare: list[Row]
    unused_deltas: bool = False

    @property
    def dead_bytes(self) -> int:
        kept = sum(_room(row) for row in self.live)
        return self.pack.length - OVERHEAD - kept

    @property
    def has_dead(self) -> bool:
        return len(self.live) < self.records


def decide(
    store: PinnedStore,
    base: Root,
    live: Live,
    backend: Exists,
    orphans: tuple[PackInfo, ...],
    *,
    recoded: Mapping[ObjectId, int] = NOTHING,
) -> GcPlan:
    """Decide what to do about every pack, if these deltas are written whole; change nothing.

    Raises CorruptionError when a pack that something live stands in is not there whole.
    """
    live, contents = _kept(store, base.packs, live, recoded)
    dead = [item for item in contents if not item.live]
    _check_present(backend, [item.pack for item in contents if item.live])
    moved = _moved(contents, recoded)
    gone = {item.pack.name for item in dead + moved}
    spares = _spares([item for item in contents if item.pack.name not in gone])
    rewrites = [_rewrite(store, item, spares, recoded) for item in moved]
    dead_packs = [item.pack for item in dead] + [r.pack for r in rewrites if not r.offsets]
    rewrites = [rewrite for rewrite in rewrites if rewrite.offsets]
    new_bytes = sum(_lengths(store, rewrites, recoded))
    leaving = [*dead_packs, *(rewrite.pack for rewrite in rewrites), *orphans, *base.condemned]
    on_disk = {pack.name: backend.size(pack.key) or 0 for pack in leaving}
    copied = sum(len(rewrite.offsets) for rewrite in rewrites)
    before = sum(item.records for item in contents if item.pack.name in gone)
    return GcPlan(
        base=base,
        live=live,
        dead=tuple(dead_packs),
        rewrites=tuple(rewrites),
        orphans=orphans,
        leftovers=base.condemned,
        recoded=recoded,
        freed_bytes=sum(on_disk.values()) - new_bytes,
        freed_objects=before - copied,
        new_bytes=new_bytes,
        kept_bytes=sum(pack.length for pack in base.packs if pack.name not in gone) + new_bytes,
    )


def _kept(
    store: PinnedStore, packs: Sequence[PackInfo], live: Live, recoded: Mapping[ObjectId, int]
) -> tuple[Live, list[_Contents]]:
    """Return what stays, and by packs; the bases of dead deltas stay for as long as those do."""
    while True:
        contents = [_contents(store, pack, live) for pack in packs]
        gone = {item.pack.name for item in _moved(contents, recoded)}
        staying = [item for item in contents if item.live and item.pack.name not in gone]
        bases = dict(_unmarked(store, staying, live))
        if not bases:
            return live, contents
        live = replace(live, places={**live.places, **bases})


def _unmarked(
    store: PinnedStore, staying: list[_Contents], live: Live
) -> Iterator[tuple[ObjectId, tuple[bytes, int]]]:
    """Yield bases that do not count as live yet, of deltas that nobody takes and that stay."""
    pending = [id for item in staying if item.unused_deltas for id in store.bases(item.pack)]
    while pending:
        id = pending.pop()
        if id in live.places:
            continue
        for place in store.places(id)[:1]:
            yield id, (place.pack.name, place.row.offset)
            if (base := store.base(place)) is not None:
                pending.append(base)


def _moved(contents: list[_Contents], recoded: Mapping[ObjectId, int]) -> list[_Contents]:
    """Return the packs that are replaced."""
    alive = [item for item in contents if item.live]
    moved = [
        item
        for item in alive
        if (item.has_dead and _worth(item)) or any(row.id in recoded for row in item.live)
    ]
    going = {item.pack.name for item in moved}
    return moved + _to_merge([item for item in alive if item.pack.name not in going], moved)


def _contents(store: PinnedStore, pack: PackInfo, live: Live) -> _Contents:
    found = _Contents(pack, 0, [], [])
    for row in store.rows(pack):
        found.records += 1
        if live.takes(row.id, pack.name, row.offset):
            found.live.append(row)
            continue
        found.unused_deltas |= row.codec in DELTAS
        if row.id in live.places:
            found.spare.append(row)
    return found


def _worth(item: _Contents) -> bool:
    if item.pack.kind is PackClass.METADATA or item.pack.length < SMALL_DATA:
        return True
    return item.dead_bytes * WORTH >= item.pack.length


def _to_merge(kept: list[_Contents], moved: list[_Contents]) -> list[_Contents]:
    """Return the small metadata packs when they, and the one that is written, are many."""
    small = [
        item
        for item in kept
        if item.pack.kind is PackClass.METADATA and item.pack.length < SMALL_METADATA
    ]
    written = any(item.pack.kind is PackClass.METADATA for item in moved)
    return small if len(small) + written > MANY else []


def _spares(kept: list[_Contents]) -> dict[ObjectId, Place]:
    """Return records of live objects that stay though nobody takes them; all of them are whole."""
    return {
        row.id: Place(row, item.pack)
        for item in kept
        for row in item.spare
        if row.codec != RECIPE and row.codec not in DELTAS
    }


def _rewrite(
    store: PinnedStore,
    item: _Contents,
    spares: Mapping[ObjectId, Place],
    recoded: Mapping[ObjectId, int],
) -> Rewrite:
    whole = frozenset(row.offset for row in item.live if row.id in recoded)
    return Rewrite(item.pack, tuple(_copied(store, item, spares)), whole)


def _copied(store: PinnedStore, item: _Contents, spares: Mapping[ObjectId, Place]) -> Iterator[int]:
    """Yield the offsets of what must be copied: not what a pack that stays holds as well."""
    for row in item.live:
        spare = spares.get(row.id)
        if spare is None or not store.sound(spare):
            yield row.offset


def _check_present(backend: Exists, packs: list[PackInfo]) -> None:
    for pack in packs:
        size = backend.size(pack.key)
        if size != pack.length:
            found = "is missing" if size is None else f"has {size} bytes, not {pack.length}"
            raise CorruptionError(f"pack {pack.name.hex()} {found}, and what is kept stands in it")


def _lengths(
    store: PinnedStore, rewrites: list[Rewrite], recoded: Mapping[ObjectId, int]
) -> list[int]:
    """Return the lengths of the packs that the writer makes of these records."""
    done: list[int] = []
    filling: dict[PackClass, _Filling] = {}
    for rewrite in rewrites:
        for row in copied_rows(store, rewrite):
            fill = filling.setdefault(class_of(row), _Filling())
            if row.id in recoded:
                fill.length += RecordHeader.SIZE + recoded[row.id]
            else:
                fill.length += row.span.length or 0
                if (base := store.base(Place(row, rewrite.pack))) is not None:
                    fill.bases.add(base)
            fill.ids.add(row.id)
            if fill.length >= PACK_LIMIT:
                done.append(filling.pop(class_of(row)).closed)
    return done + [fill.closed for fill in filling.values()]


@dataclass(slots=True)
class _Filling:
    """A pack that would be written."""

    length: int = HEADER.size
    ids: set[ObjectId] = field(default_factory=set)
    bases: set[ObjectId] = field(default_factory=set)

    @property
    def closed(self) -> int:
        """How long it is in the end, with footer and trailer."""
        footer = len(self.ids) * Row.SIZE + len(self.bases - self.ids) * ObjectId.SIZE
        return self.length + OVERHEAD - HEADER.size + footer


def copied_rows(store: PinnedStore, rewrite: Rewrite) -> list[Row]:
    """Return the rows that a rewrite copies, in the order of the file."""
    wanted = set(rewrite.offsets)
    rows = (row for row in store.rows(rewrite.pack) if row.offset in wanted)
    return sorted(rows, key=lambda row: row.offset)


def class_of(row: Row) -> PackClass:
    """Return the class of pack that a record is copied to."""
    data = row.kind == Kind.BLOB and row.codec != RECIPE
    return PackClass.DATA if data else PackClass.METADATA


def _room(row: Row) -> int:
    return (row.span.length or 0) + Row.SIZE
