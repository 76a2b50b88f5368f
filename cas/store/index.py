"""The index: from an id to the records that hold it.

Segments of sorted rows: one for each index file, one for each listed pack that no file covers.
Index files are write-once and disposable: they spare reading footers, and rows of packs that are
not listed are passed over. Of several records for one id every reader takes the same one: whole
before recipe before delta, then the smaller depth, then the order of the packs in the root.
Format: docs/format/index.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Self

from cas.backend.base import Backend, Span
from cas.errors import CasError, ConflictError, CorruptionError
from cas.ids import Buffer, ObjectId, digest
from cas.store.pack import PackInfo, Row, read_footer, rebuilt_footer
from cas.store.record import RECIPE, check_version

MAGIC = b"CASI"
VERSION = 1
HEADER = Struct("<4s B 3x I I 32s")
NAME = PackInfo.NAME_SIZE
ID = ObjectId.SIZE
UNCOVERED = 16  # packs without an index file before one is written
PREFIX = "index/"


@dataclass(frozen=True, slots=True)
class Segment:
    """Sorted rows, and the pack that each row's number means."""

    rows: Buffer
    packs: tuple[bytes, ...]
    key: str = field(default="", compare=False)  # of the index file that it was read from

    def __len__(self) -> int:
        return len(self.rows) // Row.SIZE

    def position(self, id: bytes) -> int:
        """Return the number of the first row whose id is not smaller."""
        low, high = 0, len(self)
        rows, size, width = self.rows, Row.SIZE, len(id)
        while low < high:
            middle = (low + high) // 2
            at = middle * size
            if bytes(rows[at : at + width]) < id:
                low = middle + 1
            else:
                high = middle
        return low

    def starting(self, prefix: bytes) -> Iterator[Row]:
        """Yield the rows whose ids begin with `prefix`."""
        for number in range(self.position(prefix), len(self)):
            at = number * Row.SIZE
            if self.rows[at : at + len(prefix)] != prefix:
                return
            yield Row.from_bytes(self.rows[at : at + Row.SIZE])

    def __iter__(self) -> Iterator[Row]:
        return self.starting(b"")

    def to_bytes(self) -> bytes:
        """Return the segment as an index file."""
        body = b"".join(self.packs) + bytes(self.rows)
        return HEADER.pack(MAGIC, VERSION, len(self.packs), len(self), digest(body)) + body

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read an index file; raise CorruptionError or UnsupportedError."""
        if len(raw) < HEADER.size:
            raise CorruptionError(f"index cut short at {len(raw)} bytes")
        magic, version, packs, rows, check = HEADER.unpack_from(raw)
        if magic != MAGIC:
            raise CorruptionError(f"not an index: starts with {magic!r}")
        check_version("index", version, VERSION)
        body = memoryview(raw)[HEADER.size :]
        if len(body) != packs * NAME + rows * Row.SIZE or digest(body) != check:
            raise CorruptionError("an index does not match its digest")
        names = tuple(bytes(body[n * NAME : (n + 1) * NAME]) for n in range(packs))
        return cls(body[packs * NAME :], names)


@dataclass(frozen=True, slots=True)
class Place:
    """One record of an object: its row and its pack."""

    row: Row
    pack: PackInfo


class Segments:
    """What was read of index files and footers, kept while roots come and go."""

    def __init__(self, backend: Backend, *, strict: bool = False) -> None:
        """Read from `backend`; unless `strict`, the rows of a damaged footer are rebuilt."""
        self._backend = backend
        self._strict = strict
        self._files: dict[str, Segment] = {}
        self._footers: dict[bytes, Segment] = {}
        self.missing: set[str] = set()  # keys of listed packs that are not there

    def files(self) -> list[Segment]:
        """Return the index files; one that is damaged or gone is as good as none."""
        # Those that were merged are let go of, or a long run would look through ever more.
        known, self._files = self._files, {}
        for info in self._backend.scan(PREFIX):
            try:
                file = known[info.key] if info.key in known else self._file(info.key)
            except CasError:
                continue
            self._files[info.key] = file
        return list(self._files.values())

    def footers(self, packs: Sequence[PackInfo]) -> list[Segment]:
        """Return the rows of these listed packs, each by itself; others' are let go of."""
        known = self._footers
        self._footers = {
            info.name: known[info.name] if info.name in known else self._footer(info)
            for info in packs
        }
        return list(self._footers.values())

    def _file(self, key: str) -> Segment:
        (raw,) = self._backend.read(key, [Span(0, None)])
        return replace(Segment.from_bytes(raw), key=key)

    def _footer(self, info: PackInfo) -> Segment:
        if info.key in self.missing:
            return Segment(b"", (info.name,))
        try:
            footer = read_footer(self._backend, info)
        except CorruptionError:
            if self._strict:
                raise
            # One damaged footer must not keep anybody from all the rest.
            footer = rebuilt_footer(self._backend, info)
        return Segment(footer.rows, (info.name,))


