"""A repack makes it smaller, keeps everything, and finds nothing to do the second time."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cas.backend.local import LocalBackend
from cas.codec.base import CodecTag
from cas.codec.element import Element
from cas.errors import RefusedError
from cas.ids import Buffer, blob_id
from cas.objects.commit import BASE_MODEL, Parent
from cas.objects.kind import Kind
from cas.repo.collect import gc
from cas.repo.layout import CACHE, HOLDS
from cas.repo.repacking import repack, repackplan
from cas.repo.repacking.forms import Form, Option
from cas.repo.repacking.recode import as_delta
from cas.repo.repacking.repack import Repacked
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.store.encoding import Base, Record, encode_delta
from cas.store.packed import PackedStore
from cas.store.pinned import PinnedStore
from cas.store.record import MAX_DEPTH, RecordHeader
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    reopened,
    repository,
    set_ref,
    whole,
)
from tests.support.drift import SIZE, depths, drift_run, drifting, places, weights
from tests.support.stores import Shelf


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def repacked(repo: Repo, *, smallest: bool = False, max_extra: int | None = None) -> Repacked:
    """Repack, and hold what is told to what is on disk."""
    before = sum(pack_files(repo).values())
    planned = repack.plan(repo, smallest=smallest)
    done = repack.execute(repo, planned, max_extra=max_extra)
    after = sum(pack_files(repo).values())
    assert (done.old_bytes, done.new_bytes) == (before, after)
    assert whole(repo)
    return done


def test_a_run_that_drifts_becomes_smaller_and_reads_back_equal(repo: Repo) -> None:
    ids = drift_run(repo)
    done = repacked(repo)
    assert done.deltas == 5
    assert done.new_bytes < done.old_bytes / 2
    for step, id in enumerate(ids):
        assert weights(repo, id) == {"w": drifting(1, step)}
        assert weights(reopened(repo), id) == {"w": drifting(1, step)}


def test_the_second_time_there_is_nothing_to_do_and_nothing_is_written(repo: Repo) -> None:
    drift_run(repo)
    repacked(repo)
    before, files = repo.refresh(), pack_files(repo)
    planned = repack.plan(repo)
    assert planned.empty
    assert repack.execute(repo, planned).steps == 0
    assert (repo.refresh(), pack_files(repo)) == (before, files)


def test_without_what_was_noted_down_there_is_nothing_to_do_either(repo: Repo) -> None:
    for steps in (9, 10, 11, 12):  # with a new key frame at the end, or not
        drift_run(repo, f"exp/{steps}", seed=steps, steps=steps, by=20)
    assert 0 < repacked(repo).deltas < 38
    shutil.rmtree(repo.path / CACHE)
    before = repo.refresh()
    assert repack.execute(repo, repack.plan(repo)).deltas == 0
    assert repo.refresh() == before


def test_a_plan_changes_nothing_and_is_about_right(repo: Repo) -> None:
    drift_run(repo)
    before, files = repo.refresh(), pack_files(repo)
    planned = repack.plan(repo)
    assert (repo.refresh(), pack_files(repo)) == (before, files)
    done = repack.execute(repo, planned)
    assert planned.saved_bytes == pytest.approx(done.old_bytes - done.new_bytes, rel=0.1)


def test_reading_stays_within_twice_the_full_form(repo: Repo) -> None:
    drift_run(repo, steps=16)
    full = {id: place.row.stored for id, place in places(repo).items()}
    repacked(repo)
    taken = places(repo)
    store = PinnedStore(repo.backend, repo.refresh().packs)
    deep = [place for place in taken.values() if place.row.depth]
    assert len(deep) == 15
    for place in deep:
        chain = [place]
        while (base := store.base(chain[-1])) is not None:
            chain.append(taken[base])
        assert sum(link.row.stored for link in chain) <= 2 * full[place.row.id]


def test_smallest_goes_further_and_never_too_deep(tmp_path: Path) -> None:
    sizes = {}
    for name, smallest in (("default", False), ("smallest", True)):
        (tmp_path / name).mkdir()
        repo = repository(tmp_path / name)
        ids = drift_run(repo, steps=22)
        sizes[name] = repacked(repo, smallest=smallest).new_bytes
        assert max(depths(repo)) == MAX_DEPTH if smallest else max(depths(repo)) < MAX_DEPTH
        assert weights(repo, ids[-1]) == {"w": drifting(1, 21)}
        assert repack.plan(repo, smallest=smallest).empty
    assert sizes["smallest"] < sizes["default"]


def test_smallest_after_the_default_goes_further_too(repo: Repo) -> None:
    drift_run(repo, steps=12)
    first = repacked(repo)
    second = repacked(repo, smallest=True)
    assert second.new_bytes < first.new_bytes
    assert repacked(repo).steps == 0


def test_at_no_time_is_much_more_on_disk(repo: Repo) -> None:
    drift_run(repo, steps=24, size=300_000)
    seen: list[int] = []

    class Watching(LocalBackend):
        def sync(self, prefix: str) -> None:
            seen.append(sum(info.size_bytes for info in self.scan("packs/")))
            super().sync(prefix)

    watched = reopened(repo)
    watched.backend = Watching(repo.path)
    watched.store = PackedStore(watched.backend, lambda: watched.refresh().packs)
    before = sum(pack_files(repo).values())
    done = repack.execute(watched, repack.plan(watched))
    assert done.steps > 2
    assert before < done.most_bytes == max(seen) <= before * 1.1
    watched.backend.close()


def test_a_step_that_needs_more_room_than_allowed_is_left_out(repo: Repo) -> None:
    drift_run(repo, steps=4, size=300_000)
    before = repo.refresh()
    done = repacked(repo, max_extra=10_000)
    assert (done.steps, done.skipped_packs) == (0, 3)
    assert repo.refresh() == before
    done = repacked(repo, max_extra=200_000)
    assert (done.skipped_packs, done.deltas) == (0, 3)


def test_what_gains_nothing_is_left_and_not_tried_again(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunBuilder(repo, "exp/noise")
    for step in range(4):
        run.checkpoint(step, {"w": noise(step, 300_000)})
    before = repo.refresh()
    tries: list[object] = []

    def counted(*args: Any, **options: Any) -> Record | None:
        tries.append(args)
        return as_delta(*args, **options)

    monkeypatch.setattr(repackplan, "as_delta", counted)
    assert repacked(repo).steps == 0
    assert len(tries) == 3
    assert repacked(repo).steps == 0
    assert len(tries) == 3
    assert repo.refresh() == before


def store(repo: Repo, data: bytes) -> None:
    transact(repo, "blob", lambda tx: tx.writer.blob(data, Element(1)))


def test_blocks_of_a_large_tensor_are_deltas_block_by_block(repo: Repo) -> None:
    size = 9 * 1024**2
    for step in range(2):
        store(repo, drifting(1, step, size))
    ids = drift_run(repo, steps=2, size=size)
    assert repacked(repo).deltas == 3
    assert weights(repo, ids[1]) == {"w": drifting(1, 1, size)}


def test_fine_tunes_lean_on_the_base_model(repo: Repo) -> None:
    base = RunBuilder(repo, "base/model")
    model = base.checkpoint(0, {"model.w": drifting(1, 0), "model.b": noise(9, 200)})
    tunes = []
    for number in range(3):
        run = RunBuilder(repo, f"tune/{number}", (Parent(BASE_MODEL, model),))
        data = drifting(1, 0)[: SIZE // 2] + drifting(number + 2, 0)[SIZE // 2 :]
        tunes.append((run.checkpoint(0, {"w": data}), data))
    assert repacked(repo).deltas == 3
    assert set(depths(repo)) == {1}
    for id, data in tunes:
        assert weights(repo, id) == {"w": data}


def test_what_is_dead_stays_whole_until_it_is_collected(repo: Repo) -> None:
    ids = drift_run(repo, steps=3)
    run = RunBuilder(repo, "exp/two")
    gone = run.checkpoint(0, {"w": drifting(7, 0), "v": drifting(1, 0)})
    set_ref(repo, f"{HOLDS}{gone}", None)
    repacked(repo)
    assert weights(repo, gone) == {"w": drifting(7, 0), "v": drifting(1, 0)}
    gc.execute(repo, gc.plan(repo))
    assert whole(repo)
    assert weights(repo, ids[2]) == {"w": drifting(1, 2)}


class Meddled(LocalBackend):
    """A backend under which somebody else acts just before the n-th root."""

    def __init__(self, root: Path, act: Callable[[], None], at: int = 0) -> None:
        super().__init__(root)
        self.act = act
        self.at = at
        self.roots = 0

    def put_new(self, key: str, data: Buffer) -> None:
        if key.startswith("roots/"):
            self.roots += 1
            if self.roots == self.at + 1:
                self.act()
        super().put_new(key, data)


def meddled(repo: Repo, act: Callable[[Repo], object], at: int = 0) -> Repo:
    again, other = reopened(repo), reopened(repo)
    again.backend = Meddled(repo.path, lambda: void(act(other)), at)
    again.store = PackedStore(again.backend, lambda: again.refresh().packs)
    return again


def void(_: object) -> None:
    """Take a result that nobody wants."""


def collect_half(other: Repo) -> None:
    ids = [name for name in other.refresh().refs if name.startswith(HOLDS)]
    set_ref(other, sorted(ids)[0], None)
    gc.execute(other, gc.plan(other))


ACTS: dict[str, Callable[[Repo], object]] = {
    "commit": lambda other: commit_files(
        other, {"a": noise(5, 3000)}, payload={"w": noise(6, 900)}
    ),
    "the same weights": lambda other: drift_run(other, "exp/again", steps=4),
    "gc": collect_half,
    "repack": lambda other: repack.execute(other, repack.plan(other)),
    "smallest": lambda other: repack.execute(other, repack.plan(other, smallest=True)),
}


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("act", ACTS)
def test_others_may_get_in_between(repo: Repo, act: str, at: int) -> None:
    ids = drift_run(repo, steps=5, size=100_000)
    again = meddled(repo, ACTS[act], at)
    done = repack.execute(again, repack.plan(again))
    again.backend.close()
    assert whole(repo)
    assert done.new_bytes == sum(pack_files(repo).values())
    held = {name for name in repo.refresh().refs if name.startswith(HOLDS)}
    for step, id in enumerate(ids):
        if f"{HOLDS}{id}" in held:
            assert weights(repo, id) == {"w": drifting(1, step, 100_000)}
    assert repack.execute(repo, repack.plan(repo)).steps <= 1
    assert repack.plan(repo).empty


def test_damage_stops_it(repo: Repo) -> None:
    drift_run(repo, steps=3, size=300_000)
    largest = max(pack_files(repo).items(), key=lambda item: item[1])[0]
    path = repo.path / largest
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)
    before = repo.refresh()
    with pytest.raises(RefusedError, match="cas fsck"):
        repack.execute(reopened(repo), repack.plan(reopened(repo)))
    assert repo.refresh() == before


def test_a_delta_that_came_since_keeps_its_base_in_every_later_step(repo: Repo) -> None:
    """It comes before the first step; its base would become as deep as it is in a later one."""
    drift_run(repo, steps=5, size=300_000)
    base, data = drifting(1, 4, 300_000), drifting(1, 6, 300_000)

    def lean(other: Repo) -> None:
        def write(tx: Transaction) -> None:
            assert tx.writer.has(blob_id(base))
            record = encode_delta(blob_id(data), data, Base(blob_id(base), base, 0), Element(1))
            assert record is not None
            tx.writer.copy(*record)

        transact(other, "lean", write)

    again = meddled(repo, lean)
    done = repack.execute(again, repack.plan(again))
    again.backend.close()
    assert done.steps > 1
    assert whole(repo)
    assert reopened(repo).store.read(Kind.BLOB, blob_id(data)) == data


def test_no_delta_leans_on_a_form_that_is_damaged() -> None:
    """The plan counts on a whole record of the base; the one that can be read is a delta."""
    key, base, piece = (drifting(1, step) for step in range(3))
    shelf = Shelf()
    writer = shelf.writer()
    for data in (key, piece):
        writer.blob(data, Element(1))
    shelf.publish(writer)
    record = encode_delta(blob_id(base), base, Base(blob_id(key), key, 0), Element(1))
    assert record is not None
    wrong = RecordHeader.of(Kind.BLOB, CodecTag.RAW, blob_id(base), len(base), key)
    for header, body in ((wrong, key), record):
        writer = shelf.writer()
        writer.copy(header, body)
        shelf.publish(writer)
    near = Form(blob_id(base), 0, len(base), len(base), blob_id(base))
    options = [Option(near, len(piece))]
    made = as_delta(shelf.store, blob_id(piece), Element(1), options)
    assert made is None
    assert shelf.store.read(Kind.BLOB, blob_id(base)) == base
