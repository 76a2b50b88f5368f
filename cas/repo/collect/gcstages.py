"""The steps in which a plan of gc is carried out, each of which is a plan by itself.

Where little is copied, all is done at once. Else what needs almost no room goes first: packs in
which nothing lives, and metadata packs, which are small. Only then data that lives on in half-dead
packs is copied, as much at a time as there is room for. What stays listed keeps all that it names.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from cas.repo.collect.gcplan import GcPlan, Rewrite, decide
from cas.repo.marks import Live
from cas.repo.naming import closure, named_by
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.store.index import Place
from cas.store.pack import PackClass, PackInfo
from cas.store.pinned import PinnedStore
from cas.store.record import DELTAS, RECIPE

SMALL: Final = 64 * 1024**2  # bytes of copies that are made in one step where they fit
LEAST_ROOM: Final = 64 * 1024  # less is not tried
PART: Final = 16  # of the free space is left to others


def room_in(repo: Repo) -> int:
    """Return how many bytes of copies may stand beside what they replace."""
    found = os.statvfs(repo.path)
    free = found.f_bavail * found.f_frsize
    return max(free - free // PART, LEAST_ROOM)


def step(repo: Repo, planned: GcPlan, room: int, *, light: bool) -> GcPlan | None:
    """Return what to do first of a plan; all of it where that is little, None where nothing fits.

    Little is done in one step, which frees exactly what was planned. No more than `room` bytes are
    copied. With `light` what needs little room comes by itself: once, for writers bring small packs
    all the time.
    """
    data = _of(planned, PackClass.DATA)
    metadata = _of(planned, PackClass.METADATA)
    if sum(one.copied_bytes for one in planned.rewrites) <= min(SMALL, room):
        return planned
    light &= bool(planned.dead or metadata or planned.orphans or planned.leftovers)
    if light and sum(one.copied_bytes for one in metadata) > room:
        return _some_metadata(repo, planned, metadata, data, room)
    if light and data:
        first = _decided(repo, planned, [], data)
        if not first.empty:
            return first
    if sum(one.copied_bytes for one in data) <= room:
        return planned
    return _some_data(repo, planned, data, room)


def rest(repo: Repo, done: GcPlan, planned: GcPlan, root: Root) -> GcPlan:
    """Return what is left of a plan when one step of it, no partial one, has led to `root`.

    It must be the very root that this step has published: what came later is not looked at yet.
    """
    store = PinnedStore(repo.backend, root.packs)
    live = done.marked.onto(store)
    live = live.marked(list(_stand_ins(done, live)))
    return decide(root, live, repo.backend, (), recoded=planned.recoded)


def _stand_ins(done: GcPlan, live: Live) -> Iterator[Place]:
    """Yield what was not copied, because a pack that stays holds it too: that one counts now.

    Of a pack that counts as dead all that lives may stand elsewhere as well.
    """
    import numpy as np

    before = done.marked
    for pack in (*done.dead, *(rewrite.pack for rewrite in done.rewrites)):
        low, high = before.store.span(pack)
        twins = before.store.table().twins[low:high] & (before.array(pack) != 0)
        for number in np.flatnonzero(twins).tolist():
            id = before.store.joined.row(low + number).id
            if id in live:
                continue
            for place in live.store.places(id):
                if not (place.row.codec == RECIPE or place.row.codec in DELTAS):
                    yield place
                    break


def together(steps: Sequence[GcPlan]) -> GcPlan:
    """Return all steps that were done as one plan."""
    return replace(
        steps[-1],
        dead=tuple(info for one in steps for info in one.dead),
        rewrites=tuple(rewrite for one in steps for rewrite in one.rewrites),
        orphans=tuple(info for one in steps for info in one.orphans),
        leftovers=tuple(info for one in steps for info in one.leftovers),
        freed_bytes=sum(one.freed_bytes for one in steps),
        freed_objects=sum(one.freed_objects for one in steps),
        new_bytes=sum(one.new_bytes for one in steps),
    )


def _of(planned: GcPlan, kind: PackClass) -> list[Rewrite]:
    return [rewrite for rewrite in planned.rewrites if rewrite.pack.kind is kind]


def _decided(
    repo: Repo, planned: GcPlan, going: Sequence[Rewrite], staying: Sequence[Rewrite]
) -> GcPlan:
    """Return a plan that leaves these packs as they are."""
    places = {id: planned.live.place(id) for id in planned.recoded}
    packs = {rewrite.pack.name for rewrite in going}
    recoded = {
        id: size
        for id, size in planned.recoded.items()
        if (place := places[id]) is not None and place.pack.name in packs
    }
    names = frozenset(rewrite.pack.name for rewrite in staying)
    found = decide(
        planned.base, planned.marked, repo.backend, planned.orphans, recoded=recoded, staying=names
    )
    return replace(found, came=planned.came)


def _some_data(repo: Repo, planned: GcPlan, data: Sequence[Rewrite], room: int) -> GcPlan | None:
    """Return a plan for those data packs that fit; those that give most for their copy first."""
    going: list[Rewrite] = []
    for rewrite in sorted(data, key=lambda one: one.copied_bytes / one.pack.length):
        if rewrite.copied_bytes > room:
            break
        room -= rewrite.copied_bytes
        going.append(rewrite)
    if not going:
        return None
    names = {rewrite.pack.name for rewrite in going}
    return _decided(repo, planned, going, [one for one in data if one.pack.name not in names])


def _some_metadata(
    repo: Repo, planned: GcPlan, metadata: Sequence[Rewrite], data: Sequence[Rewrite], room: int
) -> GcPlan | None:
    """Return a plan for those metadata packs that fit, while the others keep all they name."""
    going: set[bytes] = set()
    for rewrite in sorted(metadata, key=lambda one: one.copied_bytes):
        if rewrite.copied_bytes > room:
            break
        room -= rewrite.copied_bytes
        going.add(rewrite.pack.name)
    staying: list[PackInfo] = [one.pack for one in metadata if one.pack.name not in going]
    live, store = planned.marked, planned.marked.store
    rows = (row.id for pack in staying for row in store.rows(pack))
    kept = list(closure(store, named_by(store, staying), live.__contains__))
    own = [place for id in set(rows) if id not in live for place in store.places(id)[:1]]
    names = frozenset(pack.name for pack in (*staying, *(one.pack for one in data)))
    found = decide(
        planned.base, live.marked((*kept, *own)), repo.backend, planned.orphans, staying=names
    )
    return None if found.empty else replace(found, came=planned.came, partial=True)
