"""A run whose process is gone shows as lost, and the next writing command commits it, once."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cas as package
from cas.errors import CorruptionError, RefusedError
from cas.repo.repo import Repo
from cas.tracking.captured.environment import HostInfo
from cas.tracking.ends import liveness, recovery
from cas.tracking.ends.recovery import OpenRun, open_runs, recover, recover_lost
from cas.tracking.journals.feed import create_journal
from cas.tracking.journals.journal import Header
from cas.tracking.journals.journalwriter import JournalWriter
from cas.tracking.journals.state import RunState
from cas.tracking.run import Run
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
run.save_checkpoint(model={"w": 1}, step=99, wait=True)
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
def then_die(*args, **more):
    publish(*args, **more)
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
def full(*_, **__):
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
    own = repo.commit(repo.refresh().refs["open/a/y"]).journal
    state = RunState("a/y", "runs/a/y", own.run if own is not None else os.urandom(16))
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
    run._live._feed._journal.path.unlink()
    found = foreign(run.repo, host="elsewhere")
    assert found.status == "elsewhere"
    assert recover_lost(run.repo) == []
    assert found.path.exists()


def test_the_end_of_a_host_is_the_end_of_its_runs(here: Path) -> None:
    run = package.track("a", name="y")
    run._live._feed._journal.path.unlink()
    assert foreign(run.repo, boot="before").status == "lost"
    assert recover_lost(run.repo) == ["a/y"]


def test_a_damaged_journal_keeps_no_other_run_from_being_recovered(here: Path) -> None:
    lost(here, "runs = [cas.track('a'), cas.track('a')]\nprint('ready', flush=True)\n")
    repo = opened(here)
    first, second = open_runs(repo)
    size = first.path.stat().st_size
    journal = JournalWriter(first.path, os.open(first.path, os.O_RDWR | os.O_APPEND), size)
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


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time go by for whoever watches journals."""
    passed = [0.0]

    def go_by(seconds: float) -> None:
        passed[0] += seconds

    defaults = {"ticks": lambda: 1000.0 + passed[0]}
    monkeypatch.setattr(liveness.Watch.__init__, "__kwdefaults__", defaults)
    return go_by


def elsewhere(monkeypatch: pytest.MonkeyPatch, name: str = "elsewhere") -> None:
    """Be another host, to which the locks of this one do not reach."""
    place = HostInfo(name, f"boot of {name}", f"pid of {name}")
    monkeypatch.setattr(recovery, "here", lambda: place)
    monkeypatch.setattr(recovery, "is_locked", lambda _: False)
    monkeypatch.setattr("fcntl.flock", lambda *_: None)


def beat(run: Run) -> None:
    """Let a minute go by for a run."""
    journal = run._live._feed._journal
    journal.tend(journal._appended_at + 60)


def test_a_silent_run_of_another_host_is_lost_after_ten_minutes(
    here: Path, monkeypatch: pytest.MonkeyPatch, ticks: Callable[[float], None]
) -> None:
    run = package.track("a", name="x")
    run.log({"loss": 1.0})
    repo = opened(here)
    elsewhere(monkeypatch)
    assert recover_lost(repo) == []
    for _ in range(15):
        ticks(60)
        beat(run)
        assert recover_lost(repo) == []  # slow as it may be, it lives
    ticks(599)
    assert recover_lost(repo) == []
    assert [one.status for one in open_runs(repo)] == ["elsewhere"]
    ticks(1)
    assert [one.status for one in open_runs(repo)] == ["lost"]
    assert recover_lost(repo) == ["a/x"]
    assert recover_lost(repo) == []
    assert open_runs(repo) == []
    run.finish()


def take_for_dead(run: Run, repo: Repo) -> str | None:
    (found,) = [one for one in open_runs(repo) if one.uid == run._live.state.uid]
    return recover(repo, found, force=True)


def test_a_run_that_was_taken_for_dead_goes_on_again_and_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = package.track("a", name="x", params={"lr": 1})
    for number in range(3):
        run.log({"loss": number})
        run._live.flush()
        name = "a/x" if number == 0 else f"a/x-{number + 1}"
        assert take_for_dead(run, opened(here)) == name
        run.log_params({"round": number})
        run.save_checkpoint(model={"w": number}, step=number, wait=True)
        assert run.name == f"a/x-{number + 2}"
        assert [one.run for one in open_runs(opened(here))] == [run.name]
    run.finish()
    assert capsys.readouterr().err.count("was taken for dead and committed") == 1
    repo = opened(here)
    tips = {ref: repo.commit(id) for ref, id in repo.refresh().refs.items() if "runs/" in ref}
    assert sorted(tips) == ["runs/a/x", "runs/a/x-2", "runs/a/x-3", "runs/a/x-4"]
    last = tips["runs/a/x-4"]
    assert last.status == "finished"
    assert points(repo, last) == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert repo.document(last.tree, "params.json") == {"lr": 1, "round": 2}
    assert list((repo.path / "journals").iterdir()) == []
    cas(here, "fsck", "--full")


