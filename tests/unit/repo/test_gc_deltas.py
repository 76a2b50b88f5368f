"""A collection keeps what deltas are read from, and takes it when it can be spared."""

from pathlib import Path

import pytest

from cas.codec.element import Element
from cas.ids import BlobId, CommitId, blob_id
from cas.repo.check import fsck
from cas.repo.collect import gc, gcplan, gcrecode, gcstages
from cas.repo.collect.gcmoved import moved
from cas.repo.collect.gcplan import GcPlan
from cas.repo.layout import HOLDS
from cas.repo.marking import reach
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.store.encoding import Base, encode_delta
from cas.store.packed import PackedStore
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    reopened,
    repository,
    set_ref,
)
from tests.support.drift import commit_state, depths, drift_run, drifting, floats, places, weights

BIG = 300_000  # in a data pack of its own


@pytest.fixture(params=["at once", "in steps"], autouse=True)
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in steps":
        monkeypatch.setattr(gcstages, "SMALL", 0)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def let_go(repo: Repo, *ids: CommitId) -> None:
    for id in ids:
        set_ref(repo, f"{HOLDS}{id}", None)


def collect(repo: Repo) -> GcPlan:
    """Collect, and hold the plan to what it says."""
    before = sum(pack_files(repo).values())
    planned = gc.plan(repo)
    done = gc.execute(repo, planned)
    after = sum(pack_files(repo).values())
    assert planned.freed_bytes == done.freed_bytes == before - after
    assert done.kept_bytes == after
    assert not list(fsck.check(reopened(repo), full=True))
    assert gc.plan(repo).empty
    return done


def drifted(repo: Repo, steps: int, *, by: int = 1, smallest: bool = False) -> list[CommitId]:
    """Return the checkpoints of a run whose weights are stored as deltas."""
    ids = drift_run(repo, steps=steps, size=BIG, by=by)
    repack.execute(repo, repack.plan(repo, smallest=smallest))
    assert depths(repo)
    return ids


def data(step: int, by: int = 1) -> dict[str, bytes]:
    return {"w": drifting(1, step, BIG, by)}


def write_delta(tx: Transaction, data: bytes, base: Base) -> None:
    record = encode_delta(blob_id(data), data, base, Element(1))
    assert record is not None
    tx.writer.copy(*record)


def test_the_bases_of_what_is_live_are_live(repo: Repo) -> None:
    ids = drifted(repo, 4, smallest=True)
    let_go(repo, *ids[:3])
    live = reach(repo, repo.refresh())
    chain = [blob_id(drifting(1, step, BIG)) for step in range(4)]
    assert set(chain) <= set(live.ids())
    assert live.only_bases == frozenset(chain[:3])
    assert [live.deltas[id] for id in chain[1:]] == chain[:3]


def test_a_key_frame_that_much_leans_on_stays(repo: Repo) -> None:
    ids = drifted(repo, 4)
    let_go(repo, ids[0])
    done = collect(repo)
    assert done.freed_bytes < BIG / 4
    assert [weights(repo, id) for id in ids[1:]] == [data(step) for step in (1, 2, 3)]
    assert depths(repo)


def test_a_key_frame_that_one_leans_on_goes_and_that_is_written_whole(repo: Repo) -> None:
    ids = drifted(repo, 2)
    let_go(repo, ids[0])
    done = collect(repo)
    assert len(done.recoded) == 1
    assert BIG / 10 < done.freed_bytes < BIG / 2  # as much as the delta took
    assert weights(repo, ids[1]) == data(1)
    assert depths(repo) == []


def test_a_whole_chain_goes(repo: Repo) -> None:
    ids = drifted(repo, 8, smallest=True)
    let_go(repo, *ids[:6])
    assert collect(repo).freed_bytes > BIG
    assert [weights(repo, id) for id in ids[6:]] == [data(6), data(7)]
    assert depths(repo) == [7]  # a depth is the most that it may be


