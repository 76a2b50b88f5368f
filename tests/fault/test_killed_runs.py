"""A run killed at any moment, and storage that fails under one: what was told is there."""

import errno
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

import cas as package
from cas.backend.local import LocalBackend
from cas.errors import TrackingError
from cas.store.packed import PackedStore
from cas.tracking.ends.recovery import recover_lost
from cas.tracking.run import Run
from tests.support.faulty import Fault, FaultyOps
from tests.support.runs import (
    cas,
    checkpoints,
    eventually,
    only_run,
    opened,
    points,
    script,
    started,
)

pytestmark = pytest.mark.slow  # whole programs, run and run again

TRAIN = """
run = cas.track("a", name="x", params={"lr": 1})
told = open("told", "a", buffering=1)
for step in range(10**9):
    run.log({"loss": step})
    told.write(f"{time.monotonic()} {step} -\\n")
    if step % 50 == 49:
        open("x.bin", "wb").write(os.urandom(70_000))
        id = run.save_checkpoint(model={"w": os.urandom(1000)}, step=step).commit
        told.write(f"{time.monotonic()} {step} {id}\\n")
        run.log_artifact("x.bin", name=f"{step}.bin")
        told.write(f"{time.monotonic()} {step} artifact\\n")
    time.sleep(0.001)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_what_a_killed_run_was_told_is_there(here: Path, seed: int) -> None:
    child = started(here, sys.executable, script(here, TRAIN))
    told = here / "told"
    wanted = random.Random(seed).randrange(1, 1200)
    eventually(lambda: told.exists() and told.read_text().count("\n") > wanted)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    rows = [line.split() for line in told.read_text().splitlines() if line.count(" ") == 2]
    last = float(rows[-1][0])
    repo = opened(here)
    assert recover_lost(repo) == ["a/x"]
    assert recover_lost(repo) == []
    tip, commit = only_run(repo)
    assert commit.status == "crashed"
    losses = points(repo, commit)["loss"]
    assert losses == [(step, float(step)) for step in range(len(losses))]
    assert len(losses) > max(
        (int(step) for time, step, _ in rows if float(time) < last - 1), default=-1
    )
    assert repo.document(commit.tree, "params.json") == {"lr": 1}
    saved = {str(id) for id, _ in checkpoints(repo, tip)}
    assert {id for _, _, id in rows if len(id) > 10} <= saved
    assert len(saved) <= len({id for _, _, id in rows if len(id) > 10}) + 1
    artifacts = {f"{step}.bin" for _, step, what in rows if what == "artifact"}
    held = repo.lookup(commit.payload, b"artifacts") if commit.payload is not None else None
    assert artifacts <= {e.name.decode() for e in (repo.entries(held.id) if held else ())}
    cas(here, "gc")
    cas(here, "fsck", "--full")
    with package.track("b") as run:
        assert run.load_checkpoint("a/x").step == checkpoints(repo, tip)[-1][1].step


def failing(run: Run, *faults: Fault) -> FaultyOps:
    """Let the storage of a run fail from now on."""
    ops = FaultyOps(*faults)
    run.repo.backend = LocalBackend(run.repo.path, ops=ops)
    run.repo.store = PackedStore(run.repo.backend, lambda: run.repo.refresh().packs)
    return ops


def use(run: Run, here: Path) -> None:
    """Do everything that a training loop does."""
    (here / "x").write_bytes(b"x" * 70_000)
    for step in range(3):
        run.log({"loss": step})
        run.save_checkpoint(model={"w": os.urandom(100)}, step=step, wait=True)
    run.log_artifact("x")
    run.track_dataset("x")
    run.log_params({"late": 1})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("operation", ["write", "fsync", "link", "open_new"])
def test_storage_that_fails_for_a_while_ends_no_loop(
    here: Path, operation: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = package.track("a", name="x")
    failing(run, *(Fault(at, code, operation) for at in range(1, 4 if code != errno.ENOSPC else 7)))
    capsys.readouterr()
    use(run, here)
    assert capsys.readouterr().err.count("warning") == 1
    with pytest.raises(TrackingError, match=r"calls? of run a/x failed; first: save_checkpoint"):
        run.finish()
    repo = opened(here)
    tip, commit = only_run(repo)
    assert commit.status == "finished"
    assert points(repo, commit) == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert repo.document(commit.tree, "params.json") == {"late": 1}
    parts = [point for _, c in checkpoints(repo, tip) for point in points(repo, c)["loss"]]
    assert parts == points(repo, commit)["loss"][: len(parts)]
    cas(here, "fsck", "--full")


@pytest.mark.parametrize("operation", ["write", "fsync", "link"])
def test_storage_that_stays_broken_leaves_a_run_to_be_recovered(here: Path, operation: str) -> None:
    run = package.track("a", name="x", params={"lr": 1})
    run.save_checkpoint(model={"w": 1}, step=0, wait=True)
    failing(run, *(Fault(at, errno.ENOSPC, operation) for at in range(1, 1000)))
    use(run, here)
    with pytest.raises(TrackingError, match="run a/x could not be committed: "):
        run.finish()
    repo = opened(here)
    assert recover_lost(repo) == ["a/x"]
    tip, commit = only_run(repo)
    assert commit.status == "finished"
    assert points(repo, commit) == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert repo.document(commit.tree, "params.json") == {"lr": 1, "late": 1}
    assert len(checkpoints(repo, tip)) == 1


def test_a_journal_that_cannot_be_written_costs_nothing_when_the_run_ends_well(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = package.track("a", name="x")
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("cas.tracking.journals.journalwriter.write_fully", full)
        use(run, here)
        run._live._feed.flush_or_tell()
    assert capsys.readouterr().err.count("would be lost if the process died") == 1
    run.finish()
    repo = opened(here)
    tip, commit = only_run(repo)
    assert points(repo, commit) == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert len(checkpoints(repo, tip)) == 3


def test_a_repository_that_goes_away_ends_no_loop(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = package.track("a", name="x")
    use(run, here)
    shutil.rmtree(run.repo.path)
    capsys.readouterr()
    use(run, here)
    with pytest.raises(TrackingError, match="run a/x could not be committed"):
        run.finish()
    assert capsys.readouterr().err.count("warning") == 1


def test_many_points_at_once_fit_into_the_journal(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cas.tracking.journals.feed.POINTS", 10)
    monkeypatch.setattr("cas.tracking.journals.feed.BEHIND_SECONDS", 1000.0)
    run = package.track("a", name="x")
    for step in range(25):
        run.log({"m": step, "n": -step})
    run._live.abandon()
    run._leave()
    repo = opened(here)
    assert recover_lost(repo) == ["a/x"]
    assert points(repo, only_run(repo)[1]) == {
        "m": [(step, float(step)) for step in range(25)],
        "n": [(step, float(-step)) for step in range(25)],
    }
