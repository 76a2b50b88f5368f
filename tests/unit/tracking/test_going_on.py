"""A run that broke off goes on under its own name, as if it had not."""

import signal
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import InvalidInputError
from cas.lineage.curves import histories
from cas.lineage.curves import points as points_of
from cas.repo import annotations
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.tracking.captured.environment import HostInfo
from cas.tracking.ends import recovery, rescue, resume, waiting
from cas.tracking.ends.recovery import open_runs, recover
from cas.tracking.ends.resume import Job, check_resume
from cas.tracking.run import Run
from tests.support.builders import whole
from tests.support.runs import checkpoints, opened, points, python, script

Capture = pytest.CaptureFixture[str]

TRAIN = """
import numpy as np
stop = int(sys.argv[1])
run = cas.track('a', name='x', resume='auto', seed=1, params={'stop': stop},
                strategy={'save_steps': 5}, system_metrics=False)
w, start = np.zeros(100), 0
if run.resumed is not None:
    loaded = run.load_checkpoint()
    w, start = loaded.state['model'], loaded.step + 1
for step in range(start, 20):
    w += np.random.rand(100)
    run.log_metrics({'loss': w.sum()}, step=step)
    if run.should_save(step):
        run.save_checkpoint(model=w, step=step, wait=True)
    if step == stop:
        run._live.flush()
        os.kill(os.getpid(), 9)
run.finish()
"""


def train(here: Path, stop: int) -> str:
    code = -signal.SIGKILL if stop >= 0 else 0
    return python(here, script(here, TRAIN), str(stop), code=code).stderr


def last_weights(repo: Repo, ref: str) -> Any:
    tip = repo.refresh().refs[ref]
    id, _ = checkpoints(repo, tip)[-1]
    return repo.commit(id).payload


def test_a_run_that_was_killed_twice_ends_as_one_that_was_not(here: Path, tmp_path: Path) -> None:
    once = tmp_path / "once"
    once.mkdir()
    train(once, -1)
    train(here, 12)
    said = train(here, 17)
    assert "cas: a/x was cut off after step 12: it goes on after step 10, from checkpoint" in said
    assert "committed as crashed" not in said
    wanted = "cas: a/x was cut off after step 17: it goes on after step 15, from checkpoint"
    assert wanted in train(here, -1)
    one, other = opened(once), opened(here)
    assert last_weights(one, "runs/a/x") == last_weights(other, "runs/a/x")
    ends = [repo.commit(repo.root.refs["runs/a/x"]) for repo in (one, other)]
    assert points(one, ends[0]) == points(other, ends[1])
    summaries = [
        r.document(end.tree, "summary.json") for r, end in zip((one, other), ends, strict=True)
    ]
    assert summaries[0] == summaries[1]
    assert [end.status for end in ends] == ["finished", "finished"]
    steps = [commit.step for _, commit in checkpoints(other, other.root.refs["runs/a/x"])]
    assert steps == [5, 10, 15]
    assert list((other.path / "journals").iterdir()) == []
    assert whole(other)


def test_every_commit_on_the_way_has_its_whole_history(here: Path) -> None:
    train(here, 12)
    train(here, 17)
    repo = opened(here)
    train(here, -1)
    tip = repo.refresh().refs["runs/a/x"]
    for id, commit in checkpoints(repo, tip):
        pieces = histories(repo, id)["loss"]
        steps = [step for row in pieces for step, _ in points_of(repo, row)]
        assert commit.step is not None
        assert steps == list(range(commit.step + 1))


def test_a_run_that_went_on_and_lost_its_journal_is_rebuilt_from_its_commits(here: Path) -> None:
    train(here, 12)
    train(here, 17)
    repo = opened(here)
    for path in (repo.path / "journals").iterdir():
        path.unlink()
    (lost,) = open_runs(repo, orphans=True)
    assert rescue.commit_lost(repo, rescue.from_draft(repo, lost.run, lost.ref)) == "a/x"
    tip = repo.commit(repo.refresh().refs["runs/a/x"])
    assert [step for step, _ in points(repo, tip)["loss"]] == list(range(16))


