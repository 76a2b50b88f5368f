"""Sessions: who is writing right now, so that gc does not undo their work under their hands.

A session is a file under an OS lock. It only spares work: whether a pack may go is decided by the
root alone. A session whose lock is free belonged to a process that is gone. Where the file system
has no locks, every session counts as a live one.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from cas.backend.base import TEMPORARY
from cas.backend.files import (
    ABSENT,
    OPS,
    FileOps,
    is_locked,
    lock_if_possible,
    while_writing,
    write_fully,
)
from cas.backend.folders import Folders
from cas.errors import ReadOnlyError

MAX_TOLD: Final = 200


class Session:
    """One writer's session, open until closed or until its process ends."""

    def __init__(self, path: str, fd: int, ops: FileOps) -> None:
        self._path = path
        self._fd = fd
        self._ops = ops

    @classmethod
    def open(cls, folder: Path, name: str, what: str, *, ops: FileOps = OPS) -> Self:
        """Begin a session; raise ReadOnlyError, StorageFullError or another BackendError."""
        path = os.fspath(folder / name)
        told = f"{what} by process {os.getpid()} on {os.uname().nodename}\n"
        try:
            session = cls(path, _locked(Folders(os.fspath(folder.parent), ops), ops, path), ops)
            try:
                write_fully(ops, session._fd, [told.encode()])
            except BaseException:
                session.close()
                raise
        except NotADirectoryError as error:
            raise ReadOnlyError(f"cannot write to {folder}: it is not a folder") from error
        except OSError as error:
            raise while_writing(error, path) from error
        return session

    def close(self) -> None:
        """End the session. Never fails: by now the work is done, or failed for a better reason."""
        try:
            with suppress(OSError):  # a file that stays is not locked any more
                self._ops.unlink(self._path)
        finally:
            with suppress(OSError):
                self._ops.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def others(folder: Path, own: str, *, ops: FileOps = OPS) -> Iterator[str]:
    """Yield what each live session but `own` says of itself; remove those of ended processes."""
    try:
        names = sorted(entry.name for entry in ops.scandir(os.fspath(folder)))
    except OSError as error:
        if error.errno in ABSENT:
            return
        raise while_writing(error, os.fspath(folder)) from error
    for name in names:
        if name == own:
            continue
        told = _told(ops, os.fspath(folder / name))
        if told is not None:
            yield told or name


def _told(ops: FileOps, path: str) -> str | None:
    """Return what a live session says of itself; remove the file of one that is over."""
    try:
        fd = ops.open_read(path)
    except OSError:
        return None  # it has just ended
    try:
        if is_locked(ops, fd) is False:
            with suppress(OSError):  # a reading command may look, where nothing can be written
                ops.unlink(path)
            return None
        return ops.pread(fd, MAX_TOLD, 0).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        with suppress(OSError):
            ops.close(fd)


def _locked(folders: Folders, ops: FileOps, path: str) -> int:
    """Create the file under a lock; nobody finds it by its name without, or with other bits."""
    base = os.path.dirname(os.path.dirname(path))
    temporary = os.path.join(base, TEMPORARY, os.urandom(8).hex())
    fd = folders.open_new(temporary)
    try:
        lock_if_possible(ops, fd, fcntl.LOCK_EX)
        folders.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            ops.close(fd)
        with suppress(OSError):
            ops.unlink(temporary)
        raise
    return fd
