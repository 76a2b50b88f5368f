"""A plan of gc on a newer root, without marking from the start.

A collection that marked anew whenever somebody publishes would never end beside runs that save
often. What the plan counts as live stays, with all that it names, whatever refs say by now. So it
holds for as long as nothing that came since needs anything else.
Format: docs/format/ordering.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cas.errors import CorruptionError, NotFoundError
from cas.ids import ObjectId
from cas.objects.edges import parse
from cas.objects.kind import Kind
from cas.repo.gcplan import GcPlan
from cas.repo.layout import HOLDS
from cas.repo.reach import needs
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.store.index import Place
from cas.store.pack import PackInfo
from cas.store.pinned import PinnedStore
from cas.store.record import KINDS


def moved(repo: Repo, planned: GcPlan, root: Root) -> GcPlan | None:
    """Return the plan as one on `root`, which is newer; None when it must be decided anew."""
    new = _added(planned, root)
    if new is None:
        return None
    try:
        store = PinnedStore(repo.backend, new)
        needed = (*_by_packs(store), *_by_refs(repo, planned.base, root))
    except (CorruptionError, NotFoundError):
        return None  # it moves on, or is damaged: marking will tell
    if not all(id in planned.live.places or store.places(id) for id in needed):
        return None
    return replace(
        planned, base=root, kept_bytes=planned.kept_bytes + sum(info.length for info in new)
    )


def _added(planned: GcPlan, root: Root) -> Sequence[PackInfo] | None:
    """Return the packs that came since; None when anything else happened to packs."""
    base = planned.base
    known = {info.name for info in base.packs}
    new = [info for info in root.packs if info.name not in known]
    orphans = {info.name for info in planned.orphans}
    same = (root.condemned, root.tombstones) == (base.condemned, base.tombstones)
    # As many as before besides the new ones: no other collection has taken any.
    if not same or len(root.packs) - len(new) != len(base.packs):
        return None
    return None if any(info.name in orphans for info in new) else new


def _by_packs(store: PinnedStore) -> Iterator[ObjectId]:
    """Yield what everything in these packs names: a look-up finds also what no ref leads to."""
    for pack in store.packs:
        for row in store.rows(pack):
            place = Place(row, pack)
            if (base := store.base(place)) is not None:
                yield base
            elif (recipe := store.recipe(place)) is not None:
                yield from (piece for piece, _ in recipe.pieces())
            elif row.kind != Kind.BLOB:
                kind = KINDS[row.kind]
                yield from (id for _, id in needs(parse(kind, store.read(kind, row.id))))


def _by_refs(repo: Repo, base: Root, root: Root) -> Iterator[ObjectId]:
    """Yield what refs and holds have come to keep."""
    for name, id in root.refs.items() - base.refs.items():
        yield id
        payload = repo.commit(id).payload if name.startswith(HOLDS) else None
        if payload is not None:
            yield payload
