"""The one layer of file operations: what touches the disk, and what its errors mean.

Everything a local backend does goes through one `FileOps`, so that tests inject faults and record
traces in one place.
"""

import errno
import fcntl
import os
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Final

from cas.errors import BackendError, NotFoundError, ReadOnlyError, StorageFullError
from cas.ids import Buffer

# What one writev takes everywhere.
MAX_BUFFERS: Final = 1024
ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
TOO_MANY_OPEN: Final = frozenset({errno.EMFILE, errno.ENFILE})
PASSING: Final = TOO_MANY_OPEN | {
    errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET,
}  # fmt: skip

# What a file system without locks says.
LOCKLESS: Final = frozenset(
    {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
)


class FileOps:
    """Thin methods over `os`; a fake overrides them."""

    def open_new(self, path: str, mode: int) -> int:
        """Create the file for writing; FileExistsError when it is there."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def open_read(self, path: str) -> int:
        """Open the file for reading."""
        # Not to wait for ever where somebody put a pipe.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def open_direct(self, path: str) -> int:
        """Open the file for reading past the page cache; OSError where that cannot be."""
        if sys.platform != "linux":
            raise OSError(errno.EINVAL, "not on this system")
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_DIRECT)

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        """Append what one call takes of the buffers; return the number of bytes."""
        return os.writev(fd, buffers)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the open file to `size` bytes; the next write goes on there."""
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        return os.pread(fd, length, offset)

    def pread_into(self, fd: int, memory: memoryview, offset: int) -> int:
        """Read into `memory` from `offset`; return how many bytes there were."""
        return os.preadv(fd, [memory], offset)

    def set_direct(self, fd: int, on: bool) -> bool:
        """Let later writes pass the page cache by, or not any more; say whether that was taken."""
        if sys.platform != "linux":
            return False
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
        except OSError:
            return False
        return True

    def fsync(self, fd: int) -> None:
        """Make the file's bytes durable."""
        if sys.platform == "darwin":
            # There fsync leaves the bytes in the drive's cache.
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)

    def fsync_dir(self, path: str) -> None:
        """Make the names in the folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, fd: int, how: int) -> None:
        """Lock the open file as `flock` does; the lock goes with the last handle of it."""
        fcntl.flock(fd, how)

    def close(self, fd: int) -> None:
        """Close the file; whatever is raised, it is closed."""
        os.close(fd)

    def link(self, source: str, target: str) -> None:
        """Give the file a second name; FileExistsError when it is taken."""
        os.link(source, target)

    def rename(self, source: str, target: str) -> None:
        """Move the name, over an older one."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """Remove the name."""
        os.unlink(path)

    def mkdir(self, path: str, mode: int) -> None:
        """Create the folder; FileExistsError when it is there."""
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        """Remove the folder if it is empty."""
        os.rmdir(path)

    def chmod(self, target: int | str, mode: int) -> None:
        """Set the permission bits of an open file or of a path."""
        os.chmod(target, mode)

    def chown(self, target: int | str, group: int) -> None:
        """Set the group of an open file or of a path."""
        os.chown(target, -1, group)

    def stat(self, path: str) -> os.stat_result:
        """Return what is known of the file or folder at the path."""
        return os.stat(path)

    def fstat(self, fd: int) -> os.stat_result:
        """Return what is known of the open file."""
        return os.fstat(fd)

    def scandir(self, path: str) -> list["os.DirEntry[str]"]:
        """Return the entries of the folder, in no order."""
        with os.scandir(path) as entries:
            return list(entries)


OPS: Final = FileOps()


def lock_if_possible(ops: FileOps, fd: int, how: int) -> None:
    """Lock the open file where locks exist, and do nothing elsewhere; raise OSError as `lock`."""
    try:
        ops.lock(fd, how)
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise


def is_locked(ops: FileOps, fd: int) -> bool | None:
    """Say whether somebody holds the open file's lock; None where that cannot be told.

    When nobody does, this handle shares the lock until it is closed: two that look at once do not
    see each other, and nobody takes the lock meanwhile. It needs no right to write.
    """
    try:
        ops.lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def write_fully(ops: FileOps, fd: int, buffers: Sequence[Buffer]) -> int:
    """Append all bytes of the buffers, in as many calls as it takes; return their number."""
    # A view without bytes cannot be cast, and one of wider items counts in those.
    left = [memoryview(buffer).cast("B") for buffer in buffers if memoryview(buffer).nbytes]
    left.reverse()
    total = 0
    while left:
        written = ops.write(fd, list(islice(reversed(left), MAX_BUFFERS)))
        if written <= 0:
            raise OSError(errno.EIO, "nothing was written")
        total += written
        while left and written >= len(left[-1]):
            written -= len(left.pop())
        if written:
            left[-1] = left[-1][written:]
    return total


def read_fully(ops: FileOps, fd: int, length: int, offset: int) -> bytes:
    """Return `length` bytes from `offset`, fewer only where the file ends."""
    data = ops.pread(fd, length, offset)
    if len(data) == length:
        return data
    parts = [data]
    have = len(data)
    while have < length and parts[-1]:
        parts.append(ops.pread(fd, length - have, offset + have))
        have += len(parts[-1])
    return b"".join(parts)


def while_writing(error: OSError, path: str) -> BackendError:
    """Return what an error means that came while `path` was written or removed."""
    reason = _reason(error)
    if error.errno in FULL:
        return StorageFullError(f"cannot write {path}: {reason}: free space, then try again")
    if error.errno in READ_ONLY:
        return ReadOnlyError(f"cannot write {path}: {reason}: ask its owner for write permission")
    return _other(f"cannot write {path}: {reason}", error)


def while_reading(error: OSError, key: str, path: str) -> BackendError | NotFoundError:
    """Return what an error means that came while the value of `key` was read from `path`."""
    if error.errno in ABSENT:
        return NotFoundError("key", key)
    reason = _reason(error)
    if error.errno in READ_ONLY:
        return BackendError(f"cannot read {path}: {reason}: ask its owner for read permission")
    return _other(f"cannot read {path}: {reason}", error)


def _other(message: str, error: OSError) -> BackendError:
    if error.errno in TOO_MANY_OPEN:
        return BackendError(f"{message}: close files, or raise `ulimit -n`", transient=True)
    if error.errno in PASSING:
        return BackendError(f"{message}: try again", transient=True)
    return BackendError(f"{message}: check the disk and its file system")


def _reason(error: OSError) -> str:
    text = error.strerror or str(error) or "unknown error"
    return text[:1].lower() + text[1:]
