"""A finished run starts a repack, where the repository is set to it and nothing else is open."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import cas
from cas.repo import config
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.tracking import upkeep
from tests.support.builders import reopened, repository
from tests.support.drift import depths, drift_run


@pytest.fixture
def repo(here: Path) -> Repo:
    return repository(here)


class Started:
    """Takes down what was to be started."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[str], Mapping[str, str]]] = []

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.calls.append((command, environment))


def test_nothing_is_started_unless_it_is_asked_for(repo: Repo) -> None:
    started = Started()
    assert not upkeep.after_run(repo, started)
    config.change(repo, "repack", "never")
    assert not upkeep.after_run(repo, started)
    assert started.calls == []


def test_a_repack_of_this_repository_is_started(repo: Repo) -> None:
    config.change(repo, "repack", "auto")
    started = Started()
    assert upkeep.after_run(repo, started)
    ((command, environment),) = started.calls
    assert command[-3:] == ("-m", "cas", "repack")
    assert "nice -n 19" in command[2]
    assert environment["CAS_DIR"] == str(repo.path)


def test_not_while_another_run_of_this_process_is_open(repo: Repo) -> None:
    config.change(repo, "repack", "auto")
    started = Started()
    with cas.track("exp", repo=repo.path):
        assert not upkeep.after_run(repo, started)
    assert started.calls == []


def test_what_cannot_be_started_hurts_nobody(repo: Repo) -> None:
    config.change(repo, "repack", "auto")

    def fail(*_: object) -> None:
        raise OSError("no shell")

    assert not upkeep.after_run(repo, fail)


@pytest.mark.slow
def test_the_repack_is_done_behind(repo: Repo) -> None:
    drift_run(repo, steps=3)
    config.change(repo, "repack", "auto")
    with cas.track("exp", repo=repo.path) as run:
        run.log_metrics({"loss": 1.0})
        assert depths(repo) == []
    deadline = time.monotonic() + 60
    while depths(reopened(repo)) != [1, 2]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert repack.plan(reopened(repo)).empty