GOES_ON = """
run = cas.track("a", name="x")
run.log({"loss": 0})
run._live.flush()
print("ready", flush=True)
while not os.path.exists("taken"): time.sleep(0.01)
run.log({"loss": 1})
if os.path.exists("save"): run.save_checkpoint(model={"w": 1}, step=1, wait=True)
run.log({"loss": 2})
run._live.flush()
print("on", flush=True)
"""


@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("journal", ["kept", "removed"])
def test_a_run_that_lived_on_is_recovered_once_more(here: Path, journal: str, save: bool) -> None:
    """Whether it noticed that it had been committed or not, and whatever became of its journal."""
    child = started(here, sys.executable, script(here, GOES_ON + WAITING))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    repo = opened(here)
    (found,) = open_runs(repo)
    assert recover(repo, found, force=True) == "a/x"
    if save:
        (here / "save").touch()
    if journal == "removed":
        found.path.unlink()
        eventually(found.path.exists)
    (here / "taken").touch()
    assert child.stdout.readline() == "on\n"
    if save:
        (again,) = open_runs(opened(here))
        assert (again.run, again.status) == ("a/x-2", "running")
    killed(child)
    assert recover_lost(repo) == ["a/x-2"]
    assert recover_lost(repo) == []
    commits = {ref: repo.commit(id) for ref, id in repo.refresh().refs.items() if "runs/" in ref}
    assert sorted(commits) == ["runs/a/x", "runs/a/x-2"]
    assert points(repo, commits["runs/a/x"]) == {"loss": [(0, 0.0)]}
    assert points(repo, commits["runs/a/x-2"]) == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert list((repo.path / "journals").iterdir()) == []
    cas(here, "fsck", "--full")


def test_what_another_host_took_for_dead_is_kept_until_it_is_surely_silent(
    here: Path, monkeypatch: pytest.MonkeyPatch, ticks: Callable[[float], None]
) -> None:
    run = package.track("a", name="x")
    run.log({"loss": 0})
    run._live.flush()
    repo = opened(here)
    elsewhere(monkeypatch)
    recover_lost(repo)
    ticks(600)
    assert recover_lost(repo) == ["a/x"]
    journal = run._live._feed._journal.path
    assert journal.exists()
    run.log({"loss": 1})  # it does not know, and never commits again
    run._live.flush()
    assert recover_lost(repo) == []
    ticks(600)
    assert recover_lost(repo) == ["a/x-2"]
    assert recover_lost(repo) == []
    assert journal.exists()
    run._live._feed.halt()  # else it would put it back
    ticks(600)
    assert recover_lost(repo) == []
    assert not journal.exists()
    tip = repo.refresh().refs["runs/a/x-2"]
    assert points(repo, repo.commit(tip)) == {"loss": [(0, 0.0), (1, 1.0)]}
    run._live._feed.close()
    run._leave()


def test_a_run_whose_journal_is_gone_is_committed_from_what_it_saved(here: Path) -> None:
    lost(here)
    repo = opened(here)
    (found,) = open_runs(repo)
    found.path.unlink()
    assert recover_lost(repo) == []
    (orphan,) = open_runs(repo, orphans=True)
    assert (orphan.run, orphan.ref, orphan.status) == ("a/x", "runs/a/x", "orphaned")
    assert recover(repo, orphan) == "a/x"
    _, commit = only_run(repo)
    assert commit.status == "crashed"
    assert points(repo, commit)["loss"] == [(step, 1 / (step + 1)) for step in range(100)]
    assert text(repo, commit, "artifacts/small.txt") == "small"
    assert {parent.role for parent in commit.parents} == {"previous", "dataset"}
    assert open_runs(repo, orphans=True) == []
    cas(here, "fsck", "--full")


def test_a_run_that_is_locked_is_recovered_by_force_alone(here: Path) -> None:
    run = package.track("a", name="x")
    repo = opened(here)
    (found,) = open_runs(repo)
    with pytest.raises(RefusedError, match=f"process {os.getpid()} on"):
        recover(repo, found)
    assert recover(repo, found, force=True) == "a/x"
    run.finish()
    assert "runs/a/x-2" in repo.refresh().refs


def test_of_two_that_recover_a_run_one_does(here: Path) -> None:
    lost(here)
    repo, other = opened(here), opened(here)
    (found,) = open_runs(other)
    assert recover_lost(repo) == ["a/x"]
    assert recover(other, found) is None
    assert [ref for ref in repo.refresh().refs if ref.startswith("runs/")] == ["runs/a/x"]
