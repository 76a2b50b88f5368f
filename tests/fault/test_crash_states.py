"""The power fails at any moment of any command, and takes what it may of what was not synced.

Each program runs once, on operations that are recorded. Then every state of the disk that a crash
may leave is made and looked at: see `tests/support/crashstates.py` and `crashworld.py`.
"""

import random
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cas as package
from cas.backend.sink import FileSink
from cas.repo import config
from cas.repo.collect import gc, reserve
from cas.repo.layout import HOLDS
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.retain import prune
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction, transact
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    set_ref,
)
from tests.support.crashstates import Crash, Event, later, outcomes, without, write_state
from tests.support.crashworld import PLACE, LostError, Trace, World, survivors
from tests.support.drift import drift_run
from tests.support.faulty import everywhere
from tests.support.torture import amount, tell

pytestmark = pytest.mark.torture


@pytest.fixture(autouse=True)
def small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each state a megabyte that tells nothing."""
    monkeypatch.setattr(reserve, "SIZE", 1000)
    monkeypatch.delenv("CAS_DIR", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where states are written: in memory when that can be."""
    return tmp_path / "state"


def first_steps(world: World) -> None:
    """A repository, small and large commits, refs and a setting."""
    world.create()
    world.do(lambda repo: commit_files(repo, {"a": b"small"}))
    world.do(lambda repo: commit_files(repo, {"a": noise(1, 9000), "b": noise(2, 700_000)}))
    world.do(lambda repo: config.change(repo, "author", "Ada"))
    world.do(lambda repo: set_ref(repo, "tags/x", repo.root.refs["heads/main"]))
    world.do(lambda repo: config.change(repo, "author", "Bob"))
    world.do(lambda repo: commit_files(repo, {"c": b"with"}, payload={"w": noise(3, 70_000)}))


def run_and_collect(world: World) -> None:
    """Checkpoints, prune, and a collection that rewrites half-dead packs."""
    world.create()
    world.do(lambda repo: commit_files(repo, {"a": noise(1, 90_000), "b": b"b"}, ref="tags/x"))
    runs = RunBuilder(world.repo(), "exp/one")
    for step in range(3):
        runs.checkpoint(step, {"w": noise(10 + step, 2000)}, value=1.0)
        world.told(world.repo())
    runs.finish()
    world.told(world.repo())
    world.do(lambda repo: commit_files(repo, {"a": noise(1, 90_000)}, ref="tags/y"))
    world.do(lambda repo: set_ref(repo, "tags/x", None))
    world.do(lambda repo: prune.execute(repo, prune.plan(repo, Keep(last=1))))
    world.do(lambda repo: gc.execute(repo, gc.plan(repo)))


def many_small(world: World) -> None:
    """Commits until indexes are merged, and refs until they are a snapshot."""
    world.create()
    for number in range(9):
        world.do(lambda repo, n=number: commit_files(repo, {"a": b"%d" % n}, ref=f"tags/{n}"))  # type: ignore[misc]

    def name_all(repo: Repo) -> None:
        id = repo.root.refs["tags/1"]

        def make(tx: Transaction) -> None:
            for number in range(1100):
                tx.set_ref(f"tags/m{number}", id)

        transact(repo, "names", make)

    world.do(name_all)
    world.do(lambda repo: commit_files(repo, {"a": b"more"}, ref="tags/more"))
    world.do(lambda repo: gc.execute(repo, gc.plan(repo)))


def repacked(world: World) -> None:
    """A repack into deltas, and a collection that writes one whole."""
    world.create()
    ids = drift_run(world.repo(), steps=3, size=9000)
    world.told(world.repo())
    world.do(lambda repo: repack.execute(repo, repack.plan(repo)))
    world.do(lambda repo: set_ref(repo, f"{HOLDS}{ids[0]}", None))
    world.do(lambda repo: gc.execute(repo, gc.plan(repo)))


def tracked(world: World) -> None:
    """A run as users write it."""
    world.create()
    with everywhere(world.ops), chdir(world.path.parent):
        run = package.track("exp", name="one", repo=world.path)
        for step in range(2):
            run.log({"loss": 1.0 / (step + 1)})
            run.save_checkpoint(model={"w": np.full(3000, step)}, step=step, wait=True)
        run.finish()
    world.told(world.repo())


def by_hand(world: World) -> None:
    """What a user does to runs, takes back, and makes good."""
    world.create()
    drift_run(world.repo(), steps=3, size=2000)
    world.told(world.repo())
    world.cas("archive", "exp/one")
    world.cas("prune", "--keep-last", "1", "--yes")
    world.cas("undo", "--yes")
    world.cas("rm", "exp/one", "--yes")
    world.cas("undo", "--yes")
    world.cas("prune", "--keep-last", "1", "--yes", "--gc")
    world.cas("fsck", "--repair")


PROGRAMS: dict[str, Callable[[World], None]] = {
    made.__name__: made
    for made in (first_steps, run_and_collect, many_small, repacked, tracked, by_hand)
}


