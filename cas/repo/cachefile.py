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
from stat import S_IMODE
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from sqlite3 import Connection

T = TypeVar("T")
VERSION: Final = 1
MAX_BYTES: Final = 1 << 30  # a file that has grown beyond this is begun anew
TABLE: Final = "CREATE TABLE IF NOT EXISTS items (key BLOB PRIMARY KEY, value BLOB)"
WAIT: Final = 0.2  # seconds for another process that is writing


class CacheFile:
    """Values by key in one SQLite file, which is opened when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
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
            self._connection = self._connection or _opened(self._path)
            return work(self._connection)
        except (Error, OSError) as error:
            self._given_up = True
            self.close()
            # Locked, full or read-only are operational errors; the others mean damage.
            if not isinstance(error, OSError | OperationalError):
                _remove(self._path)
            return None


def _opened(path: Path) -> "Connection":
    """Open the file, made anew where it is missing, too large or of another version."""
    import sqlite3

    _prepare(path)
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


def _prepare(path: Path) -> None:
    """Make the file with the rights of the repository's folder, as SQLite would not."""
    with suppress(FileNotFoundError):
        if path.stat().st_size <= MAX_BYTES:
            return
        _remove(path)
    above = path.parent.parent.stat()
    mode = S_IMODE(above.st_mode)
    with suppress(FileExistsError):
        path.parent.mkdir(0o700)
        _adopt(path.parent, mode, above.st_gid)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _adopt(path, 0o600 | mode & 0o066, above.st_gid)


def _adopt(path: Path, mode: int, group: int) -> None:
    with suppress(OSError):
        os.chown(path, -1, group)
    with suppress(OSError):
        path.chmod(mode)


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-journal")):
        with suppress(OSError):
            name.unlink()
