"""The gate: how who always loses the race for the next root gets a turn.

A collection or a writer that has lost some races closes the gate for a moment; whoever is about to
publish waits until it is open again, but never for long. It only spares work: whoever does not
wait, because it cannot see the lock or was there already, just makes the other try again.
The lock is on the folder of the roots, so that nothing more has to be kept anywhere.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from cas.backend.files import is_locked
from cas.repo.layout import ROOTS
from cas.repo.repo import Repo

PATIENCE_S: Final = 0.5  # that anybody waits before going on all the same
FIRST_S: Final = 0.008  # before the second look
LEAST_S: Final = 0.001  # between looks, once somebody has waited
LONG_S: Final = 0.1  # so long


class Gate:
    """The gate as one sees it that closes it; open again when this is left."""

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
        if self.closed:
            return
        with suppress(OSError):
            self._fd = _opened(self._repo)
            try:
                self._repo.ops.lock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.open()

    def take_turn(self) -> None:
        """Close it as soon as no other has, though without waiting for long."""
        for pause in _pauses():
            self.close()
            if self.closed or _held(self._repo) is None:
                return
            time.sleep(pause)

    @property
    def closed(self) -> bool:
        """Whether it is this one that keeps the gate closed."""
        return self._fd is not None

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
    """Wait while somebody else has closed the gate, though not for long."""
    for pause in _pauses():
        if is_open(repo):
            return
        time.sleep(pause)


def _pauses() -> Iterator[float]:
    """Yield how long to wait before each further look, until that has been long enough.

    Who has waited longer looks more often, and so is mostly the next: about as in a queue.
    """
    waited = 0.0
    while waited < PATIENCE_S:
        pause = max(LEAST_S, FIRST_S * (1 - waited / LONG_S))
        yield pause
        waited += pause


def is_open(repo: Repo) -> bool:
    """Say whether nobody keeps the gate closed; yes where there are no locks."""
    return not _held(repo)


def _held(repo: Repo) -> bool | None:
    """Say whether somebody keeps the gate closed, None where that cannot be told."""
    try:
        fd = _opened(repo)
    except OSError:
        return None
    try:
        return is_locked(repo.ops, fd)
    finally:
        with suppress(OSError):
            repo.ops.close(fd)


def _opened(repo: Repo) -> int:
    return repo.ops.open_read(os.fspath(repo.path / ROOTS))
