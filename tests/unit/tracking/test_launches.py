"""Each way to launch a program ends in a run, or in a word of why not."""

import copy
import os
import pickle
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

import cas as library
from tests.support.runs import environment, only_run, opened, points, python, run, script, started

BODY = """\
import cas
with cas.track() as run:
    run.log({"x": 1.0}, 3)
"""
FROZEN = """\
import sys
del sys.modules["__main__"].__file__
sys.frozen, sys.executable, sys.argv = True, "/opt/app/dist/train", ["train", "--lr", "1"]
sys.orig_argv = ["/opt/app/dist/train", "--api-key", "hunter2", "--lr", "1"]
"""
FORKS = """\
import multiprocessing
def child(number):
    run.log({"x": number})
    run.log_params({"from": number})
    if number == 1:
        sys.exit(5)
    if number == 2:
        raise ValueError("boom")
with cas.track("exp", name="r") as run:
    run.log({"x": 7.0})
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=child, args=(number,)) for number in range(3)]
    for one in children:
        one.start()
    for one in children:
        one.join()
    print([one.exitcode for one in children])
"""
SPAWNS = """\
import multiprocessing
def child(number):
    with cas.track("exp", name=f"child-{number}") as own:
        own.log({"x": number})
if __name__ == "__main__":
    with cas.track("exp", name="parent") as run:
        spawn = multiprocessing.get_context("spawn")
        children = [spawn.Process(target=child, args=(number,)) for number in range(2)]
        for one in children:
            one.start()
        for one in children:
            one.join()
        print([one.exitcode for one in children])
"""
LOADS = """\
from torch.utils.data import DataLoader, Dataset
class Data(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, number):
        run.log({"worker": number})
        return number
with cas.track("exp", name="r") as run:
    for epoch in range(2):
        for batch in DataLoader(Data(), batch_size=2, num_workers=2):
            run.log({"batch": float(batch.sum())})
"""
GROUP = """\
import torch.distributed as dist
import torch.multiprocessing as processes
def child(rank, where):
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    # The clock of one says that a checkpoint is due, that of the other does not.
    strategy = {"save_seconds": 1e-9 if rank else 1e9}
    with cas.track("exp", name="r", strategy=strategy) as run:
        run.log({"loss": rank}, 1)
        told = run.rank, run.world_size, run.should_save(1), run.should_save(2, together=True)
        print(*told, run.save_sharded({"own": {str(rank): rank}}, step=1).commit)
    dist.destroy_process_group()
if __name__ == "__main__":
    processes.spawn(child, args=(f"file://{os.getcwd()}/store",), nprocs=2)
"""
HELPER = "import cas\nwith cas.track('exp', name='helper') as r: r.log({'y': r.rank})"
HELPED = f"""\
import subprocess
with cas.track("exp", name="r") as run:
    run.log({{"loss": 1.0}}, 0)
    subprocess.run([sys.executable, "-c", {HELPER!r}], check=True)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    return folder


def packed(folder: Path) -> Path:
    (folder / "inside").mkdir()
    (folder / "inside" / "__main__.py").write_text(BODY)
    zipapp.create_archive(folder / "inside", folder / "app.pyz")
    return folder / "app.pyz"


@pytest.mark.parametrize(
    ("arguments", "experiment"),
    [
        (["train.py"], "train"),
        (["-m", "pkg.mod"], "mod"),
        (["-m", "pkg"], "pkg"),
        (["app.pyz"], "app"),
        (["inside"], "inside"),
        (["-c", BODY], "interactive"),
        (["frozen.py"], "train"),
    ],
    ids=lambda told: " ".join(told)[:12] if isinstance(told, list) else told,
)
def test_every_launch_is_a_run(here: Path, arguments: list[str], experiment: str) -> None:
    (here / "pkg").mkdir()
    for name in ("train.py", "pkg/mod.py", "pkg/__main__.py"):
        (here / name).write_text(BODY)
    (here / "pkg" / "__init__.py").touch()
    (here / "frozen.py").write_text(FROZEN + BODY)
    packed(here)
    python(here, *arguments)
    repo = opened(here)
    tip, commit = only_run(repo)
    assert commit.full_name is not None
    assert commit.full_name.startswith(f"{experiment}/")
    assert points(repo, commit) == {"x": [(3, 1.0)]}
    told = repo.document(commit.tree, "command.json")
    assert isinstance(told, dict)
    assert "hunter2" not in str(told)
    if arguments == ["frozen.py"]:
        assert (told["kind"], told["python"], told["argv"][1:]) == ("frozen", [], ["--lr", "1"])
        refused = run(here, Path(sys.executable).parent / "cas", "reproduce", str(tip), code=None)
        assert refused.returncode
        assert "interpreter of its own" in refused.stderr


@pytest.mark.parametrize("arguments", [[], ["-"]], ids=["stdin", "-"])
def test_a_program_on_stdin_is_a_run(here: Path, arguments: list[str]) -> None:
    told = subprocess.run(
        [sys.executable, *arguments],
        input=BODY,
        text=True,
        cwd=here,
        env=environment(),
        capture_output=True,
        check=True,
    )
    repo = opened(here)
    _, commit = only_run(repo)
    assert points(repo, commit) == {"x": [(3, 1.0)]}, told.stderr


def test_forked_children_leave_the_run_alone_and_one_says_so(here: Path) -> None:
    script(here, FORKS)
    done = python(here, "train.py")
    assert done.stdout == "[0, 5, 1]\n"
    assert done.stderr.count("what forked processes log to it is not recorded") == 1
    repo = opened(here)
    _, commit = only_run(repo)
    assert commit.status == "finished"
    assert points(repo, commit) == {"x": [(0, 7.0)]}
    assert repo.document(commit.tree, "params.json") == {}


def test_spawned_children_have_runs_of_their_own(here: Path) -> None:
    script(here, SPAWNS)
    assert python(here, "train.py").stdout == "[0, 0]\n"
    runs = {ref for ref in opened(here).root.refs if ref.startswith("runs/")}
    assert runs == {"runs/exp/parent", "runs/exp/child-0", "runs/exp/child-1"}


def test_a_run_cannot_be_sent_to_another_process_and_says_why(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    with library.track("exp", name="r") as own:
        for send in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=r"run exp/r belongs to .*cas\.track there"):
                send(own)


def test_what_a_rank_starts_is_no_rank(here: Path) -> None:
    script(here, HELPED)
    children = [
        started(here, sys.executable, "train.py", RANK=rank, WORLD_SIZE="2", MASTER_PORT="7")
        for rank in "01"
    ]
    told = [child.communicate(timeout=60) for child in children]
    assert not any(child.returncode for child in children), told
    repo = opened(here)
    refs = repo.root.refs
    assert {ref for ref in refs if ref.startswith("runs/")} == {
        "runs/exp/r",
        "runs/exp/helper",
        "runs/exp/helper-2",
    }
    assert points(repo, repo.commit(refs["runs/exp/r"])).keys() == {"loss", "loss/rank1"}
    for name in ("helper", "helper-2"):
        assert points(repo, repo.commit(refs[f"runs/exp/{name}"])) == {"y": [(0, 0.0)]}


@pytest.mark.slow
def test_workers_of_a_data_loader_say_once_that_nothing_is_recorded(here: Path) -> None:
    pytest.importorskip("torch")
    script(here, LOADS)
    done = python(here, "train.py")
    assert done.stderr.count("is not recorded") == 1
    repo = opened(here)
    found = points(repo, only_run(repo)[1])
    assert {name: len(values) for name, values in found.items()} == {"batch": 8}


@pytest.mark.slow
def test_processes_that_a_program_spawns_as_a_group_are_one_run(here: Path) -> None:
    pytest.importorskip("torch")
    script(here, GROUP)
    alone = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    told = sorted(python(here, "train.py", env=alone).stdout.split("\n"))[1:]
    repo = opened(here)
    refs = repo.root.refs
    assert [ref for ref in refs if ref.startswith("runs/")] == ["runs/exp/r"]
    assert [line.split()[:4] for line in told] == [
        ["0", "2", "False", "False"],
        ["1", "2", "True", "False"],  # together they do as the first one finds
    ]
    assert len({line.split()[4] for line in told}) == 1
    logged = points(repo, repo.commit(refs["runs/exp/r"]))
    assert logged == {"loss": [(1, 0.0)], "loss/rank1": [(1, 1.0)]}
    assert os.environ.get("CAS_RANK_PID") is None
