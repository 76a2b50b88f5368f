"""The reflog tells what a run did by itself from what a person did, and undo leaves it alone."""

from pathlib import Path

import pytest

import cas
from cas.errors import RefusedError
from cas.repo import undo
from cas.repo.reflog import history
from tests.support.runs import cas as command
from tests.support.runs import opened, python, script


def test_everything_that_a_run_does_names_it(here: Path) -> None:
    (here / "x.csv").write_text("1\n")
    with cas.track("a", name="x") as run:
        run.track_dataset("x.csv")
        run.log({"loss": 1.0})
        run.save_checkpoint(model={"w": [1, 2]}, step=1)
        run.log_artifact("x.csv")
    pasts = [past for past in history(opened(here)) if past.operation.what != "init"]
    assert len(pasts) >= 5
    assert {past.operation.run for past in pasts} == {"a/x"}


def test_a_run_that_never_began_takes_itself_back(here: Path) -> None:
    with pytest.raises(ZeroDivisionError), cas.track("a", name="x"):
        raise ZeroDivisionError
    pasts = [past for past in history(opened(here)) if past.operation.what != "init"]
    assert {past.operation.run for past in pasts} == {"a/x"}


def test_so_does_the_recovery_of_one_that_was_killed(here: Path) -> None:
    killed = 'run = cas.track("a", name="x")\nrun.log({"loss": 1})\nos.kill(os.getpid(), 9)\n'
    python(here, script(here, killed), code=-9)
    (here / "f").write_text("f")
    command(here, "commit", "f", "-m", "mine")
    pasts = {past.operation.what: past for past in history(opened(here))}
    assert pasts["recover a/x"].operation.run == "a/x"
    assert pasts["commit"].operation.run == ""


def test_undo_takes_what_the_user_did_before_the_run(here: Path) -> None:
    (here / "f").write_text("f")
    command(here, "init")
    command(here, "commit", "f", "-m", "mine")
    with cas.track("a", name="x") as run:
        run.save_checkpoint(model={"w": [1, 2]}, step=1)
    repo = opened(here)
    repo.who = next(past.operation.who for past in history(repo))
    planned = undo.plan(repo)
    assert planned.past.operation.what == "commit"
    undo.execute(repo, planned)
    assert "runs/a/x" in repo.refresh().refs
    assert "heads/main" not in repo.refresh().refs
    with pytest.raises(RefusedError, match="made by the run a/x"):
        undo.plan(repo, str(planned.past.number + 1))
