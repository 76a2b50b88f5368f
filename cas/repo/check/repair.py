"""Repair: make whole again what can be made whole; nothing that can still be read is taken away.

Plan, show, execute. A pack in which something is damaged is replaced by new ones with all of its
records that are whole; the bytes of the others are kept in `lost-and-found/`. So what is damaged
leaves look-ups, and whoever stores its content again stores it anew. What is missing is looked for
in packs that no root lists, and in another copy of the repository. Index files are disposable.
Only `accept` gives something up: it says of what is lost that it is, so that gc goes on.
Format: docs/format/ordering.md.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from cas.backend.local import LocalBackend
from cas.errors import CasError, ConflictError
from cas.ids import ObjectId
from cas.progress import SILENT, Progress
from cas.repo.check.fsck import ACCEPT, Damage
from cas.repo.check.salvage import Ruined, Saved, salvaged
from cas.repo.collect.replace import published, swap
from cas.repo.layout import INDEX, LOST, SESSIONS
from cas.repo.packfiles import pack_files
from cas.repo.repo import Repo
from cas.repo.root import Operation
from cas.repo.session import Session
from cas.repo.transaction import ATTEMPTS, begun, lost
from cas.repo.vanished import accounted
from cas.store.index import consolidate
from cas.store.pack import PackInfo
from cas.store.record import DELTAS
from cas.store.writer import PACK_LIMIT, ObjectWriter

WHAT: Final = "fsck --repair"


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What a repair would do."""

    packs: tuple[PackInfo, ...] = ()  # that are damaged, and replaced
    gone: tuple[PackInfo, ...] = ()  # that are listed, and whose files are not there
    indexes: tuple[str, ...] = ()  # that are deleted, to be made again
    missing: frozenset[ObjectId] = frozenset()  # that are looked for elsewhere
    helpless: frozenset[ObjectId] = frozenset()  # deltas that are given up, without their bases

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.packs or self.indexes or self.missing)


@dataclass(slots=True)
class Repaired:
    """What a repair did."""

    records: int = 0  # that were whole in damaged packs
    found: int = 0  # objects that were missing
    ruined_bytes: int = 0  # kept in lost-and-found/
    packs: int = 0
    indexes: int = 0


def plan(repo: Repo, damage: Damage, *, give_up: bool = False) -> RepairPlan:
    """Decide what to do about damage; change nothing.

    With `give_up` deltas whose bases are lost go as well, so that their content is stored anew when
    it comes again.
    """
    helpless = damage.helpless if give_up else {}
    broken = {*damage.packs, *damage.spoiled, *helpless.values()}
    gone = {info for info in broken if repo.backend.size(info.key) is None}
    in_order = sorted(broken - gone, key=lambda info: info.name)
    return RepairPlan(
        packs=tuple(in_order),
        gone=tuple(sorted(gone, key=lambda info: info.name)),
        indexes=tuple(damage.indexes),
        missing=frozenset(damage.missing | damage.absent),
        helpless=frozenset(helpless),
    )


def execute(
    repo: Repo,
    planned: RepairPlan,
    *,
    others: Sequence[LocalBackend] = (),
    progress: Progress = SILENT,
) -> Repaired:
    """Do what a plan says; `others` are copies of the repository in which to look as well.

    Raises ConflictError when somebody else replaces the damaged packs meanwhile.
    """
    operation = begun(repo, WHAT)
    done = Repaired(packs=len(planned.packs))
    with Session.open(repo.path / SESSIONS, operation.id.hex(), WHAT, ops=repo.ops):
        for key in planned.indexes:
            repo.backend.delete(key)
            done.indexes += 1
        writer = ObjectWriter(
            repo.backend, repo.store, lambda: os.urandom(16), pack_limit=PACK_LIMIT
        )
        try:
            _Repair(repo, writer, progress, done).run(planned, others)
            writer.seal()
            _publish(repo, operation, planned, writer)
        finally:
            writer.discard()
    repo.store.refresh()
    with suppress(CasError):  # it only spares later readers time
        consolidate(repo.backend, repo.store.index, os.urandom(16))
    repo.backend.sync(INDEX)
    return done


