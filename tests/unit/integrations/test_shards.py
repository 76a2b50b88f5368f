"""Sharded checkpoints as one process sees them: what was saved comes back, failures are told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cas as library  # noqa: E402
from cas.errors import NotFoundError, TrackingError  # noqa: E402
from cas.objects.commit import CHECKPOINT  # noqa: E402
from cas.repo.collect import gc  # noqa: E402
from cas.tracking.checkpoints import parts, together  # noqa: E402
from cas.tracking.ends import ending  # noqa: E402
from cas.tracking.run import Run  # noqa: E402
from tests.support.runs import (  # noqa: E402
    checkpoints,
)

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(folder)
    yield folder
    for end in list(ending._hooks.open):
        end("finished", None)


def fresh() -> dict[str, Any]:
    return {
        "model": {"weight": torch.zeros(303, 8), "bias": torch.zeros(7)},
        "data": {"at": 0, "of": None},
    }


def test_the_generators_come_back_to_as_many_processes(here: Path) -> None:
    with library.track("exp", name="r") as run:
        run.save_sharded({"x": torch.ones(3)}, step=1)
        expected = torch.rand(4)
        run.load_sharded({"x": torch.zeros(3)})
        assert torch.equal(torch.rand(4), expected)
        run.load_sharded({"x": torch.zeros(3)}, restore_rng=False)
        assert not torch.equal(torch.rand(4), expected)


def test_all_dtypes_and_values_come_back(here: Path) -> None:
    dtypes = (torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.int64, torch.complex64)
    given = {str(dtype): torch.arange(40).reshape(5, 8).to(dtype) for dtype in dtypes}
    given |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}
    values = {"array": np.arange(5), "pair": (1, torch.ones(2)), "text": "ö", "none": None}
    with library.track("exp", name="r") as run:
        run.save_sharded({"tensors": given, "values": values}, step=1)
        blank = {name: torch.zeros_like(tensor) for name, tensor in given.items()}
        state: dict[str, Any] = {"tensors": blank, "values": dict.fromkeys(values)}
        run.load_sharded(state)
    for name, tensor in given.items():
        assert torch.equal(blank[name], tensor), name
    assert state["values"]["array"].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(state["values"]["pair"][1], torch.ones(2))
    assert (state["values"]["text"], state["values"]["none"]) == ("ö", None)


def test_what_does_not_fit_is_told(here: Path) -> None:
    with library.track("exp", name="r") as run:
        run.save_sharded({"x": torch.ones(3)}, step=1)
        with pytest.raises(TrackingError, match=r"process 0.*y"):
            run.load_sharded({"x": torch.zeros(3), "y": torch.zeros(3)})
        with pytest.raises(TrackingError, match=r"process 0.*[Ss]ize"):
            run.load_sharded({"x": torch.zeros(4)})
        state = {"x": torch.zeros(3), "y": torch.full((3,), 7.0)}
        run.load_sharded(state, strict=False)
        assert (state["x"].tolist(), state["y"].tolist()) == ([1.0] * 3, [7.0] * 3)
        run.save_checkpoint(extra=1, step=2, wait=True)
        with pytest.raises(TrackingError, match="load_checkpoint"):
            run.load_sharded({"x": torch.zeros(3)})
        with pytest.raises(NotFoundError):
            run.load_sharded({"x": torch.zeros(3)}, "exp/r~7")


def test_ctrl_c_ends_the_call(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with library.track("exp", name="r") as run:
        monkeypatch.setattr(together.Together, "take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.save_sharded({"x": torch.ones(3)}, step=1)
        monkeypatch.undo()
        monkeypatch.chdir(here)
        assert run.save_sharded({"x": torch.ones(3)}, step=2).commit is not None


@pytest.mark.parametrize("wait", [False, True])
def test_what_changes_after_the_call_is_not_in_it(here: Path, wait: bool) -> None:
    with library.track("exp", name="r") as run:
        state: dict[str, Any] = {"x": torch.arange(100_000.0), "values": {"at": [1, 2]}}
        saving = run.save_sharded(state, step=1, wait=wait)
        assert saving.done or not wait
        state["x"].zero_()
        state["values"]["at"].append(3)
        loaded = library.load(str(saving.commit))
    assert torch.equal(loaded["x"], torch.arange(100_000.0))
    assert loaded["values"] == {"at": [1, 2]}


def test_a_state_that_does_not_fit_into_memory_is_saved_too(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with library.track("exp", name="r", strategy={"staging": 1000}) as run:
        saving = run.save_sharded({"x": torch.arange(100_000.0)}, step=1)
        assert saving.done
        assert torch.equal(library.load(str(saving.commit))["x"], torch.arange(100_000.0))
    assert "does not fit into the memory for copies" in capsys.readouterr().err


def test_below_min_free_a_save_is_left_out_with_an_alert(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with library.track("exp", name="r", strategy={"min_free": 2**62}) as run:
        saving = run.save_sharded({"x": torch.ones(3)}, step=1)
        assert (saving.done, saving.commit, saving.error) == (True, None, None)
        assert not run._problems
    assert "checkpoint left out" in capsys.readouterr().err


def test_what_fails_behind_the_call_comes_up_at_the_end(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = library.track("exp", name="r")
    with monkeypatch.context() as patched:
        patched.setattr(parts, "put_together", _fails)
        saving = run.save_sharded({"x": torch.ones(3)}, step=1)
        assert saving.commit is None
        assert look(run).reason == "process 0: no luck"
    assert run.save_sharded({"x": torch.ones(3)}, step=2).commit is not None
    with pytest.raises(TrackingError, match="no luck"):
        run.finish()


def test_one_process_has_the_whole_state_as_it_was_given(here: Path) -> None:
    state: dict[str, Any] = {
        "model": {"layer.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}, "name": {}},
            "param_groups": [{"lr": 0.1, "params": [0, 1]}, {"lr": 0.2, "params": []}],
        },
        "empty": {},
        "pair": (1, torch.zeros(2)),
    }
    with library.track("exp", name="r") as run:
        id = run.save_sharded(state, step=4, epoch=1, metrics={"val": 0.5}).commit
        model = torch.nn.Linear(3, 1)
        loaded = run.load_checkpoint(strict=False, restore_rng=False)
        assert (loaded.commit, loaded.step, loaded.epoch) == (id, 4, 1)
        assert loaded.metrics == {"val": 0.5}
        with pytest.raises(Exception, match="weight"):
            run.load_checkpoint(model=model)
    found = library.load("exp/r")
    assert found["step"], found["epoch"] == (4, 1)
    assert "rng" in found  # one process has saved it
    assert found["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert list(found["optimizer"]["state"]) == ["name", 0] or list(
        found["optimizer"]["state"]
    ) == [0, "name"]
    assert found["optimizer"]["state"]["name"] == {}
    assert found["empty"] == {}
    assert torch.equal(found["model"]["layer.weight"], state["model"]["layer.weight"])
    assert torch.equal(found["pair"][1], torch.zeros(2))


def test_what_fails_is_told_at_the_end(here: Path) -> None:
    run = library.track("exp", name="r")
    saving = run.save_sharded({"x": object()}, step=1)
    assert (saving.done, saving.commit) == (True, None)
    with pytest.raises(TrackingError, match=r"save_sharded: .*process 0: .*object"):
        run.finish()


def test_retention_counts_sharded_checkpoints_too(here: Path) -> None:
    with library.track("exp", name="r", retention={"last": 1}) as run:
        for step in range(3):
            run.save_sharded({"x": torch.full((3,), float(step))}, step=step, wait=True)
        tip = run.repo.refresh().refs["runs/exp/r"]
        kept = [f"holds/{id}" in run.repo.root.refs for id, _ in checkpoints(run.repo, tip)]
        assert kept == [False, False, True]
        assert run.repo.commit(tip).kind == CHECKPOINT


def look(run: Run, save: int = 1) -> parts.Save:
    draft = run.repo.refresh().refs[run._live.state.open_ref]
    return parts.look(run.repo, run.repo.commit(draft), save)


def _fails(*_: Any) -> Any:
    raise RuntimeError("no luck")


def _collect(run: Run) -> None:
    planned = gc.plan(run.repo)
    if not planned.empty:
        gc.execute(run.repo, planned)