class Index:
    """Look-up over exactly the packs that a root lists."""

    def __init__(self, segments: Segments, packs: Sequence[PackInfo]) -> None:
        self._packs = {info.name: (number, info) for number, info in enumerate(packs)}
        covered: set[bytes] = set()
        files: list[Segment] = []
        self.superseded: list[str] = []
        # What a merge made comes before what went into it, which then covers nothing more.
        for file in sorted(segments.files(), key=len, reverse=True):
            covers = self._packs.keys() & set(file.packs)
            if covers <= covered:
                self.superseded.append(file.key)
            else:
                files.append(file)
                covered |= covers
        self.uncovered = [info for info in packs if info.name not in covered]
        self.segments = files + segments.footers(self.uncovered)

    def find(self, id: ObjectId) -> list[Place]:
        """Return every listed record of `id`, the one to take first."""
        found = [place for segment in self.segments for place in self._places(segment, id)]
        return sorted(found, key=self._rank) if len(found) > 1 else found

    def starting(self, prefix: bytes) -> Iterator[Place]:
        """Yield the records whose ids begin with `prefix`, segment by segment."""
        for segment in self.segments:
            yield from self._places(segment, prefix)

    def _places(self, segment: Segment, prefix: bytes) -> Iterator[Place]:
        for row in segment.starting(prefix):
            if row.pack < len(segment.packs) and segment.packs[row.pack] in self._packs:
                yield Place(row, self._packs[segment.packs[row.pack]][1])

    def _rank(self, place: Place) -> tuple[int, bool, int, int]:
        row = place.row
        # A recipe has no depth, so whole comes before recipe before delta.
        return row.depth, row.codec == RECIPE, self._packs[place.pack.name][0], row.offset


def consolidate(backend: Backend, index: Index, name: bytes) -> bool:
    """Write an index file over what has none yet, when that is much; say whether it was."""
    if len(index.uncovered) < UNCOVERED:
        return False
    small = [segment for segment in index.segments if not segment.key]
    total = sum(map(len, small))
    # Geometric: a file is merged only into one twice its size, so a row moves O(log n) times.
    for segment in sorted((s for s in index.segments if s.key), key=len):
        if len(segment) <= total:
            small.append(segment)
            total += len(segment)
    merged = merge(small)
    try:
        backend.put_new(f"{PREFIX}{name.hex()}.idx", merged.to_bytes())
    except ConflictError:
        return False
    # Whoever reads them meanwhile has them in memory, or reads the footers.
    for key in (*index.superseded, *(segment.key for segment in small if segment.key)):
        backend.delete(key)
    return True


def merge(segments: Sequence[Segment]) -> Segment:
    """Return one segment with the rows of all, in order."""
    names: dict[bytes, int] = {}
    rows: dict[bytes, None] = {}
    number = Struct("<I")
    for segment in segments:
        local = [names.setdefault(name, len(names)) for name in segment.packs]
        view = bytes(segment.rows)
        for at in range(0, len(view), Row.SIZE):
            (own,) = number.unpack_from(view, at + Row.SIZE - number.size)
            rows[view[at : at + Row.SIZE - number.size] + number.pack(local[own])] = None
    return Segment(b"".join(sorted(rows)), tuple(names))
