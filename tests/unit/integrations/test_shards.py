"""Sharded checkpoints: saved by several processes, loaded by more or fewer, held till then."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cas as library  # noqa: E402
from cas.errors import CorruptionError, NotFoundError, TrackingError  # noqa: E402
from cas.ids import blob_id  # noqa: E402
from cas.objects.commit import CHECKPOINT, Commit  # noqa: E402
from cas.repo.collect import gc  # noqa: E402
from cas.repo.repo import Repo  # noqa: E402
from cas.tracking.checkpoints import shards  # noqa: E402
from cas.tracking.checkpoints.shards import Part, Writing, contents  # noqa: E402
from cas.tracking.ends import ending  # noqa: E402
from cas.tracking.run import Run  # noqa: E402
from tests.support.runs import (  # noqa: E402
    checkpoints,
    names,
    only_run,
    opened,
    script,
    started,
)

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

RANKS = """\
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
store = f"file://{os.getcwd()}/store-{os.environ['MASTER_PORT']}"
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
mesh = init_device_mesh("cpu", (size,))
"""
STATE = """\
def state(fill, dimension=0):
    weight, bias = torch.arange(303 * 8.0).reshape(303, 8), torch.arange(7.0)
    if not fill:
        weight, bias = torch.zeros_like(weight), torch.zeros_like(bias)
    weight = distribute_tensor(weight, mesh, [Shard(dimension)])
    return {"model": {"weight": weight, "bias": bias}, "data": {"at": 7 * fill, "of": [None, "x"]}}
"""
SAVE = (
    RANKS
    + STATE
    + """\
with cas.track("exp", name="r") as run:
    run.log_metrics({"loss": 1.0}, 2)
    id = run.save_sharded(state(1), step=3, metrics={"val": 0.5})
    print(id, torch.rand(1).item())
dist.destroy_process_group()
"""
)
LOAD = (
    RANKS
    + STATE
    + """\
with cas.track("exp", name="again") as run:
    fresh = state(0, dimension=1)
    told = run.load_sharded(fresh, "exp/r~1")
    full = fresh["model"]["weight"].full_tensor()
    assert torch.equal(full, torch.arange(303 * 8.0).reshape(303, 8)), full
    assert torch.equal(fresh["model"]["bias"], torch.arange(7.0))
    assert fresh["data"] == {"at": 7, "of": [None, "x"]}, fresh["data"]
    print(told.commit, told.step, told.metrics)
dist.destroy_process_group()
"""
)
FSDP = (
    RANKS
    + """\
from torch.distributed.fsdp import fully_shard
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

def made():
    torch.manual_seed(0)
    layers = torch.nn.Linear(16, 33), torch.nn.Dropout(), torch.nn.Linear(33, 4)
    model = torch.nn.Sequential(*layers)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)

def train(model, optimizer, at):
    data = torch.randn(8, 16, generator=torch.Generator().manual_seed(at))
    model(data).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model.state_dict()["0.weight"].full_tensor()

def state(model, optimizer):
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}

with cas.track("exp", name="r") as run:
    parts = made()
    torch.manual_seed(rank)  # dropout differs between the processes
    for at in range(3):
        train(*parts, at)
    run.save_sharded(state(*parts), step=3)
    expected = [train(*parts, at) for at in range(3, 5)]
    parts = made()
    loaded = state(*parts)
    run.load_sharded(loaded)
    set_state_dict(
        *parts, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"]
    )
    again = [train(*parts, at) for at in range(3, 5)]
    assert all(map(torch.equal, expected, again))
    print("same")
dist.destroy_process_group()
"""
)
FAILING = (
    RANKS
    + """\
with cas.track("exp", name="r") as run:
    one = run.save_sharded({"x": torch.ones(8), "bad": object() if rank else 1}, step=1)
    bad = {"own": {f"of{rank}": object() if rank else 1}}
    two = run.save_sharded(bad, step=2)
    print(one, two, "goes on")
    run._problems.clear()
