"""Checking every record of some packs, for fsck: all headers, and the bytes of those asked for.

Packs are read in large spans and on all cores. Records of one pack come in the order in which they
stand, so that large blobs can be put together of their pieces as these come by.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np

from cas.backend.base import Backend
from cas.errors import CasError, CorruptionError
from cas.ids import ObjectId
from cas.objects.edges import parse
from cas.progress import Progress
from cas.repo import headers
from cas.repo.check.bodycheck import BodyCheck, Outcome
from cas.repo.check.packcheck import ERROR, HALF, PACK, Finding, Found, damaged, record_name
from cas.repo.check.rebuild import Rebuilds
from cas.repo.reach import needs
from cas.store.pack import PackInfo
from cas.store.pinned import PinnedStore
from cas.store.pool import ordered
from cas.store.record import KINDS
from cas.store.rowarray import Numbers
from cas.store.rowtable import IS_DELTA, NOWHERE, ids_of

BATCH: Final = 4 * 1024 * 1024  # bytes that one job reads, where no record is larger
TOGETHER: Final = 64 * 1024  # headers that are compared at once
ROOM: Final = 96 * 1024 * 1024  # bytes that are being checked


class Records:
    """Every record of the packs of a store; damaged ones leave its look-ups."""

    def __init__(
        self, store: PinnedStore, backend: Backend, tombstones: Collection[ObjectId]
    ) -> None:
        self._store = store
        self._backend = backend
        self._tombstones = tombstones
        self.table = store.table()
        self._rebuilds = Rebuilds(store, self.table)
        self._check = BodyCheck(backend, store, self.table, self._rebuilds.asked).check
        self._bases: dict[int, ObjectId] = {}
        self._blocked: list[int] = []
        self._names: list[tuple[int, bytes]] = []
        self.read_bytes = 0
        self.absent: set[ObjectId] = set()  # what is named, and no pack has
        self.helpless: dict[ObjectId, PackInfo] = {}  # deltas without a base
        self.spoiled: set[PackInfo] = set()  # packs with records that are damaged

    def findings(
        self, data: Numbers, progress: Progress, *, rebuild: bool = False
    ) -> Iterator[Found]:
        """Yield what is wrong, with the object whose record it is.

        `data` are the records whose bytes are checked too; with `rebuild` large blobs are put
        together.
        """
        wanted = np.zeros(len(self.table), bool)
        wanted[data] = True
        if rebuild:
            self._rebuilds.expect()
        yield from self._headers(~wanted, progress)
        for pack in range(len(self.table.packs)) if len(data) else ():
            numbers = self.table.of_pack(pack)
            for outcome in ordered(self._jobs(numbers[wanted[numbers]]), ROOM):
                progress.advance(outcome.records)
                yield from self._taken(outcome)
        # What others are read from comes first: what is wrong with it is told of itself.
        yield from self._deltas()
        yield from self._footers()
        for number, error in self._rebuilds.findings():
            yield self._bad(number, error)
        yield from self._gone()

    def _headers(self, asked: headers.Mask, progress: Progress) -> Iterator[Found]:
        """Check the headers of these records: packs are read one by one, and judged together."""
        read: list[tuple[Numbers, headers.Bytes]] = []
        for pack, info in enumerate(self.table.packs if asked.any() else ()):
            numbers = self.table.of_pack(pack)
            numbers = numbers[asked[numbers]]
            progress.advance(len(numbers))
            try:
                read.append((numbers, headers.tops(self._backend, info, self.table, numbers)))
            except CasError:
                yield from self._apart(info, numbers)
            if sum(len(numbers) for numbers, _ in read) >= TOGETHER:
                yield from self._judged(read)
                read = []
        yield from self._judged(read)

    def _apart(self, pack: PackInfo, numbers: Numbers) -> Iterator[Found]:
        """Check headers of which some cannot be read: whose fault it is, each by itself tells."""
        for number in numbers.tolist():
            one = np.array([number])
            try:
                tops = headers.tops(self._backend, pack, self.table, one)
            except CasError:
                yield from self._one_by_one(one)
            else:
                yield from self._judged([(one, tops)])

    def _judged(self, read: Sequence[tuple[Numbers, headers.Bytes]]) -> Iterator[Found]:
        if not read:
            return
        numbers = np.concatenate([numbers for numbers, _ in read])
        tops = np.concatenate([tops for _, tops in read])
        odd = headers.odd(self.table, numbers, tops)
        yield from self._one_by_one(numbers[odd])
        numbers, tops = numbers[~odd], tops[~odd]
        deltas = IS_DELTA[self.table.rows["codec"][numbers]]
        ids = headers.bases(tops[deltas]).tolist()
        self._bases |= dict(zip(numbers[deltas].tolist(), map(ObjectId, ids), strict=True))

    def _one_by_one(self, numbers: Numbers) -> Iterator[Found]:
        """Say what is wrong with each of these headers."""
        for number in numbers.tolist():
            try:
                headers.check_at(self._backend, self.table.place(number))
            except CasError as error:
                yield self._bad(number, error)

    def _jobs(self, numbers: Numbers) -> Iterator[tuple[Callable[[], Outcome], int]]:
        sizes, ends = self.table.rows["size"], self.table.ends
        for batch in headers.batches(self.table, numbers, BATCH):
            room = int(ends[batch[-1]]) - int(self.table.rows["offset"][batch[0]])
            # Of recipes only the body is read.
            room += sum(size for size in sizes[batch].tolist() if size <= ROOM)
            yield partial(self._check, batch), room

    def _taken(self, outcome: Outcome) -> Iterator[Found]:
        self.read_bytes += outcome.read
        self._bases |= outcome.bases
        self._blocked += outcome.blocked
        self._names += outcome.names
        for number, error in outcome.bad:
            yield self._bad(number, error)
        for number, data in outcome.pieces:
            self._rebuilds.feed(number, data)

    def _deltas(self) -> Iterator[Found]:
        """Look for the base of each delta, and decode those that could not be decoded before."""
        depths = self.table.rows["depth"]
        blocked = set(self._blocked)
        bases = {at: base for at, base in self._bases.items() if not self.table.bad[at]}
        numbers = np.array(list(bases), np.int64)
        for depth in np.unique(depths[numbers]).tolist():
            some = numbers[depths[numbers] == depth]
            found = self.table.find(ids_of(b"".join(bases[at] for at in some.tolist())))
            deep = np.where(found == NOWHERE, 0, depths[found]) >= depth
            for at, is_deep, base_at in zip(
                some.tolist(), deep.tolist(), found.tolist(), strict=True
            ):
                base = bases[at]
                if is_deep:
                    why = f"its base {base.short} is a delta that is no less deep"
                    yield self._bad(at, CorruptionError(why))
                elif base_at == NOWHERE and base not in self._tombstones:
                    yield self._helpless(at, base)
                elif base_at != NOWHERE and at in blocked:
                    yield from self._again(at)

    def _again(self, number: int) -> Iterator[Found]:
        """Decode a delta whose base could not be read before that was found to be damaged."""
        outcome = self._check([number])
        yield from self._taken(outcome)
        if outcome.blocked:
            yield self._bad(number, CorruptionError("its base cannot be read"))

    def _footers(self) -> Iterator[Found]:
        """Insist that footers name the bases that deltas need from elsewhere."""
        needed: dict[int, set[ObjectId]] = {}
        packs = self.table.pack
        for at, base in self._bases.items():
            needed.setdefault(int(packs[at]), set()).add(base)
        for pack, bases in needed.items():
            info = self.table.packs[pack]
            inside = {row.id for row in self._store.rows(info)}
            for base in bases - inside - set(self._store.bases(info)):
                detail = f"its footer does not name {base}, which a delta in it needs"
                yield base, Finding(ERROR, PACK, info.key, detail)

    def _gone(self) -> Iterator[Found]:
        """Tell of what metadata names and is gone: a writer would rely on it without a walk."""
        raw = b"".join(ids for _, ids in self._names)
        named = ids_of(raw)
        missing = {
            ObjectId(named[at].tobytes())
            for at in np.flatnonzero(self.table.find(named, bad=True) == NOWHERE).tolist()
        }.difference(self._tombstones)
        self.absent |= missing
        if not missing:
            return
        for number, ids in self._names:
            below = {ids[at : at + ObjectId.SIZE] for at in range(0, len(ids), ObjectId.SIZE)}
            if not self.table.bad[number] and not missing.isdisjoint(below):
                place = self.table.place(number)
                kind = KINDS[place.row.kind]
                for edge, id in needs(parse(kind, self._store.read(kind, place.row.id))):
                    if id in missing:
                        detail = f"it names {edge.name.lower()} {id}, which no listed pack has"
                        yield self._half(number, detail)

    def _half(self, number: int, detail: str) -> Found:
        row = self.table.place(number).row
        return row.id, Finding(ERROR, HALF, record_name(row), detail)

    def _helpless(self, number: int, base: ObjectId) -> Found:
        """Tell of a delta that cannot be decoded, though nothing is wrong with itself."""
        place = self.table.place(number)
        self.table.bad[number] = True
        self._store.spurn(place)
        self.absent.add(base)
        self.helpless[place.row.id] = place.pack
        return self._half(number, f"it is a delta on {base}, of which there is no good record")

    def _bad(self, number: int, error: CasError) -> Found:
        self._spurn(number)
        return damaged(self.table.place(number), error)

    def _spurn(self, number: int) -> None:
        self.table.bad[number] = True
        self.spoiled.add(self.table.packs[int(self.table.pack[number])])
        self._store.spurn(self.table.place(number))
