"""What stored records name, whether refs lead to them or not.

A look-up finds also what no ref leads to, and a writer relies on it. So what stays listed keeps all
that it names. Format: docs/format/ordering.md.
"""

from collections.abc import Callable, Iterable, Iterator

from cas.errors import NotFoundError
from cas.ids import ObjectId
from cas.objects.edges import Edge, parse
from cas.objects.kind import Kind
from cas.repo.reach import needs
from cas.store.index import Place
from cas.store.pack import PackInfo
from cas.store.pinned import PinnedStore
from cas.store.record import KINDS


def named_by(store: PinnedStore, packs: Iterable[PackInfo]) -> Iterator[Edge]:
    """Yield what every record in these packs names; payloads of commits live by holds."""
    for pack in packs:
        for row in store.rows(pack):
            yield from _parts(store, Place(row, pack))
            if row.kind != Kind.BLOB:
                kind = KINDS[row.kind]
                yield from needs(parse(kind, store.read(kind, row.id)))


def closure(
    store: PinnedStore, edges: Iterable[Edge], is_known: Callable[[ObjectId], bool]
) -> Iterator[Place]:
    """Yield the records of these objects and of all that they name, but for what is known.

    Raises NotFoundError for one that is nowhere, and CorruptionError.
    """
    pending = list(edges)
    seen: set[ObjectId] = set()
    while pending:
        kind, id = pending.pop()
        if id in seen or is_known(id):
            continue
        seen.add(id)
        if kind is not Kind.BLOB:
            pending += needs(parse(kind, store.read(kind, id)))
        place = _taken(store, kind, id)
        yield place
        pending += _parts(store, place)


def _taken(store: PinnedStore, kind: Kind, id: ObjectId) -> Place:
    """Return the record that everybody takes; of several, gc gives up the others."""
    places = store.places(id)
    while len(places) > 1 and not store.sound(places[0]):
        places = store.places(id)
    if not places:
        raise NotFoundError(kind.name.lower(), str(id))
    return places[0]


def _parts(store: PinnedStore, place: Place) -> Iterator[Edge]:
    """Yield what a record needs besides what its object names: a base, or pieces."""
    if (base := store.base(place)) is not None:
        yield Kind.BLOB, base
    elif (recipe := store.recipe(place)) is not None:
        yield from ((Kind.BLOB, piece) for piece, _ in recipe.pieces())
