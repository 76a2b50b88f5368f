"""The reserve: some bytes that are kept so that a full disk can always be collected.

To let go of something takes space: a root, and a few copies. So a file is kept since `init` that
nobody reads. Whatever frees space gives it up when the disk is full, and gc makes it again.
Format: docs/format/layout.md.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from cas.errors import CasError, StorageFullError
from cas.repo.layout import RESERVE, snapshot_key
from cas.repo.repo import Repo

SIZE: Final = 1024 * 1024
SPARE: Final = 16  # of the free space the reserve is no larger part than this
LEAST: Final = 16  # a smaller part of what is wanted is not worth it

T = TypeVar("T")


def made(repo: Repo) -> Repo:
    """Return a repository that was made just now, with its reserve."""
    renew(repo)
    return repo


def spending(repo: Repo, action: Callable[[], T]) -> T:
    """Do what frees space; give up the reserve and try again when the disk is full."""
    try:
        return action()
    except StorageFullError:
        if not give_up(repo):
            raise
        return action()


def give_up(repo: Repo) -> bool:
    """Remove the reserve; say whether there was one."""
    if repo.backend.size(RESERVE) is None:
        return False
    repo.backend.delete(RESERVE)
    # On some file systems the room is given back only now.
    with suppress(CasError):
        repo.backend.sync("")
    return True


def renew(repo: Repo) -> bool:
    """Make the reserve again where it is missing or too small; say whether it is there.

    Where little is free it is a smaller one: whoever fills a disk to its end does so again.
    """
    with suppress(CasError, OSError):
        wanted = _wanted(repo)
        size = repo.backend.size(RESERVE)
        if size is not None and size >= wanted:
            return True
        found = os.statvfs(repo.path)
        room = min(wanted, found.f_bavail * found.f_frsize // SPARE)
        if room < max(wanted // LEAST, (size or 0) + 1):
            return size is not None
        if size is not None:
            repo.backend.delete(RESERVE)
        # Not zeros: a file system that compresses would keep nothing for them.
        repo.backend.put_new(RESERVE, os.urandom(room))
        return True
    return False


def _wanted(repo: Repo) -> int:
    """Return how much the next roots may take: each of them may need new snapshots."""
    bases = (repo.root.refs_base, repo.root.packs_base)
    keys = [snapshot_key(base.name) for base in bases if base is not None]
    return SIZE + 2 * sum(repo.backend.size(key) or 0 for key in keys)