def broken(**options: Any) -> Run:
    """A run that ends as failed, after a checkpoint at step 4 and a few steps more."""
    run = cas.track("a", name="x", system_metrics=False, **options)
    for step in range(7):
        run.log_metrics({"loss": float(step)}, step=step)
        if step == 4:
            run.save_checkpoint(model={"w": step}, step=step, epoch=2, wait=True)
    run.log_artifact(__file__, name="code.py")
    run.track_dataset([1.0, 2.0], name="d")
    run.finish("failed")
    return run


def test_it_has_what_it_was_told_and_says_what_has_changed(here: Path) -> None:
    broken(params={"lr": 1, "deep": {"a": 1}}, labels=["kept"])
    run = cas.track("a", name="x", resume="auto", params={"lr": 2, "more": 3}, labels=["new"])
    assert run.name == "a/x"
    assert run.params == {"lr": 2, "deep": {"a": 1}, "more": 3}
    assert run.resumed is not None
    assert run.load_checkpoint().state["model"] == {"w": 4}
    run.log_metrics({"loss": 0.0})
    run.finish()
    repo = opened(here)
    end = repo.commit(repo.root.refs["runs/a/x"])
    assert points(repo, end)["loss"] == [*((n, float(n)) for n in range(5)), (5, 0.0)]
    assert {parent.role for parent in end.parents} == {"previous", "dataset"}
    assert repo.lookup(end.tree, b"artifacts/code.py") is not None
    told = repo.document(end.tree, "resumed.json")
    assert isinstance(told, dict)
    (once,) = told["resumed"]
    assert once["step"] == 4
    assert once["checkpoint"] == str(run.resumed)
    assert once["params"] == {
        "lr": {"before": 1, "now": 2},
        "more": {"before": None, "now": 3},
    }
    assert annotations.of_run(repo, end).labels == ("kept", "new")


def test_a_strategy_counts_from_the_checkpoint(here: Path) -> None:
    broken()
    run = cas.track("a", name="x", resume="auto", strategy={"save_steps": 3, "save_epochs": 3})
    assert not run.should_save(5)
    assert run.should_save(6)
    assert not run.should_save(epoch=4)
    assert run.should_save(epoch=5)
    run.finish()


def test_the_best_so_far_counts_too(here: Path) -> None:
    broken()
    best = {"save_best_only": True, "monitor": "loss", "mode": "max"}
    run = cas.track("a", name="x", resume="auto", strategy=best)
    assert not run.should_save(5, {"loss": 3.0})
    assert run.should_save(5, {"loss": 4.5})
    run.finish()


def test_a_finished_run_is_left_alone(here: Path) -> None:
    cas.track("a", name="x").finish()
    run = cas.track("a", name="x", resume="auto")
    assert (run.name, run.resumed) == ("a/x-2", None)
    run.finish("interrupted")
    assert cas.track("a", name="x", resume="never").name == "a/x-3"


def test_so_is_one_that_is_running(here: Path) -> None:
    first = cas.track("a", name="x")
    second = cas.track("a", name="x", resume="auto")
    assert second.name == "a/x-2"
    first.finish()
    second.finish()


def test_a_run_without_a_checkpoint_begins_again(here: Path, capsys: Capture) -> None:
    run = cas.track("a", name="x")
    run.log_metrics({"loss": 5.0}, step=3)
    run.finish("interrupted")
    again = cas.track("a", name="x", resume="auto")
    assert (again.name, again.resumed) == ("a/x", None)
    told = "a/x was interrupted after step 3: it begins again, as it had no checkpoint yet"
    assert told in capsys.readouterr().err
    again.log_metrics({"loss": 1.0})
    again.finish()
    repo = opened(here)
    end = repo.commit(repo.root.refs["runs/a/x"])
    assert points(repo, end) == {"loss": [(0, 1.0)]}
    assert end.seq == 2


