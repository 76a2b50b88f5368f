"""A run that broke off and went on shows all that it would have shown, and nothing twice."""

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.repo.collect import gc
from cas.repo.transaction import transact
from cas.tracking.run import Run
from cas.tracking.view import RunView
from tests.support.builders import whole
from tests.support.runs import cas as command
from tests.support.runs import opened, points, python, script

Capture = pytest.CaptureFixture[str]


def begun(name: str = "x") -> Run:
    return cas.track(
        "a", name=name, resume="auto", log_every={"thin": 4}, system_metrics=False, watch=False
    )


def train(run: Run, first: int, last: int, save: int = -1) -> None:
    """Steps of a loop that logs one of each kind."""
    for step in range(first, last):
        value = np.sin(step) * 1e3
        run.log_metrics({"loss": value, "thin": value / 3}, step=step, epoch=step // 4)
        run.log_image("image", np.full((4, 4), step, np.uint8), step=step)
        run.log_text("text", f"step {step}", step=step)
        run.log_table("table", {"step": [step]}, step=step)
        run.log_histogram("many", np.arange(step + 1), step=step)
        run.log_embedding("vectors", np.full((3, 2), step), step=step)
        if step % 3 == 0:
            run.alert("third", f"at {step}")
        if step == save:
            run.save_checkpoint(model={"w": step}, step=step, wait=True)


def told(view: RunView) -> dict[str, Any]:
    """All that a run shows, but for times."""
    curves = cas.read_metrics(str(view.commit))
    epochs = {name: curve.epochs for name, curve in curves.items()}
    return {
        "points": {name: (p.steps.tolist(), p.values.tolist()) for name, p in view.metrics.items()},
        "summary": view.summary,
        "epochs": {
            name: [found.numbers.tolist(), found.count.tolist(), found.mean.tolist()]
            for name, found in epochs.items()
            if found is not None
        },
        "logged": {
            (kind, key): [(item.step, item.size, repr(item.value())) for item in view.logged(key)]
            for kind, keys in view.keys().items()
            for key in keys
        },
        "events": [(event["kind"], event["text"]) for event in view.events],
    }


def test_all_of_it_is_shown_once(here: Path) -> None:
    run = begun("once")
    train(run, 0, 14)
    run.finish()
    for first, last, save in [(0, 9, 5), (6, 11, 8), (9, 13, -1), (9, 14, -1)]:
        run = begun()
        train(run, first, last, save)
        run.finish("finished" if last == 14 else "failed")
    view = cas.open_run("a/x")
    assert told(view) == told(cas.open_run("a/once"))
    assert [once["step"] for once in view.resumed] == [5, 8, 8]
    repo = opened(here)
    ends = [repo.commit(repo.root.refs[f"runs/a/{name}"]) for name in ("x", "once")]
    for name in ("metrics", "epochs", "summary.json", "logged", "logged.data"):
        one, other = (repo.lookup(end.tree, name.encode()) for end in ends)
        assert one is not None
        assert one == other
    assert whole(repo)


def test_what_the_machine_showed_stays(here: Path) -> None:
    run = begun()
    run._live.state.system.add({"cpu_percent": 7.0}, 1_000_000, 1.0)
    run.save_checkpoint(model={}, step=1, wait=True)
    run._live.state.system.add({"cpu_percent": 8.0}, 2_000_000, 2.0)
    for kind in ("stalled", "alert"):
        run._live.note(
            {"t": "event", "time": run._live.clock() / 1e6, "kind": kind, "title": "t"}
            | {"text": "", "metric": "", "step": 2}
        )
    run.finish("failed")
    begun().finish()
    view = cas.open_run("a/x")
    seen = view.system["cpu_percent"]
    assert (seen.steps.tolist(), seen.values.tolist()) == ([1_000_000, 2_000_000], [7.0, 8.0])
    assert seen.times.tolist() == [1.0, 2.0]
    assert [event["kind"] for event in view.events] == ["stalled"]  # the alert comes again


def test_what_was_shown_before_a_checkpoint_is_stored_with_it(here: Path) -> None:
    text = """
import numpy as np
run = cas.track("a", name="x", resume="auto")
run.log_image("i", np.zeros((4, 4), np.uint8), step=1)
run.log_text("t", "said", step=1)
run.save_checkpoint(model={"w": 1}, step=1).commit
os.kill(os.getpid(), 9)
"""
    python(here, script(here, text), code=-signal.SIGKILL)
    run = cas.track("a", name="x", resume="auto")
    run.finish()
    view = cas.open_run("a/x")
    assert [item.step for key in ("i", "t") for item in view.logged(key)] == [1, 1]
    assert view.logged("i")[0].value().shape == (4, 4)


def test_a_clock_that_is_behind_that_of_the_host_before_does_no_harm(
    here: Path,
) -> None:
    run = begun()
    ahead = 4_000_000_000_000_000  # microseconds, which the next host's clock is not
    run.repo.clock = lambda: ahead + time.monotonic_ns() // 1000
    train(run, 0, 3, save=2)
    run.finish("failed")
    run = begun()
    train(run, 3, 6, save=4)
    run.finish("failed")
    run = begun()
    train(run, 5, 7)
    run.finish()
    view = cas.open_run("a/x")
    assert [item.step for item in view.logged("text")] == list(range(7))
    assert [event["text"] for event in view.events] == ["at 0", "at 3", "at 6"]


def test_files_stay_when_what_the_run_broke_off_with_is_let_go_of(here: Path) -> None:
    run = begun()
    train(run, 0, 4, save=2)
    run.finish("failed")
    repo = opened(here)
    tip = repo.root.refs["runs/a/x"]
    run = begun()
    transact(repo, "let go", lambda tx: tx.set_ref(f"holds/{tip}", None))
    gc.execute(repo, gc.plan(repo))
    train(run, 3, 5)
    run.finish()
    assert [item.value()[0, 0] for item in cas.open_run("a/x").logged("image")] == [0, 1, 2, 3, 4]
    assert command(here, "fsck", "--full").returncode == 0


def test_what_is_gone_already_is_named_and_left_out(here: Path, capsys: Capture) -> None:
    run = begun()
    train(run, 0, 4, save=2)
    run.finish("failed")
    repo = opened(here)
    tip = repo.root.refs["runs/a/x"]
    transact(repo, "let go", lambda tx: tx.set_ref(f"holds/{tip}", None))
    gc.execute(repo, gc.plan(repo))
    capsys.readouterr()
    run = begun()
    said = capsys.readouterr().err
    assert "not taken over, as it cannot be read any more: embedding vectors, image image" in said
    run.finish()
    assert set(cas.open_run("a/x").keys()) == {"histogram", "text"}


def test_a_run_that_went_on_and_lost_its_journal_shows_it_too(here: Path) -> None:
    run = begun()
    train(run, 0, 9, save=5)
    run.finish("failed")
    run = begun()
    run._live.journal.unlink()
    run._live._feed.halt()
    view = cas.open_run("a/x")
    assert view.status == "orphaned"
    assert view.metrics["loss"].steps.tolist() == list(range(6))
    assert view.summary["thin"]["count"] == 6
    for key in ("text", "image"):
        assert [item.step for item in view.logged(key)] == list(range(6))
    assert [event["text"] for event in view.events] == ["at 0", "at 3"]


def test_a_checkpoint_shows_the_whole_curve_up_to_it(here: Path) -> None:
    saved = []
    for first, last, save in [(0, 9, 5), (6, 11, 8)]:
        run = begun()
        train(run, first, last, save)
        saved.append(run.latest())
        run.finish("failed")
    for id, steps in zip(saved, (6, 9), strict=True):
        view = cas.open_run(str(id))
        points = view.metrics["loss"]
        assert points.steps.tolist() == list(range(steps))
        assert len(points.values) == len(points.times) == steps
        assert list(view.metrics) == ["loss", "thin"]
        with pytest.raises(KeyError):
            view.metrics["nothing"]
        (epochs,) = [cas.read_metrics(str(id))["loss"].epochs]
        assert epochs is not None
        assert epochs.count.sum() == steps


def test_points_that_are_left_out_stay_left_out(here: Path) -> None:
    run = begun()
    train(run, 0, 7, save=6)
    run.finish("failed")
    run = cas.track("a", name="x", resume="auto", system_metrics=False)  # now keeps every point
    train(run, 7, 12)
    repo = opened(here)
    run._live.flush()
    known = run.summary["thin"]
    assert cas.open_run("a/x").summary["thin"] == known  # as the journal says it
    assert known["count"] == 12
    run.finish()
    end = repo.commit(repo.refresh().refs["runs/a/x"])
    assert [step for step, _ in points(repo, end)["thin"]] == [0, 4, 7, 8, 9, 10, 11]


def test_a_lost_run_says_so(here: Path) -> None:
    text = "run = cas.track('a', name='x')\nrun.log({'m': 1})\nos.kill(os.getpid(), 9)\n"
    python(here, script(here, text), code=-signal.SIGKILL)
    assert cas.open_run("a/x").status == "lost"
    said = command(here, "status").stdout
    assert "a/x is lost: its process is gone" in said
    assert 'started again with resume="auto", a lost run goes on from its newest checkpoint' in said
    assert cas.open_run("a/x").status == "lost"  # looking changes nothing
    run = cas.track("a", name="x")
    assert cas.open_run("a/x").status == "crashed"
    assert cas.open_run("a/x-2").status == "running"
    run.finish()