dist.destroy_process_group()
"""
)


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


def ranks(folder: Path, text: str, size: int = 2) -> list[str]:
    """Run a script as so many processes; return what each of them wrote."""
    path = script(folder, text)
    port = str(len(list(folder.glob("store-*"))))
    shared = {"WORLD_SIZE": str(size), "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    children = [
        started(folder, sys.executable, path, RANK=str(number), **shared) for number in range(size)
    ]
    told = [child.communicate(timeout=120) for child in children]
    assert not any(child.returncode for child in children), told
    return [out.strip() for out, _ in told]


def saved(folder: Path) -> tuple[Repo, Any, Commit]:
    repo = opened(folder)
    tip, _ = only_run(repo, "runs/exp/r")
    ((id, commit),) = checkpoints(repo, tip)
    return repo, id, commit


def fresh() -> dict[str, Any]:
    return {
        "model": {"weight": torch.zeros(303, 8), "bias": torch.zeros(7)},
        "data": {"at": 0, "of": None},
    }


@pytest.mark.slow
def test_two_processes_save_and_one_loads(here: Path) -> None:
    told = ranks(here, SAVE)
    repo, id, commit = saved(here)
    assert [one.split()[0] for one in told] == [str(id)] * 2
    assert commit.step == 3
    assert names(repo, commit.payload) == ["shards"]
    about = repo.document(commit.tree, "checkpoint.json")
    assert about == {
        "epoch": None,
        "metrics": {"val": 0.5},
        "parts": ["data", "model"],
        "lacks": ["optimizer"],
        "sharded": True,
    }
    found = contents(repo, commit)
    assert found.count == 2
    weight = found.tensors["model.weight"]
    assert [(shard.offsets, shard.shape) for shard in weight.shards] == [
        ((0, 0), (152, 8)),
        ((152, 0), (151, 8)),
    ]
    state = fresh()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with library.track("exp", name="one") as run:
        loaded = run.load_sharded(state, "exp/r~1")
        with pytest.raises(NotFoundError, match="load_sharded"):
            run.load_checkpoint("exp/r~1")
    assert (loaded.commit, loaded.step, loaded.metrics) == (id, 3, {"val": 0.5})
    assert torch.equal(state["model"]["weight"], torch.arange(303 * 8.0).reshape(303, 8))
    assert torch.equal(state["model"]["bias"], torch.arange(7.0))
    assert state["data"] == {"at": 7, "of": [None, "x"]}
    assert torch.equal(torch.get_rng_state(), before)  # two saved: none of them is this process


@pytest.mark.slow
def test_one_process_saves_and_two_load(here: Path) -> None:
    state = fresh()
    state["model"] = {"weight": torch.arange(303 * 8.0).reshape(303, 8), "bias": torch.arange(7.0)}
    state["data"] = {"at": 7, "of": [None, "x"]}
    with library.track("exp", name="r") as run:
        id = run.save_sharded(state, step=3)
    assert ranks(here, LOAD) == [f"{id} 3 {{}}"] * 2


@pytest.mark.slow
def test_fully_sharded_training_goes_on_to_the_bit(here: Path) -> None:
    assert ranks(here, FSDP) == ["same"] * 2


@pytest.mark.slow
def test_a_failure_in_one_process_is_one_in_all_and_ends_none(here: Path) -> None:
    assert ranks(here, FAILING) == ["None None goes on"] * 2
    repo = opened(here)
    tip, _ = only_run(repo)
    assert checkpoints(repo, tip) == []


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


def test_parts_are_held_until_they_are_published(here: Path) -> None:
    data = np.random.default_rng(1).standard_normal(300_000)
    with library.track("exp", name="r") as run:
        whole = {"shape": [300_000], "offsets": [[0]], "shards": [data]}
        part = run._hold(0, {"x": whole}, {})
        _collect(run)
        id = run._publish([part], 1, {"sharded": True})
        commit = run.repo.commit(id)
        draft = run.repo.commit(run.repo.refresh().refs[run._live.state.open_ref])
        assert shards.held(run.repo, draft) == {}
        assert commit.volume is not None
        assert commit.volume.stored_bytes > data.nbytes // 2
        _collect(run)
        (shard,) = contents(run.repo, commit).tensors["x"].shards
        ((_, tensor),) = shards.read(run.repo, [shard])
        assert np.array_equal(tensor, data)
    _, ended = only_run(run.repo)
    assert ended.volume is not None
    assert ended.volume.stored_bytes < data.nbytes // 2  # counted once


def test_parts_of_a_save_that_broke_off_are_let_go_of(here: Path) -> None:
    data = np.random.default_rng(1).standard_normal(300_000)
    with library.track("exp", name="r") as run:
        run._hold(0, {}, {"x": data})
        blob = blob_id(data.tobytes())
        _collect(run)
        assert run.repo.store.find(blob) is not None
    _collect(run)
    run.repo.store.refresh()
    assert run.repo.store.find(blob) is None


def test_a_draft_that_is_replaced_keeps_the_parts(here: Path) -> None:
    with library.track("exp", name="r") as run:
        part = run._hold(0, {}, {"a": 1})
        run.log_artifact(b"x" * 100, "file.bin")
        other = run._hold(1, {}, {"b": 2})
        id = run._publish([part, other], 1, {"sharded": True})
        assert contents(run.repo, run.repo.commit(id)).values == {"a": 1, "b": 2}


def test_a_part_that_nobody_holds_is_not_published(here: Path) -> None:
    with library.track("exp", name="r") as run:
        part = run._hold(0, {}, {"a": 1})
        strange = Part(1, part.tree, part.size, 0)
        with pytest.raises(NotFoundError, match=r"part 1 .*shared disk"):
            run._publish([part, strange], 1, {"sharded": True})
        run._hold(0, {}, {"a": 2})
        with pytest.raises(NotFoundError, match="part 0"):
            run._publish([part], 1, {"sharded": True})


def test_a_part_is_read_once_however_often_it_is_tried(here: Path) -> None:
    with library.track("exp", name="r") as run:
        array = np.arange(50_000.0)
        writing = Writing([array], {}, ())
        first, _ = run._live.hold_part("shards/0", writing)
        array[:] = 0  # what reads it again would see this
        second, stored = run._live.hold_part("shards/0", writing)
        assert first == second
        assert stored == 0


@pytest.mark.parametrize(
    "shards",
    [
        [([0], 4), ([5], 4)],
        [([0], 4), ([3], 4)],
        [([0], 4)],
        [([0], 4), ([4], 5)],
        [([0], 4), ([2], 2), ([4], 2)],
        [([0, 0], 8)],
        [([-1], 8)],
    ],
    ids=str,
)
def test_pieces_that_do_not_make_up_a_tensor_are_refused(here: Path, shards: Any) -> None:
    with library.track("exp", name="r") as run:
        whole = {
            "shape": [8],
            "offsets": [at for at, _ in shards],
            "shards": [np.zeros(length) for _, length in shards],
        }
        id = run._publish([run._hold(0, {"x": whole}, {})], 1, {"sharded": True})
        with pytest.raises(CorruptionError, match="shards"):
            contents(run.repo, run.repo.commit(id))


def test_a_part_that_is_missing_is_told(here: Path) -> None:
    with library.track("exp", name="r") as run:
        id = run._publish([run._hold(1, {}, {"a": 1})], 1, {"sharded": True})
        with pytest.raises(CorruptionError, match="part 0"):
            contents(run.repo, run.repo.commit(id))


def test_ctrl_c_ends_the_call(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Part:
        raise KeyboardInterrupt

    with library.track("exp", name="r") as run:
        monkeypatch.setattr(run, "_hold", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.save_sharded({"x": torch.ones(3)}, step=1)


def test_what_fails_is_told_at_the_end(here: Path) -> None:
    run = library.track("exp", name="r")
    assert run.save_sharded({"x": object()}, step=1) is None
    with pytest.raises(TrackingError, match=r"save_sharded: .*process 0: .*object"):
        run.finish()


def test_retention_counts_sharded_checkpoints_too(here: Path) -> None:
    with library.track("exp", name="r", retention={"last": 1}) as run:
        for step in range(3):
            run.save_sharded({"x": torch.full((3,), float(step))}, step=step)
        tip = run.repo.refresh().refs["runs/exp/r"]
        kept = [f"holds/{id}" in run.repo.root.refs for id, _ in checkpoints(run.repo, tip)]
        assert kept == [False, False, True]
        assert run.repo.commit(tip).kind == CHECKPOINT


def _collect(run: Run) -> None:
    planned = gc.plan(run.repo)
    if not planned.empty:
        gc.execute(run.repo, planned)