class _Repair:
    """Copies what is whole."""

    def __init__(
        self, repo: Repo, writer: ObjectWriter, progress: Progress, done: Repaired
    ) -> None:
        self._repo = repo
        self._writer = writer
        self._progress = progress
        self._done = done

    def run(self, planned: RepairPlan, others: Sequence[LocalBackend]) -> None:
        """Copy the good records of damaged packs, then what is missing from anywhere else."""
        self._progress.start("save", total=len(planned.packs))
        for pack in planned.packs:
            for part in salvaged(self._repo.backend, pack, self._repo.store):
                if isinstance(part, Ruined):
                    self._keep(pack, part)
                elif part.header.id in planned.helpless and part.header.codec in DELTAS:
                    self._keep(pack, Ruined(part.offset, part.header.to_bytes() + part.body))
                elif part.header.id not in self._writer.own:
                    self._writer.copy(part.header, part.body)
                    self._done.records += 1
            self._progress.advance()
        self._progress.finish()
        if planned.packs and self._done.ruined_bytes:
            self._repo.backend.sync(LOST)
        missing = planned.missing.difference(self._writer.own)
        listed = {info.name for info in self._repo.root.packs}
        for backend in (self._repo.backend, *others):
            known = listed if backend is self._repo.backend else frozenset[bytes]()
            self._look(backend, known, missing)

    def _look(
        self, backend: LocalBackend, known: Collection[bytes], missing: frozenset[ObjectId]
    ) -> None:
        """Copy what is missing from pack files that are not `known`."""
        for pack in (file.info for file in pack_files(backend)):
            if missing.issubset(self._writer.own):
                return
            if pack.name in known:
                continue
            for part in salvaged(backend, pack):
                if isinstance(part, Saved) and part.header.id in missing:
                    if part.header.id not in self._writer.own:
                        self._done.found += 1
                    self._writer.copy(part.header, part.body)

    def _keep(self, pack: PackInfo, part: Ruined) -> None:
        """Keep bytes that no record can be made of; an earlier repair may have done so."""
        key = f"{LOST}{pack.name.hex()}-{part.offset}"
        with suppress(ConflictError):
            sink = self._repo.backend.create(key)
            sink.write([part.data])
            sink.seal()
        self._done.ruined_bytes += len(part.data)


def _publish(repo: Repo, operation: Operation, planned: RepairPlan, writer: ObjectWriter) -> None:
    """List the new packs in place of the damaged ones, which are condemned."""
    wanted = {info.name for info in planned.packs}
    for _ in range(ATTEMPTS):
        base = repo.refresh()
        if not (planned.packs or writer.packs):
            return
        # Another collection may have replaced one with less, and knows what it left out.
        if lost(repo, base, writer) or not wanted <= {info.name for info in base.packs}:
            break
        if swap(repo, base, operation, planned.packs, writer.packs.values()) is not None:
            return
    raise ConflictError("the repository")


def accept(repo: Repo, damage: Damage, why: str) -> int:
    """Write tombstones for what is missing, and take packs that are gone off the list.

    Refs that are gone without an operation that says so are gone by this one, and of roots that are
    lost no more is said than that. Returns how many objects, refs and roots are given up. What is
    stored again later is there again.
    """
    ids = damage.missing | damage.absent
    lost_roots = len(damage.lost_roots)
    operation = begun(repo, ACCEPT)
    gone = {info.name for info in damage.packs if repo.backend.size(info.key) is None}
    for _ in range(ATTEMPTS):
        base = repo.refresh()
        fresh = {id: why for id in ids if id not in base.tombstones}
        packs = tuple(info for info in base.packs if info.name not in gone)
        changes = accounted(damage.vanished, base)
        if not fresh and not changes and not lost_roots and packs == base.packs:
            return 0
        after = replace(
            base.follow(operation, changes, packs=packs), tombstones={**base.tombstones, **fresh}
        )
        if published(repo, after) is not None:
            repo.lost_no_more()
            return len(fresh) + len(changes) + lost_roots
    raise ConflictError("the repository")
