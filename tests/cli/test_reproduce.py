"""`cas reproduce`: what it says first, its verdict, and its exit code."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.runs import cas, only_run, opened, python, script

pytestmark = pytest.mark.slow  # whole programs, run and run again

BODY = """
with cas.track("a", name="x", seed=1) as run:
    print("training")
    for step in range(3):
        run.log({"loss": float(open(sys.argv[1]).read()) + step})
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "project"
    script(folder, BODY)
    (tmp_path / "number").write_text("1")
    python(folder, "train.py", tmp_path / "number")
    return folder


def test_identical_and_diverged(here: Path) -> None:
    done = cas(here, "reproduce", "a/x")
    assert done.stdout == "identical: a/x, 1 metric, 0 checkpoints, 0 artifacts compared\n"
    number = here.parent / "number"
    assert done.stderr.splitlines()[0] == f"cas: this runs recorded code: python train.py {number}"
    assert "training" in done.stderr
    number.write_text("2")
    done = cas(here, "reproduce", "a/x", code=20)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("diverged: a/x")
    assert lines[1:3] == ["  first at step 0: loss was 1, is 2", "  metric loss differs"]
    done = cas(here, "reproduce", "a/x", "--tolerance", "2", "--json")
    told = json.loads(done.stdout)
    assert told["result"]["verdict"] == "equivalent"
    assert told["result"]["first"] == {"metric": "loss", "step": 0, "original": 1, "again": 2}
    repo = opened(here)
    assert (
        repo.root.refs[f"reproductions/{told['original'][:10]}/3/verdict"].hex() == told["commit"]
    )


def test_what_was_logged_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    script(
        tmp_path,
        "with cas.track('a', name='x', seed=1) as run:\n"
        "    run.log({'loss': 1})\n"
        "    run.log_text('said', open(sys.argv[1]).read(), step=3)\n",
    )
    said = tmp_path / "said.bin"
    said.write_text("one")
    python(tmp_path, "train.py", said)
    done = cas(tmp_path, "reproduce", "a/x")
    compared = "1 metric, 0 checkpoints, 0 artifacts, 1 logged key compared"
    assert done.stdout == f"identical: a/x, {compared}\n"
    said.write_text("two")
    done = cas(tmp_path, "reproduce", "a/x", code=20)
    assert done.stdout.splitlines()[:2] == [
        f"diverged: a/x, {compared}",
        "  logged text said differs at step 3",
    ]


def test_failed_has_a_code_of_its_own(here: Path) -> None:
    (here.parent / "number").unlink()
    done = cas(here, "reproduce", "a/x", code=21)
    assert done.stdout.startswith("failed: a/x")
    assert "  it failed at: run" in done.stdout
    assert "FileNotFoundError" in done.stdout


def test_a_dry_run_runs_nothing(here: Path) -> None:
    id, _ = only_run(opened(here))
    before = opened(here).root.seq
    done = cas(here, "reproduce", "a/x", "--dry-run", "--json")
    told = json.loads(done.stdout)
    assert told == {
        "original": str(id),
        "run": "a/x",
        "command": f"python train.py {here.parent / 'number'}",
        "inputs": [],
    }
    assert opened(here).root.seq == before


@pytest.mark.parametrize(
    ("rev", "code", "said"),
    [("nowhere", 3, "revision nowhere not found"), ("datasets/d", 3, "a commit of kind input")],
)
def test_what_cannot_be_reproduced(here: Path, rev: str, code: int, said: str) -> None:
    script(here, "with cas.track('b') as run:\n    run.track_dataset([1.0], name='d')\n", "d.py")
    python(here, "d.py")
    done = cas(here, "reproduce", rev, code=code)
    assert said in done.stderr
    assert done.stdout == ""


def test_another_interpreter_and_a_kept_folder(here: Path) -> None:
    done = cas(here, "reproduce", "a/x", "--python", "/nowhere/python", code=2)
    assert "'/nowhere/python' is no program" in done.stderr
    done = cas(here, "reproduce", "a/x", "--keep")
    kept = next(line for line in done.stderr.splitlines() if line.startswith("cas: kept "))
    folder = Path(kept.removeprefix("cas: kept "))
    assert (folder / "project" / "train.py").is_file()
    shutil.rmtree(folder)
