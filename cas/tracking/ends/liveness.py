"""Whether the process of a run still lives, as far as anybody else can tell.

A lock that is held says yes. A free one says no where the lock is of this very kernel, on a file
system of its own. Elsewhere locks may not reach, process ids mean nothing and clocks differ: there
a run counts as dead when its journal has not changed for ten minutes, by this kernel's own clock
between two looks of its own. A live run gives a sign of life each minute.

Format: docs/format/journal.md.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cas.backend import files
from cas.backend.files import OPS
from cas.ids import digest
from cas.repo.repo import Repo
from cas.tracking.captured.environment import HostInfo
from cas.tracking.journals.journal import Header

SILENT_SECONDS: Final = 600.0  # ten signs of life that did not come


def is_locked(path: Path) -> bool:
    """Say whether a journal's writer lives; also True where the file system cannot tell."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return path.exists()
    try:
        return files.is_locked(OPS, fd) is not False
    finally:
        os.close(fd)


@contextmanager
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


def recoverable(header: Header, *, locked: bool, here: HostInfo, local: bool = True) -> bool:
    """Say whether a run is dead, seen from `here`, without waiting.

    Its lock is free, and either it ran on this very kernel and in this process namespace, where a
    free lock is proof, or on this host before it was booted again. The latter only on a file system
    that is `local`: another host of the same name may use any other.
    """
    if locked or not header.host or header.host != here.host:
        return False
    if not header.boot or not here.boot:
        return False
    return local if header.boot != here.boot else header.pidns == here.pidns


def uptime() -> float:
    """Return the seconds since the kernel began, sleep included."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Watch:
    """How long journals have not changed, by looks of this kernel that are noted down.

    The notes are a hint: lost, they only make the waiting begin anew.
    """

    def __init__(self, repo: Repo, here: HostInfo, *, ticks: Callable[[], float] = uptime) -> None:
        self._repo = repo
        self._ticks = ticks
        self._clock = _clock_of(here)
        self._name = f"watch-{digest(self._clock.encode(), size=8).hex()}"
        self._before = self._noted()
        self._now: dict[str, tuple[str, float]] = {}

    def silent_seconds(self, name: str, parts: Sequence[Path]) -> float:
        """Return for how long these files have been seen as they are now; 0 at the first look."""
        state, now = state_of(parts), self._ticks()
        seen, since = self._before.get(name, ("", now))
        # A clock that seems to have gone back is another one.
        kept = since if seen == state and 0 <= since <= now else now
        self._now[name] = state, kept
        return now - kept if self._clock else 0.0

    def begin_again(self, name: str) -> None:
        """Forget how long this one has been silent: something was just done with it."""
        self._now.pop(name, None)

    def save(self) -> None:
        """Note down what was seen, for the next look; what was not looked at is forgotten."""
        if self._clock and self._now != self._before:
            told = {name: list(seen) for name, seen in self._now.items()}
            self._repo.backend.write_hint(self._name, json.dumps(told))
            self._before = dict(self._now)

    def _noted(self) -> dict[str, tuple[str, float]]:
        try:
            told = json.loads(self._repo.backend.read_hint(self._name) or "{}")
            return {str(name): (str(seen), float(at)) for name, (seen, at) in told.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            return {}


def _clock_of(here: HostInfo) -> str:
    """Return a name of the clock that `uptime` reads, empty where that cannot be told."""
    try:
        return f"{here.boot} {os.readlink('/proc/self/ns/time')}" if here.boot else ""
    except OSError:
        return ""


def state_of(parts: Sequence[Path]) -> str:
    """Return what changes whenever one of the files does."""
    told = []
    for path in parts:
        try:
            # A network file system asks its server anew when a file is opened.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            told.append(f"{path.name} gone")
            continue
        try:
            state = os.fstat(fd)
        finally:
            os.close(fd)
        told.append(f"{path.name} {state.st_ino} {state.st_size} {state.st_mtime_ns}")
    return digest("\n".join(told).encode(), size=16).hex()


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False
