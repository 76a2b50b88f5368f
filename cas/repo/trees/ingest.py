"""Files into objects: what a folder holds becomes a tree, bit for bit.

Links are stored as links and never followed below the top, so that nothing outside the folder gets
in and no walk goes in circles; folders are opened by handle, so that this holds also while somebody
changes them. The folders `.cas` and `.git` are left out. A file is read once, front to back, in
bounded memory; one that changes meanwhile is stored as it was read. What a stat cache knows is not
read at all.
Format: docs/format/checkout.md.
"""

import io
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import chain, groupby, repeat
from pathlib import Path
from typing import BinaryIO, Final

from cas.errors import InvalidInputError
from cas.ids import BlobId, ObjectId
from cas.objects.tree import Entry, EntryKind, TreeSummary, build
from cas.progress import SILENT, Progress
from cas.repo.trees.names import LEFT_OUT, MAX_NESTING, refusal, shown
from cas.repo.trees.statcache import (
    NO_ID,
    Known,
    Notes,
    Rows,
    StatCache,
    each,
    file_row,
    key_of,
    parts,
    tree_of,
    tree_row,
)
from cas.store.pool import one_ahead
from cas.store.writer import ObjectWriter

UNCUT: Final = 64 * 1024  # files up to this size are never cut at their tensors
SMALL: Final = 512 * 1024  # files up to this size are read at once
WINDOW: Final = 4 * 1024 * 1024
FILE_MODE: Final = 0o644
FOLDER_MODE: Final = 0o755
# O_NONBLOCK: not to wait for ever where somebody has put a pipe since we looked.
READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
ENTER: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

PLAIN: Final = frozenset({stat.S_IFREG, stat.S_IFLNK})

Ignore = Callable[[bytes], bool]
Row = tuple[list[bytes], Entry]

_open = os.open
_stat = os.stat


class Modes(Enum):
    """Which permission bits a tree keeps."""

    FULL = "full"
    PORTABLE = "portable"  # 644 or 755, so that equal data is one tree under any umask

    def of(self, mode: int) -> int:
        """Return the bits for a file or folder of this mode."""
        if self is Modes.FULL:
            return mode & 0o777
        return FOLDER_MODE if stat.S_ISDIR(mode) or mode & 0o100 else FILE_MODE


def add(
    writer: ObjectWriter,
    path: Path,
    *,
    modes: Modes = Modes.FULL,
    ignore: Ignore | None = None,
    follow: bool = False,
    cache: StatCache | None = None,
    progress: Progress = SILENT,
) -> Entry:
    """Store a file, a link or a whole folder; return its entry, under its own name.

    `ignore` is asked with each path below the folder, relative and with `/` between names; what it
    says True to is left out, with all below. With `follow`, `path` itself may be a link to what is
    stored. What `cache` knows is not read again; it learns what is, and is saved by the caller.
    Raises InvalidInputError for what cannot be read or cannot be stored.
    """
    place = os.fsencode(path.absolute())
    name = _named(place)
    _check(name, place)
    cache = cache or StatCache(None)
    ingest = _Ingest(writer, modes, ignore, cache, progress)
    progress.start("store files")
    began = cache.now()
    try:
        place = os.path.realpath(place) if follow else place
        found = _stat(place, follow_symlinks=False)
    except OSError as error:
        raise _unreadable(place, error) from error
    entry = replace(ingest.top(place, found, began), name=name)
    progress.finish()
    return entry


def nest(writer: ObjectWriter, items: Iterable[tuple[bytes, Entry]]) -> TreeSummary:
    """Store folders that hold the entries at these `/`-separated paths, given in any order.

    Each entry takes the last name of its path; folders have mode 755.
    """
    rows = [(path.split(b"/"), entry) for path, entry in items]
    for names, _ in rows:
        path = b"/".join(names)
        if len(names) > MAX_NESTING:
            raise _too_deep(path)
        for name in names:
            _check(name, path)
    # Sorted by the parts: that is the order of the names in each folder.
    return _nest(writer, sorted(rows, key=lambda row: row[0]), 0)


def file_entry(writer: ObjectWriter, name: bytes, data: bytes, mode: int = FILE_MODE) -> Entry:
    """Store a file that exists in memory only."""
    return Entry(name, EntryKind.FILE, writer.blob(data), len(data), mode)


@dataclass(frozen=True, slots=True)
class _Folder:
    """An open folder, its path for messages, and the names that lead to it from the top.

    Without a handle it is where the names are whole paths.
    """

    fd: int | None
    path: bytes
    below: tuple[bytes, ...]

    def inner(self, name: bytes) -> bytes:
        """Return the path of a name in it."""
        return os.path.join(self.path, name)


