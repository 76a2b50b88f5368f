"""`cas recover`."""

import json
import os
import sys
from pathlib import Path

import pytest

import cas as package
from tests.support.runs import cas, killed, only_run, opened, points, script, started

pytestmark = pytest.mark.slow  # whole programs, run and run again

TRAIN = """
run = cas.track("a", name="x")
run.log({"loss": 1})
run._live.flush()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(folder)
    return folder


def test_what_is_lost_is_committed_and_what_is_open_is_listed(here: Path) -> None:
    child = started(here, sys.executable, script(here, TRAIN))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    killed(child)
    done = cas(here, "recover")
    run = package.track("b", name="y")
    assert "cas: a/x ended without a finish: committed as crashed" in done.stderr
    done = cas(here, "recover")
    assert done.stdout.startswith(f"b/y  running  process {os.getpid()} on ")
    (told,) = json.loads(cas(here, "recover", "--json").stdout)["open"]
    assert (told["run"], told["status"], told["pid"]) == ("b/y", "running", os.getpid())
    run.finish()
    assert cas(here, "recover").stdout == "no run is open\n"


def test_a_run_that_is_said_to_be_gone_goes_on_if_it_is_not(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = package.track("a", name="x")
    run.log({"loss": 1})
    run._live.flush()
    refused = cas(here, "recover", "a/x", code=6)
    assert "a/x is running: process" in refused.stderr
    assert "--force" in refused.stderr
    done = cas(here, "recover", "x", "--force", "--json")
    assert json.loads(done.stdout) == {"recovered": ["x"], "open": []}
    assert "cas: a/x ended without a finish: committed as crashed" in done.stderr
    run.log({"loss": 2})
    run.finish()
    assert capsys.readouterr().err.count("it goes on as a/x-2") == 1
    repo = opened(here)
    tips = repo.refresh().refs
    assert points(repo, repo.commit(tips["runs/a/x"])) == {"loss": [(0, 1.0)]}
    assert points(repo, repo.commit(tips["runs/a/x-2"])) == {"loss": [(0, 1.0), (1, 2.0)]}


def test_a_run_without_a_journal_is_committed_when_it_is_named(here: Path) -> None:
    child = started(here, sys.executable, script(here, TRAIN))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    killed(child)
    (journal,) = (opened(here).path / "journals").iterdir()
    journal.unlink()
    told = cas(here, "recover").stdout
    assert "orphaned" in told
    assert "its journal is gone: `cas recover a/x` commits what is there" in told
    cas(here, "recover", "a/x")
    assert only_run(opened(here))[1].status == "crashed"


def test_what_is_not_open_is_not_found(here: Path) -> None:
    package.track("a", name="x").finish()
    done = cas(here, "recover", "a/x", code=3)
    assert "open run a/x not found: `cas recover` lists those there are" in done.stderr