def test_a_checkpoint_that_was_let_go_of_is_passed_over(here: Path) -> None:
    run = cas.track("a", name="x", retention=cas.Keep(best=1))
    for step, loss in enumerate([1.0, 2.0]):
        run.save_checkpoint(model={"w": step}, step=step, metrics={"loss": loss}, wait=True)
    run.finish("failed")
    repo = opened(here)
    newest, _ = checkpoints(repo, repo.root.refs["runs/a/x"])[-1]
    transact(repo, "prune", lambda tx: tx.set_ref(f"holds/{newest}", None))
    again = cas.track("a", name="x", resume="auto")
    assert again.resumed != newest
    assert again.load_checkpoint(str(again.resumed)).step == 0
    assert [step for step, _ in _points(again)] == [0]
    again.finish()


def _points(run: Run) -> Any:
    part = run._live.state.metrics.points("loss")
    return list(zip(part["steps"], part["values"], strict=True))


def test_who_goes_on_with_a_run_that_still_lives_parts_from_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of another host that was taken for dead: it and its successor harm each other not."""
    first = cas.track("a", name="x")
    first.save_checkpoint(model={"w": 1}, step=1, wait=True)
    repo = opened(here)
    found = next(one for one in open_runs(repo) if one.run == "a/x")
    recover(repo, found, force=True)
    second = cas.track("a", name="x", resume="auto")
    assert second.name == "a/x"
    first.log_metrics({"old": 1.0})
    first.save_checkpoint(model={"w": 9}, step=9, wait=True)
    second.log_metrics({"new": 1.0})
    second.save_checkpoint(model={"w": 2}, step=2, wait=True)
    assert first.name == "a/x-2"
    second.finish()
    first.finish()
    repo = opened(here)
    ends = {name: repo.commit(repo.root.refs[f"runs/a/{name}"]) for name in ("x", "x-2")}
    assert set(points(repo, ends["x"])) == {"new"}
    assert set(points(repo, ends["x-2"])) == {"old"}


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another host, to which the locks of this one do not reach."""
    place = HostInfo("elsewhere", "its boot", "its processes")
    for module in (recovery, resume):
        monkeypatch.setattr(module, "here", lambda: place)
    monkeypatch.setattr(recovery, "is_locked", lambda _: False)