class _Ingest:
    """One walk over files."""

    def __init__(
        self,
        writer: ObjectWriter,
        modes: Modes,
        ignore: Ignore | None,
        cache: StatCache,
        progress: Progress,
    ) -> None:
        self._writer = writer
        self._modes = modes
        self._ignore = ignore
        self._cache = cache
        self._progress = progress

    def top(self, path: bytes, found: os.stat_result, began: int) -> Entry:
        """Store what is at a path; the entry has the path for a name."""
        nowhere = _Folder(None, b"", ())
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            below = self._folder(nowhere, path, ())
            return Entry(path, EntryKind.TREE, below.id, below.size, self._modes.of(mode))
        if stat.S_IFMT(mode) not in PLAIN:
            raise _strange(path, mode)
        row, key = file_row(path, found), key_of(path, "file")
        known, notes = self._cache.find(key, began), self._cache.notes(began)
        (entry,) = self._entries(nowhere, row, known, notes)
        self._cache.keep(key, notes.known(key, row, None))
        return entry

    def _folder(self, above: _Folder, name: bytes, below: tuple[bytes, ...]) -> TreeSummary:
        """Store what is in a folder, unless all of it is as it was."""
        path = above.inner(name)
        if len(below) > MAX_NESTING:
            raise _too_deep(path)
        try:
            fd = _open(name, ENTER, dir_fd=above.fd)
        except OSError as error:
            raise _unreadable(path, error) from error
        folder = _Folder(fd, path, below)
        try:
            key, began = key_of(path, self._modes.value), self._cache.now()
            rows = self._rows(folder)
            known = self._cache.find(key, began)
            tree = known.tree if known and known.is_still(rows) else None
            if tree is None or not self._writer.has(tree.id):
                notes = self._cache.notes(began)
                tree = build(self._entries(folder, rows, known, notes), self._writer.tree)
                self._cache.keep(key, notes.known(key, rows, tree))
        finally:
            os.close(fd)
        return tree

    def _rows(self, folder: _Folder) -> bytearray:
        """Look at each name in a folder, in raw-byte order; store the folders in it."""
        rows = bytearray()
        for name in self._names(folder):
            try:
                found = _stat(name, dir_fd=folder.fd, follow_symlinks=False)
            except OSError as error:
                raise _unreadable(folder.inner(name), error) from error
            kind = stat.S_IFMT(found.st_mode)
            if kind in PLAIN:
                rows += file_row(name, found)
            elif kind == stat.S_IFDIR:
                below = self._folder(folder, name, (*folder.below, name))
                rows += tree_row(name, found.st_mode, below)
            else:
                raise _strange(folder.inner(name), found.st_mode)
        return rows

    def _names(self, folder: _Folder) -> list[bytes]:
        """Return the names in a folder that are to be stored, in raw-byte order."""
        try:
            names = sorted(map(os.fsencode, os.listdir(folder.fd)))
        except OSError as error:
            raise _unreadable(folder.path, error) from error
        names = [name for name in names if name not in LEFT_OUT]
        if self._ignore is None and not any(map(refusal, names)):
            return names
        kept = []
        for name in names:
            if self._ignore is None or not self._ignore(b"/".join((*folder.below, name))):
                _check(name, folder.inner(name))
                kept.append(name)
        return kept

    def _entries(
        self, folder: _Folder, rows: Rows, known: Known | None, notes: Notes
    ) -> Iterator[Entry]:
        """Store what the rows of a folder say is in it, but for what is known and stored."""
        ids = known.ids_of(rows) if known else repeat(NO_ID)
        for row, id in zip(each(rows), ids, strict=False):
            name, mode, size = parts(row)
            if stat.S_ISDIR(mode):
                notes.add_tree()
                yield Entry(name, EntryKind.TREE, tree_of(row), size, self._modes.of(mode))
            elif stat.S_ISLNK(mode):
                notes.add(row)
                yield Entry.to_link(name, _target(folder, name))
            elif id != NO_ID and self._writer.has(ObjectId(id)):
                notes.add(row, id)
                yield Entry(name, EntryKind.FILE, ObjectId(id), size, self._modes.of(mode))
            else:
                blob, read, found = self._file(folder, name, size)
                same = read == size and file_row(name, found) == row
                notes.add(row, blob if same else None)
                yield Entry(name, EntryKind.FILE, blob, read, self._modes.of(mode))

    def _file(
        self, folder: _Folder, name: bytes, expected: int
    ) -> tuple[BlobId, int, os.stat_result]:
        """Store a file's bytes; return their id, how many were read, and what the file is then."""
        try:
            fd = _open(name, READ, dir_fd=folder.fd)
        except OSError as error:
            raise _unreadable(folder.inner(name), error) from error
        try:
            want = (expected if expected < SMALL else SMALL) + 1
            start, found = self._start(fd, want, folder.inner(name))
            if len(start) < want:
                id, size = self._small(start)
                return id, size, found
            id, size = self._large(fd, start, expected, folder.inner(name))
            return id, size, os.fstat(fd)
        finally:
            os.close(fd)

    def _small(self, data: bytes) -> tuple[BlobId, int]:
        """Store a file that was read at once."""
        found = None
        if len(data) > UNCUT:
            found = self._tensors(data, io.BytesIO(data), len(data))
        return found or (self._writer.blob(data), len(data))

    def _large(self, fd: int, start: bytes, expected: int, path: bytes) -> tuple[BlobId, int]:
        """Store a file that is too large to be read at once, or that grows; `start` is read."""
        try:
            with open(fd, "rb", buffering=0, closefd=False) as file:
                found = self._tensors(start, file, expected)
                if found is not None:
                    return found
                if file.tell() != len(start):  # what is made up while it is read stays untouched
                    file.seek(len(start))
        except OSError as error:
            raise _unreadable(path, error) from error
        with closing(self._rest(fd, path)) as rest:
            return self._writer.stream(chain((start,), rest), expected)

    def _tensors(self, start: bytes, file: BinaryIO, size: int) -> tuple[BlobId, int] | None:
        """Store a file cut at its tensors, None where it is no such file."""
        # Slow to import, and not needed where everything is as it was.
        from cas.objects.containers.files import HEAD, may_be_known
        from cas.repo.trees.cutting import store_tensors

        if not may_be_known(start[:HEAD]):
            return None
        told, progress = len(start), self._progress
        return store_tensors(self._writer, file, size, told=told, progress=progress)

    def _start(self, fd: int, want: int, path: bytes) -> tuple[bytes, os.stat_result]:
        """Return the first `want` bytes, fewer only where the file ends, and what it is then."""
        try:
            data = os.read(fd, want)
            found = os.fstat(fd)
            # A read that gives as many bytes as there are has come to the end; below /proc and on
            # some other file systems nobody can tell but by reading on.
            while data and len(data) < want and len(data) != found.st_size:
                more = os.read(fd, want - len(data))
                if not more:
                    break
                data += more
                found = os.fstat(fd)
        except OSError as error:
            raise _unreadable(path, error) from error
        self._progress.advance(len(data))
        return data, found

    def _rest(self, fd: int, path: bytes) -> Generator[bytes]:
        """Yield what comes after; each window is the writer's own, which encodes it later."""
        with closing(one_ahead(repeat(partial(os.read, fd, WINDOW)))) as windows:
            while True:
                try:
                    data = next(windows)
                except OSError as error:
                    raise _unreadable(path, error) from error
                if not data:
                    return
                self._progress.advance(len(data))
                yield data


