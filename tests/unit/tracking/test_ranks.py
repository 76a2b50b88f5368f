"""A program that runs as several processes: one run, whose metrics carry the rank."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

import cas as library
from cas.repo.layout import JOURNALS
from cas.tracking.journals.feed import create_journal
from cas.tracking.journals.journal import read_journal
from cas.tracking.journals.state import RunState
from cas.tracking.ranks import Launch, launch
from tests.support.runs import (
    cas,
    checkpoints,
    eventually,
    killed,
    names,
    only_run,
    opened,
    points,
    run,
    script,
    started,
)

TRAIN = """\
import os, sys, time
import numpy as np
import cas
rank = int(os.environ["RANK"])
time.sleep(0.3 * rank * int(sys.argv[1]))
with cas.track("exp", name="r", params={"lr": 0.1}, seed=1) as run:
    assert (run.rank, run.world_size) == (rank, 2)
    run.log_params({"late": 1})
    for step in range(3):
        run.log({"loss": step + 10 * rank}, step)
    done = run.save_checkpoint(extra={"x": 1}, step=2, metrics={"val": 0.5})
    assert (done.commit is None) == bool(rank)
    run.log_text("note", f"from {rank}", step=0)
    if rank:
        run.log_image("pixels", np.arange(12288, dtype=np.uint8).reshape(64, 64, 3), step=0)
    run.add_label("parallel")
    if len(sys.argv) > 2:
        sys.stdout.write("logged\\n"); sys.stdout.flush(); time.sleep(60)
    time.sleep(1 - rank)
"""


def rank(number: int, **more: str) -> dict[str, str]:
    return {
        "RANK": str(number),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
    } | more


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    script(folder, TRAIN)
    return folder


PLANNED = """\
rank = int(os.environ["RANK"])
with cas.track("exp", name="r", strategy={"save_steps": 2}, resume="auto") as run:
    asked = [step for step in range(1, 7) if run.should_save(step)]
    run.log({"loss": 0.5})
    if sys.argv[1] == "first":
        run.save_checkpoint(extra=1, step=6, wait=True)
    print(asked, run.resumed, run.latest())
    if rank == 0:
        time.sleep(1)
    run.finish("interrupted")
"""
FORKED = """\
rank = int(os.environ["RANK"])
with cas.fork("exp/r", name="fork") as run:
    print(run.load_checkpoint().step, run.log({"loss": 0.25}))
    if rank == 0:
        time.sleep(1)
