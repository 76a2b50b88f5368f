"""The index: from an id to the records that hold it.

Searches the index files, and the footers of listed packs that no file covers. Index files are
write-once and disposable: they spare reading footers, and one that turns out damaged or gone is
replaced by the footers at once. Rows of packs that are not listed are passed over. Of several
records for one id every reader takes the same one: whole before recipe before delta, then the
smaller depth, then the order of the packs in the root.
Format: docs/format/index.md.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cas.backend.base import Backend, KeyInfo
from cas.errors import CasError, ConflictError, CorruptionError, NotFoundError, UnsupportedError
from cas.ids import ObjectId
from cas.store.indexfile import IndexFile, UnreadableError
from cas.store.merge import merged
from cas.store.pack import PackInfo, Row, read_footer, rebuilt_footer
from cas.store.record import RECIPE
from cas.store.segment import Searched, Segment, encoded, key_of

UNCOVERED = 16  # packs without an index file before one is written
UNCOVERED_ROWS = 65_536  # rows of such packs likewise: every reader has them in memory
MANY = 1000  # ids that are looked up together from which on NumPy is worth loading
STREAMED = 1_000_000  # rows of an index file that is not made in memory
PREFIX = "index/"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """One record of an object: its row and its pack."""

    row: Row
    pack: PackInfo


class Segments:
    """What was opened of index files and read of footers, kept while roots come and go."""

    def __init__(self, backend: Backend, *, strict: bool = False) -> None:
        """Read from `backend`; unless `strict`, the rows of a damaged footer are rebuilt."""
        self._backend = backend
        self._strict = strict
        self._files: dict[str, IndexFile] = {}
        self._bad: dict[str, int] = {}  # sizes of files that are no good
        self._footers: dict[bytes, Segment] = {}
        self.missing: set[str] = set()  # keys of listed packs that are not there

    def files(self) -> Sequence[Searched]:
        """Return the index files; one that is damaged or gone is as good as none."""
        # Those that were merged are let go of, or a long run would look through ever more.
        files: dict[str, IndexFile] = {}
        bad: dict[str, int] = {}
        for info in self._backend.scan(PREFIX):
            if self._bad.get(info.key) == info.size_bytes:
                bad[info.key] = info.size_bytes
                continue
            try:
                known = self._files.get(info.key)
                files[info.key] = self._file(info) if known is None else known
            except (CorruptionError, UnsupportedError):
                bad[info.key] = info.size_bytes
            except CasError:
                continue
        self._files, self._bad = files, bad
        return list(files.values())

    def footers(self, packs: Iterable[PackInfo], *, lenient: bool = False) -> list[Segment]:
        """Return the rows of these listed packs, each by itself; others' are let go of.

        Raises NotFoundError for a pack that is gone; one that is known to be missing is left
        out, and when `lenient` every one.
        """
        known, footers = self._footers, {}
        for info in packs:
            if info.key in self.missing:
                continue
            try:
                found = known.get(info.name)
                footers[info.name] = self._footer(info) if found is None else found
            except NotFoundError:
                if not lenient:
                    raise
        self._footers = footers
        return list(footers.values())

    def pass_over(self, key: str) -> None:
        """Use this index file no more."""
        if (file := self._files.get(key)) is not None:
            self._bad = {**self._bad, key: file.size}

    def _file(self, info: KeyInfo) -> IndexFile:
        return IndexFile.open(self._backend, info.key, info.size_bytes)

    def _footer(self, info: PackInfo) -> Segment:
        try:
            footer = read_footer(self._backend, info)
        except CorruptionError:
            if self._strict:
                raise
            # One damaged footer must not keep anybody from all the rest.
            footer = rebuilt_footer(self._backend, info)
        return Segment(footer.rows, (info.name,))


class Index:
    """Look-up over exactly the packs that a root lists; from several threads at once."""

    def __init__(self, segments: Segments, packs: Sequence[PackInfo]) -> None:
        self._known = segments
        self._packs = {info.name: (number, info) for number, info in enumerate(packs)}
        self._parts = self._assembled(lenient=False)

    @property
    def segments(self) -> list[Searched]:
        """What is searched: index files, then footers."""
        return [part.rows for part in self._parts.searched]

    @property
    def uncovered(self) -> list[PackInfo]:
        """The listed packs that no index file covers."""
        return self._parts.uncovered

    @property
    def superseded(self) -> list[str]:
        """The keys of index files that nothing is looked up in: larger ones cover the same."""
        return self._parts.superseded

    @property
    def listed(self) -> Collection[bytes]:
        """The names of the packs."""
        return self._packs.keys()

    def find(self, id: ObjectId) -> list[Place]:
        """Return every listed record of `id`, the one to take first."""
        found = self._retried(lambda: self._find(id))
        return sorted(found, key=self._rank) if len(found) > 1 else found

    def find_many(self, ids: Sequence[ObjectId]) -> list[Place | None]:
        """Return for each id the record to take, None for one that no listed pack has.

        What the index files hold is read in its order, so that many ids cost little each.
        """
        if len(ids) >= MANY:
            return self._retried(lambda: self._find_many(ids))
        found: dict[ObjectId, Place | None] = {}
        for id in sorted(ids):
            places = self.find(id)
            found[id] = places[0] if places else None
        return [found[id] for id in ids]

    def starting(self, prefix: bytes) -> Iterator[Place]:
        """Yield the records whose ids begin with `prefix`, segment by segment."""
        return iter(self._retried(lambda: list(self._starting(prefix))))

    def go_without(self, key: str) -> None:
        """Read footers in place of this index file, which is damaged or gone."""
        self._known.pass_over(key)
        # A pack that is gone as well is for whoever misses its records: roots say more.
        self._parts = self._assembled(lenient=True)

    def _assembled(self, *, lenient: bool) -> "_Parts":
        covered: set[bytes] = set()
        searched: list[_Part] = []
        superseded: list[str] = []
        # What a merge made comes before what went into it, which then covers nothing more.
        for file in sorted(self._known.files(), key=len, reverse=True):
            covers = (self._packs.keys() & set(file.packs)) - covered
            if covers:
                searched.append(self._part(file, covers))
                covered |= covers
            elif isinstance(file, IndexFile):
                superseded.append(file.key)
        uncovered = [info for _, info in self._packs.values() if info.name not in covered]
        footers = self._known.footers(uncovered, lenient=lenient)
        searched += [self._part(footer, footer.packs) for footer in footers]
        return _Parts(searched, uncovered, superseded)

    def _part(self, rows: Searched, covers: Collection[bytes]) -> "_Part":
        return _Part(rows, [self._packs[n] if n in covers else None for n in rows.packs])

    def _find(self, id: ObjectId) -> list[Place]:
        key = key_of(id)
        found: list[Place] = []
        for part in self._parts.searched:
            if rows := part.rows.find(id, key):
                found += part.places(rows)
        return found

    def _find_many(self, ids: Sequence[ObjectId]) -> list[Place | None]:
        from cas.store import rowarray

        sorted_ids, order = rowarray.Ids.of(ids)
        parts = self._parts.searched
        found = [part.rows.matches(sorted_ids) for part in parts]
        numbers = [[-1 if pack is None else pack[0] for pack in part.packs] for part in parts]
        packs = [info for _, info in self._packs.values()]
        places: list[Place | None] = [None] * len(ids)
        for id, number, row in rowarray.best(found, numbers):
            places[order[id]] = Place(row, packs[number])
        return places

    def _starting(self, prefix: bytes) -> Iterator[Place]:
        for part in self._parts.searched:
            yield from part.places(part.rows.starting(prefix))

    def _retried(self, look: Callable[[], T]) -> T:
        while True:
            try:
                return look()
            except UnreadableError as error:
                self.go_without(error.key)

    def _rank(self, place: Place) -> tuple[int, bool, int, int]:
        row = place.row
        # A recipe has no depth, so whole comes before recipe before delta.
        return row.depth, row.codec == RECIPE, self._packs[place.pack.name][0], row.offset


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that are searched, and what their pack numbers mean: None is passed over."""

    rows: Searched
    packs: list[tuple[int, PackInfo] | None]

    def places(self, rows: Iterable[Row]) -> Iterator[Place]:
        """Yield where these rows' records stand."""
        for row in rows:
            if row.pack < len(self.packs) and (pack := self.packs[row.pack]) is not None:
                yield Place(row, pack[1])


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an index is put together of."""

    searched: list[_Part]
    uncovered: list[PackInfo]
    superseded: list[str]


def consolidate(backend: Backend, index: Index, name: bytes) -> bool:
    """Write an index file over what has none yet, when that is much; say whether it was."""
    while True:
        files, small = _to_merge(index)
        if len(small) < UNCOVERED and sum(map(len, small)) < UNCOVERED_ROWS:
            return False
        try:
            _write(backend, f"{PREFIX}{name.hex()}.idx", [*small, *files], index.listed)
        except UnreadableError as error:
            index.go_without(error.key)
        except ConflictError:
            return False
        else:
            break
    # Whoever searches one of them meanwhile goes on without it.
    for key in (*index.superseded, *(file.key for file in files)):
        backend.delete(key)
    return True


def _to_merge(index: Index) -> tuple[list[IndexFile], list[Segment]]:
    """Return the index files to merge with the footers that none covers, and those."""
    files = [segment for segment in index.segments if isinstance(segment, IndexFile)]
    small = [segment for segment in index.segments if isinstance(segment, Segment)]
    taken: list[IndexFile] = []
    total = sum(map(len, small))
    # Geometric: a file is merged only into one twice its size, so a row moves O(log n) times.
    for file in sorted(files, key=len):
        if len(file) <= total:
            taken.append(file)
            total += len(file)
    return taken, small


def _write(
    backend: Backend, key: str, segments: list[Segment | IndexFile], listed: Collection[bytes]
) -> None:
    names, rows = merged(segments, listed)
    file = encoded(names, rows)
    if sum(map(len, segments)) < STREAMED:
        backend.put_new(key, b"".join(file))
        return
    # As it comes, in bounded memory. If this process dies, a file without an end stays, which
    # is as good as none and which gc removes.
    sink = backend.create(key)
    try:
        for part in file:
            sink.write([part])
        sink.seal()
    except BaseException:
        sink.discard()
        raise
