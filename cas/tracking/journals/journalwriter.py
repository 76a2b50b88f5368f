"""The one writer of a run's journal: it appends, locks, and keeps what it wrote findable.

A journal may go while its run lives: somebody took the run for dead, a server forgot the handle, a
sync failed. `lost` says so, and `begin_anew` puts a whole new file in its place. A sign of life is
appended each minute, so that another host can tell a slow run from a dead one without a clock.

Format: docs/format/journal.md.
"""

import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from cas.backend.files import (
    ABSENT,
    OPS,
    FileOps,
    lock_if_possible,
    while_writing,
    write_fully,
)
from cas.backend.folders import Folders
from cas.errors import ConflictError, NotFoundError, TrackingError
from cas.tracking.journals.journal import ALIVE, Header, placed, to_frame

# A journal gets its name when it is locked and has a header: nobody ever sees one without.
UNBORN: Final = ".new"
ALIVE_SECONDS: Final = 60.0  # at most this long without a frame
SYNC_SECONDS: Final = 1.0  # at most so often, and
SYNC_SHARE: Final = 0.05  # at most so much of the time is spent on syncs
FILL: Final = 1 << 20

GONE: Final = ABSENT | {errno.ESTALE}


class JournalWriter:
    """The one writer of a journal, for the life of a run; a forked child has none."""

    def __init__(self, path: Path, fd: int, position: int, *, ops: FileOps = OPS) -> None:
        self.path = path
        self.position = position
        self._fd = fd
        self._ops = ops
        self._lock = threading.Lock()
        self._broken = ""
        self._unsynced = False
        self._appended_at = time.monotonic()
        self._sync_at = 0.0
        _OPEN.add(self)

    @classmethod
    def create(cls, path: Path, header: Header, *, ops: FileOps = OPS) -> Self:
        """Create and lock a journal, durably; raise ConflictError when the path is taken."""
        raw = to_frame(header.to_value())
        with _translated(path):
            fd = _new_file(ops, path, raw, ops.link)
        return cls(path, fd, len(raw), ops=ops)

    def append(self, payloads: Sequence[object]) -> int:
        """Append one frame for each payload, in one write; return the position after them."""
        with self._lock:
            if self._fd < 0 or self._broken:
                raise TrackingError(self._broken or f"the journal {self.path} is closed")
            raw = placed(payloads, self.position)
            try:
                with _translated(self.path):
                    write_fully(self._ops, self._fd, [raw])
            except BaseException:
                self._cut()
                raise
            self._unsynced = True
            self._appended_at = time.monotonic()
            self.position += len(raw)
            return self.position

    def tend(self, now: float) -> None:
        """Give a sign of life when one is due, and make durable what is not yet.

        `now` is of `time.monotonic`. Not to be called beside `close` or `begin_anew`. After a sync
        that failed the journal is lost: what the system still calls written may not be on disk.
        """
        if self._fd < 0 or self._broken:
            return
        if now - self._appended_at >= ALIVE_SECONDS:
            self.append([{"t": ALIVE}])
        if not self._unsynced or now < self._sync_at:
            return
        self._unsynced = False
        began = time.monotonic()
        try:
            with _translated(self.path):
                self._ops.fsync(self._fd)
        except BaseException as error:
            self._broken = str(error)
            raise
        took = time.monotonic() - began
        self._sync_at = now + max(SYNC_SECONDS, took / SYNC_SHARE)

    def lost(self) -> bool:
        """Say whether what is appended would not be found again.

        The file cannot be written any more, or its name is gone or is another file's.
        """
        if self._fd < 0:
            return False
        if self._broken:
            return True
        try:
            named, own = self._ops.stat(os.fspath(self.path)), self._ops.fstat(self._fd)
        except OSError as error:
            return error.errno in GONE
        return not os.path.samestat(named, own)

    def begin_anew(self, header: Header, payloads: Sequence[object]) -> int:
        """Take a new file, with all that is known of the run, for the one that is lost."""
        raw = to_frame(header.to_value())
        raw += placed(payloads, len(raw))
        # Positions never go back: commits name them.
        while len(raw) < self.position:
            fill = {"t": ALIVE, "fill": bytes(min(self.position - len(raw), FILL))}
            raw += placed([fill], len(raw))
        with self._lock:
            if self._fd < 0:
                raise TrackingError(self._broken or f"the journal {self.path} is closed")
            with _translated(self.path):
                fd = _new_file(self._ops, self.path, raw, self._ops.rename)
            self._fd, old = fd, self._fd
            self._broken = ""
            self._appended_at = time.monotonic()
            self.position = len(raw)
        with suppress(OSError):
            self._ops.close(old)
        return self.position

    def close(self, *, delete: bool = False) -> None:
        """Let go of the journal, and remove it while it is still locked if it is not needed."""
        with self._lock:
            if self._fd < 0:
                return
            try:
                if delete:
                    with _translated(self.path), suppress(FileNotFoundError):
                        self._ops.unlink(os.fspath(self.path))
            finally:
                fd, self._fd = self._fd, -1
                _OPEN.discard(self)
                with suppress(OSError):
                    self._ops.close(fd)

    def _cut(self) -> None:
        """Take back a part of a write: what is appended behind it would never be read."""
        try:
            self._ops.truncate(self._fd, self.position)
        except OSError as error:
            self._broken = f"the journal {self.path} cannot be written any more: {error.strerror}"

    def _leave(self) -> None:
        # The parent's lock stays: it is let go of when the last handle is closed, and is only ever
        # released by closing. Another thread may have held ours at the fork.
        self._lock = threading.Lock()
        if self._fd >= 0:
            with suppress(OSError):
                self._ops.close(self._fd)
        self._fd = -1
        self._broken = f"the journal {self.path} belongs to the process that started the run"


def _new_file(ops: FileOps, path: Path, raw: bytes, give: Callable[[str, str], None]) -> int:
    """Write and lock a journal, then `give` it its name: whoever sees it sees all of that."""
    folders = Folders(os.fspath(path.parent.parent.absolute()), ops)
    named = os.fspath(path.absolute())
    unborn = named + UNBORN
    fd = folders.open_new(unborn)
    try:
        # Where there are no locks nobody can tell, and it counts as locked.
        lock_if_possible(ops, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write_fully(ops, fd, [raw])
        ops.fsync(fd)
        give(unborn, named)
        ops.fsync_dir(os.path.dirname(named))
    except BaseException:
        with suppress(OSError):
            ops.close(fd)
        raise
    finally:
        with suppress(OSError):  # a file that stays is no journal
            ops.unlink(unborn)
    return fd


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raise what the file system says in our words."""
    try:
        yield
    except FileExistsError as error:
        raise ConflictError(str(path)) from error
    except FileNotFoundError as error:
        raise NotFoundError("journal", str(path)) from error
    except OSError as error:
        raise while_writing(error, f"the journal {path}") from error


_OPEN: Final[weakref.WeakSet[JournalWriter]] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for writer in list(_OPEN):
        writer._leave()
    _OPEN.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
