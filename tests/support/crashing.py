"""Operations that stop at the n-th change of the disk, and what a repository then holds."""

import shutil
from collections.abc import Callable
from pathlib import Path

from cas.backend.files import FileOps
from cas.backend.local import LocalBackend
from cas.ids import Buffer
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from tests.support.builders import Clock, read_tree, reopened
from tests.support.faulty import CHANGES, RecordingOps

Contents = dict[str, object]


class Quick(FileOps):
    """Nothing here is about power cuts."""

    def fsync(self, fd: int) -> None:
        pass

    def fsync_dir(self, path: str) -> None:
        pass


class Stopped(BaseException):
    """The process ends here."""


class Stopping(LocalBackend):
    """A backend whose process ends at the n-th change."""

    def __init__(self, root: Path, left: int) -> None:
        super().__init__(root, ops=Quick())
        self.left = left

    def put_new(self, key: str, data: Buffer) -> None:
        self._count()
        super().put_new(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    def sync(self, prefix: str) -> None:
        self._count()
        super().sync(prefix)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped


def contents(repo: Repo) -> Contents:
    """Everything that refs and holds keep."""
    found: Contents = {}
    for name, id in repo.refresh().refs.items():
        commit = repo.commit(id)
        found[name] = read_tree(repo, commit.tree)
        if name.startswith(HOLDS) and commit.payload:
            found[f"{name} payload"] = read_tree(repo, commit.payload)
    return found


def copied(origin: Path, folder: Path, ops: FileOps) -> Repo:
    """Return a repository that is a copy of another, on other file operations."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(origin, folder)
    return reopened(Repo.open(folder, who="ada", clock=Clock()), ops)


def changes(origin: Path, folder: Path, action: Callable[[Repo], None]) -> list[int]:
    """Return the numbers of the operations with which an action changes the disk."""
    ops = RecordingOps()
    action(copied(origin, folder, ops))
    return [at for at, (name, _) in enumerate(ops.calls, 1) if name in CHANGES]
