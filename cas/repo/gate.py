"""The gate: how a collection gets a turn among writers that publish without a pause.

A collection that has lost some races closes the gate for a moment; a writer that is about to
publish waits until it is open again, but never for long. It only spares work: whoever does not
wait, because it cannot see the lock or was there already, just makes the other try again.
The lock is on the folder of the roots, so that nothing more has to be kept anywhere.
"""

import fcntl
import os
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from cas.repo.layout import ROOTS
from cas.repo.repo import Repo

PATIENCE: Final = 100  # times that a writer looks before it goes on all the same
PAUSE_S: Final = 0.005


class Gate:
    """The gate as a collection sees it; open again when this is left."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.open()

    def close(self) -> None:
        """Let nobody through who has not begun; without effect where another has closed it."""
        if self._fd is not None:
            return
        with suppress(OSError):
            self._fd = _opened(self._repo)
            try:
                self._repo.ops.lock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.open()

    def open(self) -> None:
        """Let everybody through."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with suppress(OSError):
            # A child that was forked meanwhile has the handle too.
            self._repo.ops.lock(fd, fcntl.LOCK_UN)
        with suppress(OSError):
            self._repo.ops.close(fd)


def pass_gate(repo: Repo) -> None:
    """Wait while a collection has closed the gate, though not for long."""
    for _ in range(PATIENCE):
        if _is_open(repo):
            return
        time.sleep(PAUSE_S)


def _is_open(repo: Repo) -> bool:
    try:
        fd = _opened(repo)
    except OSError:
        return True
    try:
        # Shared: writers that look at once do not see each other.
        repo.ops.lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    else:
        return True
    finally:
        with suppress(OSError):
            repo.ops.close(fd)


def _opened(repo: Repo) -> int:
    return repo.ops.open_read(os.fspath(repo.path / ROOTS))
