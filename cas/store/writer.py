"""Writing objects: cut, encode, check, and append to new packs.

What is stored already is not written again; the packs that such hits stand in are remembered in
`relied`, because they must still be listed by the root that this writer's own replaces.
Format: docs/format/pack.md, docs/format/recipe.md.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from cas.backend.base import Backend
from cas.codec import choose
from cas.codec.base import CodecTag, codec_for
from cas.codec.chunker import Chunker, ContentDefined, Fixed
from cas.codec.element import Element
from cas.errors import CorruptionError, InvalidInputError
from cas.ids import (
    BlobHasher,
    BlobId,
    Buffer,
    CommitId,
    ManifestId,
    ObjectId,
    TreeId,
    blob_id,
    commit_id,
    manifest_id,
    tree_id,
)
from cas.objects.kind import Kind
from cas.store.pack import PackClass, PackInfo, PackWriter
from cas.store.packed import PackedStore
from cas.store.recipe import MAX_PIECES, Recipe
from cas.store.record import MAX_WHOLE, RECIPE, RecordHeader

WHOLE_OPAQUE: Final = 512 * 1024  # opaque blobs up to this size are stored whole
WHOLE_TYPED: Final = 4 * 1024 * 1024  # blobs of elements likewise: one block
WINDOW: Final = 8 * 1024 * 1024
SMALL: Final = 256 * 1024  # data that stands in the metadata pack of a small transaction
PACK_LIMIT: Final = 1024**3
GROUP: Final = 4096  # pieces under one inner recipe of a very large blob
GROUP_FROM: Final = 512 * 1024**2  # blobs from this size on are grouped


class ObjectWriter:
    """Writes objects to packs that no root lists yet."""

    def __init__(self, backend: Backend, store: PackedStore, new_name: Callable[[], bytes]) -> None:
        self._backend = backend
        self._store = store
        self._new_name = new_name
        self._open: dict[PackClass, PackWriter] = {}
        self._waiting: list[tuple[RecordHeader, Buffer]] = []
        self._waiting_bytes = 0
        self.own: dict[ObjectId, bytes] = {}  # id → pack, b"" while it still waits for one
        self.packs: dict[bytes, PackInfo] = {}
        self.relied: dict[ObjectId, bytes] = {}
        self._unnamed = False  # packs are sealed whose names are not durable yet
        self._placed_bytes = 0

    def has(self, id: ObjectId) -> bool:
        """Say whether `id` needs no writing; a hit outside is remembered as relied upon."""
        if id in self.own or id in self.relied:
            return True
        place = self._store.locate(id)
        if place is None:
            return False
        self.relied[id] = place.pack.name
        return True

    def blob(self, data: Buffer, element: Element | None = None) -> BlobId:
        """Store bytes that are in memory; `element` says what numbers they are."""
        view = memoryview(data)
        # A view of no elements cannot be cast.
        view = view.cast("B") if view.nbytes else memoryview(b"")
        if len(view) > (WHOLE_TYPED if element else WHOLE_OPAQUE):
            id = blob_id(view)
            if not self.has(id):
                self._streamed(_windows(view), len(view), element, id)
            return id
        return self.piece(view, element)

    def stream(
        self, source: Iterable[Buffer], size_hint: int, element: Element | None = None
    ) -> tuple[BlobId, int]:
        """Store a blob that comes in buffers, in bounded memory; return its id and size."""
        return self._streamed(source, size_hint, element, None)

    def _streamed(
        self,
        source: Iterable[Buffer],
        size_hint: int,
        element: Element | None,
        known: BlobId | None,
    ) -> tuple[BlobId, int]:
        """Store a blob in buffers; one whose id is `known` is not hashed again as a whole."""
        limit = WHOLE_TYPED if element else WHOLE_OPAQUE
        chunker: Chunker = Fixed(WHOLE_TYPED) if element else ContentDefined()
        whole = BlobHasher()
        pieces = _Pieces(self, grouped=size_hint >= GROUP_FROM)
        buffer = bytearray()
        cut = False
        for data in source:
            if known is None:
                whole.update(data)
            buffer += data
            if len(buffer) >= WINDOW:
                cut = True
                self._cut(buffer, chunker, pieces, element, final=False)
        if not cut and len(buffer) <= limit:
            return self.blob(bytes(buffer), element), len(buffer)
        self._cut(buffer, chunker, pieces, element, final=True)
        recipe = pieces.recipe()
        id = known or whole.id()
        if not self.has(id):
            self.recipe(id, recipe)
        return id, recipe.size

    def piece(self, data: Buffer, element: Element | None) -> BlobId:
        """Store one piece of a larger blob, whole."""
        id = blob_id(data)
        if not self.has(id):
            self._append(Kind.BLOB, id, data, element)
        return id

    def recipe(self, id: BlobId, recipe: Recipe) -> None:
        """Store a blob as its pieces, which are stored already."""
        body = recipe.to_bytes()
        # Recipes name other records, so they stand where gc leaves nothing dead behind.
        header = RecordHeader.of(Kind.BLOB, RECIPE, id, recipe.size, body)
        self._place(PackClass.METADATA, header, body)

    def manifest(self, canonical: bytes) -> ManifestId:
        """Store a manifest by its canonical bytes."""
        id = manifest_id(canonical)
        self._meta(Kind.MANIFEST, id, canonical)
        return id

    def tree(self, canonical: bytes) -> TreeId:
        """Store a tree node by its canonical bytes."""
        id = tree_id(canonical)
        self._meta(Kind.TREE, id, canonical)
        return id

    def commit(self, canonical: bytes) -> CommitId:
        """Store a commit by its canonical bytes."""
        id = commit_id(canonical)
        self._meta(Kind.COMMIT, id, canonical)
        return id

    def copy(self, header: RecordHeader, body: Buffer) -> None:
        """Append a record as it is stored elsewhere, for gc and repack."""
        if header.id in self.own:
            return
        data = header.kind is Kind.BLOB and header.codec != RECIPE
        self._place(PackClass.DATA if data else PackClass.METADATA, header, body)

    @property
    def stored(self) -> int:
        """Bytes that were new to the store, as stored, so far."""
        return self._placed_bytes + self._waiting_bytes + len(self._waiting) * RecordHeader.SIZE

    def seal(self) -> list[PackInfo]:
        """Make everything written so far durable; return all packs of this writer."""
        if self._waiting:
            target = PackClass.DATA if PackClass.DATA in self._open else PackClass.METADATA
            self._release(target)
        for kind in list(self._open):
            self._seal(kind)
        if self._unnamed:
            self._backend.sync("packs/")
            self._unnamed = False
        return list(self.packs.values())

    def forget(self, packs: Iterable[bytes]) -> None:
        """Count what stands in these packs as not written; for gc, which copies each record."""
        gone = set(packs)
        self.packs = {name: info for name, info in self.packs.items() if name not in gone}
        self.own = {id: pack for id, pack in self.own.items() if pack not in gone}

    def restart(self) -> None:
        """Count nothing as written or found: something of it is gone or condemned.

        All of it, because a recipe that still stands would hide that its pieces do not.
        """
        self.own, self.packs, self.relied = {}, {}, {}

    def discard(self) -> None:
        """Give up: remove the packs that are not sealed; sealed ones are gc's to sweep."""
        for writer in self._open.values():
            writer.discard()
        self._open.clear()

    def _meta(self, kind: Kind, id: ObjectId, canonical: bytes) -> None:
        if not self.has(id):
            self._append(kind, id, canonical, element=None)

    def _append(self, kind: Kind, id: ObjectId, data: Buffer, element: Element | None) -> None:
        if len(data) > MAX_WHOLE:
            raise InvalidInputError(
                f"a {kind.name.lower()} of {len(data)} bytes is too large: {MAX_WHOLE} are the most"
            )
        tag, body = CodecTag.RAW, data
        # Ids fill most of a commit; raw, a list of runs needs no decompressor.
        if kind is not Kind.COMMIT:
            tag, body = choose.encode(data, element)
        # A compressor that is wrong once must not be found out when the source is gone.
        if tag != CodecTag.RAW and codec_for(tag).decode(body, len(data)) != data:
            raise CorruptionError(f"codec {tag.name.lower()} does not give {id} back")
        header = RecordHeader.of(kind, tag, id, len(data), body)
        if kind is not Kind.BLOB:
            self._place(PackClass.METADATA, header, body)
        elif PackClass.DATA in self._open:
            self._place(PackClass.DATA, header, body)
        else:
            self._wait(header, body)

    def _wait(self, header: RecordHeader, body: Buffer) -> None:
        self._waiting.append((header, bytes(body)))
        self._waiting_bytes += len(body)
        self.own[header.id] = b""
        if self._waiting_bytes > SMALL:
            self._release(PackClass.DATA)

    def _release(self, kind: PackClass) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for header, body in waiting:
            self._place(kind, header, body)

    def _place(self, kind: PackClass, header: RecordHeader, body: Buffer) -> None:
        if kind not in self._open:
            self._open[kind] = PackWriter(self._backend, self._new_name(), kind)
        writer = self._open[kind]
        before = writer.length
        writer.add(header, body)
        self.own[header.id] = writer.name
        self._placed_bytes += writer.length - before
        if writer.length >= PACK_LIMIT:
            self._seal(kind)

    def _seal(self, kind: PackClass) -> None:
        info = self._open.pop(kind).seal()
        self._unnamed = True
        self.packs[info.name] = info

    def _cut(
        self,
        buffer: bytearray,
        chunker: Chunker,
        pieces: "_Pieces",
        element: Element | None,
        *,
        final: bool,
    ) -> None:
        at = 0
        with memoryview(buffer) as view:
            for length in chunker.cut(view, final=final):
                with view[at : at + length] as piece:
                    pieces.add(piece, element)
                at += length
        del buffer[:at]


