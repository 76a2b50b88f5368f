"""One new file on its way to disk."""

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

from cas.backend.files import FileOps, while_writing, write_fully
from cas.backend.stage import DirectFile, Stage
from cas.errors import InvalidInputError
from cas.ids import Buffer

DIRECT_FROM: Final = 1024 * 1024  # a small file is soon read again


class FileSink:
    """An open new file; the first failure closes and removes it.

    A failed fsync above all: the kernel may drop the pages and call the next fsync a success, so
    nothing is ever tried again on the same handle. Whoever discards it waits for a write on another
    thread: the number of a closed file may be another's by the time of the next write.
    """

    def __init__(self, ops: FileOps, fd: int, path: str, *, shown: str) -> None:
        self._ops = ops
        self._fd: int | None = fd
        self._path = path
        self._shown = shown  # the path that people know, where the file is a temporary one
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._written = 0
        self._stage: Stage | None = None

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append these buffers, in order."""
        with self._alone():
            fd = self._open()
            try:
                self._append(fd, buffers)
            except BaseException as error:
                self.discard()
                self._raise(error)

    def seal(self) -> None:
        """Make all bytes durable; the name is durable after `Backend.sync`."""
        with self._alone():
            fd = self._open()
            try:
                self._flush()
                self._ops.fsync(fd)
            except BaseException as error:
                self.discard()
                self._raise(error)
            self.close()

    def close(self) -> None:
        """Close the file without a sync; for what may be lost."""
        with self._alone():
            fd = self._open()
            try:
                self._flush()
            except BaseException as error:
                self.discard()
                self._raise(error)
            self._fd = None
            try:
                # Over NFS this is where a full disk is told.
                self._ops.close(fd)
            except BaseException as error:
                self._remove()
                self._raise(error)

    def discard(self) -> None:
        """Remove what was written; without effect when sealed or discarded before."""
        with self._alone():
            if self._fd is None:
                return
            fd, self._fd = self._fd, None
            with suppress(OSError):
                self._ops.close(fd)
            if os.getpid() == self._pid:  # in a forked child the file is still the parent's
                self._remove()

    def _append(self, fd: int, buffers: Sequence[Buffer]) -> None:
        if self._stage is None and self._written >= DIRECT_FROM:
            self._stage = Stage(DirectFile(self._ops, fd, waits=True), self._written)
        if self._stage is not None:
            self._written += sum(map(self._stage.add, buffers))
        else:
            self._written += write_fully(self._ops, fd, buffers)

    def _flush(self) -> None:
        if self._stage is not None:
            self._stage.flush()

    def _alone(self) -> AbstractContextManager[object]:
        # In a forked child nobody lives on who would let go of the lock.
        return self._lock if os.getpid() == self._pid else nullcontext()

    def _open(self) -> int:
        if self._fd is None:
            raise InvalidInputError(f"{self._shown} is sealed or discarded: it takes no more bytes")
        if os.getpid() != self._pid:
            raise InvalidInputError(
                f"{self._shown} belongs to the process that this one is forked from"
            )
        return self._fd

    def _remove(self) -> None:
        with suppress(OSError):  # a file that stays is listed nowhere, and gc removes it
            self._ops.unlink(self._path)

    def _raise(self, error: BaseException) -> None:
        if isinstance(error, OSError):
            raise while_writing(error, self._shown) from error
        raise error
