"""Checkpoints: what goes in comes back, and training goes on as if nothing had been."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError, NotFoundError, TrackingError
from cas.ids import CommitId
from cas.repo.transaction import transact
from cas.tracking import live
from tests.support.runs import checkpoints, everything, only_run, opened, points


class Part:
    """What frameworks call a module or an optimizer, as far as a checkpoint cares."""

    def __init__(self, state: object) -> None:
        self.state = state

    def state_dict(self) -> object:
        return self.state

    def load_state_dict(self, state: object) -> None:
        self.state = state


STATE = {"w": [1.5, -0.0], "n": {1: (2, None)}, "big": 2**80}


def drop_hold(folder: Path, id: CommitId) -> None:
    transact(opened(folder), "prune", lambda tx: tx.set_ref(f"holds/{id}", None))


def test_parts_come_back_into_what_takes_them(here: Path) -> None:
    run = cas.track("a")
    saved = run.save_checkpoint(
        model=Part(STATE),
        optimizer=Part({"lr": 0.1}),
        scheduler=Part({"t": 3}),
        step=30,
        epoch=3,
        metrics={"loss": np.float32(0.5)},
        extra={"order": [3, 1]},
    ).commit
    model, optimizer, scheduler = Part(None), Part(None), Part(None)
    loaded = run.load_checkpoint(model=model, optimizer=optimizer, scheduler=scheduler)
    assert (model.state, optimizer.state, scheduler.state) == (STATE, {"lr": 0.1}, {"t": 3})
    assert (loaded.commit, loaded.step, loaded.epoch) == (saved, 30, 3)
    assert loaded.metrics == {"loss": 0.5}
    assert loaded.state["extra"] == {"order": [3, 1]}
    run.finish()
    repo = opened(here)
    commit = repo.commit(loaded.commit)
    assert (commit.kind, commit.status, commit.step, commit.seq) == ("checkpoint", "running", 30, 1)
    assert repo.document(commit.tree, "checkpoint.json") == {
        "epoch": 3,
        "metrics": {"loss": 0.5},
        "parts": ["epoch", "extra", "model", "optimizer", "rng", "scheduler", "step"],
        "lacks": ["data"],
    }
    assert f"holds/{saved}" in repo.root.refs
    assert points(repo, commit) == {"loss": [(30, 0.5)]}


def test_random_generators_go_on_where_they_stood(here: Path) -> None:
    run = cas.track("a", seed=1)
    run.save_checkpoint(model={})
    expected = (random.random(), np.random.rand(), random.gauss(0, 1))
    random.random()
    run.load_checkpoint()
    assert (random.random(), np.random.rand(), random.gauss(0, 1)) == expected
    random.seed(5)
    before = random.getstate()
    run.load_checkpoint(restore_rng=False)
    assert random.getstate() == before


def test_latest_best_and_any_revision(here: Path) -> None:
    run = cas.track("a", name="x")
    with pytest.raises(NotFoundError, match="checkpoint of run a/x not found: none has been saved"):
        run.load_checkpoint()
    ids = [
        run.save_checkpoint(model={"w": step}, step=step, metrics={"val_loss": loss}).commit
        for step, loss in enumerate([3.0, 1.0, 2.0])
    ]
    assert run.load_checkpoint().commit == ids[2]
    assert run.load_checkpoint("latest").commit == ids[2]
    assert run.load_checkpoint("best").commit == ids[1]
    run.finish()
    assert run.load_checkpoint("best").commit == ids[1]
    other = cas.track("b")
    for rev, expected in [("a/x@best", 1), ("a/x", 2), ("a/x~1", 2), (str(ids[0])[:12], 0)]:
        assert other.load_checkpoint(rev).commit == ids[expected]
    with pytest.raises(NotFoundError):
        other.load_checkpoint("best")
    with pytest.raises(NotFoundError, match="revision a/y not found"):
        other.load_checkpoint("a/y")
    data = other.track_dataset([1.0], name="d")
    with pytest.raises(InvalidInputError, match="is no checkpoint: it is a commit of kind input"):
        other.load_checkpoint(str(data))
    other.finish()
    with pytest.raises(NotFoundError, match=r"checkpoint of b/.* not found: the run saved none"):
        other.load_checkpoint(other.name)


def test_nothing_is_loaded_when_a_part_is_missing(here: Path) -> None:
    run = cas.track("a")
    run.save_checkpoint(model=Part({"w": 1}))
    model = Part("untouched")
    before = random.getstate()
    with pytest.raises(NotFoundError, match=r"optimizer in checkpoint .*: it holds model"):
        run.load_checkpoint(model=model, optimizer=Part(None))
    with pytest.raises(InvalidInputError, match="model has no load_state_dict"):
        run.load_checkpoint(model={})
    assert model.state == "untouched"
    assert random.getstate() == before


def test_a_pruned_checkpoint_says_so(here: Path) -> None:
    from cas.repo.collect import gc

    run = cas.track("a", name="x")
    first = run.save_checkpoint(model={"w": list(range(1000))}, step=1).commit
    run.save_checkpoint(model={"w": 2}, step=2)
    run.finish()
    assert first is not None
    drop_hold(here, first)
    with pytest.raises(NotFoundError, match=r"state of .* not found: the checkpoint was pruned"):
        cas.fork(str(first))
    repo = opened(here)
    gc.execute(repo, gc.plan(repo))
    with pytest.raises(NotFoundError, match=r"state of .* not found: the checkpoint was pruned"):
        cas.track("b").load_checkpoint(str(first))
    assert cas.track("b").load_checkpoint("a/x").state["model"] == {"w": 2}


def test_a_fork_has_the_params_and_the_edge_of_its_checkpoint(here: Path) -> None:
    run = cas.track("a", name="x", params={"lr": 0.1, "n": {"b": 1}})
    run.save_checkpoint(model={"w": 1}, step=1)
    last = run.save_checkpoint(model={"w": 2}, step=2).commit
    run.finish()
    with cas.fork("a/x", name="y", params={"lr": 0.2, "api_key": "x" * 30}) as fork:
        assert fork.name == "a/y"
        assert fork.params == {"lr": 0.2, "n": {"b": 1}, "api_key": "[secret removed]"}
        assert fork.load_checkpoint().commit == last
        own = fork.save_checkpoint(model={"w": 3}, step=3).commit
        assert fork.load_checkpoint("latest").commit == own
    repo = opened(here)
    commit = repo.commit(repo.root.refs["runs/a/y"])
    roles = {parent.role: parent.commit for parent in commit.parents}
    assert roles == {"previous": own, "resumed-from": last}
    with pytest.raises(NotFoundError, match="the run saved none"):
        cas.fork(cas.track("c").name)
    assert cas.fork("a/x~2", experiment="z").name.startswith("z/")


def test_the_steps_of_a_fork_go_on_after_its_checkpoint(here: Path) -> None:
    with cas.track("a", name="x") as run:
        for _ in range(3):
            run.log({"loss": 1.0})
        run.save_checkpoint(model={}, step=1)
        run.log({"loss": 9.0})
    with cas.fork("a/x~1", name="y") as fork:
        fork.log({"loss": 0.5})
    repo = opened(here)
    commit = repo.commit(repo.root.refs["runs/a/y"])
    assert points(repo, commit) == {"loss": [(3, 0.5)]}


def test_a_checkpoint_has_the_points_since_the_one_before(here: Path) -> None:
    run = cas.track("a")
    run.log({"x": 0})
    run.save_checkpoint(model={})
    run.log({"x": 1})
    run.log({"x": 2})
    run.save_checkpoint(model={})
    run.save_checkpoint(model={})
    run.log({"x": 3})
    run.finish()
    repo = opened(here)
    tip, commit = only_run(repo)
    parts = [points(repo, part) for _, part in checkpoints(repo, tip)]
    assert parts == [{"x": [(0, 0.0)]}, {"x": [(1, 1.0), (2, 2.0)]}, {}]
    assert points(repo, commit) == {"x": [(n, float(n)) for n in range(4)]}
    assert commit.seq == 4


def test_what_cannot_be_stored_is_named_and_the_run_goes_on(here: Path) -> None:
    run = cas.track("a")
    run.save_checkpoint(model={"layers": [{"fn": print}]})
    run.save_checkpoint(model={"w": 1})
    with pytest.raises(TrackingError, match=r"save_checkpoint: cannot store model\S*layers\S*fn"):
        run.finish()
    assert len(checkpoints(opened(here), only_run(opened(here))[0])) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before it is published", "after"])
def test_ctrl_c_leaves_a_checkpoint_whole_or_undone(
    here: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    run = cas.track("a")
    run.log({"x": 0})

    def interrupted(*args: Any, **more: Any) -> object:
        if after:
            transact(*args, **more)
        else:
            args[2](None)  # building it is interrupted
        raise KeyboardInterrupt

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(live, "transact", interrupted)
        if not after:
            patched.setattr(live.Live, "_catch_up", stopped)
        with pytest.raises(KeyboardInterrupt):
            run.save_checkpoint(model={"w": 1}, step=1, wait=True)
    run.log({"x": 1})
    run.save_checkpoint(model={"w": 2}, step=2)
    run.finish()
    repo = opened(here)
    tip, commit = only_run(repo)
    parts = [points(repo, part) for _, part in checkpoints(repo, tip)]
    whole = [[(0, 0.0)], [(1, 1.0)]] if after else [[(0, 0.0), (1, 1.0)]]
    assert [part["x"] for part in parts] == whole
    assert [part.seq for _, part in checkpoints(repo, tip)] == list(range(1, len(whole) + 1))
    assert points(repo, commit) == {"x": [(0, 0.0), (1, 1.0)]}


def test_equal_states_are_stored_once(here: Path) -> None:
    data = random.Random(1).randbytes(100_000)
    with cas.track("a") as run:
        for step in range(3):
            run.save_checkpoint(model={"w": np.frombuffer(data, np.uint8)}, step=step)
    repo = opened(here)
    volumes = [commit.volume for _, commit in checkpoints(repo, only_run(repo)[0])]
    stored = [volume.stored_bytes for volume in volumes if volume is not None]
    assert stored[0] > 100_000
    assert max(stored[1:]) < 20_000
    assert everything(repo).count(data) == 1
