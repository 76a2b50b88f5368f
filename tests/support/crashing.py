"""Operations that stop at the n-th change of the disk, and what a repository then holds."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cas.backend.files import FileOps
from cas.backend.local import LocalBackend
from cas.errors import CasError
from cas.ids import Buffer
from cas.repo.check import fsck
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from tests.support.builders import Clock, read_tree, reopened, repository
from tests.support.faulty import CHANGES, Crash, Fault, FaultyOps, RecordingOps

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


def two_handles(folder: Path) -> list[Repo]:
    """Return a new repository as two that know nothing of each other have it."""
    made = repository(folder)
    first = reopened(made, Quick())
    made.backend.close()
    return [first, reopened(first, Quick())]


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


def stops(
    origin: Path,
    folder: Path,
    action: Callable[[Repo], None],
    numbers: Sequence[int],
    raises: int | type[Crash],
    *,
    after: bool,
) -> Iterator[tuple[Path, str]]:
    """Stop an action at each of these operations; yield what it leaves, and where it stopped."""
    for at in numbers:
        ops = FaultyOps(Fault(at, raises, after=after))
        repo = copied(origin, folder, ops)
        with suppress(Crash, CasError):
            action(repo)
        repo.backend.close()
        yield repo.path, f"stopped at {at}: {ops.happened}"


def check(path: Path, kept: Contents, said: str, finish: Callable[[Repo, str], None]) -> None:
    """Hold what was left to what was kept, before and after the work is finished."""
    repo = reopened(Repo.open(path, who="ada", clock=Clock()), Quick())
    found = [finding for finding in fsck.check(repo, full=True) if finding.severity != fsck.INFO]
    assert not found, said
    assert contents(repo) == kept, said
    finish(repo, said)
    assert [f for f in fsck.check(repo, full=True) if f.what != "stray-snapshot"] == [], said
    assert contents(repo) == kept, said
    assert len(list(repo.backend.scan("packs/"))) == len(repo.root.packs), said
    repo.backend.close()
