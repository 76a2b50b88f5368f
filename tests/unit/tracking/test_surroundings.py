"""A run begins before its surroundings are read, and its first commit has all of them."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import RefusedError
from cas.ids import CommitId
from cas.repo.repo import Repo
from cas.tracking import reproduce
from cas.tracking.captured import surroundings
from tests.support.runs import eventually, only_run, opened

ENVIRONMENT = {"packages": {"numpy": "1"}}


class Gate:
    """Holds up what reads the packages."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def installed(self) -> dict[str, Any]:
        self.open.wait(30)
        return ENVIRONMENT


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(surroundings, "installed", gate.installed)
    monkeypatch.setattr(surroundings, "PATIENCE_S", 0.0)
    monkeypatch.setattr("cas.tracking.start.PATIENCE_S", 0.0)
    yield gate
    gate.open.set()


def told(repo: Repo, id: CommitId, name: str) -> dict[str, Any]:
    found = repo.document(repo.commit(id).tree, name)
    assert isinstance(found, dict)
    return found


def drafted(folder: Path) -> dict[str, Any]:
    repo = opened(folder)
    return told(repo, repo.root.refs["open/x/a"], "environment.json")


def test_it_begins_without_waiting_and_a_checkpoint_has_all(here: Path, gate: Gate) -> None:
    run = cas.track("x", name="a", seed=0)
    assert "packages" not in drafted(here)
    assert drafted(here)["python"]
    threading.Timer(0.2, gate.open.set).start()
    run.save_checkpoint(extra={"w": 1}, step=1)
    run.finish()
    repo = opened(here)
    id, commit = only_run(repo)
    for one in (id, commit.parents[0].commit):
        assert told(repo, one, "environment.json")["packages"] == {"numpy": "1"}
        assert told(repo, one, "host.json")["cpu_count"]


def test_one_that_does_nothing_gets_them_into_its_draft(here: Path, gate: Gate) -> None:
    run = cas.track("x", name="a", seed=0)
    gate.open.set()
    found = eventually(lambda: drafted(here).get("packages"), "the draft")
    assert found == {"numpy": "1"}
    run.finish()
    assert opened(here).root.seq <= 5  # made, begun, completed, finished


def test_one_that_ends_at_once_waits_for_them(here: Path, gate: Gate) -> None:
    run = cas.track("x", name="a", seed=0)
    threading.Timer(0.2, gate.open.set).start()
    run.finish()
    repo = opened(here)
    assert told(repo, only_run(repo)[0], "environment.json")["packages"] == {"numpy": "1"}
    assert [ref for ref in repo.root.refs if ref.startswith("open/")] == []


def test_what_never_comes_holds_up_no_commit(
    here: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "LONGEST_S", 0.05)
    cas.track("x", name="a", seed=0).finish()
    repo = opened(here)
    found = told(repo, only_run(repo)[0], "environment.json")
    assert "packages" not in found
    assert found["python"]
    gate.open.set()  # what comes too late changes nothing


def test_what_is_there_in_time_needs_no_second_transaction(
    here: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    monkeypatch.setattr("cas.tracking.start.PATIENCE_S", 30.0)
    run = cas.track("x", name="a", seed=0)
    assert drafted(here)["packages"] == {"numpy": "1"}
    assert run is not None
    assert run._live.late is None
    run.finish()


def test_parts_that_are_off_are_told_as_not_captured(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "train.py").write_text("x = 1\n")
    monkeypatch.setenv("CAS_CAPTURE", "none")
    cas.track("x", name="a", params={"lr": 1}).finish()
    repo = opened(here)
    id, commit = only_run(repo)
    assert told(repo, id, "environment.json") == {
        "not_captured": ["environment", "packages", "variables"]
    }
    assert told(repo, id, "source.json")["not_captured"] == ["code", "git"]
    assert told(repo, id, "host.json")["not_captured"] == ["hardware", "variables"]
    assert told(repo, id, "seeds.json") == {"seed": None, "not_captured": ["rng"]}
    started = told(repo, id, "command.json")
    assert (started["kind"], started["argv"], started["not_captured"]) == (
        "not captured", [], ["command"]
    )  # fmt: skip
    assert repo.lookup(commit.tree, b"code") is None
    assert repo.lookup(commit.tree, b"rng") is None
    with pytest.raises(RefusedError, match=r"code and command of .* were not captured"):
        reproduce.plan(repo, id)
