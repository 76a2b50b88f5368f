"""Going on in a copy that was taken while others wrote: one root of all that came whole.

Format: docs/format/ordering.md.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from cas.errors import CasError
from cas.ids import CommitId
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.repo import root as roots
from cas.repo.check.copied import present
from cas.repo.check.losses import by_commit
from cas.repo.layout import HOLDS
from cas.repo.reach import Trouble, Walk
from cas.repo.repo import Repo
from cas.repo.retain.choice import reached
from cas.repo.root import Operation, RefChange, Root
from cas.store.pack import PackInfo, read_footer
from cas.store.pinned import PinnedStore

WHAT: Final = "fsck --repair"


def settle(repo: Repo) -> dict[str, CommitId]:
    """Publish the root that the copy goes on with; return the refs whose commits have not come.

    Raises ConflictError when somebody else has done so meanwhile.
    """
    operation = Operation(os.urandom(16), repo.who, WHAT, repo.clock())
    after, lost = go_on(repo, operation)
    root = roots.publish(repo.backend, after, os.urandom(16))
    repo.settled(root)
    return lost


def go_on(repo: Repo, operation: Operation) -> tuple[Root, dict[str, CommitId]]:
    """Return the root with which such a copy goes on, and the refs that it cannot have yet.

    It lists every pack that is here of the root that was opened and of the newest that can be read.
    A ref is what the latter says where all that it needs is here, else what the former says.
    """
    whole = repo.root
    whole_here = present(repo.backend)
    top = max(roots.numbers(repo.backend))
    latest = _latest(repo, whole)
    known = {info.name for info in latest.packs}
    packs = tuple(info for info in latest.packs if whole_here(info))
    packs += tuple(info for info in whole.packs if info.name not in known)
    lost = _lost_refs(repo, replace(latest, packs=packs))
    changes = [RefChange(name, id, whole.refs.get(name)) for name, id in lost.items()]
    refs = latest.follow(operation, changes).refs
    # Whatever a look-up finds must be whole: what nothing needs, and is new, may not be so.
    needed = {info.name for info in whole.packs} | _needed(repo, replace(latest, packs=packs), refs)
    packs = tuple(info for info in packs if info.name in needed)
    listed = {info.name for info in packs}
    after = latest.follow(
        operation,
        changes,
        packs=packs,
        condemned=tuple(info for info in latest.condemned if info.name not in listed),
    )
    previous = latest.check if latest.seq == top else roots.FIRST_PREVIOUS
    tombstones = {**whole.tombstones, **latest.tombstones}
    return replace(after, seq=top + 1, previous=previous, tombstones=tombstones), lost


def _latest(repo: Repo, whole: Root) -> Root:
    for skipped in repo.skipped:
        try:
            return roots.read(repo.backend, skipped.seq)
        except CasError:
            continue
    return whole


def _lost_refs(repo: Repo, root: Root) -> dict[str, CommitId]:
    """Return the refs that need something that is not in the packs of this root."""
    store = PinnedStore(repo.backend, [info for info in root.packs if _opens(repo, info)])
    troubles: list[Trouble] = []
    for _ in Walk(store, root.refs, root.tombstones, trouble=troubles.append).visits():
        pass
    losses = list(by_commit(store, root, {trouble.id for trouble in troubles}))
    no_payload = {loss.commit for loss in losses}
    behind = _behind(store, root, {loss.commit for loss in losses if loss.record})
    return {
        name: id
        for name, id in root.refs.items()
        if id in behind or (name.startswith(HOLDS) and id in no_payload)
    }


def _needed(repo: Repo, root: Root, refs: Mapping[str, CommitId]) -> set[bytes]:
    """Return the packs in which something stands that these refs keep."""
    store = PinnedStore(repo.backend, [info for info in root.packs if _opens(repo, info)])
    walk = Walk(store, refs, root.tombstones, trouble=lambda _: None)
    return {visit.place.pack.name for visit in walk.visits()}


def _opens(repo: Repo, info: PackInfo) -> bool:
    try:
        read_footer(repo.backend, info)
    except CasError:
        return False
    return True


def _read(store: PinnedStore, id: CommitId) -> Commit | None:
    with suppress(CasError):
        return Commit.from_bytes(store.read(Kind.COMMIT, id))
    return None


def _behind(store: PinnedStore, root: Root, bad: set[CommitId]) -> set[CommitId]:
    """Return these commits and all that have one of them among their ancestors."""
    children: dict[CommitId, list[CommitId]] = {}
    for id, commit in reached(root.refs.values() if bad else (), partial(_read, store)):
        for parent in commit.parents if commit is not None else ():
            children.setdefault(parent.commit, []).append(id)
    found: set[CommitId] = set()
    pending = list(bad)
    while pending:
        id = pending.pop()
        if id not in found:
            found.add(id)
            pending += children.get(id, ())
    return found
