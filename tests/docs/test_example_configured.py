"""The example of a configured run follows its file; one that diverges is marked as failed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.runs import cas, checkpoints, only_run, opened, python

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PROGRAM = ("--", sys.executable, "configured.py")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("configured.py", "configured.yaml"):
        shutil.copy(EXAMPLES / name, folder)
    return folder


def test_it_follows_its_file_and_the_command_line(here: Path) -> None:
    cas(here, "run", "--config", "configured.yaml", "-p", "training.steps=20", *PROGRAM)
    repo = opened(here)
    id, commit = only_run(repo)
    assert (commit.experiment, commit.status) == ("configured", "finished")
    assert repo.document(commit.tree, "params.json") == {"training": {"lr": 0.1, "steps": 20}}
    assert len(checkpoints(repo, id)) == 1
    (told,) = (here / "records" / "configured").glob("*.json")
    assert json.loads(told.read_text())["metrics"]["loss"]["steps"] == list(range(20))


def test_one_that_diverges_is_marked_as_failed(here: Path) -> None:
    cas(here, "run", "--config", "configured.yaml", "--env", "broken", *PROGRAM, code=1)
    _, commit = only_run(opened(here))
    assert commit.status == "failed"
    (told,) = (here / "records" / "configured").glob("*.json")
    record = json.loads(told.read_text())
    assert (record["status"], record["labels"]) == ("failed", ["example"])
    assert "diverged" in json.dumps(record["events"])
    assert "not_finite" in {event["kind"] for event in record["events"]}
    assert "failed" in cas(here, "log").stdout


def test_it_runs_by_itself_too_and_says_why_it_failed(here: Path) -> None:
    python(here, "configured.py", env={"CAS_ENV": "broken"}, code=1)
    repo = opened(here)
    id, commit = only_run(repo)
    told = json.loads(cas(here, "export", str(id)).stdout)
    assert "ArithmeticError" in told["traceback"]
    assert commit.status == "failed"
