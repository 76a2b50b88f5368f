"""Garbage collection: give back the space of what nothing keeps any more.

Plan, show, execute. A pack goes in four steps, each of which may be the last one before a crash:
(1) what is live in half-dead packs is copied to new ones, a delta whole where that frees its base;
(2) one root takes dead, replaced and orphaned packs from the list to the condemned and lists the
new ones; (3) the condemned files are deleted; (4) another root takes them off the condemned list.
Nothing but what a root has condemned is ever deleted. Between (2) and (3) lies the proof that
nobody can rely on them any more: a writer publishes only on a root that lists what it relies on
and condemns none of its own packs.
Format: docs/format/ordering.md.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from cas.backend.base import KeyInfo
from cas.errors import ConflictError, CorruptionError, NotFoundError, UnsupportedError
from cas.ids import Buffer, CommitId, ObjectId
from cas.progress import SILENT, Progress
from cas.repo.gcmoved import moved
from cas.repo.gcplan import GcPlan, Rewrite, copied_rows, decide
from cas.repo.gcrecode import COPIES, ROOM, whole, whole_again, without
from cas.repo.layout import INDEX, PACKS, SESSIONS
from cas.repo.reach import mark
from cas.repo.replace import refused, swap, sweep
from cas.repo.repo import Repo
from cas.repo.root import Operation, Root
from cas.repo.session import Session, others
from cas.repo.transaction import ATTEMPTS, begun, lost
from cas.store.index import Place
from cas.store.indexfile import IndexFile
from cas.store.pack import PackClass, PackInfo
from cas.store.pinned import PinnedStore
from cas.store.pool import ordered
from cas.store.record import RecordHeader
from cas.store.writer import PACK_LIMIT, ObjectWriter

MARKS: Final = 4  # attempts after which what dies meanwhile is left to the next collection
WHAT: Final = "gc"
SUFFIX: Final = ".pack"
UNREAD: Final = b"\0" * 32  # an orphan's footer: nobody looks at it


def plan(repo: Repo, refs: Mapping[str, CommitId] | None = None, *, own: str = "") -> GcPlan:
    """Decide what a collection would do now, or if the refs were these; change nothing.

    `own` is the session of the caller. Raises RefusedError when something live cannot be read.
    """
    return _decided(repo, refs, own, frozenset())


def execute(repo: Repo, planned: GcPlan, *, progress: Progress = SILENT) -> GcPlan:
    """Do what a plan says; return the plan that was carried out in the end.

    That is another one when the root has moved meanwhile: what came alive stays. Raises
    RefusedError, and ConflictError when others keep publishing faster than this can mark.
    """
    operation = begun(repo, WHAT)
    name = operation.id.hex()
    with Session.open(repo.path / SESSIONS, name, WHAT):
        done = _Collection(repo, operation, progress).run(planned)
        if _alone(repo, name):
            _tidy(repo)
        return done


class _Collection:
    """One collection at work."""

    def __init__(self, repo: Repo, operation: Operation, progress: Progress) -> None:
        self._repo = repo
        self._operation = operation
        self._progress = progress
        self._writer = ObjectWriter(
            repo.backend, repo.store, lambda: os.urandom(16), pack_limit=PACK_LIMIT
        )
        self._sources: dict[ObjectId, tuple[bytes, int, bool]] = {}
        self._unfit: list[PackInfo] = []

    def run(self, planned: GcPlan) -> GcPlan:
        """Carry a plan through all four steps, or one that the newest root asks for instead."""
        try:
            for attempt in range(ATTEMPTS):
                # The whole of an older plan or another one, never a part: what was live then may
                # now be dead in a metadata pack that stays, and the part takes what it names.
                if (root := self._repo.refresh()).seq != planned.base.seq:
                    outrun = attempt >= MARKS
                    planned = (outrun and moved(self._repo, planned, root)) or self._again()
                if not self._replace(planned):
                    continue
                if (after := self._condemn(planned)) is not None:
                    sweep(self._repo, after, self._operation, self._progress)
                    return self._done(planned)
        finally:
            self._writer.discard()
        raise ConflictError("the repository")

    def _again(self) -> GcPlan:
        mine = frozenset(self._writer.packs) | {info.name for info in self._unfit}
        return _decided(self._repo, None, self._operation.id.hex(), mine)

    def _done(self, planned: GcPlan) -> GcPlan:
        """Return the plan with the sizes that copies kept from an earlier one may have changed."""
        new = sum(info.length for info in self._writer.packs.values())
        more = new - planned.new_bytes
        return replace(
            planned,
            new_bytes=new,
            freed_bytes=planned.freed_bytes - more,
            kept_bytes=planned.kept_bytes + more,
        )

    def _replace(self, planned: GcPlan) -> bool:
        """Step 1: copy what is live in the packs that go; False when they went meanwhile."""
        wanted = {(r.pack.name, at, at in r.whole) for r in planned.rewrites for at in r.offsets}
        self._forget_unfit(wanted)
        # What an earlier attempt copied, and still fits, is not even looked at again.
        missing = wanted - {self._sources[id] for id in self._writer.own}
        packs = {name for name, _, _ in missing}
        rewrites = [rewrite for rewrite in planned.rewrites if rewrite.pack.name in packs]
        self._progress.start("copy", total=len(missing))
        try:
            store = PinnedStore(self._repo.backend, [rewrite.pack for rewrite in rewrites])
            for rewrite in rewrites:
                self._copy(store, rewrite)
        except (CorruptionError, NotFoundError) as error:
            if self._repo.refresh().seq != planned.base.seq:
                return False
            raise refused(error, "collected") from error
        self._writer.seal()
        self._progress.finish()
        return True

    def _copy(self, store: PinnedStore, rewrite: Rewrite) -> None:
        rows = [row for row in copied_rows(store, rewrite) if row.id not in self._writer.own]
        records = ordered(
            (self._job(store, Place(row, rewrite.pack), rewrite) for row in rows), ROOM
        )
        for row, record in zip(rows, records, strict=True):
            self._writer.copy(*record)
            self._sources[row.id] = (rewrite.pack.name, row.offset, row.offset in rewrite.whole)
            self._progress.advance()

    def _job(
        self, store: PinnedStore, place: Place, rewrite: Rewrite
    ) -> tuple[Callable[[], tuple[RecordHeader, Buffer]], int]:
        """Return what reads a record that is copied, and the memory that it takes."""
        row = place.row
        if row.offset in rewrite.whole:
            return partial(whole, self._repo.store, store, place), COPIES * row.size
        return partial(store.body, place), row.stored

    def _forget_unfit(self, wanted: set[tuple[bytes, int, bool]]) -> None:
        """Drop the packs in which something stands that is no longer to be copied."""
        writer = self._writer
        writer.seal()
        unfit = {pack for id, pack in writer.own.items() if self._sources[id] not in wanted}
        self._unfit += [writer.packs[name] for name in unfit]
        writer.forget(unfit)

    def _condemn(self, planned: GcPlan) -> Root | None:
        """Step 2: take the packs off the list; None when the root has moved or a copy is gone."""
        base = planned.base
        if gone := lost(self._repo, base, self._writer):
            self._writer.forget(gone)
            return None
        leaving = (*planned.leaving, *self._unfit)
        if not leaving:
            return base
        return swap(self._repo, base, self._operation, leaving, self._writer.packs.values())


def _decided(
    repo: Repo, refs: Mapping[str, CommitId] | None, own: str, mine: frozenset[bytes]
) -> GcPlan:
    """Decide on the newest root; what fails because it moves meanwhile is done again."""
    base = repo.refresh()
    for _ in range(ATTEMPTS):
        orphans = _orphans(repo, base, own, mine)
        try:
            store = PinnedStore(repo.backend, base.packs)
            live = mark(store, base.refs if refs is None else refs, base.tombstones)
            planned = decide(store, base, live, repo.backend, orphans)
            recoded = whole_again(store, live)
            if not recoded:
                return planned
            live = without(live, recoded)
            other = decide(store, base, live, repo.backend, orphans, recoded=recoded)
            return max(planned, other, key=lambda plan: plan.freed_bytes)
        except (CorruptionError, NotFoundError) as error:
            seen, base = base, repo.refresh()
            if base.seq == seen.seq:
                raise refused(error, "collected") from error
    raise ConflictError("the repository")


def _orphans(repo: Repo, base: Root, own: str, mine: frozenset[bytes]) -> tuple[PackInfo, ...]:
    """Return the pack files that no root lists or condemns; none while somebody may write them."""
    known = mine | {info.name for info in base.packs + base.condemned}
    found = [info for info in pack_files(repo) if info.name not in known]
    # Listed first, asked second: who opens a session later has no file among these.
    return tuple(found) if found and _alone(repo, own) else ()


def _alone(repo: Repo, own: str) -> bool:
    return next(others(repo.path / SESSIONS, own), None) is None


def pack_files(repo: Repo) -> list[PackInfo]:
    """Return every pack file on disk, by name and size; whether it exists, roots say."""
    found = []
    for info in repo.backend.scan(PACKS):
        stem = info.key.removeprefix(PACKS).removesuffix(SUFFIX)
        if info.key.endswith(SUFFIX) and len(stem) == 2 * PackInfo.NAME_SIZE:
            try:
                name = bytes.fromhex(stem)
            except ValueError:
                continue
            found.append(PackInfo(name, info.size_bytes, UNREAD, PackClass.DATA))
    return found


def _tidy(repo: Repo) -> None:
    """Remove what dead processes left in tmp/, and index files that help nobody."""
    repo.backend.sweep()
    wanted = {info.name for info in repo.root.packs}
    files = sorted(repo.backend.scan(INDEX), key=lambda info: -info.size_bytes)
    for info in files:
        covers = _covered(repo, info) & wanted
        if not covers:
            repo.backend.delete(info.key)
        wanted -= covers


def _covered(repo: Repo, info: KeyInfo) -> set[bytes]:
    try:
        return set(IndexFile.open(repo.backend, info.key, info.size_bytes).packs)
    except (CorruptionError, NotFoundError, UnsupportedError):
        return set()
