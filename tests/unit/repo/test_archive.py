"""Archived runs are marked and nothing else: every name and every hold stays."""

from pathlib import Path

import pytest

from cas.errors import NotFoundError
from cas.lineage.history import graph, runs
from cas.repo import undo
from cas.repo.repo import Repo
from cas.repo.retain import archive
from cas.repo.revision import resolve
from tests.support.builders import RunBuilder, noise, repository, set_ref, whole


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = repository(tmp_path)
    for name in ("exp/one", "exp/two", "experiment/three"):
        run = RunBuilder(repo, name)
        run.checkpoint(1, {"w": noise(1, 5000)}, value=0.5)
        run.finish()
    return repo


def listed(repo: Repo, *, all: bool = False) -> list[str]:
    repo.refresh()
    return sorted(line.run for line in runs(repo, all=all))


def drawn(repo: Repo, *, all: bool = False) -> list[str]:
    repo.refresh()
    return sorted(node.line.run for node in graph(repo, all=all) if node.line is not None)


def test_lists_show_what_is_archived_only_when_asked(repo: Repo) -> None:
    every = ["exp/one", "exp/two", "experiment/three"]
    assert archive.archive(repo, ["exp/one"]) == ("exp/one",)
    assert listed(repo) == drawn(repo) == every[1:]
    assert listed(repo, all=True) == drawn(repo, all=True) == every
    assert [line.run for line in runs(repo, all=True) if line.archived] == ["exp/one"]
    assert [line.run for line in runs(repo, experiment="exp")] == ["exp/two"]


def test_an_experiment_is_the_runs_that_it_has_now(repo: Repo) -> None:
    assert archive.archive(repo, ["exp", "exp/two"]) == ("exp/one", "exp/two")
    assert archive.archive(repo, ["exp"]) == ()
    assert listed(repo) == ["experiment/three"]
    RunBuilder(repo, "exp/new").finish()
    assert listed(repo) == ["exp/new", "experiment/three"]


def test_nothing_else_changes(repo: Repo) -> None:
    before = dict(repo.refresh().refs)
    archive.archive(repo, ["exp"])
    after = dict(repo.refresh().refs)
    assert before.items() < after.items()
    assert resolve(repo, "exp/one") == before["runs/exp/one"]
    assert resolve(repo, "exp@latest") in {before["runs/exp/two"], before["runs/exp/one"]}
    assert whole(repo)


def test_they_are_brought_back(repo: Repo) -> None:
    before = dict(repo.refresh().refs)
    archive.archive(repo, ["exp"])
    assert archive.restore(repo, ["exp/one"]) == ("exp/one",)
    assert listed(repo) == ["exp/one", "experiment/three"]
    archive.restore(repo, ["exp"])
    assert dict(repo.refresh().refs) == before
    archive.archive(repo, ["exp"])
    undo.execute(repo, undo.plan(repo))
    assert dict(repo.refresh().refs) == before


def test_a_run_that_goes_on_stays_hidden(repo: Repo) -> None:
    archive.archive(repo, ["exp/one"])
    set_ref(repo, "open/exp/one", resolve(repo, "exp/one"))
    assert listed(repo) == ["exp/two", "experiment/three"]


@pytest.mark.parametrize("word", ["nope", "exp/on", "", "runs"])
def test_what_there_is_not(repo: Repo, word: str) -> None:
    with pytest.raises(NotFoundError):
        archive.archive(repo, [word])
    with pytest.raises(NotFoundError, match="archived"):
        archive.restore(repo, ["exp/one"])
