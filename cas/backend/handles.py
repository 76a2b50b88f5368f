"""Files that are open for reading, kept for the next span; safe across threads and forks."""

import errno
import os
import threading
import weakref
from collections import OrderedDict
from contextlib import suppress
from stat import S_ISREG
from typing import Final

from cas.backend.files import TOO_MANY_OPEN, FileOps

MAX_OPEN: Final = 32


class Handle:
    """One open file and how many reads use it now."""

    __slots__ = ("dropped", "fd", "path", "size", "users")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size = 0
        self.users = 1
        self.dropped = False


class Handles:
    """A small cache of open files; the least recently used is closed first."""

    def __init__(self, ops: FileOps, *, limit: int = MAX_OPEN) -> None:
        self._ops = ops
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Handle] = OrderedDict()
        _everyone.add(self)
        # Who lets go of a backend without closing it leaves no open files behind.
        weakref.finalize(self, _close_all, ops, self._open).atexit = False

    def acquire(self, path: str) -> Handle:
        """Return a handle of the file that the path names now; raise OSError.

        Its `size` is the file's; it stays open until it is released.
        """
        handle = self._cached(path) or self._opened(path)
        state = self._look_at(handle)
        if state.st_nlink == 0:
            # Deleted by another process since we opened it: the name may be gone or taken anew.
            self._give_up(handle)
            handle = self._opened(path)
            state = self._look_at(handle)
        if not S_ISREG(state.st_mode):
            self._give_up(handle)
            raise IsADirectoryError(errno.EISDIR, "not a regular file", path)
        handle.size = state.st_size
        return handle

    def release(self, handle: Handle) -> None:
        """Say that this read is over."""
        with self._lock:
            handle.users -= 1
            if handle.dropped and handle.users == 0:
                self._close(handle)

    def drop(self, path: str) -> None:
        """Forget the file, so that the next read opens it anew."""
        with self._lock:
            if (handle := self._open.pop(path, None)) is not None:
                self._retire(handle)

    def close(self) -> None:
        """Forget every file."""
        with self._lock:
            while self._open:
                self._retire(self._open.popitem()[1])

    def open_anew(self, path: str) -> int:
        """Open a file and do not keep it; make room by closing others; raise OSError."""
        try:
            return self._ops.open_read(path)
        except OSError as error:
            if error.errno not in TOO_MANY_OPEN:
                raise
        self.close()
        return self._ops.open_read(path)

    def forked(self) -> None:
        """Start afresh in a forked child: no thread that used a handle or the lock lives on."""
        self._lock = threading.Lock()
        _close_all(self._ops, self._open)

    def _look_at(self, handle: Handle) -> os.stat_result:
        try:
            return self._ops.fstat(handle.fd)
        except BaseException:
            self._give_up(handle)
            raise

    def _give_up(self, handle: Handle) -> None:
        self.drop(handle.path)
        self.release(handle)

    def _cached(self, path: str) -> Handle | None:
        with self._lock:
            handle = self._open.get(path)
            if handle is not None:
                self._open.move_to_end(path)
                handle.users += 1
            return handle

    def _opened(self, path: str) -> Handle:
        handle = Handle(path, self.open_anew(path))
        with self._lock:
            if (other := self._open.pop(path, None)) is not None:
                self._retire(other)
            self._open[path] = handle
            while len(self._open) > self._limit:
                self._retire(self._open.popitem(last=False)[1])
        return handle

    def _retire(self, handle: Handle) -> None:
        handle.dropped = True
        if handle.users == 0:
            self._close(handle)

    def _close(self, handle: Handle) -> None:
        _close_all(self._ops, {handle.path: handle})


def _close_all(ops: FileOps, handles: "dict[str, Handle]") -> None:
    while handles:
        _, handle = handles.popitem()
        with suppress(OSError):  # nothing was written through it
            ops.close(handle.fd)


_everyone: "weakref.WeakSet[Handles]" = weakref.WeakSet()


def _after_fork() -> None:
    for handles in list(_everyone):
        handles.forked()


os.register_at_fork(after_in_child=_after_fork)
