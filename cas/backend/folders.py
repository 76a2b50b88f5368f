"""The folders of a local backend: made when needed, durably, with the root's group and bits."""

import os
from contextlib import suppress
from dataclasses import dataclass
from stat import S_IMODE, S_ISDIR

from cas.backend.files import ABSENT, FileOps, while_writing
from cas.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Access:
    """The bits and the group that new files and folders take from the root folder."""

    file_mode: int
    folder_mode: int
    group: int


class Folders:
    """The folders at and below `base`, which itself is never made here."""

    def __init__(self, base: str, ops: FileOps) -> None:
        self._base = base
        self._ops = ops
        self._access: Access | None = None

    def access(self) -> Access:
        """Return what the root folder said when it was first asked; raise NotFoundError."""
        if self._access is None:
            try:
                state = self._ops.stat(self._base)
            except OSError as error:
                if error.errno in ABSENT:
                    raise self._no_root() from error
                raise while_writing(error, self._base) from error
            mode = S_IMODE(state.st_mode)
            self._access = Access(0o600 | mode & 0o066, 0o700 | mode & 0o2077, state.st_gid)
        return self._access

    def make(self, path: str) -> None:
        """Create the folder and what is missing above it, durably; raise OSError.

        Raise NotFoundError when the root itself is gone: a repository that somebody removed while
        it was in use must not come back as a fragment.
        """
        if path == self._base:
            raise self._no_root()
        parent = os.path.dirname(path)
        mode = self.access().folder_mode
        try:
            try:
                self._ops.mkdir(path, mode)
            except FileNotFoundError:
                self.make(parent)
                self._ops.mkdir(path, mode)
        except FileExistsError:
            # Somebody else is just making it, and may not have come to the sync.
            self._ops.fsync_dir(parent)
            return
        self.adopt(path, mode)
        try:
            self._ops.fsync_dir(parent)
        except OSError:
            # The next attempt must not find the folder and take it for durable.
            with suppress(OSError):
                self._ops.rmdir(path)
            raise

    def open_new(self, path: str) -> int:
        """Create a file with the root's group and bits, and the folder it is in; raise OSError."""
        mode = self.access().file_mode
        try:
            fd = self._ops.open_new(path, mode)
        except FileNotFoundError:
            self.make(os.path.dirname(path))
            fd = self._ops.open_new(path, mode)
        self.adopt(fd, mode)
        return fd

    def rename(self, temporary: str, path: str) -> None:
        """Give a file its name, over an older one, and make its folder; raise OSError."""
        try:
            self._ops.rename(temporary, path)
        except FileNotFoundError:
            self.make(os.path.dirname(path))
            self._ops.rename(temporary, path)

    def adopt(self, target: int | str, mode: int) -> None:
        """Give a new file or folder the root's group, and the bits that the umask took away."""
        group = self.access().group
        # A medium without modes or groups refuses; then the stricter bits of the umask hold.
        with suppress(OSError):
            state = self._ops.fstat(target) if isinstance(target, int) else self._ops.stat(target)
            if state.st_gid != group:
                with suppress(OSError):
                    self._ops.chown(target, group)
            if S_IMODE(state.st_mode) != mode:
                self._ops.chmod(target, mode)

    def _no_root(self) -> NotFoundError:
        return NotFoundError("repository folder", self._base, "it was moved, removed or never made")


def make_path(ops: FileOps, path: str) -> None:
    """Create the root folder and what is missing above it, durably; raise OSError."""
    try:
        ops.mkdir(path, 0o777)
    except FileNotFoundError:
        make_path(ops, os.path.dirname(path))
        ops.mkdir(path, 0o777)
    except FileExistsError:
        if S_ISDIR(ops.stat(path).st_mode):
            return
        raise
    ops.fsync_dir(os.path.dirname(path))
