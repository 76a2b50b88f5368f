"""Writing objects: cut, encode on all cores, and append to new packs in order.

What is stored already is not written again; the packs that such hits stand in are remembered in
`relied`, because they must still be listed by the root that this writer's own replaces. Memory that
is given to store must not change until `seal`: where it does all the same, that is an error.
Format: docs/format/pack.md, docs/format/recipe.md.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Final

from cas.backend.base import Backend
from cas.codec.chunker import Chunker, ContentDefined, Fixed
from cas.codec.element import Element
from cas.errors import CasError, CorruptionError, InvalidInputError
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
from cas.store.encoding import Record, encode, is_fixed
from cas.store.pack import PackClass, PackInfo, PackWriter
from cas.store.packed import PackedStore
from cas.store.pieces import WholeHash, cut, recipe_of
from cas.store.pool import Lane, Ordered
from cas.store.recipe import Recipe
from cas.store.record import RECIPE, RecordHeader

WHOLE_OPAQUE: Final = 512 * 1024  # opaque blobs up to this size are stored whole
WHOLE_TYPED: Final = 4 * 1024 * 1024  # blobs of elements likewise: one block
SMALL: Final = 256 * 1024  # data that stands in the metadata pack of a small transaction
PACK_LIMIT: Final = 1024**3
PACK_LEAST: Final = 16 * 1024**2
PACK_PART: Final = 16  # of the store: what replaces a pack stands beside it for a while
GROUP: Final = 4096  # pieces under one inner recipe of a very large blob
GROUP_FROM: Final = 512 * 1024**2  # opaque blobs from this size on are grouped
GROUP_FROM_TYPED: Final = 64 * 1024**3
ROOM: Final = 48 * 1024 * 1024  # bytes that are being encoded


class ObjectWriter:
    """Writes objects to packs that no root lists yet."""

    def __init__(
        self,
        backend: Backend,
        store: PackedStore,
        new_name: Callable[[], bytes],
        *,
        pack_limit: int | None = None,
    ) -> None:
        """Write to `backend` what is not in `store`; without a limit packs grow with the store."""
        self._pack_limit = pack_limit
        self._backend = backend
        self._store = store
        self._new_name = new_name
        self._open: dict[PackClass, PackWriter] = {}
        self._coming: Ordered[Record] = Ordered(self._take, ROOM)
        self._waiting: list[Record] = []
        self._waiting_bytes = 0
        self.own: dict[ObjectId, bytes] = {}  # id → pack, b"" while it still waits for one
        self.packs: dict[bytes, PackInfo] = {}
        self.relied: dict[ObjectId, bytes] = {}
        self._recipes: set[ObjectId] = set()
        self._sealing = Lane()
        self._unnamed = False  # packs are sealed whose names are not durable yet
        self._placed_bytes = 0
        self._given_up = False
        self._handed_out = False  # somebody may publish what was sealed
        self._pid = os.getpid()
        self._lock = threading.RLock()  # publishing has a thread of its own

    def has(self, id: ObjectId) -> bool:
        """Say whether `id` needs no writing; a hit outside is remembered as relied upon."""
        return self._has(id, whole=False)

    def _has(self, id: ObjectId, *, whole: bool) -> bool:
        # A recipe in place of a piece would nest recipes deeper than readers go.
        if id in self.own and not (whole and id in self._recipes):
            return True
        if id in self.relied and not whole:
            return True
        place = self._store.locate(id)
        if place is None or (whole and place.row.codec == RECIPE):
            return False
        self.relied[id] = place.pack.name
        return True

    def blob(self, data: Buffer, element: Element | None = None) -> BlobId:
        """Store bytes that are in memory; `element` says what numbers they are."""
        view = memoryview(data)
        # A view of no elements cannot be cast.
        view = view.cast("B") if view.nbytes else memoryview(b"")
        if len(view) <= (WHOLE_TYPED if element else WHOLE_OPAQUE):
            return self.piece(view, element)
        id = blob_id(view)
        if not self.has(id):
            again = None if is_fixed(view) else WholeHash()
            recipe = self._cut([view], len(view), element, again)
            # Hashed before its pieces and after them: in between they were of the same bytes.
            if again is not None and again.id() != id:
                raise CorruptionError(f"the memory of {id} was changed: nothing was committed")
            self.recipe(id, recipe)
        return id

    def stream(
        self, source: Iterable[Buffer], size_hint: int, element: Element | None = None
    ) -> tuple[BlobId, int]:
        """Store a blob that comes in buffers, in bounded memory; return its id and size.

        The buffers are the writer's from then on: they must not be used again.
        """
        limit = WHOLE_TYPED if element else WHOLE_OPAQUE
        buffers = iter(source)
        start: list[Buffer] = []
        size = 0
        while size <= limit:
            data = next(buffers, None)
            if data is None:
                return self.piece(start[0] if len(start) == 1 else b"".join(start), element), size
            start.append(data)
            size += len(data)
        whole = WholeHash()
        recipe = self._cut(_hashed(chain(start, buffers), whole), size_hint, element)
        id = whole.id()
        if not self.has(id):
            self.recipe(id, recipe)
        return id, recipe.size

    def piece(self, data: Buffer, element: Element | None) -> BlobId:
        """Store one piece of a larger blob, whole."""
        id = blob_id(data)
        if not self._has(id, whole=True):
            self._encode(Kind.BLOB, id, data, element)
            self._recipes.discard(id)
        return id

    def recipe(self, id: BlobId, recipe: Recipe) -> None:
        """Store a blob as its pieces, which are stored already."""
        body = recipe.to_bytes()
        # Recipes name other records, so they stand where gc leaves nothing dead behind.
        header = RecordHeader.of(Kind.BLOB, RECIPE, id, recipe.size, body)
        self._place(PackClass.METADATA, Record(header, body))
        self._recipes.add(id)

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
        self._place(PackClass.DATA if data else PackClass.METADATA, Record(header, body))

    @property
    def stored(self) -> int:
        """Bytes that were new to the store, as stored, so far."""
        self._coming.settle()
        return self._placed_bytes + self._waiting_bytes + len(self._waiting) * RecordHeader.SIZE

    def seal(self) -> list[PackInfo]:
        """Make everything written so far durable; return all packs of this writer."""
        with self._lock:
            if self._given_up:
                raise InvalidInputError("what was written is given up: it cannot be sealed")
            self._coming.settle()
            if self._waiting:
                target = PackClass.DATA if PackClass.DATA in self._open else PackClass.METADATA
                self._release(target)
            # Two syncs side by side take little longer than one.
            if PackClass.DATA in self._open:
                self._seal(PackClass.DATA)
            if PackClass.METADATA in self._open:
                self._close(self._open[PackClass.METADATA])
                del self._open[PackClass.METADATA]
            self._sealing.settle()
            if self._unnamed:
                self._backend.sync("packs/")
                self._unnamed = False
            self._handed_out = True
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
        self._recipes.clear()

    def discard(self) -> None:
        """Give up: remove the packs that nobody can have published.

        Those that `seal` has returned are gc's to sweep. Another thread may be sealing when Ctrl-C
        comes: it ends first, or seals nothing any more.
        """
        with self._lock:
            self._given_up = True
            self._coming.drop()
            self._sealing.drop()
            for writer in self._open.values():
                writer.discard()
            self._open.clear()
            # On a full disk each attempt would leave some. In a forked child they are the parent's.
            if not self._handed_out and os.getpid() == self._pid:
                for info in self.packs.values():
                    with suppress(CasError):
                        self._backend.delete(info.key)

    def _meta(self, kind: Kind, id: ObjectId, canonical: bytes) -> None:
        if not self.has(id):
            self._encode(kind, id, canonical, None)

    def _encode(self, kind: Kind, id: ObjectId, data: Buffer, element: Element | None) -> None:
        self.own[id] = b""
        self._coming.put(partial(encode, kind, id, data, element), len(data))

    def _take(self, record: Record) -> None:
        if record.header.kind is not Kind.BLOB:
            self._place(PackClass.METADATA, record)
        elif PackClass.DATA in self._open:
            self._place(PackClass.DATA, record)
        else:
            self._wait(record)

    def _wait(self, record: Record) -> None:
        self._waiting.append(Record(record.header, bytes(record.body)))
        self._waiting_bytes += len(record.body)
        if self._waiting_bytes > SMALL:
            self._release(PackClass.DATA)

    def _release(self, kind: PackClass) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for record in waiting:
            self._place(kind, record)

    def _place(self, kind: PackClass, record: Record) -> None:
        if kind not in self._open:
            self._open[kind] = PackWriter(self._backend, self._new_name(), kind)
        writer = self._open[kind]
        before = writer.length
        writer.add(*record)
        self.own[record.header.id] = writer.name
        self._placed_bytes += writer.length - before
        if writer.length >= self._limit(writer.length):
            self._seal(kind)

    def _limit(self, length: int) -> int:
        if self._pack_limit is not None:
            return self._pack_limit
        if length < PACK_LEAST:
            return min(PACK_LIMIT, PACK_LEAST)
        whole = self._store.size_bytes + self._placed_bytes
        return min(PACK_LIMIT, max(PACK_LEAST, whole // PACK_PART))

    def _seal(self, kind: PackClass) -> None:
        self._sealing.settle()
        self._sealing.put(partial(self._close, self._open.pop(kind)))

    def _close(self, writer: PackWriter) -> None:
        info = writer.seal()
        self._unnamed = True
        self.packs[info.name] = info

    def _cut(
        self,
        source: Iterable[Buffer],
        size_hint: int,
        element: Element | None,
        again: WholeHash | None = None,
    ) -> Recipe:
        """Store the pieces of a large blob; return its recipe.

        `again` is given each piece after it was hashed by itself.
        """
        chunker: Chunker = Fixed(WHOLE_TYPED) if element else ContentDefined()
        grouped = size_hint >= (GROUP_FROM_TYPED if element else GROUP_FROM)
        done: list[tuple[BlobId, int]] = []
        group: list[tuple[BlobId, int]] = []
        hasher = BlobHasher()
        for piece in cut(source, chunker):
            if grouped and len(group) == GROUP:
                done.append(self._group(group, hasher))
                group, hasher = [], BlobHasher()
            group.append((self.piece(piece, element), len(piece)))
            if grouped:
                hasher.update(piece)
            if again is not None:
                again.update(piece)
        if done:
            done.append(self._group(group, hasher))
        return recipe_of(done or group)

    def _group(self, pieces: list[tuple[BlobId, int]], hasher: BlobHasher) -> tuple[BlobId, int]:
        """Store a run of pieces under a recipe of its own."""
        id, recipe = hasher.id(), recipe_of(pieces)
        if not self.has(id):
            self.recipe(id, recipe)
        return id, recipe.size


def _hashed(source: Iterable[Buffer], hasher: WholeHash) -> Iterator[Buffer]:
    for data in source:
        hasher.update(data)
        yield data
