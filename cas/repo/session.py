"""Sessions: who is writing right now, so that gc does not undo their work under their hands.

A session is a file under an OS lock. It only spares work: whether a pack may go is decided by the
root alone. A session whose lock is free belonged to a process that is gone.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from cas.errors import ReadOnlyError, StorageFullError


class Session:
    """One writer's session, open until closed or until its process ends."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def open(cls, folder: Path, name: str, what: str) -> Self:
        """Begin a session; raise ReadOnlyError where nothing can be written."""
        path = folder / name
        try:
            folder.mkdir(exist_ok=True)
            fd = _locked(path)
            os.write(fd, f"{what} by process {os.getpid()} on {os.uname().nodename}\n".encode())
        except PermissionError as error:
            reason = f"{error.strerror}: ask its owner for write permission"
            raise ReadOnlyError(f"cannot write to {folder.parent}: {reason}") from error
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFullError(f"no space left in {folder.parent}: free some") from error
            raise ReadOnlyError(f"cannot write to {folder.parent}: {error.strerror}") from error
        return cls(path, fd)

    def close(self) -> None:
        """End the session."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def others(folder: Path, own: str) -> Iterator[str]:
    """Yield what each live session but `own` says of itself; remove those of ended processes."""
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.name == own:
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield os.read(fd, 200).decode("utf-8", "replace").strip() or path.name
        else:
            with suppress(OSError):  # a reading command may look, where nothing can be written
                path.unlink()
        finally:
            os.close(fd)


def _locked(path: Path) -> int:
    """Create the file and lock it; `others` may hold the lock for a moment and remove the file."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


_FULL = {28, 122}  # ENOSPC, EDQUOT
