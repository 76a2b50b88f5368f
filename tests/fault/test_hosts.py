"""Hosts that share a repository and trust neither locks, process ids nor clocks of one another."""

import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cas.ids import CommitId, ObjectId
from cas.repo.check import fsck
from cas.repo.layout import HOLDS
from cas.repo.place import find
from cas.repo.repo import Repo
from cas.tracking.checkpoints.checkpoint import load
from cas.tracking.ends.recovery import open_runs, recover_lost
from tests.support.builders import Clock, read_tree, repository
from tests.support.hosts import Host, file_servers, state_at, why_not
from tests.support.runs import checkpoints, opened, points
from tests.support.torture import seconds

pytestmark = [
    pytest.mark.slow,  # processes on hosts of their own
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there are hosts"),
]
SILENT, ALIVE = 3.0, 0.25  # seconds, for the minutes that it takes elsewhere

Said = list[list[Any]]


KINDS = ("one file system", "a file server")
on_both = pytest.mark.parametrize("kind", KINDS)
on_a_file_server = pytest.mark.parametrize("kind", KINDS[1:])


@pytest.fixture
def hosts(kind: str, tmp_path: Path) -> tuple[Host, Host]:
    served = kind == "a file server"
    if served and not file_servers():
        pytest.skip("bindfs is not here to play the file server")
    shared = tmp_path / "shared"
    shared.mkdir()
    repository(shared)
    return (
        Host(tmp_path, "north", shared, served=served),
        Host(tmp_path, "south", shared, served=served),
    )


def shared_by(hosts: tuple[Host, Host]) -> Path:
    return hosts[0]._shared


def recovered(said: Said) -> list[str]:
    return [line[1] for line in said if line[0] == "recovered"]


def whole(folder: Path, name: str, said: Said, refs: Iterable[str]) -> None:
    """Insist that all that a run was told is in one of the commits that became of it."""
    repo = opened(folder)
    found: dict[int, float] = {}
    saved = set()
    for ref in refs:
        tip = repo.refresh().refs[ref]
        losses = points(repo, repo.commit(tip)).get("loss", [])
        assert losses == [(step, float(step)) for step in range(len(losses))]
        found |= dict(losses)
        saved |= {str(id) for id, _ in checkpoints(repo, tip)}
    for line in said:
        if line[0] == "saved":
            assert line[1] in saved
            state = load(repo, CommitId(ObjectId.parse(line[1]))).state
            assert state["model"] == {"w": state_at(name, line[2])}
    told = [(line[1], line[2]) for line in said if line[0] == "logged"]
    sure = [step for at, step in told if at < told[-1][0] - 1]
    assert len(found) > max(sure, default=-1)
    trouble = [one for one in fsck.check(repo, full=True) if one.severity != fsck.INFO]
    assert not trouble


@pytest.mark.torture
@on_both
def test_a_slow_host_is_not_taken_for_dead_and_a_dead_one_is(hosts: tuple[Host, Host]) -> None:
    north, south = hosts
    with ExitStack() as stack:
        run = stack.enter_context(north.start("train", SILENT, ALIVE, "x"))
        run.hear("saved")
        lived = seconds(SILENT * 1.2, 300)
        watcher = stack.enter_context(south.start("keep", SILENT, ALIVE, lived))
        assert not recovered([watcher.hear("kept", lived + 60)])
        said = run.kill()
        died = time.monotonic()
        with south.start("keep", SILENT, ALIVE, 1000) as keeper:
            assert keeper.hear("recovered")[1] == "a/x"
            assert time.monotonic() - died >= SILENT - 1
            assert recovered(keeper.stop()) == ["a/x"]
    whole(shared_by(hosts), "x", said, ["runs/a/x"])


@on_a_file_server
def test_who_does_not_wait_for_signs_of_life_takes_a_live_run_for_dead(
    hosts: tuple[Host, Host],
) -> None:
    """As a check of the test above: what it looks for can be seen."""
    north, south = hosts
    with ExitStack() as stack:
        run = stack.enter_context(north.start("train", SILENT, 1000, "x"))
        run.hear("saved")
        run.freeze()
        keeper = stack.enter_context(south.start("keep", 0.1, ALIVE, 1000))
        assert keeper.hear("recovered")[1] == "a/x"
        keeper.stop()
        run.kill()


