"""`cas.fork`: another run from a checkpoint, with all that a run takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cas
from cas.repo import annotations
from tests.support.runs import opened
from tests.unit.tracking.test_going_on import broken


def test_a_fork_takes_all_that_a_run_does(here: Path) -> None:
    broken(params={"lr": 1, "deep": 1})
    lines: list[Mapping[str, Any]] = []

    class Kept:
        def take(self, line: Mapping[str, Any]) -> None:
            lines.append(line)

        def close(self) -> None:
            """Nothing to close."""

    fork = cas.fork(
        "a/x",
        name="f",
        config={"params": {"lr": 2}, "labels": ["of-config"], "name": "other"},
        params={"more": 3},
        labels=["one"],
        tags=["two"],
        group="g",
        total=100,
        log_every=5,
        system_metrics=False,
        capture={"code": False},
        sinks=[Kept()],
    )
    assert fork.name == "a/f"
    assert fork.params == {"lr": 2, "deep": 1, "more": 3}
    assert fork.progress.total == 100
    for _ in range(6):
        fork.log_metrics({"loss": 1.0})
    fork.finish()
    view = cas.open_run("a/f")
    assert view.metrics["loss"].steps.tolist() == [5, 10]  # behind the checkpoint's last one
    assert view.document("source.json")["not_captured"] == ["code"]
    assert view.document("config.json")["params"] == {"lr": 2}
    repo = opened(here)
    end = repo.commit(repo.root.refs["runs/a/f"])
    assert annotations.of_run(repo, end).labels == ("of-config", "one", "two")
    assert lines


def test_a_fork_goes_on_where_it_broke_off(here: Path) -> None:
    base = broken(params={"lr": 1}).latest()
    fork = cas.fork("a/x", name="f", params={"lr": 2}, resume="auto")
    assert (fork.resumed, fork.load_checkpoint().step) == (None, 4)
    fork.save_checkpoint(model={"w": 9}, step=9, wait=True)
    fork.finish("interrupted")
    more = cas.track("a", name="x", resume="auto")  # what it was forked from goes on meanwhile
    more.save_checkpoint(model={"w": 7}, step=7, wait=True)
    more.finish()
    again = cas.fork("a/x", name="f", params={"lr": 2}, resume="auto")
    assert (again.name, again.load_checkpoint().step) == ("a/f", 9)
    again.finish()
    repo = opened(here)
    end = repo.commit(repo.root.refs["runs/a/f"])
    assert [parent.commit for parent in end.parents_of("resumed-from")] == [base]
    (once,) = cas.open_run("a/f").resumed
    assert (once["step"], once["params"]) == (9, {})


def test_a_run_that_went_on_is_forked(here: Path) -> None:
    broken(params={"lr": 1})
    run = cas.track("a", name="x", resume="auto")
    run.save_checkpoint(model={"w": 6}, step=6, wait=True)
    run.finish()
    fork = cas.fork("a/x", name="f")
    assert (fork.params, fork.load_checkpoint().step) == ({"lr": 1}, 6)
    fork.finish()
