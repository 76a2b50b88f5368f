"""Sharded checkpoints: saved by several processes, loaded by more or fewer, held till then."""

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cas as library  # noqa: E402
from cas.ids import blob_id  # noqa: E402
from cas.objects.commit import Commit  # noqa: E402
from cas.repo.repo import Repo  # noqa: E402
from cas.tracking.checkpoints.shards import contents  # noqa: E402
from cas.tracking.ends import ending  # noqa: E402
from tests.support.runs import (  # noqa: E402
    cas,
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
    id = run.save_sharded(state(1), step=3, metrics={"val": 0.5}).commit
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
    print(one.commit, two.commit, "goes on")
    run._problems.clear()
dist.destroy_process_group()
"""
)

LATE = (
    RANKS
    + """\
import signal
from cas.tracking.checkpoints import parts
whole, store, where = parts.put_together, parts.Given.__call__, sys.argv[1]

def given(self, tx):
    if rank and where == "fails":
        raise OSError("no luck")
    if rank and where == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return store(self, tx)

def put_together(tx, found):
    if where == "first killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if where == "not published":
        raise OSError("no room")
    return whole(tx, found)

with cas.track("exp", name="r") as run:
    parts.Given.__call__, parts.put_together = given, put_together
    lost = run.save_sharded({"x": torch.arange(100_000.0), f"of{rank}": rank}, step=1)
    assert lost.commit is None
    print(lost.error)
    parts.Given.__call__, parts.put_together = store, whole
    if where in ("fails", "not published"):
        print(run.save_sharded({"x": torch.ones(8)}, step=2).commit is not None)
    run._late.clear(), run._problems.clear()
os._exit(0)
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


def ranks(folder: Path, text: str, size: int = 2, *, argument: str = "") -> list[str]:
    """Run a script as so many processes; return what each of them wrote, in any case.

    With an argument for the script, one of them may be killed.
    """
    path = script(folder, text)
    port = str(len(list(folder.glob("store-*"))))
    shared = {"WORLD_SIZE": str(size), "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    children = [
        started(folder, sys.executable, path, argument, RANK=str(number), **shared)
        for number in range(size)
    ]
    told = [child.communicate(timeout=120) for child in children]
    ends = {child.returncode for child in children}
    assert ends <= ({0, -signal.SIGKILL} if argument else {0}), told
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
        whole = run.load_checkpoint("exp/r~1").state
    assert torch.equal(whole["model"]["weight"], torch.arange(303 * 8.0).reshape(303, 8))
    assert (whole["data"], whole["step"]) == ({"at": 7, "of": [None, "x"]}, 3)
    assert "rng" not in whole  # two processes have saved theirs
    tensor = library.read_tensor("exp/r~1", "model.weight")
    assert torch.equal(tensor, torch.arange(303 * 8.0).reshape(303, 8))
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
        id = run.save_sharded(state, step=3).commit
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("fails", [r"process 1: no luck\nTrue", r"no luck\nTrue"]),
        ("not published", [r"no room\nTrue", r"process 0: no room\nTrue"]),
        ("killed", [r"process 1 has ended", r""]),
        ("first killed", [r"", r"process 0, which publishes it, has ended"]),
    ],
)
def test_what_goes_wrong_behind_the_loop_comes_up_everywhere(
    here: Path, where: str, expected: list[str]
) -> None:
    told = ranks(here, LATE, argument=where)
    for text, said in zip(told, expected, strict=True):
        assert re.search(f"{said}$", text), told
    cas(here, "log")
    cas(here, "gc")  # commits a run that was killed, and takes what is left of its parts
    repo = opened(here)
    tip, _ = only_run(repo, "runs/exp/r")
    assert [commit.step for _, commit in checkpoints(repo, tip)] == (
        [2] if "True" in told[0] else []
    )
    assert not any(ref.startswith("open/") for ref in repo.root.refs)
    assert repo.store.find(blob_id(np.arange(100_000, dtype="<f4").tobytes())) is None
    assert cas(here, "fsck").returncode == 0