def test_an_element_is_known_from_the_delta(repo: Repo) -> None:
    """What is written whole again takes no more than it did before it was a delta."""
    raws = [floats(3, step, BIG // 4) for step in range(2)]
    ids = [commit_state(repo, "models/m", {("w",): ("float32", (BIG // 4,), raw)}) for raw in raws]
    stored = places(repo)[blob_id(raws[1])].row.stored
    assert stored < 0.9 * len(raws[1])
    repack.execute(repo, repack.plan(repo))
    assert depths(repo) == [1]
    let_go(repo, ids[0])
    collect(repo)
    assert places(repo)[blob_id(raws[1])].row.stored <= stored * 1.1


def test_dead_deltas_in_a_pack_that_stays_keep_their_bases(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcplan, "SMALL_DATA", 0)
    monkeypatch.setattr(gcrecode, "whole_again", lambda *_: {})
    base = RunBuilder(repo, "exp/base")
    first = base.checkpoint(0, {"w": drifting(1, 0, BIG)})
    second = base.checkpoint(1, {"w": drifting(1, 1, BIG), "x": noise(5, 4 * BIG)})
    repack.execute(repo, repack.plan(repo))
    assert depths(repo) == [1]
    # x lives on beside the delta, in a pack that is not worth to be rewritten.
    kept = RunBuilder(repo, "exp/kept").checkpoint(0, {"x": noise(5, 4 * BIG)})
    let_go(repo, first, second)
    found = {id: place.pack for id, place in places(repo).items()}
    collect(repo)
    delta, under = (blob_id(drifting(1, step, BIG)) for step in (1, 0))
    assert found[delta] in repo.refresh().packs
    assert places(repo)[under].row.depth == 0
    # A writer that finds the dead delta may rely on it without a walk.
    again = RunBuilder(repo, "exp/again").checkpoint(0, {"w": drifting(1, 1, BIG)})
    assert weights(reopened(repo), again) == data(1)
    assert weights(repo, kept) == {"x": noise(5, 4 * BIG)}


def test_dead_deltas_in_a_pack_that_is_rewritten_keep_nothing(repo: Repo) -> None:
    ids = drifted(repo, 3)
    let_go(repo, *ids)
    assert collect(repo).freed_bytes > BIG
    assert blob_id(drifting(1, 0, BIG)) not in places(repo)


def test_a_spare_delta_does_not_take_the_place_of_the_full_form(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leans on that is no deeper than the delta."""
    monkeypatch.setattr(gcplan, "SMALL_DATA", 0)
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(0, {"w": drifting(1, 0, BIG)})
    both = {"w": drifting(1, 1, BIG), "x": noise(5, 4 * BIG)}
    ids = [*run.ids, run.checkpoint(1, both)]
    repack.execute(repo, repack.plan(repo))
    under, leans = drifting(1, 1, BIG), drifting(1, 2, BIG)
    # One who has not seen the delta stores the same whole, and what leans on it.
    blind = reopened(repo)
    blind.store = PackedStore(repo.backend, lambda: ())

    def build(tx: Transaction) -> None:
        base = Base(tx.writer.blob(under), under, 0)
        tx.writer.blob(noise(6, 2 * BIG))
        write_delta(tx, leans, base)

    transact(blind, "blob", build)
    last = RunBuilder(repo, "exp/other").checkpoint(0, {"w": leans})
    assert places(repo)[blob_id(under)].row.depth == 0
    assert collect(repo).freed_bytes > 2 * BIG
    assert weights(repo, ids[1]) == both
    assert weights(reopened(repo), last) == {"w": leans}


def test_a_plan_holds_on_a_newer_root_only_while_bases_stay(repo: Repo) -> None:
    ids = drifted(repo, 2)
    let_go(repo, ids[0])
    planned = gc.plan(repo)
    assert planned.recoded
    base = blob_id(drifting(1, 0, BIG))
    assert base not in planned.live
    commit_files(repo, {"a": b"nothing to do with it"})
    assert moved(repo, planned, repo.refresh()) is not None

    def lean(repo: Repo) -> None:
        raw = drifting(1, 2, BIG)

        def build(tx: Transaction) -> BlobId:
            id = blob_id(raw)
            write_delta(tx, raw, Base(base, drifting(1, 0, BIG), 0))
            return id

        transact(repo, "delta", build)

    lean(repo)
    again = moved(repo, planned, repo.refresh())
    assert again is not None
    assert base in again.live
    gc.execute(repo, planned)
    assert not list(fsck.check(reopened(repo), full=True))
    assert weights(repo, ids[1]) == data(1)
