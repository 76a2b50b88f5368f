"""Checking packs, records and index files, for fsck."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cas.backend.base import Span
from cas.backend.local import LocalBackend
from cas.codec.base import codec_for, delta_for
from cas.errors import CasError, CorruptionError
from cas.ids import BlobHasher, BlobId, ObjectId
from cas.objects.edges import Object, id_of, parse
from cas.objects.kind import Kind
from cas.progress import Progress
from cas.repo.reach import based, needs
from cas.store.index import Place
from cas.store.indexfile import IndexFile
from cas.store.merge import agree
from cas.store.pack import HEADER, PackInfo, Row, check_header, known_kind, read_footer
from cas.store.pinned import PinnedStore
from cas.store.recipe import Recipe
from cas.store.record import DELTAS, KINDS, RECIPE, RecordHeader

ERROR: Final = "error"
WARNING: Final = "warning"
INFO: Final = "info"
PACK: Final = "pack"
HALF: Final = "half"  # a record that is found by look-ups, of an object that is not whole


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or worth knowing, about one named thing."""

    severity: str
    what: str
    name: str
    detail: str


Found = tuple[ObjectId, Finding]


def structure(backend: LocalBackend, pack: PackInfo) -> Finding | None:
    """Check a listed pack's length, header and footer."""
    try:
        _check_structure(backend, pack)
    except CasError as error:
        return Finding(ERROR, PACK, pack.key, str(error))
    return None


def _check_structure(backend: LocalBackend, pack: PackInfo) -> None:
    size = backend.size(pack.key)
    if size is None:
        raise CorruptionError("it is listed, and its file is missing")
    if size != pack.length:
        raise CorruptionError(f"it is listed with {pack.length} bytes, and has {size}")
    (raw,) = backend.read(pack.key, [Span(0, HEADER.size)])
    check_header(raw, pack)
    at = HEADER.size
    for row in sorted(read_footer(backend, pack), key=lambda row: row.offset):
        if row.offset != at or not known_kind(row):
            raise CorruptionError(f"its footer does not account for the bytes from {at} on")
        at += row.span.length or 0


