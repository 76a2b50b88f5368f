"""Counting what trees are stored as: every record that they need, once, by what it is a part of.

Reads trees, manifests, recipes and footers, and of a delta the name of its base; never a blob's
bytes. What `usage` tells of a repository or of a commit are sums made here.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cas.codec.base import CodecTag
from cas.codec.chunker import FASTCDC_MAX, FASTCDC_MIN
from cas.errors import NotFoundError
from cas.ids import ManifestId, ObjectId, TreeId
from cas.objects.kind import Kind
from cas.objects.manifest import Manifest, State, manifest_from_bytes
from cas.objects.node import NAMED_ONLY, EntryKind, Node
from cas.progress import SILENT, Progress
from cas.store.index import Place
from cas.store.pinned import PinnedStore
from cas.store.recipe import Recipe
from cas.store.record import DELTAS, RECIPE, RecordHeader

HEADER: Final = RecordHeader.SIZE
TYPED: Final = frozenset({*DELTAS, int(CodecTag.PLANES)})


class Part(StrEnum):
    """What stored bytes are a part of, as people call it.

    A blob that several parts need counts for the first of them in this order.
    """

    WEIGHTS = "weights"  # states: checkpoints and what else was saved as Python values
    CONTAINERS = "tensor files"  # files that were cut at their tensors
    METRICS = "metrics"
    FILES = "files"
    HISTORY = "history"  # commits, folders, links
    UNUSED = "not kept"
    UPKEEP = "upkeep"  # footers, indexes, roots: what finds the rest


BLOBS: Final = (Part.WEIGHTS, Part.CONTAINERS, Part.METRICS, Part.FILES)
Given = Counter[Part]


@dataclass(frozen=True, slots=True)
class Line:
    """The bytes of one part: as they were given, what was saved of them, as they are stored."""

    part: str
    records: int = 0
    given_bytes: int = 0
    shared_bytes: int = 0
    planes_bytes: int = 0
    deltas_bytes: int = 0
    zstd_bytes: int = 0
    added_bytes: int = 0

    @property
    def stored_bytes(self) -> int:
        """The bytes on disk: what was given, less what was saved of it, and what was added."""
        saved = self.shared_bytes + self.planes_bytes + self.deltas_bytes + self.zstd_bytes
        return self.given_bytes - saved + self.added_bytes

    def __add__(self, other: "Line") -> "Line":
        return Line(
            self.part,
            self.records + other.records,
            self.given_bytes + other.given_bytes,
            self.shared_bytes + other.shared_bytes,
            self.planes_bytes + other.planes_bytes,
            self.deltas_bytes + other.deltas_bytes,
            self.zstd_bytes + other.zstd_bytes,
            self.added_bytes + other.added_bytes,
        )


class Tally:
    """What some trees and commits are stored as; `close` before asking for sums."""

    def __init__(self, store: PinnedStore, *, progress: Progress = SILENT) -> None:
        self.taken: dict[ObjectId, int] = {}  # the records, each with its bytes on disk
        self.missing: set[ObjectId] = set()
        self.given: Given = Counter()
        self._store = store
        self._progress = progress
        self._given: dict[TreeId, Given] = {}  # by each folder that was looked through
        self._parts: dict[ObjectId, Part] = {}  # of files and manifests
        self._waiting: dict[Part, dict[ObjectId, Place | None]] = {part: {} for part in BLOBS}
        self._deltas: list[tuple[Place, Part]] = []
        self._content: Counter[Part] = Counter()
        self._added: Counter[Part] = Counter()
        self._saved: Counter[tuple[Part, str]] = Counter()
        self._records: Counter[Part] = Counter()

    def commit(self, id: ObjectId) -> None:
        """Count a commit itself."""
        self._take(Part.HISTORY, id)

    def tree(self, root: TreeId) -> None:
        """Count a folder with all below; its bytes count as given each time it is named here."""
        self.given += self._given_by(root)

    def close(self) -> None:
        """Count the blobs: only now is it known what each is a part of."""
        for part in BLOBS:
            for id, place in self._waiting[part].items():
                self._blob(part, id, place)
            self._waiting[part] = {}
        while self._deltas:
            place, part = self._deltas.pop()
            base = self._store.base(place)
            assert base is not None
            self._take(part, base, content=0)  # unless it was given too, and is counted

    def lines(self) -> list[Line]:
        """Return a line for each part that there is anything of."""
        parts = [part for part in Part if self._records[part] or self.given[part]]
        return [self._line(part) for part in parts]

    def _line(self, part: Part) -> Line:
        return Line(
            part=part,
            records=self._records[part],
            given_bytes=self.given[part],
            shared_bytes=self.given[part] - self._content[part],
            planes_bytes=self._saved[part, "planes"],
            deltas_bytes=self._saved[part, "deltas"],
            zstd_bytes=self._saved[part, "zstd"],
            added_bytes=self._added[part],
        )

    def _given_by(self, root: TreeId) -> Given:
        """Return the bytes that a folder was given as, by part; looks through each folder once."""
        opened: dict[TreeId, Node] = {}
        pending = [root]
        while pending:
            id = pending[-1]
            if id in self._given:
                pending.pop()
                continue
            node = opened.get(id) or self._node(id)
            if node is None:
                self._given[id] = Counter()
                continue
            below = [child for child in _folders(node) if child not in self._given]
            if below:
                opened[id] = node
                pending += below
            else:
                opened.pop(id, None)
                self._given[id] = self._folder(id, node)
        return self._given[root]

    def _folder(self, id: TreeId, node: Node) -> Given:
        given: Given = Counter()
        for folder in _folders(node):
            given.update(self._given[folder])
        links = 0
        if not node.level:
            self._note_files(node)
            for row, byte in enumerate(node.kinds):
                if byte == EntryKind.LINK:
                    links += node.sizes[row]
                elif byte != EntryKind.TREE and byte < NAMED_ONLY:
                    given[self._part(node.id_at(row))] += node.sizes[row]
        given[Part.HISTORY] += links
        self._take(Part.HISTORY, id, content=links)
        self._progress.advance(len(node.names))
        return given

    def _note_files(self, node: Node) -> None:
        """Find out at once what the new files of a leaf are parts of."""
        rows = [node.id_at(row) for row, byte in enumerate(node.kinds) if byte == EntryKind.FILE]
        fresh = list({id for id in rows if id not in self._parts})
        for id, place in zip(fresh, self._store.index.find_many(fresh), strict=True):
            cut = place is not None and self._cut_at_tensors(place)
            self._parts[id] = part = Part.CONTAINERS if cut else Part.FILES
            self._waiting[part][id] = place

    def _part(self, id: ObjectId) -> Part:
        part = self._parts.get(id)
        if part is None:
            self._parts[id] = part = self._manifest(ManifestId(id))
        return part

    def _cut_at_tensors(self, place: Place) -> bool:
        """Say whether a file was not cut as opaque bytes are: by its pieces, as it is not read."""
        recipe = self._store.recipe(place)
        if recipe is None:
            return place.row.codec in TYPED
        last = len(recipe.sizes) - 1
        for number, (id, size) in enumerate(recipe.pieces()):
            if size < FASTCDC_MIN and number != last:
                return True
            if size > FASTCDC_MAX:
                piece = self._place(id)
                # A very large file has its chunks under inner recipes.
                grouped = piece is not None and piece.row.codec == RECIPE
                return self._cut_at_tensors(piece) if piece and grouped else True
        return False

    def _manifest(self, id: ManifestId) -> Part:
        manifest = self._read_manifest(id)
        if manifest is None:
            return Part.WEIGHTS
        part = Part.WEIGHTS if isinstance(manifest, State) else Part.METRICS
        self._take(part, id, content=_inline(manifest))
        self._waiting[part].update(dict.fromkeys(manifest.blobs()))
        return part

    def _blob(self, part: Part, id: ObjectId, place: Place | None) -> None:
        pending = [(id, place)]
        while pending:
            taken = self._take(part, *pending.pop())
            if taken is not None and taken.row.codec == RECIPE:
                pieces = [piece for piece, _ in self._recipe(taken).pieces()]
                pending += zip(pieces, self._store.index.find_many(pieces), strict=True)

    def _recipe(self, place: Place) -> Recipe:
        recipe = self._store.recipe(place)
        assert recipe is not None
        return recipe

    def _take(
        self, part: Part, id: ObjectId, place: Place | None = None, *, content: int | None = None
    ) -> Place | None:
        """Count a record that was not counted before; `content` of its bytes were given."""
        if id in self.taken:
            return None
        place = place or self._place(id)
        if place is None:
            return None
        row = place.row
        self.taken[id] = HEADER + row.stored
        self._records[part] += 1
        whole = row.stored if row.codec == RECIPE else row.size
        if content is None:
            content = whole if row.kind == Kind.BLOB and row.codec != RECIPE else 0
        self._content[part] += content
        self._added[part] += HEADER + whole - content
        self._saved[part, _saver(row.codec)] += whole - row.stored
        if row.codec in DELTAS:
            self._deltas.append((place, part))
        return place

    def _place(self, id: ObjectId) -> Place | None:
        places = self._store.places(id)
        if not places:
            self.missing.add(id)
            return None
        return places[0]

    def _node(self, id: TreeId) -> Node | None:
        try:
            return Node.from_bytes(self._store.read(Kind.TREE, id))
        except NotFoundError:
            self.missing.add(id)
            return None

    def _read_manifest(self, id: ManifestId) -> Manifest | None:
        try:
            return manifest_from_bytes(self._store.read(Kind.MANIFEST, id))
        except NotFoundError:
            self.missing.add(id)
            return None


def _folders(node: Node) -> Iterator[TreeId]:
    """Yield the nodes below a node: its children, or the folders in a leaf."""
    if node.level:
        yield from (TreeId(node.id_at(row)) for row in range(len(node.names)))
    elif EntryKind.TREE in node.kinds:
        kinds = enumerate(node.kinds)
        yield from (TreeId(node.id_at(row)) for row, byte in kinds if byte == EntryKind.TREE)


def _inline(manifest: Manifest) -> int:
    if isinstance(manifest, State):
        return sum(len(row.data) for row in manifest.rows if row.data is not None)
    columns = (column for row in manifest.rows for column in (row.steps, row.values))
    return sum(len(column.data) for column in columns if column.data is not None)


def _saver(codec: int) -> str:
    """Return which way of storing less a record's codec is; what nobody knows counts as zstd."""
    if codec in DELTAS:
        return "deltas"
    return "planes" if codec == CodecTag.PLANES else "zstd"
