"""A disposable file of keys and values, for what only saves time.

No method fails. Where the file is locked, cannot be read or written, or where there is no SQLite,
nothing is found and nothing is kept; what is damaged is removed, and the next begins anew.
A value may be wrong after a power failure, so whoever reads it checks it.
Format: docs/format/statcache.md.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cas.backend.files import OPS, FileOps
from cas.backend.folders import Folders
from cas.errors import CasError

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")
VERSION: Final = 1
MAX_BYTES: Final = 1 << 30  # a file that has grown beyond this is begun anew
TABLE: Final = "CREATE TABLE IF NOT EXISTS items (key BLOB PRIMARY KEY, value BLOB)"
WAIT: Final = 0.2  # seconds for another process that is writing


class CacheFile:
    """Values by key in one SQLite file, which is opened when it is first asked for.

    SQLite writes it by itself, past the layer of file operations: nothing in it need last.
    """

    def __init__(self, path: Path, *, ops: FileOps = OPS) -> None:
        self._path = path
        self._ops = ops
        self._connection: Connection | None = None
        self._given_up = False

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, if there is one."""
        found = self._run(
            lambda file: file.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchall()
        )
        return found[0][0] if found and isinstance(found[0][0], bytes) else None

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep these values, all or none."""

        def write(file: "Connection") -> None:
            with file:
                file.executemany("INSERT OR REPLACE INTO items VALUES (?, ?)", values.items())

        self._run(write)

    def close(self) -> None:
        """Close the file; it is opened again when it is asked for again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, work: "Callable[[Connection], T]") -> T | None:
        """Do something with the file; after an error it is left alone."""
        if self._given_up:
            return None
        try:
            from sqlite3 import Error, OperationalError
        except ImportError:  # Python can be built without it
            self._given_up = True
            return None
        try:
            self._connection = self._connection or _opened(self._path, self._ops)
            return work(self._connection)
        except (Error, OSError, CasError) as error:
            self._given_up = True
            self.close()
            # Locked, full or read-only are operational errors; the others mean damage.
            if not isinstance(error, OSError | OperationalError | CasError):
                _remove(self._path, self._ops)
            return None


def _opened(path: Path, ops: FileOps) -> "Connection":
    """Open the file, made anew where it is missing, too large or of another version."""
    import sqlite3

    _prepare(path, ops)
    connection = sqlite3.connect(path, timeout=WAIT)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        if version != VERSION:
            connection.execute("DROP TABLE IF EXISTS items")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(TABLE)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(path: Path, ops: FileOps) -> None:
    """Make the file with the rights of the repository's folder, as SQLite would not."""
    with suppress(FileNotFoundError):
        if path.stat().st_size <= MAX_BYTES:
            return
        _remove(path, ops)
    folders = Folders(os.fspath(path.parent.parent), ops)
    with suppress(FileExistsError):
        ops.close(folders.open_new(os.fspath(path)))


def _remove(path: Path, ops: FileOps) -> None:
    for name in (path, path.with_name(f"{path.name}-journal")):
        with suppress(OSError):
            ops.unlink(os.fspath(name))
