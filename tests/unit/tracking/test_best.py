"""The best checkpoint: said by the user, or told by a metric; it is honoured wherever one asks."""

import subprocess
import sys
from pathlib import Path

import pytest

import cas
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT
from cas.repo.retain import prune
from cas.repo.revision import resolve
from tests.support.runs import checkpoints, environment, only_run, opened, python, script

Capture = pytest.CaptureFixture[str]


def held(folder: Path) -> set[CommitId]:
    refs = opened(folder).refresh().refs
    return {id for ref, id in refs.items() if ref.startswith("holds/")}


def test_what_was_said_to_be_the_best_is_that_for_every_command(here: Path) -> None:
    with cas.track("a", name="x") as run:
        for step, loss in enumerate([3.0, 1.0, 2.0, 4.0]):
            metrics = {"loss": loss}
            run.save_checkpoint(model={"w": step}, step=step, metrics=metrics, best=step == 2)
        best = run.best()
    repo = opened(here)
    ids = [id for id, _ in checkpoints(repo, only_run(repo)[0])]
    assert best == ids[2]
    assert resolve(repo, "a/x@best") == resolve(repo, "a@best") == best
    plan = prune.plan(repo, cas.Keep(best=1))
    assert plan.dropped == (ids[0], ids[1])
    told = {one.checkpoint.commit: one.reasons for run in plan.runs for one in run.decisions}
    assert told[best] == ("said to be the best", "best 1, as was said")
    assert cas.load("a/x@best", repo=here)["model"] == {"w": 2}


BROKEN = """
run = cas.track("a", name="x", resume="auto", retention=cas.Keep(last=1))
if run.resumed is None:
    run.save_checkpoint(model={"w": 0}, step=0, best=True, wait=True)
    run.save_checkpoint(model={"w": 1}, step=1, wait=True)
    os.kill(os.getpid(), 9)
for step in range(2, 5):
    run.save_checkpoint(model={"w": step}, step=step, wait=True)
print(run.load_checkpoint("best").step)
run.finish()
"""


def test_a_run_that_goes_on_keeps_what_it_said_before_it_broke_off(here: Path) -> None:
    path = script(here, BROKEN)
    killed = [sys.executable, str(path)]
    assert subprocess.run(killed, cwd=here, env=environment(), check=False).returncode == -9
    assert python(here, path).stdout.split() == ["0"]
    repo = opened(here)
    kinds = [(repo.commit(id).kind, repo.commit(id).step) for id in held(here)]
    assert sorted(step for kind, step in kinds if kind == CHECKPOINT and step is not None) == [0, 4]


def test_only_what_is_best_is_saved_by_what_was_logged(here: Path) -> None:
    strategy = cas.Strategy(save_best_only=True, monitor="val/loss")
    with cas.track("a", strategy=strategy) as run:
        for step, loss in enumerate([3.0, 4.0, 2.0, 2.0, 1.0]):
            run.log_metrics({"val/loss": loss}, step=step)
            for _ in range(2):
                if run.should_save(step):
                    run.save_checkpoint(model={"w": step}, step=step)
    repo = opened(here)
    assert [c.step for _, c in checkpoints(repo, only_run(repo)[0])] == [0, 2, 4]


def test_a_save_by_hand_counts_with_what_was_logged(here: Path) -> None:
    with cas.track("a", strategy={"save_best_only": True, "monitor": "acc", "mode": "max"}) as run:
        run.log_metrics({"acc": 0.9}, step=0)
        run.save_checkpoint(model={"w": 0}, step=0)
        run.log_metrics({"acc": 0.8}, step=1)
        assert not run.should_save(1)
        assert run.should_save(2, {"acc": 0.95})


def test_a_metric_that_never_comes_is_told_once(here: Path, capsys: Capture) -> None:
    with cas.track("a", strategy={"save_best_only": True, "monitor": "val/los"}) as run:
        for step in range(1000):
            run.log_metrics({"val/loss": 1.0}, step=step)
            assert not run.should_save(step)
    assert capsys.readouterr().err.count("no val/los so far") == 1


def test_when_to_save_is_in_the_record_wherever_it_was_said(here: Path) -> None:
    said = {"save_steps": 10, "monitor": "acc", "mode": "max", "staging": "2GB"}
    with cas.track("a", name="x", strategy=cas.Strategy(**said)) as run:  # type: ignore[arg-type]
        first = run.save_checkpoint(model={"w": 1}, step=1, metrics={"acc": 1.0}).commit
    with cas.track("a", name="y", config={"strategy": {"save_steps": 5}}, strategy=said):
        pass
    with cas.track("a", name="z", config={"strategy": {"save_steps": 5}}):
        pass
    with cas.track("a", name="none"):
        pass
    with cas.fork(str(first), name="fork", strategy={"on_signal": True}):
        pass
    repo = opened(here)
    told = {
        name: repo.document(repo.commit(repo.root.refs[f"runs/a/{name}"]).tree, "strategy.json")
        for name in ("x", "y", "z", "none", "fork")
    }
    assert told == {
        "x": said,
        "y": said,
        "z": {"save_steps": 5},
        "none": None,
        "fork": {"on_signal": True},
    }
    assert first is not None
    assert repo.document(repo.commit(first).tree, "strategy.json") == said
