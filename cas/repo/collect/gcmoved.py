"""A plan of gc on a newer root, without marking from the start.

A collection that marked anew whenever somebody publishes would never end beside runs that save
often. What the plan counts as live stays, with all that it names, whatever refs say by now. What
came since may need something that was dead: then that is live again, with all that it names.
Format: docs/format/ordering.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cas.errors import CasError
from cas.objects.edges import Edge
from cas.objects.kind import Kind
from cas.repo.collect.gcplan import GcPlan, decide
from cas.repo.layout import HOLDS
from cas.repo.naming import closure, named_by
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.store.index import Place
from cas.store.pack import PackInfo
from cas.store.pinned import PinnedStore


def moved(repo: Repo, planned: GcPlan, root: Root) -> GcPlan | None:
    """Return the plan as one on `root`, which is newer; None when it must be decided anew."""
    new = _added(planned, root)
    if new is None:
        return None
    try:
        store = PinnedStore(repo.backend, new)
        planned.came.update(row.id for pack in new for row in store.rows(pack))
        edges = (*named_by(store, new), *_by_refs(repo, planned.base, root))
        live, came = planned.marked, planned.came
        # A base counts for as long as deltas lean on it, which a later step may write whole.
        alive = list(closure(live.store, edges, lambda id: id in came or live.needs(id)))
        return _amended(repo, planned, root, alive)
    except CasError:
        return None  # it moves on, or is damaged: marking will tell


def _added(planned: GcPlan, root: Root) -> Sequence[PackInfo] | None:
    """Return the packs that came since; None when any was taken off the list."""
    base = planned.base
    known = {info.name for info in base.packs}
    new = [info for info in root.packs if info.name not in known]
    # As many as before besides the new ones: no other collection has taken any.
    if root.tombstones != base.tombstones or len(root.packs) - len(new) != len(known):
        return None
    return new


def _by_refs(repo: Repo, base: Root, root: Root) -> Iterator[Edge]:
    """Yield what refs and holds have come to keep."""
    for name, id in root.refs.items() - base.refs.items():
        yield Kind.COMMIT, id
        payload = repo.commit(id).payload if name.startswith(HOLDS) else None
        if payload is not None:
            yield Kind.TREE, payload


def _amended(repo: Repo, planned: GcPlan, root: Root, alive: Sequence[Place]) -> GcPlan:
    """Return the plan on `root` with these records kept as well."""
    taken = {info.name for info in (*root.packs, *root.condemned)}
    orphans = tuple(info for info in planned.orphans if info.name not in taken)
    same = (orphans, root.condemned) == (planned.orphans, planned.leftovers)
    if same and not alive:
        came = sum(info.length for info in root.packs) - sum(i.length for i in planned.base.packs)
        return replace(planned, base=root, kept_bytes=planned.kept_bytes + came)
    other = decide(
        root,
        planned.marked.marked(alive) if alive else planned.marked,
        repo.backend,
        orphans,
        recoded=planned.recoded,
        staying=planned.staying,
    )
    counted = {info.name for info in other.live.store.packs}
    came = sum(info.length for info in root.packs if info.name not in counted)
    return replace(other, came=planned.came, kept_bytes=other.kept_bytes + came)
