"""One open directory, written to by handle: never through a link, never over what is there.

A file is written under a temporary name and gets its own with `link(2)`, which replaces nothing; so
a half-written file is never taken for a whole one, and two names that the file system takes for one
are found out. Only `replace=True` writes over an older file or link.
Format: docs/format/checkout.md.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from cas.backend.files import while_writing
from cas.errors import CasError, InvalidInputError, RefusedError
from cas.ids import BlobHasher, BlobId, Buffer
from cas.repo.trees.names import shown

OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
WINDOW: Final = 1024 * 1024
# What is said of a name that the file system cannot hold.
NO_NAME: Final = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})
NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)

_write = os.pwrite


class Folder:
    """An open directory; `path` is for messages only."""

    def __init__(self, fd: int, path: bytes) -> None:
        self._fd = fd
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Open a directory that a person named, None when there is nothing."""
        raw = os.fsencode(path)
        try:
            return cls(os.open(raw, OPEN), raw)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise InvalidInputError(f"{shown(raw)} is not a folder: name another place") from None
        except OSError as error:
            raise InvalidInputError(f"cannot open {shown(raw)}: {_reason(error)}") from error

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open a directory that a person named; make it and what is missing above it."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            pass  # a file, or a link that leads nowhere: `open` says so
        except OSError as error:
            raise _failed(error, os.fsencode(path)) from error
        folder = cls.open(path)
        if folder is None:
            raise InvalidInputError(f"{shown(os.fsencode(path))} leads nowhere: name another place")
        return folder

    def close(self) -> None:
        """Close the handle."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def below(self, name: bytes) -> bytes:
        """Return the path of a name in this directory, for messages."""
        return self.path + b"/" + name

    def look(self, name: bytes) -> os.stat_result | None:
        """Return what is at a name, itself when it is a link; None when there is nothing."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error, name) from error

    def names(self) -> set[bytes]:
        """Return all names in the directory."""
        return set(map(os.fsencode, os.listdir(self._fd)))

    def enter(self, name: bytes) -> "Folder":
        """Open a directory in this one, which must not be a link."""
        try:
            fd = os.open(name, OPEN | os.O_NOFOLLOW, dir_fd=self._fd)
        except OSError as error:
            raise self._failed(error, name) from error
        return Folder(fd, self.below(name))

    def make(self, name: bytes) -> "Folder":
        """Make a directory in this one, open to its owner alone until `set_mode`."""
        try:
            os.mkdir(name, 0o700, dir_fd=self._fd)
        except OSError as error:
            raise self._failed(error, name) from error
        return self.enter(name)

    def set_mode(self, mode: int) -> None:
        """Set the permission bits of the directory itself."""
        try:
            os.fchmod(self._fd, mode)
        except OSError as error:
            raise _failed(error, self.path) from error

    def set_mode_of(self, name: bytes, mode: int) -> None:
        """Set the permission bits of a file in this directory."""
        try:
            fd = os.open(name, READ, dir_fd=self._fd)
            try:
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failed(error, name) from error

    def read_link(self, name: bytes) -> bytes:
        """Return the target of a link."""
        try:
            return os.readlink(name, dir_fd=self._fd)
        except OSError as error:
            raise self._failed(error, name) from error

    def hash(self, name: bytes) -> BlobId | None:
        """Return the id of a file's bytes, None when it cannot be read."""
        hasher = BlobHasher()
        try:
            fd = os.open(name, READ, dir_fd=self._fd)
            try:
                while data := os.read(fd, WINDOW):
                    hasher.update(data)
            finally:
                os.close(fd)
        except OSError:
            return None
        return hasher.id()

    def write(
        self, name: bytes, fill: Callable[[int], None], *, mode: int, replace: bool = False
    ) -> None:
        """Write a file, which `fill` gives its bytes; nothing of it stays when that fails."""
        temporary = _temporary()
        try:
            try:
                fd = os.open(temporary, WRITE, 0o600, dir_fd=self._fd)
                try:
                    fill(fd)
                    os.fchmod(fd, mode)
                finally:
                    os.close(fd)
                self._give(temporary, name, replace=replace)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=self._fd)
                raise
        except OSError as error:
            raise self._failed(error, name) from error

    def link(self, name: bytes, target: bytes, *, replace: bool = False) -> None:
        """Make a symbolic link; where it leads is not looked at."""
        try:
            if not replace:
                os.symlink(target, name, dir_fd=self._fd)
                return
            temporary = _temporary()
            os.symlink(target, temporary, dir_fd=self._fd)
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            raise self._failed(error, name) from error

    def clear(self, name: bytes) -> None:
        """Remove a file, a link or an empty directory; RefusedError when it is not empty."""
        found = self.look(name)
        try:
            if found is not None and stat.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=self._fd)
            elif found is not None:
                os.unlink(name, dir_fd=self._fd)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                raise RefusedError(
                    f"{shown(self.below(name))} is a folder that is not empty: move it away first"
                ) from error
            raise self._failed(error, name) from error

    def remove_same(self, name: bytes, data: Iterable[Buffer]) -> bool:
        """Remove a file if it holds exactly these bytes; say whether it did.

        It stays when it is a link, or when it or its name is changed while it is compared.
        """
        try:
            fd = os.open(name, READ, dir_fd=self._fd)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or not _is_same(fd, data):
                    return False
                # By its name, which may stand for another file by now.
                now = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if _version(now) != _version(found):
                    return False
                os.unlink(name, dir_fd=self._fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP}:
                return False
            raise self._failed(error, name) from error
        return True

    def clear_folder(self, name: bytes) -> None:
        """Remove an empty directory; RefusedError when it is not empty, or is none."""
        found = self.look(name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise RefusedError(f"{shown(self.below(name))} is not a folder")
        self.clear(name)

    def _give(self, temporary: bytes, name: bytes, *, replace: bool) -> None:
        """Give a finished file its name."""
        if not replace:
            try:
                os.link(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                # A file system without links: a look before is the best there is.
                if self.look(name) is not None:
                    raise FileExistsError(errno.EEXIST, "file exists", name) from error
            else:
                os.unlink(temporary, dir_fd=self._fd)
                return
        os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _failed(self, error: OSError, name: bytes) -> CasError:
        return _failed(error, self.below(name))


def _version(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file does, or when its name stands for another one."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_same(fd: int, data: Iterable[Buffer]) -> bool:
    """Say whether an open file holds exactly these bytes."""
    for piece in data:
        view = memoryview(piece)
        while view:
            read = os.read(fd, min(len(view), WINDOW))
            if not read or read != view[: len(read)]:
                return False
            view = view[len(read) :]
    return not os.read(fd, 1)


def _failed(error: OSError, path: bytes) -> CasError:
    if error.errno in NO_NAME:
        return InvalidInputError(
            f"cannot write {shown(path)}: the file system there cannot hold this name or link"
        )
    if isinstance(error, FileExistsError):
        return RefusedError(
            f"cannot write {shown(path)}: something is there since it was looked at, "
            "or the file system takes two names of the tree for one"
        )
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return RefusedError(f"cannot write {shown(path)}: it is a link or a file, not a folder")
    return while_writing(error, shown(path))


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()


def _temporary() -> bytes:
    return f".cas-{os.urandom(8).hex()}.tmp".encode()


def write_at(fd: int, data: Buffer, offset: int) -> None:
    """Write all of the bytes at an offset of an open file."""
    view = memoryview(data)
    while view:
        written = _write(fd, view, offset)
        view, offset = view[written:], offset + written
