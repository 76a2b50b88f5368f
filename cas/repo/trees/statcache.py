"""The stat cache: what files were like when they were last read, and the ids of what they held.

A file that is still the same to `stat` is not read again, and a folder in which every name is still
the same is not even rebuilt. The cache is disposable: where it is damaged, locked or cannot be
written, everything works without it and only takes longer. Nothing rests on it but time, so an id
out of it counts only while the store has the object, which the caller asks.
Format: docs/format/statcache.md.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from struct import Struct
from typing import Final, Self

from cas.errors import CorruptionError
from cas.ids import ObjectId, TreeId, digest
from cas.objects.tree import TreeSummary
from cas.repo.cachefile import CacheFile
from cas.repo.layout import CACHE
from cas.repo.place import LOCAL
from cas.repo.repo import Repo

Rows = bytes | bytearray
NAME: Final = "statcache.db"
MAX_VALUE: Final = 512 << 20  # a folder so large that it takes more is not kept
PENDING: Final = 16 << 20  # bytes of notes that are kept in memory before they are written

ROW: Final = Struct("<I Q Q Q Q Q")  # mode, size, mtime, ctime, inode, device
FRONT: Final = Struct("<I Q")  # what every row has
TREE_ROW: Final = Struct("<I Q 32s")  # mode, size, id
HEAD: Final = Struct("<16s I Q Q 32s")  # check, rows, newest stamp, size and id of the tree
CHECK: Final = 16
NO_ID: Final = bytes(ObjectId.SIZE)
LAST: Final = (None, NO_ID)
STAMP: Final = (1 << 64) - 1

# Nanoseconds by which a file must be older than the moment of the look.
TICK: Final = 20_000_000  # on a local file system, whose stamps are those of the kernel's clock
COARSE: Final = 2_000_000_000  # where stamps are whole milliseconds or coarser
SETTLED: Final = 60_000_000_000  # by another machine's clock, or if it may be mapped for writing
MAPPED: Final = 512 * 1024  # from this size on
COARSE_CLOCK: Final = 5  # CLOCK_REALTIME_COARSE, by which Linux stamps files


@dataclass(frozen=True, slots=True)
class Known:
    """What may be concluded of a folder as it was found: `raw` is the value that is kept.

    It has a row for each name, in order, and an id for each, which is zero where nothing may be
    concluded from the row. There is a tree only where every row may be trusted; `newest` is the
    newest stamp among those that may.
    """

    raw: bytes
    rows_at: int
    newest: int
    tree: TreeSummary | None

    @classmethod
    def of(cls, key: bytes, rows: Rows, ids: Rows, newest: int, tree: TreeSummary | None) -> Self:
        """Put together what is to be kept under this key."""
        size, id = (tree.size, tree.id) if tree else (0, NO_ID)
        head = HEAD.pack(b"", len(ids) // len(NO_ID), newest, size, id)
        raw = b"".join((head, ids, rows))
        check = digest(key, memoryview(raw)[CHECK:], size=CHECK)
        return cls(check + raw[CHECK:], HEAD.size + len(ids), newest, tree)

    @classmethod
    def from_bytes(cls, key: bytes, raw: bytes) -> Self:
        """Read a value; raise CorruptionError unless it is one for this key."""
        check = digest(key, memoryview(raw)[CHECK:], size=CHECK)
        if len(raw) < HEAD.size or not raw.startswith(check):
            raise CorruptionError("a value of the stat cache is damaged")
        _, count, newest, size, id = HEAD.unpack_from(raw)
        tree = None if id == NO_ID else TreeSummary(TreeId(ObjectId(id)), size, count)
        return cls(raw, HEAD.size + count * len(NO_ID), newest, tree)

    def is_still(self, rows: Rows) -> bool:
        """Say whether these are the rows."""
        return len(self.raw) == self.rows_at + len(rows) and self.raw.endswith(rows)

    def ids_of(self, rows: Rows) -> Iterator[bytes]:
        """Yield what each of these rows is known to hold; zeros for what is not known."""
        pairs = self._pairs()
        was, id = next(pairs, LAST)
        for row in each(rows):
            while was is not None and was < row:
                was, id = next(pairs, LAST)
            yield id if was == row else NO_ID

    def _pairs(self) -> Iterator[tuple[bytes | None, bytes]]:
        at = HEAD.size
        for row in each(self.raw, self.rows_at):
            yield row, self.raw[at : at + len(NO_ID)]
            at += len(NO_ID)


def each(rows: Rows, at: int = 0) -> Iterator[bytes]:
    """Yield the rows that stand one behind the other from `at` on; or CorruptionError."""
    while at < len(rows):
        zero = rows.find(0, at)
        if zero < 0:
            raise CorruptionError("a value of the stat cache is damaged")
        end = zero + 1 + ROW.size
        yield bytes(rows[at:end])
        at = end


def file_row(name: bytes, found: os.stat_result) -> bytes:
    """Return the row of a file or link that was found like this."""
    return b"%b\0%b" % (
        name,
        ROW.pack(
            found.st_mode,
            found.st_size,
            found.st_mtime_ns & STAMP,
            found.st_ctime_ns & STAMP,
            found.st_ino,
            found.st_dev,
        ),
    )


def tree_row(name: bytes, mode: int, below: TreeSummary) -> bytes:
    """Return the row of a folder, whose own times say nothing of what is in it."""
    return b"%b\0%b" % (name, TREE_ROW.pack(mode, below.size, below.id))


def parts(row: bytes) -> tuple[bytes, int, int]:
    """Return the name, mode and size in a row."""
    at = len(row) - ROW.size
    mode, size = FRONT.unpack_from(row, at)
    return row[: at - 1], mode, size


def tree_of(row: bytes) -> TreeId:
    """Return the id in the row of a folder."""
    return TreeId(ObjectId(row[-ObjectId.SIZE :]))


class Notes:
    """What is learnt of a folder while its files are read; one call for each row, in order."""

    def __init__(self, began: int, local: Collection[int]) -> None:
        """Take the moment before the first row was made, and the devices that are local."""
        self._began = began
        self._local = local
        self._ids = bytearray()
        self._newest = 0
        self._all = True

    def add(self, row: bytes, id: bytes | None = NO_ID) -> None:
        """Note what a file held, None if it changed meanwhile; of a link, that it was read."""
        _, size, mtime, ctime, _, device = ROW.unpack_from(row, len(row) - ROW.size)
        stamp = max(mtime, ctime)
        # What is as new as the look may change again, and look the same.
        if id is not None and stamp + self._margin(size, ctime, device) < self._began:
            self._ids += id
            self._newest = max(self._newest, stamp)
        else:
            self._ids += NO_ID
            self._all = False

    def add_tree(self) -> None:
        """Note a folder, whose row says all."""
        self._ids += NO_ID

    def known(self, key: bytes, rows: Rows, tree: TreeSummary | None) -> Known:
        """Return what may be concluded from now on."""
        return Known.of(key, rows, self._ids, self._newest, tree if self._all else None)

    def _margin(self, size: int, ctime: int, device: int) -> int:
        if device not in self._local:
            # What says that it is empty may be made up by a kernel when it is read.
            return SETTLED if size else STAMP
        # Memory that is mapped for writing gives a file new times only once in a while.
        if size >= MAPPED:
            return SETTLED
        return TICK if ctime % 1_000_000 else COARSE


class StatCache:
    """What is known of folders and files, by key; none of its methods fails."""

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], int] | None = None,
        complete: Callable[[], bool] = lambda: True,
    ) -> None:
        """Keep the cache in this file, nowhere when it is None.

        `clock` returns what a file would be stamped with now. While the repository is not
        `complete`, that it has a tree does not mean that it has the files in it.
        """
        self.now = clock or _kernel_time
        self._file = CacheFile(path) if path else None
        self._complete = complete
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0

    def find(self, key: bytes, now: int) -> Known | None:
        """Return what is known under this key and is not from a time that is still to come."""
        raw = self._pending.get(key) or (self._file and self._file.get(key))
        try:
            known = Known.from_bytes(key, raw) if raw else None
        except CorruptionError:
            return None
        if known is None or known.newest >= now:
            return None
        return known if self._complete() else replace(known, tree=None)

    def notes(self, began: int) -> Notes:
        """Begin to note what is learnt of a folder that was looked at from this moment on."""
        return Notes(began, self._local)

    def keep(self, key: bytes, known: Known) -> None:
        """Keep what is known of a folder, for good once it is saved."""
        if self._file is None or len(known.raw) > MAX_VALUE:
            return
        self._pending[key] = known.raw
        self._pending_bytes += len(known.raw)
        if self._pending_bytes > PENDING:
            self.save()

    def save(self) -> None:
        """Write what was learnt."""
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        if self._file and pending:
            self._file.put(pending)

    def close(self) -> None:
        """Close the file; what was not saved is forgotten."""
        if self._file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _local(self) -> frozenset[int]:
        return _local_devices() if self._file else frozenset()


def open_statcache(repo: Repo) -> StatCache:
    """Open the stat cache of a repository."""
    path = repo.path / CACHE / NAME
    return StatCache(path, complete=lambda: not (repo.root.tombstones or repo.store.missing))


def key_of(place: bytes, what: str) -> bytes:
    """Return the key of what is at an absolute path, and of what else decides on its tree."""
    return digest(what.encode(), b"\0", place)


def _kernel_time() -> int:
    if os.uname().sysname == "Linux":
        return time.clock_gettime_ns(COARSE_CLOCK)
    return time.time_ns()


def _local_devices() -> frozenset[int]:
    """Return the devices whose files are known to be stamped by this machine's clock."""
    found = set()
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            fields = line.split()
            kind = fields[fields.index(b"-") + 1].decode()
            if kind in LOCAL:
                major, _, minor = fields[2].partition(b":")
                found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
