"""A backend on a local or network file system: one file per key below a root folder.

A value that must appear whole is written to `tmp/`, synced, and given its name with `link(2)`,
which never replaces anything and is atomic on NFS too. Files are read with `pread`, never through a
mapping: a truncated mapping would kill the process. Safe across threads and in a forked child.
Format: docs/format/backend.md.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Final

from cas.backend.base import (
    HINTS,
    RESERVED,
    TEMPORARY,
    KeyInfo,
    Span,
    check_hint,
    check_key,
    check_prefix,
)
from cas.backend.files import (
    ABSENT,
    OPS,
    FileOps,
    read_fully,
    while_reading,
    while_writing,
)
from cas.backend.folders import Folders, make_path
from cas.backend.handles import Handle, Handles
from cas.backend.sink import FileSink
from cas.backend.stage import DirectReads
from cas.errors import (
    CasError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    OutcomeUnknownError,
    UnsupportedError,
)
from cas.ids import Buffer

MAX_HINT_BYTES: Final = 64 << 10
# What link(2) says where it cannot work at all.
NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
)


class LocalBackend:
    """Keys as files below `root`, which must exist: see `create_local`."""

    def __init__(self, root: Path, *, ops: FileOps = OPS) -> None:
        self.root = root
        self._base = os.fspath(root.absolute())
        self._ops = ops
        self._handles = Handles(ops)
        self._folders = Folders(self._base, ops)

    def create(self, key: str) -> FileSink:
        """Start a new value under its final name; raise ConflictError when the key is taken."""
        path = self._path(check_key(key))
        return self._open_new(path, key, shown=path)

    def put_new(self, key: str, data: Buffer) -> None:
        """Write a whole new value, durably; raise ConflictError when the key is taken."""
        path = self._path(check_key(key))
        temporary = self._new_temporary()
        sink = self._open_new(temporary, key, shown=path)
        sink.write([data])
        sink.seal()
        try:
            self._link(temporary, path, key)
        finally:
            with suppress(OSError):
                self._ops.unlink(temporary)
        try:
            self._ops.fsync_dir(os.path.dirname(path))
        except OSError as error:
            raise OutcomeUnknownError(key, str(while_writing(error, path))) from error

    def read(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of each span; raise NotFoundError, or CorruptionError when cut short."""
        path = self._path(check_key(key))
        try:
            return self._read(key, path, spans)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise while_reading(error, key, path) from error
        # The server no longer knows the file that we held open: ask for the name again.
        try:
            return self._read(key, path, spans)
        except OSError as error:
            raise while_reading(error, key, path) from error

    def delete(self, key: str) -> None:
        """Remove the key; a missing key is no error. Durable after `sync` of its folder."""
        path = self._path(check_key(key))
        self._handles.drop(path)
        try:
            self._ops.unlink(path)
        except OSError as error:
            if error.errno not in ABSENT:
                raise while_writing(error, path) from error

    def scan(self, prefix: str) -> Iterator[KeyInfo]:
        """Yield the keys that start with `prefix`, in key order, looking at each in its turn."""
        folder = check_prefix(prefix).rpartition("/")[0]
        return self._walk(f"{folder}/" if folder else "", prefix)

    def sync(self, prefix: str) -> None:
        """Make the names directly in this folder durable; a folder without any is no error."""
        path = self._path(check_prefix(prefix).removesuffix("/"))
        try:
            self._ops.fsync_dir(path)
        except OSError as error:
            if error.errno not in ABSENT:
                raise while_writing(error, path) from error

    def size(self, key: str) -> int | None:
        """Return the size of the value in bytes; None when there is no such key.

        The file is opened for that: over a network a name may be answered for from memory, for
        longer than the file is there.
        """
        path = self._path(check_key(key))
        try:
            fd = self._handles.open_anew(path)
            try:
                state = self._ops.fstat(fd)
            finally:
                self._ops.close(fd)
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise while_reading(error, key, path) from error
        return state.st_size if S_ISREG(state.st_mode) else None

    def read_hint(self, name: str) -> str | None:
        """Return the text last written under `name`, if it is still there."""
        path = self._path(f"{HINTS}/{check_hint(name)}")
        try:
            fd = self._ops.open_read(path)
            try:
                data = self._ops.pread(fd, MAX_HINT_BYTES + 1, 0)
            finally:
                self._ops.close(fd)
            return data.decode() if len(data) <= MAX_HINT_BYTES else None
        except (OSError, UnicodeDecodeError):
            return None

    def write_hint(self, name: str, text: str) -> None:
        """Keep the text, replacing an older one; nothing promises that it stays."""
        path = self._path(f"{HINTS}/{check_hint(name)}")
        temporary = self._new_temporary()
        with suppress(CasError, OSError):
            sink = self._open_new(temporary, name, shown=path)
            sink.write([text.encode()])
            sink.close()
            try:
                self._folders.rename(temporary, path)
            except BaseException:
                self._ops.unlink(temporary)
                raise

    def uncached(self) -> "LocalBackend":
        """Return the same backend for reading much once, which leaves the page cache as it is."""
        return LocalBackend(self.root, ops=DirectReads(self._ops))

    def close(self) -> None:
        """Close the files that are held open for reading; the backend stays usable."""
        self._handles.close()

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _new_temporary(self) -> str:
        return self._path(f"{TEMPORARY}/{os.urandom(8).hex()}")

    def _read(self, key: str, path: str, spans: Sequence[Span]) -> list[bytes]:
        handle = self._handles.acquire(path)
        try:
            return [self._part(key, handle, span) for span in spans]
        except OSError:
            self._handles.drop(path)
            raise
        finally:
            self._handles.release(handle)

    def _part(self, key: str, handle: Handle, span: Span) -> bytes:
        # Before anything is allocated: spans come from indexes, which nobody vouches for.
        end = handle.size if span.length is None else span.offset + span.length
        expected = max(span.offset, end)
        if expected > handle.size:
            raise CorruptionError(
                f"{key} is cut short: {handle.size} bytes, where {expected} are expected"
            )
        data = read_fully(self._ops, handle.fd, end - span.offset, span.offset)
        if len(data) != end - span.offset:
            raise CorruptionError(f"{key} was cut short while it was read")
        return data

    def _open_new(self, path: str, key: str, *, shown: str) -> FileSink:
        """Create the file, and its folder when that is missing."""
        try:
            fd = self._folders.open_new(path)
        except FileExistsError as error:
            raise ConflictError(key) from error
        except OSError as error:
            raise while_writing(error, shown) from error
        return FileSink(self._ops, fd, path, shown=shown)

    def _link(self, temporary: str, path: str, key: str) -> None:
        try:
            try:
                self._ops.link(temporary, path)
            except FileNotFoundError:
                self._folders.make(os.path.dirname(path))
                self._ops.link(temporary, path)
        except OSError as error:
            # Over NFS a call that worked may be sent again, and its second answer is a refusal.
            if self._is_same(temporary, path, key):
                return
            if isinstance(error, FileExistsError):
                raise ConflictError(key) from error
            if error.errno in NO_LINKS:
                raise UnsupportedError(
                    f"the file system of {self._base} cannot make hard links "
                    f"({while_writing(error, path)}): keep the repository on one that can"
                ) from error
            raise while_writing(error, path) from error

    def _is_same(self, temporary: str, path: str, key: str) -> bool:
        try:
            ours, theirs = self._ops.stat(temporary), self._ops.stat(path)
        except OSError as error:
            if error.errno in ABSENT:
                return False
            raise OutcomeUnknownError(key, str(while_writing(error, path))) from error
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)

    def _walk(self, folder: str, prefix: str) -> Iterator[KeyInfo]:
        # A folder sorts by its name with the slash that its keys have: `a-b` before `a/c`.
        entries = [
            (f"{entry.name}/" if _is_folder(entry) else entry.name)
            for entry in self._entries(folder)
            if folder or entry.name not in RESERVED
        ]
        for name in sorted(entries):
            key = folder + name
            if not key.startswith(prefix) or not _is_key(key.removesuffix("/")):
                continue
            if key.endswith("/"):
                yield from self._walk(key, prefix)
            elif (info := self._info(key)) is not None:
                yield info

    def _entries(self, folder: str) -> list["os.DirEntry[str]"]:
        path = self._path(folder)
        try:
            return self._ops.scandir(path)
        except OSError as error:
            if error.errno in ABSENT:
                return []
            raise while_reading(error, folder, path) from error

    def _info(self, key: str) -> KeyInfo | None:
        path = self._path(key)
        try:
            state = self._ops.stat(path)
        except OSError as error:
            if error.errno in ABSENT:
                return None  # gone since its folder was read
            raise while_reading(error, key, path) from error
        if not S_ISREG(state.st_mode):
            return None
        return KeyInfo(key, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))


def create_local(root: Path, *, ops: FileOps = OPS) -> LocalBackend:
    """Create the folder and what is missing above it, durably, and open a backend on it."""
    try:
        make_path(ops, os.fspath(root.absolute()))
    except OSError as error:
        raise while_writing(error, os.fspath(root)) from error
    return LocalBackend(root, ops=ops)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_key(name: str) -> bool:
    try:
        check_key(name)
    except InvalidInputError:
        return False
    return True
