"""A run's journal: what survives when the run does not.

An append-only file of checked frames, one canonical value each; the first is the header, which says
where the run lives. The writer holds an OS lock on the file for as long as it lives, so that others
can tell a live run from a dead one without a clock. A torn end is expected and is not an error.

Format: docs/format/journal.md.
"""

import contextlib
import errno
import fcntl
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from struct import Struct
from typing import Any, ClassVar, Final, Self

from cas.errors import (
    BackendError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StorageFullError,
    TrackingError,
    UnsupportedError,
)
from cas.ids import digest
from cas.objects import canonical
from cas.tracking.environment import HostInfo

VERSION: Final = 1
MAX_FRAME: Final = 64 * 1024 * 1024
CHECK_SIZE: Final = 8
LENGTH: Final = Struct("<I")
PREFIX: Final = LENGTH.size + CHECK_SIZE
# A journal gets its name when it is locked and has a header: nobody ever sees one without.
UNBORN: Final = ".new"

# File systems that have no locks answer with one of these.
_LOCKLESS: Final = frozenset(
    {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Header:
    """Which run a journal belongs to, and where that run lives; `started` in microseconds."""

    run: str
    ref: str
    uid: bytes
    host: str
    boot: str
    pidns: str
    pid: int
    started: int

    UID_SIZE: ClassVar[int] = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            if type(getattr(self, field.name)) is not field.type:
                raise InvalidInputError(f"journal header: {field.name} is not {field.type}")
        if len(self.uid) != self.UID_SIZE:
            raise InvalidInputError(f"a run's uid is {self.UID_SIZE} bytes, not {len(self.uid)}")

    def to_value(self) -> dict[str, Any]:
        """Return the header as the map that stands in the first frame."""
        return {"v": VERSION} | {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Read the first frame of a journal."""
        if not isinstance(value, dict) or type(value.get("v")) is not int:
            raise CorruptionError("not a journal: it starts without a header")
        if value["v"] > VERSION:
            raise UnsupportedError(f"journal version {value['v']}; this cas reads up to {VERSION}")
        try:
            return cls(**{name: item for name, item in value.items() if name != "v"})
        except (TypeError, InvalidInputError) as error:
            raise CorruptionError(f"journal header is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as read: `positions[i]` is where the file stood after `frames[i]`."""

    header: Header
    frames: tuple[Any, ...]
    positions: tuple[int, ...]
    torn: bool

    def after(self, position: int) -> tuple[Any, ...]:
        """Return the frames that a commit at `position` does not include."""
        pairs = zip(self.frames, self.positions, strict=True)
        return tuple(frame for frame, end in pairs if end > position)


class JournalWriter:
    """The one writer of a journal, for the life of a run; a forked child has none."""

    def __init__(self, path: Path, fd: int, position: int) -> None:
        self.path = path
        self.position = position
        self._fd = fd
        self._lock = threading.Lock()
        self._broken = ""
        _OPEN.add(self)

    @classmethod
    def create(cls, path: Path, header: Header) -> Self:
        """Create and lock a journal; raise ConflictError when the path is taken."""
        unborn = path.with_name(path.name + UNBORN)
        raw = to_frame(header.to_value())
        with _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
            fd = os.open(unborn, flags, 0o666)
            try:
                _take(fd, fcntl.LOCK_EX)
                _write(fd, raw)
                os.link(unborn, path)
            except BaseException:
                os.close(fd)
                raise
            finally:
                unborn.unlink(missing_ok=True)
        return cls(path, fd, len(raw))

    def append(self, payloads: Sequence[object]) -> int:
        """Append one frame for each payload, in one write; return the position after them."""
        raw = b"".join(map(to_frame, payloads))
        with self._lock:
            if self._fd < 0 or self._broken:
                raise TrackingError(self._broken or f"the journal {self.path} is closed")
            try:
                with _translated(self.path):
                    _write(self._fd, raw)
            except BaseException:
                self._cut()
                raise
            self.position += len(raw)
            return self.position

    def close(self, *, delete: bool = False) -> None:
        """Let go of the journal, and remove it while it is still locked if it is not needed."""
        with self._lock:
            if self._fd < 0:
                return
            if delete:
                with _translated(self.path):
                    self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1
            _OPEN.discard(self)

    def _cut(self) -> None:
        """Take back a part of a write: what is appended behind it would never be read."""
        try:
            os.ftruncate(self._fd, self.position)
        except OSError as error:
            self._broken = f"the journal {self.path} cannot be written any more: {error.strerror}"

    def _leave(self) -> None:
        # The parent's lock stays: it is let go of when the last handle is closed, and is only ever
        # released by closing. Another thread may have held ours at the fork.
        self._lock = threading.Lock()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._broken = f"the journal {self.path} belongs to the process that started the run"


def read_journal(path: Path) -> Journal:
    """Read a journal up to its end or its first torn frame."""
    with _translated(path):
        raw = path.read_bytes()
    frames: list[Any] = []
    positions: list[int] = []
    for payload, end in scan_frames(raw):
        # The header is read before anything else is decoded: a newer version may differ there.
        frames.append(Header.from_value(_decoded(payload)) if not frames else _decoded(payload))
        positions.append(end)
    if not frames:
        raise CorruptionError(f"{path} is no journal: its header cannot be read")
    torn = positions[-1] != len(raw)
    return Journal(frames[0], tuple(frames[1:]), tuple(positions[1:]), torn)


def is_locked(path: Path) -> bool:
    """Say whether a journal's writer lives; also True where the file system cannot tell."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return path.exists()
    try:
        # Shared: two that only look do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a dead run's journal while recovering it; False when somebody else holds it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        # Who recovered it before us may have removed it between our open and our lock.
        yield _is_at(fd, path)
    finally:
        os.close(fd)


def recoverable(header: Header, *, locked: bool, here: HostInfo) -> bool:
    """Say whether a run is surely dead, seen from `here`.

    Its lock is free, and either it ran on this very kernel and in this process namespace, where a
    free lock is proof, or on this host before it was booted again.
    """
    if locked or not header.host or header.host != here.host:
        return False
    if not header.boot or not here.boot:
        return False
    return header.boot != here.boot or header.pidns == here.pidns


def to_frame(payload: object) -> bytes:
    """Return one frame as it stands in the file."""
    body = canonical.encode(payload)
    if len(body) > MAX_FRAME:
        raise InvalidInputError(f"a journal frame is at most {MAX_FRAME} bytes, not {len(body)}")
    return LENGTH.pack(len(body)) + digest(body, size=CHECK_SIZE) + body


def scan_frames(raw: bytes) -> Iterator[tuple[memoryview, int]]:
    """Yield each whole frame's payload and where it ends; stop at the first that is not whole."""
    view = memoryview(raw)
    start = 0
    while len(raw) - start >= PREFIX:
        (length,) = LENGTH.unpack_from(raw, start)
        end = start + PREFIX + length
        if length > MAX_FRAME or end > len(raw):
            return
        payload = view[start + PREFIX : end]
        if digest(payload, size=CHECK_SIZE) != view[start + LENGTH.size : start + PREFIX]:
            return
        yield payload, end
        start = end


def _decoded(payload: memoryview) -> Any:
    return canonical.decode(payload)


def _take(fd: int, how: int) -> None:
    """Lock the file where locks exist; elsewhere `is_locked` says that it cannot tell."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _LOCKLESS:
            raise


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _write(fd: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raise what the file system says in our words."""
    try:
        yield
    except FileExistsError as error:
        raise ConflictError(str(path)) from error
    except FileNotFoundError as error:
        raise NotFoundError("journal", str(path)) from error
    except OSError as error:
        message = f"journal {path}: {error.strerror}"
        if error.errno in _FULL:
            raise StorageFullError(message) from error
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise ReadOnlyError(message) from error
        raise BackendError(message) from error


_OPEN: Final[weakref.WeakSet[JournalWriter]] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for writer in list(_OPEN):
        writer._leave()
    _OPEN.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