"""


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "2", "WORLD_SIZE": "2"}, None),
        ({"RANK": "x", "WORLD_SIZE": "2"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, None),  # a batch script
        ({"RANK": "1", "WORLD_SIZE": "2"}, ("torchrun", 1, 2)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, ("mpirun", 3, 4)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, ("mpiexec", 0, 2)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, ("srun", 1, 2)),
    ],
)
def test_what_a_launcher_says(
    environ: dict[str, str], expected: tuple[str, int, int] | None
) -> None:
    found = launch(environ)
    assert (found and (found.launcher, found.rank, found.size)) == expected


def test_all_processes_of_a_launch_have_the_same_key_and_no_other_has_it() -> None:
    def key(**variables: str) -> str:
        found = launch(variables)
        assert isinstance(found, Launch)
        return found.key

    assert key(**rank(0)) == key(**rank(1))
    assert key(**rank(0)) != key(**rank(0, MASTER_PORT="29501"))
    assert key(**rank(0)) != key(**rank(0, TORCHELASTIC_RESTART_COUNT="1"))
    assert key(**rank(0, CAS_RUN_KEY="a")) != key(**rank(0, CAS_RUN_KEY="b"))


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_two_ranks_are_one_run(here: Path, late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    children = [
        started(here, sys.executable, "train.py", str(late), **rank(number)) for number in (1, 0)
    ]
    told = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    repo = opened(here)
    _, commit = only_run(repo)
    found = points(repo, commit)
    assert found["loss"] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert found["loss/rank1"] == [(0, 10.0), (1, 11.0), (2, 12.0)]
    assert found["val"] == [(2, 0.5)]
    assert repo.document(commit.tree, "params.json") == {"lr": 0.1, "late": 1}
    assert commit.monitor is not None
    assert commit.monitor.metric == "loss"
    with monkeypatch.context() as patch:
        patch.chdir(here)
        view = library.open_run("exp/r")
    assert view.keys() == {"text": {"note": 1, "note/rank1": 1}, "image": {"pixels/rank1": 1}}
    told_of = json.loads(cas(here, "export", "exp/r").stdout)
    assert len(told_of["checkpoints"]) == 1
    assert told_of["labels"] == ["parallel"]
    assert not list((repo.path / JOURNALS).iterdir())
    assert [ref for ref in repo.root.refs if ref.startswith("runs/")] == ["runs/exp/r"]


@pytest.mark.slow
def test_ranks_inside_cas_run_are_its_run(here: Path) -> None:
    (here / "launch.sh").write_text(
        "for rank in 0 1; do RANK=$rank WORLD_SIZE=2 MASTER_PORT=1 "
        f"{sys.executable} train.py 0 & done; wait\n"
    )
    run(here, Path(sys.executable).parent / "cas", "run", "-e", "exp", "--", "sh", "launch.sh")
    repo = opened(here)
    _, commit = only_run(repo)
    assert points(repo, commit)["loss/rank1"] == [(0, 10.0), (1, 11.0), (2, 12.0)]


def together(folder: Path, *argv: str) -> list[tuple[str, str]]:
    """Run a program as two ranks; return what each of them wrote."""
    children = [
        started(folder, sys.executable, *argv, CAS_RUN_KEY="job", **rank(number))
        for number in (0, 1)
    ]
    told = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    return told


@pytest.mark.slow
def test_all_ranks_know_the_strategy_and_what_they_resume(here: Path) -> None:
    script(here, PLANNED)
    first = [out for out, _ in together(here, "train.py", "first")]
    assert first[0].startswith("[2, 4, 6] None ")
    second = [out for out, _ in together(here, "train.py", "again")]
    repo = opened(here)
    (base, _), *_ = checkpoints(repo, repo.root.refs["runs/exp/r"])
    assert second == [f"[2, 4, 6] {base} {base}\n"] * 2
    logged = points(repo, repo.commit(repo.root.refs["runs/exp/r"]))
    assert logged["loss/rank1"][-1] == (1, 0.5)  # steps go on in all of them
    script(here, FORKED)
    assert [out.split()[0] for out, _ in together(here, "train.py")] == ["6", "6"]


@pytest.mark.slow
def test_one_of_two_ranks_makes_the_repository_and_says_so(here: Path) -> None:
    script(here, PLANNED)
    told = [err for _, err in together(here, "train.py", "again")]
    assert sum(err.count("created repository") for err in told) == 1


def test_a_launch_shares_the_memory_of_its_host() -> None:
    def local(**variables: str) -> int:
        found = launch(variables)
        assert found is not None
        return found.local

    assert local(RANK="0", WORLD_SIZE="16", LOCAL_WORLD_SIZE="8") == 8
    assert local(RANK="0", WORLD_SIZE="16") == 16  # nobody knows: all may be here
    assert local(RANK="0", WORLD_SIZE="4", LOCAL_WORLD_SIZE="0") == 4
    slurm = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}
    assert local(**slurm) == 4


def test_a_group_that_the_program_has_made_is_a_launch() -> None:
    found = launch({}, lambda: (1, 2))
    assert found is not None
    assert (found.launcher, found.rank, found.size) == ("group", 1, 2)
    assert launch({}, lambda: (0, 1)) is None
    told = launch(rank(0), lambda: (1, 2))
    assert told is not None
    assert told.launcher == "torchrun"  # what a launcher says comes first


def test_a_damaged_frame_of_another_process_costs_no_other(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    for name, value in rank(0, CAS_RANK_PID=str(os.getpid())).items():
        monkeypatch.setenv(name, value)
    with library.track("exp", name="r") as own:
        state = own._live.state
        writer = create_journal(own.repo, RunState(state.run, state.ref, state.uid), name_of(own))
        good = {"t": "metadata", "metadata": {"a": 1}}
        writer.append([{"t": "points", "names": 7}, {"t": "artifact"}, good])
        writer.close()
    assert "not all of it could be taken over" in capsys.readouterr().err
    repo = opened(here)
    _, commit = only_run(repo)
    assert repo.document(commit.tree, "metadata.json") == {"a": 1}


def name_of(own: library.Run) -> str:
    return f"{own._live.state.uid.hex()}-1-1.journal"


def _has_points(journal: Path) -> bool:
    return any(frame["t"] == "points" for frame in read_journal(journal).frames)


@pytest.mark.slow
def test_a_launch_that_is_killed_is_recovered_with_what_all_ranks_logged(here: Path) -> None:
    children = [
        started(here, sys.executable, "train.py", "0", "stay", **rank(number)) for number in (0, 1)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "logged\n"
    repo = opened(here)
    folder = repo.path / JOURNALS
    eventually(lambda: sum(map(_has_points, folder.glob("*.journal"))) == 2, "points of both")
    for child in children:
        killed(child, signal.SIGKILL)
    # The note of a launch that is gone leads nobody anywhere.
    alone = started(here, sys.executable, "train.py", "0", **rank(0))
    assert alone.communicate(timeout=60)
    assert alone.returncode == 0
    refs = opened(here).root.refs
    crashed = opened(here).commit(refs["runs/exp/r"])
    assert crashed.status == "crashed"
    assert points(opened(here), crashed)["loss/rank1"] == [(0, 10.0), (1, 11.0), (2, 12.0)]


def test_a_rank_without_rank_0_tracks_itself(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cas.tracking import ranks

    monkeypatch.chdir(here)
    for name, value in rank(1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CAS_RANK_PID", str(os.getpid()))  # so that it is gone after the test
    monkeypatch.setattr(ranks.found, "__defaults__", (0.1,))
    with library.track("exp", name="alone") as run:
        run.log({"loss": 1.0})
    repo = opened(here)
    assert points(repo, only_run(repo)[1])["loss"] == [(0, 1.0)]
    assert names(repo, only_run(repo)[1].tree)
    assert os.environ["RANK"] == "1"
