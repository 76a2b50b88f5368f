"""What a collection would do: which packs go, which are written anew, and what that frees.

A record counts as live when it is the one that everybody takes of a live object. A metadata pack
with anything else in it is always replaced: whatever a look-up finds must be whole, because writers
rely on it without walking. For the same reason a data pack that stays keeps the bases of all its
deltas. That holds for a plan as a whole, never for a part of it.
Format: docs/format/ordering.md.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cas.backend.base import Exists
from cas.errors import CorruptionError
from cas.ids import ObjectId
from cas.objects.kind import Kind
from cas.repo.marks import Live
from cas.repo.root import Root
from cas.store.index import Place
from cas.store.pack import FOOTER_HEAD, HEADER, TRAILER, PackClass, PackInfo, Row
from cas.store.pinned import PinnedStore
from cas.store.record import DELTAS, RECIPE, RecordHeader
from cas.store.writer import PACK_LIMIT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cas.store.rowarray import Rows

SMALL_DATA: Final = 16 * 1024**2  # a data pack below it is rewritten for any dead record
WORTH: Final = 4  # a larger one when that frees at least one part in so many
SMALL_METADATA: Final = 4 * 1024**2
MANY: Final = 8  # small metadata packs beyond so many are merged into one
NOTHING: Final[Mapping[ObjectId, int]] = {}
OVERHEAD: Final = HEADER.size + FOOTER_HEAD.size + TRAILER.size


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A pack that is replaced, and where in it the records stand that go on to a new one.

    Those at the offsets in `whole` are deltas that are written without their bases. The copies
    take about `copied_bytes`.
    """

    pack: PackInfo
    offsets: tuple[int, ...]
    whole: frozenset[int] = frozenset()
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What a collection does, decided on one root; sizes are those of pack files.

    `marked` is all that is live; of it `live` is what this plan keeps. `recoded` are deltas that
    are written whole, so that their bases can go, each with the bytes that its body then has. The
    packs in `staying` are left as they are, though something in them is dead; where they are
    metadata, the plan is `partial`: it keeps all that they name. What has come since the marking
    is in `came`.
    """

    base: Root = field(repr=False)
    marked: Live = field(repr=False)
    live: Live = field(repr=False)
    dead: tuple[PackInfo, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    orphans: tuple[PackInfo, ...] = ()
    leftovers: tuple[PackInfo, ...] = ()
    recoded: Mapping[ObjectId, int] = field(default_factory=dict)
    staying: frozenset[bytes] = frozenset()
    came: set[ObjectId] = field(default_factory=set, repr=False)
    partial: bool = False
    freed_bytes: int = 0
    freed_objects: int = 0
    new_bytes: int = 0
    kept_bytes: int = 0

    @property
    def live_objects(self) -> int:
        """How many objects the refs keep."""
        return self.live.objects

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
    """What stands in one listed pack: its rows, and which of them are live."""

    pack: PackInfo
    rows: "Rows" = field(repr=False)
    is_live: "npt.NDArray[np.bool_]" = field(repr=False)
    live: int

    @classmethod
    def of(cls, pack: PackInfo, live: Live) -> "_Contents":
        """Look at one pack."""
        is_live = live.array(pack) > 0
        return cls(pack, live.rows(pack), is_live, int(is_live.sum()))

    @property
    def records(self) -> int:
        """How many records there are, live or dead."""
        return len(self.rows)

    @property
    def dead_bytes(self) -> int:
        """How much shorter the pack would be without what is dead."""
        kept = int(self.rows["stored"][self.is_live].sum())
        return self.pack.length - OVERHEAD - kept - self.live * (RecordHeader.SIZE + Row.SIZE)

    @property
    def has_dead(self) -> bool:
        """Whether anything in it is dead."""
        return self.live < self.records

    @property
    def has_dead_deltas(self) -> bool:
        """Whether it holds deltas that nobody takes."""
        from cas.store.rowtable import IS_DELTA

        return bool(IS_DELTA[self.rows["codec"][~self.is_live]].any())


def decide(
    base: Root,
    live: Live,
    backend: Exists,
    orphans: tuple[PackInfo, ...],
    *,
    recoded: Mapping[ObjectId, int] = NOTHING,
    staying: Collection[bytes] = (),
) -> GcPlan:
    """Decide what to do about every pack, if these deltas are written whole; change nothing.

    `staying` are data packs to be left alone for now. Raises CorruptionError when a pack that
    something live stands in is not there whole.
    """
    marked, live = live, live.without(recoded) if recoded else live
    store = live.store
    stay = frozenset(staying)
    live, contents = _kept(live, recoded, stay)
    dead = [item for item in contents if not item.live]
    _check_present(backend, [item.pack for item in contents if item.live])
    moved = _moved(contents, live, recoded, stay)
    gone = {item.pack.name for item in dead + moved}
    spares, written = _spares(live, gone), _by_pack(live, recoded)
    rewrites = [
        _rewrite(item, spares.get(item.pack.name, {}), written.get(item.pack.name, {}), recoded)
        for item in moved
    ]
    dead_packs = [item.pack for item in dead] + [r.pack for r in rewrites if not r.offsets]
    rewrites = [rewrite for rewrite in rewrites if rewrite.offsets]
    new_bytes = sum(_lengths(store, rewrites, recoded))
    leaving = [*dead_packs, *(rewrite.pack for rewrite in rewrites), *orphans, *base.condemned]
    on_disk = {pack.name: backend.size(pack.key) or 0 for pack in leaving}
    copied = sum(len(rewrite.offsets) for rewrite in rewrites)
    before = sum(item.records for item in contents if item.pack.name in gone)
    return GcPlan(
        base=base,
        marked=marked,
        live=live,
        dead=tuple(dead_packs),
        rewrites=tuple(rewrites),
        orphans=orphans,
        leftovers=base.condemned,
        recoded=recoded,
        staying=stay,
        freed_bytes=sum(on_disk.values()) - new_bytes,
        freed_objects=before - copied,
        new_bytes=new_bytes,
        kept_bytes=sum(pack.length for pack in store.packs if pack.name not in gone) + new_bytes,
    )


def _kept(
    live: Live, recoded: Mapping[ObjectId, int], stay: frozenset[bytes]
) -> tuple[Live, list[_Contents]]:
    """Return what stays, and by packs; the bases of dead deltas stay for as long as those do."""
    while True:
        contents = [_Contents.of(pack, live) for pack in live.store.packs]
        gone = {item.pack.name for item in _moved(contents, live, recoded, stay)}
        staying = [item for item in contents if item.live and item.pack.name not in gone]
        bases = list(_unmarked(staying, live))
        if not bases:
            return live, contents
        live = live.marked(bases)


def _unmarked(staying: list[_Contents], live: Live) -> Iterator[Place]:
    """Yield bases that do not count as live yet, of deltas that nobody takes and that stay."""
    store = live.store
    pending = [id for item in staying if item.has_dead_deltas for id in store.bases(item.pack)]
    seen: set[ObjectId] = set()
    while pending:
        id = pending.pop()
        if id in seen or id in live:
            continue
        seen.add(id)
        for place in store.places(id)[:1]:
            yield place
            if (base := store.base(place)) is not None:
                pending.append(base)


def _moved(
    contents: list[_Contents], live: Live, recoded: Mapping[ObjectId, int], stay: frozenset[bytes]
) -> list[_Contents]:
    """Return the packs that are replaced."""
    alive = [item for item in contents if item.live and item.pack.name not in stay]
    written = _by_pack(live, recoded)
    moved = [
        item for item in alive if (item.has_dead and _worth(item)) or item.pack.name in written
    ]
    going = {item.pack.name for item in moved}
    return moved + _to_merge([item for item in alive if item.pack.name not in going], moved)


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


def _spares(live: Live, gone: Collection[bytes]) -> dict[bytes, dict[int, Place]]:
    """Return what need not be copied, by pack and offset, and another record of it, which stays."""
    import numpy as np

    store = live.store
    found: dict[ObjectId, Place] = {}
    for number in np.flatnonzero(store.table().twins & (live.array() == 0)).tolist():
        place = store.place(number)
        row = place.row
        if row.codec == RECIPE or row.codec in DELTAS or place.pack.name in gone:
            continue
        if row.id in live and store.sound(place):
            found[row.id] = place
    places = _by_pack(live, found)
    return {pack: {at: found[id] for at, id in own.items()} for pack, own in places.items()}


def _rewrite(
    item: _Contents,
    others: Mapping[int, Place],
    written: Mapping[int, ObjectId],
    recoded: Mapping[ObjectId, int],
) -> Rewrite:
    """Return a rewrite of a pack; what a pack that stays holds as well is not copied."""
    offsets = item.rows["offset"][item.is_live].tolist()
    stored = item.rows["stored"][item.is_live].tolist()
    sizes = {at: size for at, size in zip(offsets, stored, strict=True) if at not in others}
    sizes |= {at: recoded[id] for at, id in written.items()}
    room = sum(sizes.values()) + len(sizes) * (RecordHeader.SIZE + Row.SIZE)
    return Rewrite(item.pack, tuple(sizes), frozenset(written), room)


def _by_pack(live: Live, ids: Iterable[ObjectId]) -> dict[bytes, dict[int, ObjectId]]:
    """Return where the records of live objects stand, by pack and offset."""
    found: dict[bytes, dict[int, ObjectId]] = {}
    for id in ids:
        place = live.place(id)
        if place is not None:
            found.setdefault(place.pack.name, {})[place.row.offset] = id
    return found


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