def _nest(writer: ObjectWriter, rows: list[Row], level: int) -> TreeSummary:
    def entries() -> Iterator[Entry]:
        for name, group in groupby(rows, key=lambda row: row[0][level]):
            inner = list(group)
            names, entry = inner[0]
            if len(names) > level + 1:
                below = _nest(writer, inner, level + 1)
                yield Entry(name, EntryKind.TREE, below.id, below.size, FOLDER_MODE)
            elif len(inner) == 1:
                yield replace(entry, name=name)
            else:
                path = shown(b"/".join(names))
                raise InvalidInputError(f"{path} is given twice, or as a file and as a folder")

    return build(entries(), writer.tree)


def _named(place: bytes) -> bytes:
    """Return the name that a path ends in, also for `.` and what ends in a slash."""
    return os.path.basename(os.path.normpath(place)) or b"root"


def _check(name: bytes, path: bytes) -> None:
    reason = refusal(name)
    if reason is not None:
        raise InvalidInputError(f"cannot store {shown(path)}: {reason}: rename it, or leave it out")


def _too_deep(path: bytes) -> InvalidInputError:
    return InvalidInputError(
        f"cannot store {shown(path)}: it is nested more than {MAX_NESTING} folders deep"
    )


def _target(folder: _Folder, name: bytes) -> bytes:
    try:
        return os.readlink(name, dir_fd=folder.fd)
    except OSError as error:
        raise _unreadable(folder.inner(name), error) from error


def _strange(path: bytes, mode: int) -> InvalidInputError:
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe"}
    strange = kinds.get(stat.S_IFMT(mode), "a device")
    return InvalidInputError(f"cannot store {shown(path)}: it is {strange}")


def _unreadable(path: bytes, error: OSError) -> InvalidInputError:
    reason = (error.strerror or "unknown error").lower()
    return InvalidInputError(f"cannot read {shown(path)}: {reason}")