class TestJobs:
    def test_a_job_is_told_by_its_key_or_by_the_cluster(self) -> None:
        assert Job.of({}) is None
        assert Job.of({"CAS_RUN_KEY": "k", "SLURM_JOB_ID": "5"}) == Job("key", "k")
        assert Job.of({"SLURM_JOB_ID": "5"}) == Job("slurm", "5")
        array = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
        assert Job.of(array) == Job("slurm", "5", "2")
        assert [Job("key", "night: 3").name, Job("slurm", "5", "2").name] == ["night-3", "job-5-2"]

    def test_a_job_names_its_run(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "81")
        run = cas.track("a", resume="auto")
        assert run.name == "a/job-81"
        run.finish("failed")
        again = cas.track("a", resume="auto")
        assert again.name == "a/job-81"
        again.finish()

    def test_tasks_of_an_array_go_on_with_their_own(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
        for task, name in [("1", "a/x"), ("2", "a/x-2"), ("1", "a/x"), ("2", "a/x-2")]:
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
            run = cas.track("a", name="x", resume="auto")
            assert run.name == name
            run.finish("failed")

    def test_a_new_job_goes_on_with_the_run_of_an_old_one_by_its_name(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for job in ("5", "6"):
            monkeypatch.setenv("SLURM_JOB_ID", job)
            run = cas.track("a", name="x", resume="auto")
            assert run.name == "a/x"
            run.finish("failed")

    def test_another_key_is_another_run(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for key, name in [("k", "a/x"), ("l", "a/x-2"), ("k", "a/x"), ("", "a/x")]:
            monkeypatch.setenv("CAS_RUN_KEY", key)
            run = cas.track("a", name="x", resume="auto")
            assert run.name == name
            run.finish("failed")

    def test_without_a_name_or_a_job_it_is_refused(self, here: Path) -> None:
        with pytest.raises(InvalidInputError, match="give name=, or set CAS_RUN_KEY"):
            cas.track("a", resume="auto")
        with pytest.raises(InvalidInputError, match="resume is 'never' or 'auto', not 'always'"):
            check_resume("always")


def test_two_that_want_to_go_on_with_one_run_do_not_both(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    broken()
    real = resume.find

    def find(repo: Repo, *given: Any, **options: Any) -> Any:
        found = real(repo, *given, **options)
        monkeypatch.setattr(resume, "find", real)
        cas.track("a", name="x", resume="auto")
        return found

    monkeypatch.setattr(resume, "find", find)
    run = cas.track("a", name="x", resume="auto")
    assert run.name == "a/x-2"
    assert (run.params, run.resumed) == ({}, None)
    assert "cas: a/x is running (process " in capsys.readouterr().err
    run.finish()


def test_the_newest_that_got_a_number_goes_on_where_the_first_has_finished(here: Path) -> None:
    cas.track("a", name="x").finish()
    for _ in range(2):
        cas.track("a", name="x").finish("failed")
    names = []
    for status in ("finished", "finished", "failed"):
        run = cas.track("a", name="x", resume="auto")
        names.append(run.name)
        run.finish(status)
    assert names == ["a/x-3", "a/x-2", "a/x-4"]


def test_tasks_of_a_new_array_go_on_with_those_of_the_old_one_by_number(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job, task, name in [("5", "1", "a/x"), ("5", "2", "a/x-2"), ("6", "2", "a/x-2")]:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", job)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        run = cas.track("a", name="x", resume="auto")
        assert run.name == name
        run.finish("failed")


def test_a_run_that_says_nothing_for_long_is_taken_over_from_another_host(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    first = cas.track("a", name="x")
    first.save_checkpoint(model={"w": 1}, step=1, wait=True)
    first._live._feed.halt()  # its process is gone, as far as anybody elsewhere can tell
    elsewhere(monkeypatch)
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 1.0)
    run = cas.track("a", name="x", resume="auto")
    assert (run.name, run.load_checkpoint().step) == ("a/x", 1)
    assert "waiting up to 1 s for a sign of life" in capsys.readouterr().err
    run.finish()


def test_one_that_gives_a_sign_of_life_is_left_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    first = cas.track("a", name="x")
    first.save_checkpoint(model={"w": 1}, step=1, wait=True)
    elsewhere(monkeypatch)
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 100.0)
    monkeypatch.setattr("time.sleep", lambda _: first.log_params({"alive": True}))
    run = cas.track("a", name="x", resume="auto")
    assert (run.name, run.resumed) == ("a/x-2", None)
    run.finish()
    first.finish()
    repo = opened(here)
    assert {repo.commit(repo.root.refs[f"runs/a/{name}"]).status for name in ("x", "x-2")} == {
        "finished"
    }


def test_one_whose_job_was_started_again_is_not_waited_for(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    first = cas.track("a", resume="auto")
    first.save_checkpoint(model={"w": 1}, step=1, wait=True)
    elsewhere(monkeypatch)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run = cas.track("a", resume="auto")
    assert (run.name, run.load_checkpoint().step) == ("a/job-7", 1)
    run.finish()


def test_a_run_whose_journal_is_gone_goes_on_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(here, 12)
    repo = opened(here)
    for path in (repo.path / "journals").iterdir():
        path.unlink()
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.2)
    run = cas.track("a", name="x", resume="auto")
    assert (run.name, run.load_checkpoint().step) == ("a/x", 10)
    assert [step for step, _ in _points(run)] == list(range(11))
    run.finish()
