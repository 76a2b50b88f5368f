"""A run whose process is gone shows as lost, and the next writing command commits it, once."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

import cas as package
from cas.errors import CorruptionError
from cas.repo.repo import Repo
from cas.tracking.journal import Header, JournalWriter
from cas.tracking.live import create_journal
from cas.tracking.recovery import OpenRun, open_runs, recover_lost
from cas.tracking.state import RunState
from tests.support.runs import (
    cas,
    checkpoints,
    eventually,
    killed,
    listing,
    names,
    only_run,
    opened,
    points,
    python,
    script,
    started,
    text,
)

pytestmark = pytest.mark.slow  # whole programs, run and run again

LOGGING = """
run = cas.track("a", name="x", params={"lr": 0.5})
open("small.txt", "w").write("small")
open("large.bin", "wb").write(b"l" * 70_000)
run.log_artifact("small.txt")
run.log_artifact("large.bin")
run.track_dataset([1.0, 2.0], name="d")
for step in range(100):
    run.log({"loss": 1 / (step + 1)})
run.save_checkpoint(model={"w": 1}, step=99)
run.log_params({"late": True})
for step in range(100):
    run.log({"loss": 1 / (step + 101)})
time.sleep(1)
run.log({"late": 1})
print("ready", flush=True)
"""
QUICK = LOGGING.replace('time.sleep(1)\nrun.log({"late": 1})', "run._live.flush()")
WAITING = "time.sleep(600)\n"


def lost(folder: Path, more: str = QUICK, last: str = WAITING) -> None:
    """Leave a run behind whose process was killed."""
    child = started(folder, sys.executable, script(folder, more + last))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    killed(child)


def statuses(folder: Path) -> dict[str, str]:
    return {run.run: run.status for run in open_runs(opened(folder))}


def test_a_killed_run_is_lost_to_readers_and_committed_by_the_next_writer(here: Path) -> None:
    lost(here, LOGGING)
    before = listing(here)
    assert "lost" in cas(here, "log").stdout
    cas(here, "log", "--graph")
    cas(here, "show", "a/x")
    cas(here, "fsck")
    assert statuses(here) == {"a/x": "lost"}
    assert listing(here) == before
    assert (here / "train.py").stat().st_size  # the listing was of something
    done = cas(here, "tag", "some", "a/x")
    assert "cas: a/x ended without a finish: committed as crashed" in done.stderr
    assert "committed" not in cas(here, "tag", "other", "a/x").stderr
    repo = opened(here)
    tip, commit = only_run(repo)
    assert (commit.status, commit.full_name, commit.seq) == ("crashed", "a/x", 2)
    found = points(repo, commit)
    assert found["loss"] == [(step, 1 / (step + 1)) for step in range(200)]
    assert repo.document(commit.tree, "params.json") == {"lr": 0.5, "late": True}
    assert "time.sleep(600)" in text(repo, commit, "code/train.py")
    assert text(repo, commit, "artifacts/small.txt") == "small"
    assert commit.payload is not None
    assert repo.lookup(commit.payload, b"artifacts/large.bin") is not None
    assert {parent.role for parent in commit.parents} == {"previous", "dataset"}
    assert [one.step for _, one in checkpoints(repo, tip)] == [99]
    assert "artifacts.list" not in names(repo, commit.tree)
    assert statuses(here) == {}
    assert list((repo.path / "journals").iterdir()) == []
    assert not [ref for ref in repo.root.refs if ref.startswith("open/")]


def test_an_artifact_is_safe_as_soon_as_it_is_published(here: Path) -> None:
    more = """
from cas.tracking import live
publish = live.transact
def then_die(*args):
    publish(*args)
    os.kill(os.getpid(), 9)
run = cas.track("a")
live.transact = then_die
print("ready", flush=True)
run.log_artifact("train.py")
"""
    child = started(here, sys.executable, script(here, more))
    child.communicate()
    repo = opened(here)
    recover_lost(repo)
    assert "log_artifact" in text(repo, only_run(repo)[1], "artifacts/train.py")


def test_a_live_run_is_left_alone(here: Path) -> None:
    run = package.track("a", name="x")
    child = started(here, sys.executable, script(here, QUICK.replace('"x"', '"y"') + WAITING))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert statuses(here) == {"a/x": "running", "a/y": "running"}
    assert "running" in cas(here, "log").stdout
    assert recover_lost(opened(here)) == []
    cas(here, "tag", "some", "a/y")
    run.log({"x": 1})
    run.finish()
    killed(child, signal.SIGTERM)
    assert statuses(here) == {"a/y": "lost"}
    assert recover_lost(opened(here)) == ["a/y"]


def test_a_run_that_said_how_it_ended_is_committed_so(here: Path) -> None:
    more = """
