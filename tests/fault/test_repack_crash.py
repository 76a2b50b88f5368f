"""A repack that stops anywhere leaves a whole repository; the next one finishes the work."""

import errno
from pathlib import Path

import pytest

from cas.repo.collect import gc
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from tests.support.builders import commit_files, noise, reopened, repository
from tests.support.crashing import Contents, Quick, changes, check, contents, stops
from tests.support.drift import depths, drift_run
from tests.support.faulty import Crash


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    """A repository with three packs to replace, one of them with metadata, and what it holds."""
    repo = reopened(repository(tmp_path_factory.mktemp("origin")), Quick())
    drift_run(repo, "exp/small", seed=2, steps=2, size=9000)
    drift_run(repo, steps=3, size=300_000)
    commit_files(repo, {"a": noise(1, 300_000)}, payload={"w": noise(2, 900)})
    return repo.path, contents(repo)


def do_repack(repo: Repo) -> None:
    assert repack.execute(repo, repack.plan(repo)).steps > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raises", "after"),
    [(Crash, False), (Crash, True), (errno.EIO, False), (errno.ENOSPC, False)],
    ids=["crash before", "crash after", "error", "full disk"],
)
def test_a_repack_may_stop_at_any_change(
    origin: tuple[Path, Contents], tmp_path: Path, raises: int | type[Crash], after: bool
) -> None:
    path, kept = origin
    numbers = changes(path, tmp_path / "trace", do_repack)
    assert len(numbers) > 30
    for left, said in stops(path, tmp_path / "copy", do_repack, numbers, raises, after=after):
        check(left, kept, said, finish)


def finish(repo: Repo, said: str) -> None:
    repack.execute(repo, repack.plan(repo))
    assert repack.plan(repo).empty, said
    assert depths(repo) == [1, 1, 2], said
    gc.execute(repo, gc.plan(repo))
