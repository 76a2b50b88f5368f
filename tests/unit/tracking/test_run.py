"""A run as a training script sees it: what it records, and what it says."""

import json
import math
import subprocess
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError, TrackingError
from cas.repo.collect import gc
from cas.repo.transaction import Transaction, transact
from tests.support.runs import (
    checkpoints,
    everything,
    listing,
    names,
    only_run,
    opened,
    points,
    python,
    script,
    text,
)

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
Capture = pytest.CaptureFixture[str]


def test_two_lines_tell_where_a_run_is_and_how_it_ended(here: Path, capsys: Capture) -> None:
    with cas.track("digits", name="base") as run:
        run.log({"loss": 0.25})
    said = capsys.readouterr()
    made, begun, ended = said.err.splitlines()
    repo = opened(here)
    id, commit = only_run(repo)
    assert said.out == ""
    assert made == f"cas: created repository {here}/.cas"
    assert begun == f"cas: run digits/base in {here}/.cas"
    assert ended.startswith(f"cas: finished digits/base {id.short} · loss 0.25 · stored ")
    assert (commit.kind, commit.status, commit.full_name) == ("run", "finished", "digits/base")
    assert [ref for ref in repo.root.refs if ref.startswith("open/")] == []
    assert list((repo.path / "journals").iterdir()) == []


def test_the_last_line_begins_with_what_runs_are_judged_by(here: Path, capsys: Capture) -> None:
    with cas.track("digits", strategy=cas.Strategy(monitor="val")) as run:
        for step in range(3):
            run.log({"z": step, "a": 10 * step})
        run.log(dict.fromkeys("bcde", 1) | {"val": 0.5}, step=3)
    assert " · val 0.5 · a 20 · z 2 · b 1 · stored " in capsys.readouterr().err.splitlines()[-1]


def test_params_may_be_nested_and_of_any_kind(here: Path) -> None:
    run = cas.track("a", params={"lr": 0.1, "opt": {"betas": (0.9, 0.99), 3: None}})
    run.log_params(
        {
            "n": np.float32(0.5),
            "path": Path("x"),
            "big": 2**70,
            "set": {2, 1},
            "flag": np.bool_(True),
            "money": Decimal("1.5"),
            "broken": "a\udcffb",
            "nan": math.nan,
        }
    )
    run.log_params({"lr": 0.2})
    params = run.params
    run.finish()
    repo = opened(here)
    _, commit = only_run(repo)
    known = repo.document(commit.tree, "params.json")
    assert json.dumps(known, sort_keys=True) == json.dumps(params, sort_keys=True)
    assert isinstance(known, dict)
    assert math.isnan(known.pop("nan"))
    assert known == {
        "lr": 0.2,
        "opt": {"betas": [0.9, 0.99], "3": None},
        "n": 0.5,
        "path": "x",
        "big": str(2**70),
        "set": [1, 2],
        "flag": True,
        "money": "1.5",
        "broken": "a\\udcffb",
    }


def test_params_that_are_no_mapping_are_refused_at_once_or_kept_for_the_end(here: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"vars\(\)"):
        cas.track("a", params=[1, 2])  # type: ignore[arg-type]
    run = cas.track("a")
    run.log_params(object())  # type: ignore[arg-type]
    with pytest.raises(TrackingError, match="log_params: params are a mapping"):
        run.finish()


def test_no_secret_reaches_an_object(here: Path) -> None:
    (here / "keys.py").write_text(f"TOKEN = '{TOKEN}'\n")
    path = script(
        here,
        f"""
class Link:
    def __str__(self):
        return "https://me:{TOKEN}@example.org/x"
number = int("1234" + "5678")
params = {{"t": "{TOKEN}", "n": {{"link": Link()}}, "api_key": number}}
run = cas.track("a", params=params, notes="{TOKEN}", labels=["{TOKEN}"], group="{TOKEN}")
run.log_params({{"later": ["{TOKEN}"]}})
(open("data.csv", "w")).write("1,2\\n")
run.track_dataset("data.csv", metadata={{"token": "{TOKEN}"}})
run.finish(message="with {TOKEN}") if "-m" in sys.argv else None
raise ValueError("{TOKEN}")
""",
    )
    env = {"OMP_NUM_THREADS": TOKEN, "MY_TOKEN": TOKEN}
    for more in ([], ["-m"]):
        python(here, path, "--token", TOKEN, f"--url=https://u:{TOKEN}@h/", *more, code=1, env=env)
    repo = opened(here)
    stored = everything(repo)
    assert TOKEN.encode() not in stored
    assert b"[secret removed]" in stored
    assert b"12345678" not in stored
    assert b"with [secret removed]" in stored
    assert TOKEN.encode() not in b"".join(path.read_bytes() for path in repo.path.rglob("*.json"))


