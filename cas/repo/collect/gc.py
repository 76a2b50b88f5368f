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
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from cas.errors import ConflictError, CorruptionError, NotFoundError, StorageFullError
from cas.ids import Buffer, CommitId, ObjectId
from cas.progress import SILENT, Progress
from cas.repo import vanished
from cas.repo.collect import gcstages, reserve
from cas.repo.collect.gcmoved import moved
from cas.repo.collect.gcplan import GcPlan, Rewrite, copied_rows, decide
from cas.repo.collect.gcrecode import COPIES, ROOM, whole, whole_again
from cas.repo.collect.gctidy import orphans, tidy
from cas.repo.collect.replace import refused, swap, sweep
from cas.repo.gate import Gate
from cas.repo.layout import SESSIONS
from cas.repo.marking import mark
from cas.repo.repo import Repo
from cas.repo.root import Operation, Root
from cas.repo.session import Session
from cas.repo.transaction import begun, lost
from cas.store.index import Place
from cas.store.pack import PackInfo
from cas.store.pinned import PinnedStore
from cas.store.pool import ordered
from cas.store.record import RecordHeader
from cas.store.writer import PACK_LIMIT, ObjectWriter

MARKS: Final = 1  # times that it marks anew only because something has died meanwhile
ATTEMPTS: Final = 200  # beside many writers most of them are lost, and cost little
OUTRUN: Final = 5  # lost races after which it closes the gate for a moment
WHAT: Final = "gc"


def plan(
    repo: Repo,
    refs: Mapping[str, CommitId] | None = None,
    *,
    own: str = "",
    progress: Progress = SILENT,
) -> GcPlan:
    """Decide what a collection would do now, or if the refs were these; change nothing.

    `own` is the session of the caller. Raises RefusedError when something live cannot be read, or a
    ref is gone that no operation since the last collection has dropped.
    """
    return _decided(repo, refs, own, frozenset(), progress)


def execute(repo: Repo, planned: GcPlan, *, progress: Progress = SILENT, run: str = "") -> GcPlan:
    """Do what a plan says; return the plan that was carried out in the end.

    That is another one when the root has moved meanwhile: what came alive stays. `run` is the run
    that does so by itself. Raises RefusedError, StorageFullError when not even a part of it fits,
    and ConflictError when others keep publishing faster than this can.
    """
    operation = begun(repo, WHAT, run)
    name = operation.id.hex()
    opened = partial(Session.open, repo.path / SESSIONS, name, WHAT, ops=repo.ops)
    with reserve.spending(repo, opened):
        done = _Collection(repo, operation, progress).run(planned)
        tidy(repo, operation)
        return done