class _Pieces:
    """The pieces of one blob as they are cut, grouped under inner recipes when it is very large."""

    def __init__(self, writer: ObjectWriter, *, grouped: bool) -> None:
        self._writer = writer
        self._grouped = grouped
        self._done: list[tuple[BlobId, int]] = []
        self._group: list[tuple[BlobId, int]] = []
        self._hasher = BlobHasher()

    def add(self, piece: memoryview, element: Element | None) -> None:
        """Store the next piece."""
        id = self._writer.piece(piece, element)
        self._group.append((id, len(piece)))
        if self._grouped:
            self._hasher.update(piece)
            if len(self._group) >= GROUP:
                self._close()

    def recipe(self) -> Recipe:
        """Return the recipe of the whole."""
        if self._done and self._group:
            self._close()
        return _recipe(self._done or self._group)

    def _close(self) -> None:
        id, recipe = self._hasher.id(), _recipe(self._group)
        if not self._writer.has(id):
            self._writer.recipe(id, recipe)
        self._done.append((id, recipe.size))
        self._group, self._hasher = [], BlobHasher()


def _recipe(pieces: list[tuple[BlobId, int]]) -> Recipe:
    if len(pieces) > MAX_PIECES:
        raise InvalidInputError("the source grew far beyond its stated size while it was read")
    return Recipe(tuple(size for _, size in pieces), b"".join(id for id, _ in pieces))


def _windows(data: memoryview) -> Iterator[memoryview]:
    return (data[at : at + WINDOW] for at in range(0, len(data), WINDOW))
