"""An index file that is searched where it lies: a look-up reads one block and checks it.

Opening reads the end of the file alone. It is read and never mapped: a mapping that is cut short
kills the process, and reading a block through the backend costs a few microseconds.
Format: docs/format/index.md.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Self

from cas.backend.base import Backend, Span
from cas.errors import CasError, CorruptionError
from cas.ids import Buffer
from cas.store import segment
from cas.store.pack import Row
from cas.store.segment import BLOCK, HEADER, KEY, TRAILER, Extent, Table

if TYPE_CHECKING:
    from cas.store.rowarray import Found, Ids

KEPT: Final = 256  # blocks of one file that are kept in memory
RUN: Final = 64  # blocks that are read at once where all are wanted
BATCH: Final = 1024  # ids whose blocks are read at once


class UnreadableError(CorruptionError):
    """An index file turned out damaged or gone: `Index` goes on without it."""

    def __init__(self, key: str, problem: CasError) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key


class IndexFile:
    """The rows of an index file; raises UnreadableError when it cannot be read on."""

    def __init__(self, backend: Backend, key: str, size: int, extent: Extent, table: Table) -> None:
        self.key = key
        self.size = size
        self.packs = table.packs
        self._rows = extent.rows
        self._table = table
        self._firsts = table.firsts
        self._read = partial(_read, backend, key, extent, table)
        self._start = partial(_start, backend, key)
        self._block = lru_cache(KEPT)(partial(_block, self._read))

    @classmethod
    def open(cls, backend: Backend, key: str, size: int) -> Self:
        """Read the end of a file that is `size` bytes long, and check that."""
        at = size - TRAILER.size
        if at < HEADER.size:
            raise CorruptionError(f"index cut short at {size} bytes")
        (raw,) = backend.read(key, [Span(at, TRAILER.size)])
        extent = Extent.from_bytes(raw, size)
        (raw,) = backend.read(key, [Span(extent.table_at, extent.table_size)])
        return cls(backend, key, size, extent, extent.table(raw))

    def __len__(self) -> int:
        return self._rows

    def find(self, id: bytes, key: int) -> Sequence[Row]:
        """Return the rows of one id, whose key is `key`."""
        return [
            row
            for number in self._numbers(key, key)
            for row in segment.having(self._block(number), id)
        ]

    def starting(self, prefix: bytes) -> Iterator[Row]:
        """Yield the rows whose ids begin with `prefix`."""
        numbers = self._numbers(*_bounds(prefix))
        for at in range(numbers.start, numbers.stop, RUN):
            run = self._run(range(at, min(at + RUN, numbers.stop)))
            yield from segment.starting(run, prefix)

    def __iter__(self) -> Iterator[Row]:
        return self.starting(b"")

    def between(self, low: bytes, high: bytes | None) -> Buffer:
        """Return the rows whose ids are not below `low`, and below `high`."""
        top = (1 << 8 * KEY) - 1 if high is None else _bounds(high)[0]
        return segment.between(self._run(self._numbers(_bounds(low)[0], top)), low, high)

    def check(self) -> None:
        """Insist that all of it is as it was written; raise CorruptionError."""
        segment.check_start(self._start())
        before = b""
        for at in range(0, len(self._firsts), RUN):
            run = range(at, min(at + RUN, len(self._firsts)))
            before = self._table.check_rows(self._run(run), at, before)

    def matches(self, ids: "Ids") -> "Found":
        """Return the rows of many ids, which are in order; memory does not grow with them."""
        from cas.store import rowarray

        found = []
        for at in range(0, len(ids), BATCH):
            part = ids[at : at + BATCH]
            keys = part.keys.tolist()
            wanted = sorted({number for key in keys for number in self._numbers(key, key)})
            rows = b"".join(self._read(_runs(wanted)))
            found.append(rowarray.matches(rows, part).moved(at))
        return rowarray.joined(found)

    def _numbers(self, low: int, high: int) -> range:
        """Return the numbers of the blocks in which keys from `low` to `high` may stand."""
        start = bisect_left(self._firsts, low)
        # Where a block begins with the very key, the one before may end with it.
        return range(max(start - 1, 0), bisect_right(self._firsts, high, start))

    def _run(self, numbers: range) -> Buffer:
        return b"".join(self._read([numbers]))


def _read(
    backend: Backend, key: str, extent: Extent, table: Table, runs: Sequence[range]
) -> list[bytes]:
    """Return runs of blocks, each block checked."""
    end = extent.table_at
    starts = [HEADER.size + run.start * BLOCK for run in runs]
    spans = [
        Span(at, min(len(run) * BLOCK, end - at)) for at, run in zip(starts, runs, strict=True)
    ]
    try:
        found = backend.read(key, spans)
        for run, rows in zip(runs, found, strict=True):
            table.check(memoryview(rows), run.start)
    except CasError as error:
        raise UnreadableError(key, error) from error
    return found


def _start(backend: Backend, key: str) -> bytes:
    (raw,) = backend.read(key, [Span(0, HEADER.size)])
    return raw


def _block(read: "partial[list[bytes]]", number: int) -> bytes:
    return read([range(number, number + 1)])[0]


def _runs(numbers: list[int]) -> list[range]:
    """Return ascending numbers as runs of neighbours."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _bounds(prefix: bytes) -> tuple[int, int]:
    """Return the smallest and the largest key of ids that begin with `prefix`."""
    low = prefix[:KEY].ljust(KEY, b"\0")
    return segment.key_of(low), segment.key_of(prefix[:KEY].ljust(KEY, b"\xff"))