def test_git_does_not_notice_a_run(here: Path) -> None:
    def git(*args: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *who, *args], cwd=here, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    path = script(here, "with cas.track('a') as run:\n    run.log({'x': 1})\n")
    git("add", ".")
    git("commit", "-qm", "first")
    (here / "new.py").write_text("")
    before = {name: found for name, found in listing(here / ".git").items() if name != "cas"}
    status = git("--no-optional-locks", "status", "--porcelain")
    python(here, path)
    after = listing(here / ".git")
    assert {name: found for name, found in after.items() if name.split("/")[0] != "cas"} == before
    assert git("--no-optional-locks", "status", "--porcelain") == status
    for command in (["clean", "-fdxq"], ["stash", "-aq"], ["checkout", "-qb", "other"]):
        git(*command)
        assert only_run(opened(here))[1].status == "finished"


def test_what_is_captured(here: Path) -> None:
    (here / "lib.py").write_text("X = 1\n")
    python(here, script(here, "cas.track(seed=7, labels=['l'], group='g', notes='n')"), "--a", "1")
    repo = opened(here)
    _, commit = only_run(repo)
    assert names(repo, commit.tree) == [
        "code", "command.json", "environment.json", "host.json", "notes.json", "params.json",
        "seeds.json", "source.json", "summary.json",
    ]  # fmt: skip
    assert commit.experiment == "train"
    assert text(repo, commit, "code/lib.py") == "X = 1\n"
    assert json.loads(text(repo, commit, "command.json")) == {
        "kind": "script",
        "python": [],
        "argv": ["train.py", "--a", "1"],
        "cwd": ".",
        "ordinal": 0,
    }
    assert json.loads(text(repo, commit, "seeds.json")) == {"seed": 7}
    assert json.loads(text(repo, commit, "notes.json")) == {
        "labels": ["l"], "group": "g", "notes": "n"
    }  # fmt: skip
    assert json.loads(text(repo, commit, "source.json"))["entry"] == "train.py"
    found = json.loads(text(repo, commit, "environment.json"))
    assert found["packages"]["blake3"]
    assert json.loads(text(repo, commit, "host.json"))["top"] == str(here)


def test_steps_go_on_from_the_furthest(here: Path) -> None:
    with cas.track("a") as run:
        run.log({"x": 1.0, "y": np.float64(2)})
        run.log({"x": 2})
        run.log({"z": True}, step=10)
        run.log_metrics({"x": math.inf})
        run.log({"y": 5}, step=3)
        run.log({"x": 0.5}, step=np.int64(-4))  # type: ignore[arg-type]
        run.log({"x": 0.25})
    repo = opened(here)
    _, commit = only_run(repo)
    assert points(repo, commit) == {
        "x": [(0, 1.0), (1, 2.0), (11, math.inf), (-4, 0.5), (12, 0.25)],
        "y": [(0, 2.0), (3, 5.0)],
        "z": [(10, 1.0)],
    }
    summary = repo.document(commit.tree, "summary.json")
    assert isinstance(summary, dict)
    assert summary["y"]["last"] == 5.0
    assert summary["x"]["count"] == 5
    wall = points(repo, commit, "times")
    assert {name: len(rows) for name, rows in wall.items()} == {"x": 5, "y": 2, "z": 1}


def test_what_cannot_be_recorded_is_told_once_for_each_call_and_raised_at_the_end(
    here: Path, capsys: Capture
) -> None:
    run = cas.track("a")
    capsys.readouterr()
    run.log_metrics({"loss": "high"})
    run.log_metrics({"loss": 1.0, "other": [1, 2]})
    run.log({"loss": 0.5}, step=1.5)  # type: ignore[arg-type]
    run.log(5)  # type: ignore[arg-type]
    run.log()  # type: ignore[call-arg]
    run.log_artifact("nowhere.txt")
    run.track_dataset(object(), name="x")
    run.track_dataset([1.0])
    assert run.save_checkpoint(model={"w": {1, 2}}).commit is None
    run.log({"loss": 0.25})
    warned = capsys.readouterr().err
    told = [line for line in warned.splitlines() if "training goes on" in line]
    assert [line.split(": ")[2] for line in told] == [
        "log_metrics", "log", "log_artifact", "track_dataset", "save_checkpoint",
    ]  # fmt: skip
    assert warned.count("warning") == len(told)
    assert "log_metrics: metric 'loss' is a str" in warned
    with pytest.raises(
        TrackingError, match=r"9 calls of run a/.* failed; first: log_metrics: metric"
    ):
        run.finish()
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.status == "finished"
    assert points(repo, commit) == {"loss": [(0, 0.25)]}