def recorded(program: Callable[[World], None], top: Path) -> Trace:
    top.mkdir(parents=True)
    world = World(top)
    program(world)
    return world.trace


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_crash_leaves_old_or_new(name: str, tmp_path: Path, folder: Path) -> None:
    trace = recorded(PROGRAMS[name], tmp_path / "origin")
    rng = random.Random(name)
    some = picked(trace, rng, amount(24, 10**9), amount(2, 60))
    assert len(list(survivors(trace, some, folder))) == len(some) > 10
    tell(f"crash states, {name}: {len(some)} states, at {len(trace.events)} operations")


def picked(trace: Trace, rng: random.Random, count: int, more: int) -> list[Crash]:
    """Return so many crashes: at some operations when few are wanted, and whenever one returned."""
    moments = range(len(trace.events) + 1)
    ends = {known.after for known in trace.known}
    at = ends | set(rng.sample(moments, min(len(moments), count)))
    found = trace.crashes(rng, more, at)
    return rng.sample(found, min(len(found), count))


def test_a_crash_while_another_is_made_good(tmp_path: Path, folder: Path) -> None:
    trace = recorded(run_and_collect, tmp_path / "origin")
    rng = random.Random(1)
    first = picked(trace, rng, amount(2, 90), 2)
    looked_at = 0
    left = outcomes(trace.top, trace.before, trace.events, first)
    for number, (_, state) in enumerate(left):
        top = tmp_path / f"{number}"
        top.mkdir()
        write_state(state, top)
        if not (top / PLACE / "format").exists():
            continue
        again = recorded_again(top)
        some = picked(again, rng, amount(10, 10**9), amount(1, 20))
        looked_at += len(list(survivors(again, some, folder)))
    tell(f"crash states: {looked_at} states after {len(first)} crashes")
    assert looked_at > 10


def recorded_again(top: Path) -> Trace:
    """Record what is done after a crash."""
    world = World(top)
    world.do(lambda repo: commit_files(repo, {"a": noise(7, 70_000)}, ref="tags/again"))
    world.do(lambda repo: gc.execute(repo, gc.plan(repo)))
    return world.trace


class TestPlanted:
    """Each is a bug that a careless change would make; the check must not miss one."""

    @pytest.mark.parametrize(
        ("kind", "where"),
        [("sync", "/packs/"), ("sync", "/tmp/"), ("syncdir", "/packs"), ("syncdir", "/roots")],
    )
    def test_a_sync_that_is_left_out(
        self, kind: str, where: str, tmp_path: Path, folder: Path
    ) -> None:
        trace = recorded(two_commits, tmp_path / "origin")
        trace.events = renumbered(trace, without(trace.events, kind, where))
        assert caught(trace, folder)

    def test_a_seal_that_does_not_sync(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FileSink, "seal", FileSink.close)
        assert caught(recorded(two_commits, tmp_path / "origin"), folder)

    def test_a_root_that_comes_before_its_packs_are_sealed(
        self, tmp_path: Path, folder: Path
    ) -> None:
        trace = recorded(two_commits, tmp_path / "origin")
        trace.events = later(
            trace.events, "sync", "/packs/", lambda e: e.kind == "syncdir" and "/roots" in e.path
        )
        assert caught(trace, folder)

    def test_packs_that_go_before_the_root_is_durable(self, tmp_path: Path, folder: Path) -> None:
        trace = recorded(run_and_collect, tmp_path / "origin")
        trace.events = later(
            trace.events,
            "syncdir",
            "/roots",
            lambda e: e.kind == "syncdir" and e.path.endswith("/packs"),
        )
        # All that was acknowledged but the last collection is given up, which shows this alone.
        trace.known = [trace.known[0], trace.known[-1]]
        assert caught(trace, folder)

    def test_a_setting_that_is_not_synced(self, tmp_path: Path, folder: Path) -> None:
        trace = recorded(settings_alone, tmp_path / "origin")
        last = [event for event in trace.events if event.kind == "syncdir"][-1]
        trace.events = renumbered(trace, [event for event in trace.events if event is not last])
        assert caught(trace, folder)


def two_commits(world: World) -> None:
    world.create()
    world.do(lambda repo: commit_files(repo, {"a": b"small"}))
    world.do(lambda repo: commit_files(repo, {"a": noise(1, 9000)}, payload={"w": noise(2, 9000)}))


def settings_alone(world: World) -> None:
    world.create()
    world.do(lambda repo: config.change(repo, "author", "Ada"))


def renumbered(trace: Trace, events: list[Event]) -> list[Event]:
    """Return these events; what is acknowledged after one that is gone comes so much earlier."""
    left = {id(event) for event in events}
    before = [0]
    for event in trace.events:
        before.append(before[-1] + (id(event) in left))
    trace.known = [replace(known, after=before[known.after]) for known in trace.known]
    return events


def caught(trace: Trace, folder: Path) -> bool:
    """Say whether a bug is found in as many states as the short form looks at."""
    some = picked(trace, random.Random(0), 50, 0)
    try:
        for _ in survivors(trace, some, folder):
            pass
    except LostError:
        return True
    return False