class _Collection:
    """One collection at work."""

    def __init__(self, repo: Repo, operation: Operation, progress: Progress) -> None:
        self._repo = repo
        self._operation = operation
        self._progress = progress
        self._limit = sys.maxsize  # bytes of copies, known when they did not fit
        self._marks = 0
        self._light = True
        self._begin()

    def _begin(self) -> None:
        """Begin a step: with copies of its own."""
        repo = self._repo
        self._writer = ObjectWriter(
            repo.backend, repo.store, lambda: os.urandom(16), pack_limit=PACK_LIMIT
        )
        self._sources: dict[ObjectId, tuple[bytes, int, bool]] = {}
        self._unfit: list[PackInfo] = []

    def run(self, planned: GcPlan) -> GcPlan:
        """Carry out a plan step by step, or one that the newest root asks for instead."""
        done: list[GcPlan] = []
        try:
            while True:
                step = self._step(planned)
                if step is None and done:
                    return gcstages.together(done)
                if step is None:
                    raise StorageFullError(_no_room(planned))
                try:
                    one, after, planned = self._carry_out(planned, step)
                except StorageFullError:
                    if not self._make_do(step):
                        raise
                    continue
                done.append(one)
                self._limit += one.freed_bytes
                self._light = one.partial
                if not one.staying:
                    return gcstages.together(done)
                planned = self._left(one, planned, after)
        finally:
            self._writer.discard()

    def _make_do(self, step: GcPlan) -> bool:
        """Take back what did not fit, and say whether less may be tried.

        A quota may leave less than the disk has free, so the room is found by trying.
        """
        self._writer.discard()
        listed = {info.name for info in self._repo.refresh().packs}
        for info in (*self._writer.packs.values(), *self._unfit):
            if info.name not in listed:
                self._repo.backend.delete(info.key)
        self._begin()
        if reserve.give_up(self._repo):
            return True
        self._limit = min(self._limit, step.new_bytes) // 2
        return self._limit >= gcstages.LEAST_ROOM

    def _step(self, planned: GcPlan) -> GcPlan | None:
        """Return what of a plan to do first, None where nothing fits."""
        room = min(gcstages.room_in(self._repo), self._limit)
        try:
            return gcstages.step(self._repo, planned, room, light=self._light)
        except (CorruptionError, NotFoundError):
            if self._repo.refresh().seq == planned.base.seq:
                raise
            return planned  # another collection has taken more: it is decided anew

    def _left(self, done: GcPlan, planned: GcPlan, root: Root) -> GcPlan:
        """Return what is left of a plan when one step of it has led to this root."""
        try:
            return self._again() if done.partial else gcstages.rest(self._repo, done, planned, root)
        except (CorruptionError, NotFoundError):
            return self._again()  # another collection has taken more

    def _carry_out(self, planned: GcPlan, step: GcPlan) -> tuple[GcPlan, Root, GcPlan]:
        """Carry a step through all four phases.

        Returns it as it was carried out, the root that it led to, and the plan that it is of.
        """
        with Gate(self._repo) as gate:
            for attempt in range(ATTEMPTS):
                if attempt >= OUTRUN:
                    gate.close()
                # The whole of an older plan or another one, never a part: what was live then may
                # now be dead in a metadata pack that stays, and the part takes what it names.
                if (root := self._repo.refresh()).seq != step.base.seq:
                    vanished.check(self._repo, root, step.base)
                    marks = self._shall_mark(step, root)
                    on_this = None if marks else moved(self._repo, step, root)
                    if on_this is None:
                        gate.open()
                        planned = self._again()
                        on_this = self._step(planned) or planned
                    step = on_this
                if not self._replace(step):
                    continue
                if (after := self._condemn(step)) is not None:
                    gate.open()
                    done = self._done(step)
                    self._begin()  # the copies are listed now: they are not to be taken back
                    sweep(self._repo, after, self._operation, self._progress)
                    return done, after, planned
        raise ConflictError("the repository")

    def _shall_mark(self, step: GcPlan, root: Root) -> bool:
        """Say whether something has died since, and is to be collected as well."""
        if self._marks >= MARKS or not step.base.refs.items() - root.refs.items():
            return False
        self._marks += 1
        return True

    def _again(self) -> GcPlan:
        # Of the copies those too that stand in a pack which is open still.
        mine = frozenset((*self._writer.packs, *self._writer.own.values()))
        mine |= {info.name for info in self._unfit}
        return _decided(self._repo, None, self._operation.id.hex(), mine, self._progress)

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
    repo: Repo,
    refs: Mapping[str, CommitId] | None,
    own: str,
    mine: frozenset[bytes],
    progress: Progress,
) -> GcPlan:
    """Decide on the newest root; what fails because it moves meanwhile is done again."""
    base = repo.refresh()
    for _ in range(ATTEMPTS):
        if refs is None:
            vanished.check(repo, base)
        stray = orphans(repo, base, own, mine)
        try:
            store = PinnedStore(repo.backend, base.packs)
            live = mark(
                store, base.refs if refs is None else refs, base.tombstones, progress=progress
            )
            planned = decide(base, live, repo.backend, stray)
            recoded = whole_again(store, live)
            if not recoded:
                return planned
            other = decide(base, live, repo.backend, stray, recoded=recoded)
            return max(planned, other, key=lambda plan: plan.freed_bytes)
        except (CorruptionError, NotFoundError) as error:
            seen, base = base, repo.refresh()
            if base.seq == seen.seq:
                raise refused(error, "collected") from error
    raise ConflictError("the repository")


def _no_room(planned: GcPlan) -> str:
    needed = min((one.copied_bytes for one in planned.rewrites), default=0)
    return f"gc needs room for {needed:,} bytes of copies: free some, then try again"