from cas.tracking import live
def full(*_):
    raise cas.errors.StorageFullError("no space left")
import cas.errors
run = cas.track("a")
run.log({"x": 1})
live.transact = full
try:
    run.finish()
except cas.errors.TrackingError:
    print("ready", flush=True)
"""
    lost(here, more)
    repo = opened(here)
    assert len(recover_lost(repo)) == 1
    _, commit = only_run(repo)
    assert commit.status == "finished"
    assert points(repo, commit) == {"x": [(0, 1.0)]}


def test_a_journal_that_is_left_over_is_no_run(here: Path) -> None:
    with package.track("a") as run:
        pass
    repo = run.repo
    state = RunState("a/y", "runs/a/y", os.urandom(16))
    create_journal(repo, state, f"{state.uid.hex()}.journal").close()
    assert open_runs(repo) == []
    assert recover_lost(repo) == []
    assert list((repo.path / "journals").iterdir()) == []
    assert list(repo.refresh().refs) == [f"runs/{run.name}"]


def foreign(repo: Repo, **other: str) -> OpenRun:
    """A run that is open, of which another host's journal is there."""
    state = RunState("a/y", "runs/a/y", os.urandom(16))
    writer = create_journal(repo, state, "x.journal")
    writer.close(delete=True)
    known = {"host": socket.gethostname(), "boot": "b", "pidns": "n"} | other
    header = Header(run="a/y", ref="runs/a/y", uid=state.uid, pid=1, started=1, **known)
    JournalWriter.create(repo.path / "journals" / f"{state.uid.hex()}.journal", header).close()
    return next(run for run in open_runs(repo) if run.ref == "runs/a/y")


def test_a_run_of_another_host_is_not_recovered(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = package.track("a", name="y")
    run._live._journal.path.unlink()
    found = foreign(run.repo, host="elsewhere")
    assert found.status == "elsewhere"
    assert recover_lost(run.repo) == []
    assert found.path.exists()


def test_the_end_of_a_host_is_the_end_of_its_runs(here: Path) -> None:
    run = package.track("a", name="y")
    run._live._journal.path.unlink()
    assert foreign(run.repo, boot="before").status == "lost"
    assert recover_lost(run.repo) == ["a/y"]


def test_a_damaged_journal_keeps_no_other_run_from_being_recovered(here: Path) -> None:
    lost(here, "runs = [cas.track('a'), cas.track('a')]\nprint('ready', flush=True)\n")
    repo = opened(here)
    first, second = open_runs(repo)
    journal = JournalWriter(first.path, os.open(first.path, os.O_RDWR | os.O_APPEND), 0)
    journal.append([{"t": "artifact", "path": 5}])
    journal.close()
    with pytest.raises(CorruptionError, match=f"journal of {first.run}: damaged frame"):
        recover_lost(repo)
    assert f"runs/{second.run}" in repo.root.refs
    assert "could not be recovered" in cas(here, "tag", "some", second.run).stderr
    assert statuses(here) == {first.run: "lost"}


def test_a_torn_journal_gives_what_came_before(here: Path) -> None:
    lost(here)
    repo = opened(here)
    (run,) = open_runs(repo)
    with open(run.path, "ab") as journal:
        journal.write(b"\x10\0\0\0torn")
    assert recover_lost(repo) == ["a/x"]
    assert len(points(repo, only_run(repo)[1])["loss"]) == 200


def test_a_program_in_cas_run_that_still_lives_keeps_the_run_alive(here: Path) -> None:
    inner = script(
        here,
        "run = cas.track()\nrun.log({'inner': 1})\ntime.sleep(1)\n"
        "open('ready', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
        "run.log({'inner': 2})\nrun.finish()\nopen('done', 'w').close()\n",
    )
    child = started(here, Path(sys.executable).parent / "cas", "run", sys.executable, inner)
    eventually((here / "ready").exists)
    child.kill()
    child.wait()
    assert list(statuses(here).values()) == ["running"]
    assert recover_lost(opened(here)) == []
    (here / "go").touch()
    eventually((here / "done").exists)
    child.communicate()
    repo = opened(here)
    (name,) = eventually(lambda: recover_lost(repo))
    _, commit = only_run(repo)
    assert (commit.status, commit.full_name) == ("crashed", name)
    assert points(repo, commit) == {"inner": [(0, 1.0), (1, 2.0)]}
    assert list((repo.path / "journals").iterdir()) == []


def test_the_next_run_of_a_script_recovers_too(here: Path) -> None:
    lost(here)
    done = python(here, "-c", "import cas; cas.track('b').finish()")
    assert "cas: a/x ended without a finish: committed as crashed" in done.stderr
    assert statuses(here) == {}