@on_a_file_server  # elsewhere its lock keeps everybody from taking it for dead
def test_a_host_that_stood_still_goes_on_under_another_name(hosts: tuple[Host, Host]) -> None:
    north, south = hosts
    with ExitStack() as stack:
        run = stack.enter_context(north.start("train", SILENT, ALIVE, "x"))
        run.hear("saved")
        run.freeze()
        keeper = stack.enter_context(south.start("keep", SILENT, ALIVE, 1000))
        assert keeper.hear("recovered")[1] == "a/x"
        run.thaw()
        run.hear("saved")
        run.hear("saved")
        said = run.stop()
        assert said[-1][1] == "a/x-2"
        assert run.errors.count("was taken for dead") == 1
        assert recovered(keeper.stop()) == ["a/x"]
    whole(shared_by(hosts), "x", said, ["runs/a/x", "runs/a/x-2"])


@pytest.mark.torture
@on_a_file_server
def test_copies_that_are_taken_while_a_run_writes_open_whole(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    north, south = hosts
    with ExitStack() as stack:
        runs = [
            stack.enter_context(north.start("train", SILENT * 100, ALIVE, name)) for name in "xy"
        ]
        for run in runs:
            run.hear("saved")
        keeper = stack.enter_context(south.start("keep", SILENT * 100, ALIVE, 10_000))
        end = time.monotonic() + seconds(2, 300)
        number = 0
        while not number or time.monotonic() < end:
            known = [run.hear("saved")[1] for run in runs]
            begun = opened(shared_by(hosts)).refresh().seq
            copy = tmp_path / f"copy{number % 2}"
            _copied(shared_by(hosts), copy)
            _is_whole(copy, known, begun)
            number += 1
        said = [run.stop() for run in runs]
        assert not recovered(keeper.stop())
    for name, lines in zip("xy", said, strict=True):
        whole(shared_by(hosts), name, lines, [f"runs/a/{name}"])


def _copied(source: Path, target: Path) -> None:
    """Copy a repository file by file, as it goes on changing."""
    shutil.rmtree(target, ignore_errors=True)
    if shutil.which("rsync"):
        done = subprocess.run(
            ["rsync", "-a", f"{source}/", str(target)], capture_output=True, check=False
        )
        assert done.returncode in {0, 24}, done.stderr  # 24: files went away meanwhile
    else:
        subprocess.run(["cp", "-r", str(source), str(target)], capture_output=True, check=False)


def _is_whole(copy: Path, known: Iterable[str], begun: int) -> None:
    """Insist that a copy opens at a root that is whole, and says which ones it passes over.

    A collection may have taken packs out of every root that was there as the copy was begun; else
    the copy has all that was acknowledged by then.
    """
    told: list[str] = []
    repo = Repo.open(find(copy), who="ada", clock=Clock())
    vars(repo)["tell"] = told.append
    root = repo.refresh()
    last = max(int(path.name) for path in (repo.path / "roots").iterdir())
    assert bool(told) == (root.seq < last)
    for name, id in root.refs.items():
        if name.startswith(HOLDS):
            payload = repo.commit(id).payload
            assert payload is not None
            assert read_tree(repo, payload)
    if root.seq >= begun:
        for saved in known:
            assert load(repo, CommitId(ObjectId.parse(saved))).step is not None
    repo.backend.close()


@on_both
def test_a_run_on_a_host_that_was_booted_again_is_lost_at_once(hosts: tuple[Host, Host]) -> None:
    north, _ = hosts
    with north.start("train", SILENT, ALIVE, "x") as run:
        run.hear("saved")
        said = run.kill()
    north._boot.write_text("0b0074e1-0000-4000-8000-000000000000\n")
    with north.start("keep", 10_000, ALIVE, 0.5) as keeper:
        keeper.hear("kept")
        found = recovered(keeper.stop())
    # Not from a file server: there may be another host of the same name.
    assert found == ([] if north._served else ["a/x"])
    if found:
        whole(shared_by(hosts), "x", said, ["runs/a/x"])
    else:
        (left,) = open_runs(opened(shared_by(hosts)))
        assert left.status != "running" or not recover_lost(opened(shared_by(hosts)))
