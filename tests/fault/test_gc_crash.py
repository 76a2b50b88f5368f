"""A collection that stops anywhere leaves a whole repository; the next one finishes the work."""

import errno
import os
from pathlib import Path

import pytest

from cas.repo import root as roots
from cas.repo.collect import gc, gcstages
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.store.pack import PackInfo
from cas.store.writer import ObjectWriter
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    reopened,
    repository,
    set_ref,
)
from tests.support.crashing import Contents, Quick, changes, check, contents, stops
from tests.support.faulty import Crash


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contents]:
    """A repository with everything that a collection deals with, and what must outlive it."""
    repo = reopened(repository(tmp_path_factory.mktemp("origin")), Quick())
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    commit_files(repo, {"a": noise(1, 300_000), "big": noise(3, 1_200_000)})
    run = RunBuilder(repo, "exp/one")
    for step in range(3):
        run.checkpoint(step, {"w": noise(10 + step, 2000)}, value=1.0)
    run.finish()
    for id in run.ids[:2]:
        set_ref(repo, f"{HOLDS}{id}", None)
    condemned = orphan(repo, 20)
    orphan(repo, 21)
    after = repo.root.follow(repo.root.operation, condemned=(condemned,))
    repo.adopt(roots.publish(repo.backend, after, os.urandom(16)))
    return repo.path, contents(repo)


def orphan(repo: Repo, seed: int) -> PackInfo:
    writer = ObjectWriter(repo.backend, repo.store, lambda: os.urandom(16))
    writer.blob(noise(seed, 5000))
    return writer.seal()[0]


def collect(repo: Repo) -> None:
    gc.execute(repo, gc.plan(repo))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raises", "after"),
    [(Crash, False), (Crash, True), (errno.EIO, False)],
    ids=["crash before", "crash after", "error"],
)
def test_a_collection_may_stop_at_any_change(
    origin: tuple[Path, Contents],
    tmp_path: Path,
    raises: int | type[Crash],
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gcstages, "SMALL", 0)  # in steps
    path, kept = origin
    numbers = changes(path, tmp_path / "trace", collect)
    assert len(numbers) > 20
    for left, said in stops(path, tmp_path / "copy", collect, numbers, raises, after=after):
        check(left, kept, said, finish)


def finish(repo: Repo, said: str) -> None:
    gc.execute(repo, gc.plan(repo))
    assert gc.plan(repo).empty, said