class Records:
    """Every record of the packs of a store: headers, or with `full` all that there is."""

    def __init__(
        self,
        store: PinnedStore,
        backend: LocalBackend,
        tombstones: Collection[ObjectId],
        *,
        full: bool,
    ) -> None:
        self._store = store
        self._backend = backend
        self._tombstones = tombstones
        self._full = full

    def findings(self, progress: Progress) -> Iterator[Found]:
        """Yield what is wrong, with the object whose record it is."""
        recipes: list[Place] = []
        deltas: list[Place] = []
        for place in self._places():
            progress.advance()
            try:
                obj = self._checked(place)
            except CasError as error:
                self._store.spurn(place)
                yield _damaged(place, error)
                continue
            if place.row.codec == RECIPE:
                recipes.append(place)
            elif place.row.codec in DELTAS:
                deltas.append(place)
            elif obj is not None:
                yield from self._gone(place.row, obj)
        # What others are read from comes first: what is wrong with it is told of itself.
        yield from self._deltas(sorted(deltas, key=lambda place: place.row.depth))
        if self._full:
            yield from self._recipes(recipes)

    def _places(self) -> Iterator[Place]:
        for pack in self._store.packs:
            for row in sorted(self._store.rows(pack), key=lambda row: row.offset):
                yield Place(row, pack)

    def _checked(self, place: Place) -> Object | None:
        """Check one record; return what a metadata record holds, when that was read."""
        row = place.row
        if not self._full:
            (raw,) = self._backend.read(place.pack.key, [Span(row.offset, RecordHeader.SIZE)])
            _same(RecordHeader.from_bytes(raw), row)
            return None
        header, body = self._store.body(place)
        if header.codec == RECIPE:
            self._store.recipe(place)
        if header.codec == RECIPE or header.codec in DELTAS:
            return None
        data = codec_for(header.codec).decode(body, header.size)
        if id_of(header.kind, data) != header.id:
            raise CorruptionError("the bytes stored are not what the id names")
        return None if header.kind is Kind.BLOB else parse(header.kind, data, strict=True)

    def _deltas(self, places: list[Place]) -> Iterator[Found]:
        """Look for the base of each delta, and with `full` decode it."""
        needed: dict[PackInfo, set[BlobId]] = {}
        for place in places:
            row = place.row
            try:
                base = based(self._store, place)
                needed.setdefault(place.pack, set()).add(base)
                if self._store.places(base):
                    self._decode(place, base)
                elif base not in self._tombstones:
                    self._store.spurn(place)
                    detail = f"it is a delta on {base}, of which there is no good record"
                    yield row.id, Finding(ERROR, HALF, _name(row), detail)
            except CasError as error:
                self._store.spurn(place)
                yield _damaged(place, error)
        for pack, bases in needed.items():
            inside = {row.id for row in self._store.rows(pack)}
            for base in bases - inside - set(self._store.bases(pack)):
                detail = f"its footer does not name {base}, which a delta in it needs"
                yield base, Finding(ERROR, PACK, pack.key, detail)

    def _decode(self, place: Place, base: BlobId) -> None:
        if not self._full:
            return
        header, body = self._store.body(place)
        data = bytearray(header.size)
        delta = delta_for(header.codec)
        delta.decode_into(body[ObjectId.SIZE :], self._store.whole(base), memoryview(data))
        if id_of(header.kind, data) != header.id:
            raise CorruptionError("what is decoded on its base is not what the id names")

    def _recipes(self, places: list[Place]) -> Iterator[Found]:
        """Rebuild each blob that is stored as a recipe."""
        for place in places:
            recipe = self._store.recipe(place)
            # A piece that is damaged or missing is told of itself.
            if recipe is None or not all(self._store.places(id) for id, _ in recipe.pieces()):
                continue
            try:
                self._rebuild(place.row.id, recipe)
            except CasError as error:
                self._store.spurn(place)
                yield _damaged(place, error)

    def _rebuild(self, id: ObjectId, recipe: Recipe) -> None:
        whole = BlobHasher()
        for piece, size in recipe.pieces():
            got = 0
            for part in self._store.pieces(piece):
                whole.update(part)
                got += len(part)
            if got != size:
                raise CorruptionError(f"a piece has {got} bytes instead of {size}")
        if whole.id() != id:
            raise CorruptionError("its pieces together are not what the id names")

    def _gone(self, row: Row, obj: Object) -> Iterator[Found]:
        """Tell of what a record names and is gone: a writer would rely on it without a walk."""
        for kind, id in needs(obj):
            if not self._store.places(id) and id not in self._tombstones:
                detail = f"it names {kind.name.lower()} {id}, which no listed pack has"
                yield row.id, Finding(ERROR, HALF, _name(row), detail)


def index_problem(
    backend: LocalBackend, key: str, store: PinnedStore, listed: Mapping[bytes, PackInfo]
) -> str | None:
    """Return what is wrong with an index file; rows of packs that are not listed do not count."""
    size = backend.size(key)
    if size is None:
        return None  # it was merged into another one meanwhile
    footers = {info.name: store.rows(info) for info in store.packs if info.name in listed}
    try:
        file = IndexFile.open(backend, key, size)
        file.check()
        agrees = agree(file, footers)
    except CasError as error:
        return str(error)
    return None if agrees else "it does not say what the footers of its packs say"


def _damaged(place: Place, error: CasError) -> Found:
    detail = f"{error} (at {place.row.offset} in {place.pack.key})"
    return place.row.id, Finding(ERROR, "damaged", _name(place.row), detail)


def _name(row: Row) -> str:
    return f"{KINDS[row.kind].name.lower()} {row.id}"


def _same(header: RecordHeader, row: Row) -> None:
    stated = (header.id, header.kind, header.codec, header.depth, header.size, header.stored)
    if stated != (row.id, row.kind, row.codec, row.depth, row.size, row.stored):
        raise CorruptionError("its header does not say what the footer says")
