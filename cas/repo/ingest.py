"""Files into objects: what a folder holds becomes a tree, bit for bit.

Links are stored as links and never followed below the top, so that nothing outside the folder gets
in and no walk goes in circles. The folders `.cas` and `.git` are left out. A file is read once,
front to back, in bounded memory; one that changes meanwhile is stored as it was read.
Format: docs/format/checkout.md.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain, groupby
from pathlib import Path
from typing import Final

from cas.errors import InvalidInputError
from cas.ids import BlobId
from cas.objects.tree import Entry, EntryKind, TreeSummary, build
from cas.progress import SILENT, Progress
from cas.repo.names import LEFT_OUT, MAX_NESTING, refusal, shown
from cas.store.writer import ObjectWriter

SMALL: Final = 512 * 1024  # files up to this size are read at once
WINDOW: Final = 4 * 1024 * 1024
FILE_MODE: Final = 0o644
FOLDER_MODE: Final = 0o755
# O_NONBLOCK: not to wait for ever where somebody has put a pipe since we looked.
READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Ignore = Callable[[bytes], bool]
Row = tuple[list[bytes], Entry]


class Modes(Enum):
    """Which permission bits a tree keeps."""

    FULL = "full"
    PORTABLE = "portable"  # 644 or 755, so that equal data is one tree under any umask

    def of(self, found: os.stat_result) -> int:
        """Return the bits for a file or folder that was found like this."""
        if self is Modes.FULL:
            return found.st_mode & 0o777
        executable = stat.S_ISDIR(found.st_mode) or found.st_mode & 0o100
        return FOLDER_MODE if executable else FILE_MODE


def add(
    writer: ObjectWriter,
    path: Path,
    *,
    modes: Modes = Modes.FULL,
    ignore: Ignore | None = None,
    follow: bool = False,
    progress: Progress = SILENT,
) -> Entry:
    """Store a file, a link or a whole folder; return its entry, under its own name.

    `ignore` is asked with each path below the folder, relative and with `/` between names; what it
    says True to is left out, with all below. With `follow`, `path` itself may be a link to what is
    stored. Raises InvalidInputError for what cannot be read or cannot be stored.
    """
    place = os.fsencode(path.absolute())
    name = _named(place)
    ingest = _Ingest(writer, modes, ignore or _nothing, progress, memoryview(bytearray(WINDOW)))
    progress.start("store files")
    with _reading(place):
        place = os.path.realpath(place) if follow else place
        found = os.lstat(place)
    entry = ingest.entry(name, place, found, ())
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
class _Ingest:
    """One walk over files, with one buffer for all of them."""

    writer: ObjectWriter
    modes: Modes
    ignore: Ignore
    progress: Progress
    window: memoryview

    def entry(
        self, name: bytes, path: bytes, found: os.stat_result, below: tuple[bytes, ...]
    ) -> Entry:
        """Store what is at `path`, which is `below` the top."""
        _check(name, path)
        if stat.S_ISLNK(found.st_mode):
            with _reading(path):
                return Entry.to_link(name, os.readlink(path))
        if stat.S_ISREG(found.st_mode):
            id, size = self.file(path, found)
            return Entry(name, EntryKind.FILE, id, size, self.modes.of(found))
        if not stat.S_ISDIR(found.st_mode):
            raise InvalidInputError(f"cannot store {shown(path)}: it is {_strange(found.st_mode)}")
        if len(below) > MAX_NESTING:
            raise _too_deep(path)
        summary = build(self.entries(path, below), self.writer.tree)
        return Entry(name, EntryKind.TREE, summary.id, summary.size, self.modes.of(found))

    def entries(self, folder: bytes, below: tuple[bytes, ...]) -> Iterator[Entry]:
        """Store what is in a folder, in raw-byte order of the names."""
        with _reading(folder):
            names = sorted(os.listdir(folder))
        for name in names:
            inner = (*below, name)
            if name in LEFT_OUT or self.ignore(b"/".join(inner)):
                continue
            path = os.path.join(folder, name)
            with _reading(path):
                found = os.lstat(path)
            yield self.entry(name, path, found, inner)

    def file(self, path: bytes, found: os.stat_result) -> tuple[BlobId, int]:
        """Store a file's bytes; return their id and how many were read."""
        with _reading(path):
            fd = os.open(path, READ)
        try:
            first = self._start(fd, path, min(found.st_size, SMALL) + 1)
            if len(first) <= min(found.st_size, SMALL):
                return self.writer.blob(first), len(first)
            rest = self._rest(fd, path)
            return self.writer.stream(chain((first,), rest), found.st_size)
        finally:
            os.close(fd)

    def _start(self, fd: int, path: bytes, want: int) -> bytes:
        """Return the first `want` bytes, fewer only where the file ends."""
        parts: list[bytes] = []
        while want:
            with _reading(path):
                parts.append(os.read(fd, want))
            if not parts[-1]:
                break
            want -= len(parts[-1])
            self.progress.advance(len(parts[-1]))
        return b"".join(parts)

    def _rest(self, fd: int, path: bytes) -> Iterator[memoryview]:
        while True:
            with _reading(path):
                count = os.readv(fd, [self.window])
            if not count:
                return
            self.progress.advance(count)
            yield self.window[:count]


class _reading:  # noqa: N801
    """Turns what the system says while `path` is read into an error for people."""

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Begin to read."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            reason = (error.strerror or "unknown error").lower()
            raise InvalidInputError(f"cannot read {shown(self._path)}: {reason}") from error


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


def _strange(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _nothing(_: bytes) -> bool:
    return False
