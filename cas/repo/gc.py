"""Garbage collection: give back the space of what nothing keeps any more.

Plan, show, execute. A pack goes in four steps, each of which may be the last one before a crash:
(1) what is live in half-dead packs is copied to new ones; (2) one root takes dead, replaced and
orphaned packs from the list to the condemned and lists the new ones; (3) the condemned files are
deleted; (4) another root takes them off the condemned list. Nothing but what a root has condemned
is ever deleted. Between (2) and (3) lies the proof that nobody can rely on them any more: a writer
publishes only on a root that lists what it relies on and condemns none of its own packs.
Format: docs/format/ordering.md.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cas.backend.base import WHOLE
from cas.errors import (
    CasError,
    ConflictError,
    CorruptionError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
)
from cas.ids import CommitId, ObjectId
from cas.progress import SILENT, Progress
from cas.repo import root as roots
from cas.repo.gcmoved import moved
from cas.repo.gcplan import GcPlan, Rewrite, copied_rows, decide
from cas.repo.layout import INDEX, PACKS, ROOTS, SESSIONS
from cas.repo.reach import mark
from cas.repo.repo import Repo
from cas.repo.root import Operation, Root
from cas.repo.session import Session, others
from cas.store.index import Place, Segment
from cas.store.pack import PackClass, PackInfo
from cas.store.pinned import PinnedStore
from cas.store.writer import ObjectWriter

ATTEMPTS: Final = 50
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
    operation = Operation(os.urandom(16), repo.who, WHAT, repo.clock())
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
        self._writer = ObjectWriter(repo.backend, repo.store, lambda: os.urandom(16))
        self._sources: dict[ObjectId, tuple[bytes, int]] = {}
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
                    self._sweep(after)
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
        wanted = {(r.pack.name, at) for r in planned.rewrites for at in r.offsets}
        self._forget_unfit(wanted)
        # What an earlier attempt copied, and still fits, is not even looked at again.
        missing = wanted - {self._sources[id] for id in self._writer.own}
        packs = {name for name, _ in missing}
        rewrites = [rewrite for rewrite in planned.rewrites if rewrite.pack.name in packs]
        self._progress.start("copy", total=len(missing))
        try:
            store = PinnedStore(self._repo.backend, [rewrite.pack for rewrite in rewrites])
            for rewrite in rewrites:
                self._copy(store, rewrite)
        except (CorruptionError, NotFoundError) as error:
            if self._repo.refresh().seq != planned.base.seq:
                return False
            raise _refused(error) from error
        self._writer.seal()
        self._progress.finish()
        return True

    def _copy(self, store: PinnedStore, rewrite: Rewrite) -> None:
        for row in copied_rows(store, rewrite):
            if row.id not in self._writer.own:
                self._writer.copy(*store.body(Place(row, rewrite.pack)))
                self._sources[row.id] = (rewrite.pack.name, row.offset)
                self._progress.advance()

    def _forget_unfit(self, wanted: set[tuple[bytes, int]]) -> None:
        """Drop the packs in which something stands that is no longer to be copied."""
        writer = self._writer
        writer.seal()
        unfit = {pack for id, pack in writer.own.items() if self._sources[id] not in wanted}
        self._unfit += [writer.packs[name] for name in unfit]
        writer.forget(unfit)

    def _condemn(self, planned: GcPlan) -> Root | None:
        """Step 2: take the packs off the list; None when the root has moved or a copy is gone."""
        repo, base = self._repo, planned.base
        if not self._copies_stand(base):
            return None
        leaving = {info.name: info for info in (*planned.leaving, *self._unfit)}
        if not leaving:
            return base
        listed = tuple(info for info in base.packs if info.name not in leaving)
        known = {info.name for info in base.condemned}
        condemned = tuple(info for name, info in leaving.items() if name not in known)
        after = base.follow(
            self._operation,
            packs=listed + tuple(self._writer.packs.values()),
            condemned=base.condemned + condemned,
        )
        return _published(repo, after)

    def _copies_stand(self, base: Root) -> bool:
        """Say whether no copy was condemned or deleted by another collection."""
        writer, condemned = self._writer, {info.name for info in base.condemned}
        gone = [
            info.name
            for info in writer.packs.values()
            if info.name in condemned or self._repo.backend.size(info.key) != info.length
        ]
        writer.forget(gone)
        return not gone

    def _sweep(self, root: Root) -> None:
        """Delete what this root condemns (step 3), then take exactly that off the list (4)."""
        backend = self._repo.backend
        if root.condemned:
            # Another process may have put this root and not made its name durable yet: after a
            # power cut an older root would list what is deleted here.
            backend.sync(ROOTS)
        self._progress.start("delete", total=len(root.condemned))
        for info in root.condemned:
            backend.delete(info.key)
            self._progress.advance()
        if root.condemned:
            backend.sync(PACKS)
        self._progress.finish()
        deleted = {info.name for info in root.condemned}
        for _ in range(ATTEMPTS):
            if self._cleared(self._repo.refresh(), deleted):
                return
        # Others publish faster than this: the next collection takes the names off the list.

    def _cleared(self, base: Root, deleted: set[bytes]) -> bool:
        left = tuple(info for info in base.condemned if info.name not in deleted)
        if left == base.condemned:
            return True
        operation = Operation(os.urandom(16), self._repo.who, WHAT, self._repo.clock())
        after = base.follow(operation, condemned=left)
        return _published(self._repo, after) is not None


def _published(repo: Repo, after: Root) -> Root | None:
    """Publish a root and take it up; None when its number is taken."""
    try:
        root = roots.publish(repo.backend, after, os.urandom(16))
    except ConflictError:
        return None
    except OutcomeUnknownError as error:
        raise OutcomeUnknownError(after.operation.id.hex(), str(error)) from error
    repo.adopt(root)
    repo.store.refresh()
    return root


def _refused(error: CasError) -> RefusedError:
    return RefusedError(
        f"nothing is collected while something kept cannot be read: {error}; look with `cas fsck`"
    )


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
            return decide(store, base, live, repo.backend, orphans)
        except (CorruptionError, NotFoundError) as error:
            seen, base = base, repo.refresh()
            if base.seq == seen.seq:
                raise _refused(error) from error
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
        covers = _covered(repo, info.key) & wanted
        if not covers:
            repo.backend.delete(info.key)
        wanted -= covers


def _covered(repo: Repo, key: str) -> set[bytes]:
    try:
        (raw,) = repo.backend.read(key, [WHOLE])
        return set(Segment.from_bytes(raw).packs)
    except (CorruptionError, NotFoundError):
        return set()