def test_a_wrong_metric_of_a_checkpoint_does_not_cost_the_checkpoint(here: Path) -> None:
    run = cas.track("a")
    assert run.save_checkpoint(model={"w": 1}, metrics={"loss": "?"}, step=1).commit
    with pytest.raises(TrackingError, match="log_metrics: metric 'loss'"):
        run.finish()
    assert run.load_checkpoint().state["model"] == {"w": 1}


def test_threads_may_log_at_once(here: Path) -> None:
    run = cas.track("a")

    def work(number: int) -> None:
        for step in range(200):
            run.log({f"m{number}": step}, step=step)
        run.log_params({f"p{number}": number})
        run.save_checkpoint(model={"w": number}, step=number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    repo = opened(here)
    tip, commit = only_run(repo)
    found = points(repo, commit)
    assert found == {f"m{n}": [(step, float(step)) for step in range(200)] for n in range(4)}
    parts = [points(repo, part) for _, part in checkpoints(repo, tip)]
    assert len(parts) == 4
    for name, whole in found.items():
        assert [point for part in parts for point in part.get(name, [])] == whole


def test_a_clock_that_goes_back_changes_nothing_but_the_times(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(1000, 0, -1))
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    monkeypatch.setattr("time.time_ns", lambda: next(now) * 10**9)
    run = cas.track("a")
    run.log({"x": 1})
    run.save_checkpoint(model={"w": 1}, step=1)
    run.log({"x": 2})
    run.save_checkpoint(model={"w": 2}, step=2)
    assert run.load_checkpoint("latest").state["model"] == {"w": 1}  # by what the commits say
    run.finish()
    assert points(run.repo, only_run(run.repo)[1]) == {"x": [(0, 1.0), (1, 2.0)]}


def test_a_live_run_has_a_draft_that_says_what_it_began_with(here: Path) -> None:
    (here / "x").write_bytes(b"x" * 70_000)
    run = cas.track("a", name="x", params={"lr": 1})
    repo = opened(here)
    draft = repo.commit(repo.root.refs["open/a/x"])
    assert (draft.kind, draft.status) == ("draft", "running")
    assert repo.document(draft.tree, "params.json") == {"lr": 1}
    run.log_artifact("x")
    old, new = repo.root.refs["open/a/x"], repo.refresh().refs["open/a/x"]
    assert old != new
    assert f"holds/{new}" in repo.root.refs  # gc takes nothing that the journal names
    run.finish()
    assert not [ref for ref in repo.refresh().refs if ref.startswith("open/")]
    assert f"holds/{new}" not in repo.root.refs


def test_the_monitor_of_a_run_is_in_its_commits(here: Path) -> None:
    with cas.track("a") as run:
        run.save_checkpoint(model={"w": 1}, epoch=0, metrics={"val_loss": 0.5, "accuracy": 0.1})
        run.save_checkpoint(model={"w": 2}, epoch=1, metrics={"val_loss": 0.7, "accuracy": 0.2})
        assert run.load_checkpoint("best").epoch == 0
        assert run.load_checkpoint("latest").epoch == 1
    commit = only_run(opened(here))[1]
    assert commit.monitor is not None
    assert (commit.monitor.metric, commit.monitor.mode) == ("val_loss", "min")
    assert commit.monitor.value == 0.7


def test_what_a_run_was_made_from_cannot_go_while_it_lives(here: Path) -> None:
    with cas.track("a", name="x") as run:
        id = run.track_dataset([1.0], name="d")
        repo = opened(here)

        def drop(tx: Transaction) -> None:
            tx.set_ref("datasets/d", None)
            tx.set_ref(f"holds/{id}", None)

        transact(repo, "drop", drop)
        gc.execute(repo, gc.plan(repo))
    commit = only_run(opened(here))[1]
    assert [parent.commit for parent in commit.parents] == [id]
