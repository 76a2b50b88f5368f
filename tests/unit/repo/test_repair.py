"""A repair saves all that is whole, names the rest, and takes nothing away that can be read."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.backend.local import LocalBackend
from cas.errors import CasError, RefusedError
from cas.ids import BlobId, ObjectId, blob_id
from cas.objects.kind import Kind
from cas.repo.check import fsck, repair
from cas.repo.check.fsck import ERROR, Examined
from cas.repo.check.repair import Repaired
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, LOST
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.store.index import consolidate
from cas.store.pack import read_footer
from cas.store.packed import PackedStore
from cas.store.pinned import PinnedStore
from cas.store.record import DELTAS, KINDS, RecordHeader
from cas.store.writer import ObjectWriter
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
from tests.support.crashing import contents
from tests.support.drift import drift_run, drifting
from tests.support.torture import amount

BIG = noise(7, 1_500_000)
WEIGHTS = [noise(step, 300_000) for step in range(4)]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = repository(tmp_path)
    commit_files(repo, {"a.txt": b"hello" * 200, "sub": {"big": BIG, "b": noise(2, 300)}})
    run = RunBuilder(repo, "exp/one")
    for step, data in enumerate(WEIGHTS[:2]):
        run.checkpoint(step, {"w": data}, value=0.5)
    run.finish()
    return reopened(repo)


def look(repo: Repo) -> Examined:
    return fsck.examine(reopened(repo), full=True)


def repaired(repo: Repo, *others: Repo, give_up: bool = False) -> Repaired:
    fresh = reopened(repo)
    planned = repair.plan(fresh, look(repo).damage, give_up=give_up)
    return repair.execute(fresh, planned, others=[LocalBackend(other.path) for other in others])


def at(repo: Repo, data: bytes) -> tuple[Path, int]:
    """Return the pack of a blob, and where in it its record stands."""
    place = repo.store.locate(blob_id(data))
    assert place is not None
    return repo.path / place.pack.key, place.row.offset


def flip(path: Path, *offsets: int) -> None:
    raw = bytearray(path.read_bytes())
    for offset in offsets:
        raw[offset] ^= 0xFF
    path.write_bytes(raw)


def errors(found: Examined) -> list[str]:
    return [f"{f.what}: {f.name}: {f.detail}" for f in found.findings if f.severity == ERROR]


def footer_flipped(repo: Repo) -> None:
    path, _ = at(repo, WEIGHTS[0])
    flip(path, path.stat().st_size - 80)


def end_cut(repo: Repo) -> None:
    path, _ = at(repo, WEIGHTS[0])
    path.write_bytes(path.read_bytes()[:-90])


def grown(repo: Repo) -> None:
    path, _ = at(repo, WEIGHTS[0])
    path.write_bytes(path.read_bytes() + b"more")


def start_flipped(repo: Repo) -> None:
    path, _ = at(repo, WEIGHTS[0])
    flip(path, 3, 10)


def header_flipped(repo: Repo) -> None:
    path, start = at(repo, WEIGHTS[0])
    flip(path, start, start + 9, start + 44)


def checksum_flipped(repo: Repo) -> None:
    path, start = at(repo, WEIGHTS[0])
    flip(path, start + RecordHeader.SIZE - 1)


def index_damaged(repo: Repo) -> None:
    repo.backend.put_new("index/00.idx", b"CASI nonsense")


HARMLESS: dict[str, Callable[[Repo], None]] = {
    "footer flipped": footer_flipped,
    "end cut off": end_cut,
    "bytes behind the end": grown,
    "pack header flipped": start_flipped,
    "record header flipped": header_flipped,
    "record checksum flipped": checksum_flipped,
    "index damaged": index_damaged,
}


@pytest.mark.parametrize("harm", HARMLESS.values(), ids=HARMLESS)
def test_what_can_be_made_again_is(repo: Repo, harm: Callable[[Repo], None]) -> None:
    before = contents(repo)
    harm(repo)
    assert errors(look(repo))
    repaired(repo)
    assert errors(look(repo)) == []
    assert contents(reopened(repo)) == before
    gc.execute(reopened(repo), gc.plan(reopened(repo)))
    assert contents(reopened(repo)) == before
    assert whole(repo)


def test_with_nothing_to_do_nothing_is_done(repo: Repo) -> None:
    seq = repo.refresh().seq
    assert repair.plan(repo, look(repo).damage).empty
    repaired(repo)
    assert repo.refresh().seq == seq


def ruin(repo: Repo, data: bytes) -> None:
    path, start = at(repo, data)
    flip(path, start + RecordHeader.SIZE + 100)


def test_what_is_lost_is_named_by_commit_and_path_and_the_bytes_are_kept(repo: Repo) -> None:
    ruin(repo, WEIGHTS[0])
    path, start = at(repo, WEIGHTS[0])
    ruined = path.read_bytes()[start : start + RecordHeader.SIZE + 300_000]
    done = repaired(repo)
    assert done.ruined_bytes == len(ruined)
    (kept,) = repo.backend.scan(LOST)
    assert (repo.path / kept.key).read_bytes() == ruined
    found = look(repo)
    assert (found.report.whole_commits, found.report.commits) == (3, 4)
    (loss,) = found.losses
    assert loss.ref == "runs/exp/one"
    assert loss.paths == ("state/w",)
    assert "exp/one at step 0" in loss.name
    assert not loss.record


def test_the_same_content_again_heals(repo: Repo) -> None:
    """Before, a writer found the damaged record and took it for the content."""
    ruin(repo, WEIGHTS[0])
    repaired(repo)
    commit_files(reopened(repo), {"w": WEIGHTS[0]}, ref="tags/again")
    found = look(repo)
    assert errors(found) == []
    assert found.report.whole_commits == found.report.commits


def test_a_record_found_damaged_leaves_look_ups_at_once(repo: Repo) -> None:
    ruin(repo, WEIGHTS[0])
    handle = reopened(repo)
    with pytest.raises(CasError):
        handle.store.read(Kind.BLOB, blob_id(WEIGHTS[0]))
    commit_files(handle, {"w": WEIGHTS[0]}, ref="tags/again")
    assert reopened(repo).store.read(Kind.BLOB, blob_id(WEIGHTS[0])) == WEIGHTS[0]


def test_gc_refuses_until_the_loss_is_accepted(repo: Repo) -> None:
    ruin(repo, WEIGHTS[0])
    repaired(repo)
    with pytest.raises(RefusedError, match="cas fsck"):
        gc.plan(reopened(repo))
    found = look(repo)
    assert repair.accept(reopened(repo), found.damage, "lost") == 1
    assert errors(look(repo)) == []
    gc.execute(reopened(repo), gc.plan(reopened(repo)))
    assert errors(look(repo)) == []
    assert reopened(repo).store.read(Kind.BLOB, blob_id(WEIGHTS[1])) == WEIGHTS[1]
    # What was given up comes back with its content.
    commit_files(reopened(repo), {"w": WEIGHTS[0]}, ref="tags/again")
    assert reopened(repo).store.read(Kind.BLOB, blob_id(WEIGHTS[0])) == WEIGHTS[0]
    assert errors(look(repo)) == []


def test_a_pack_that_is_gone_comes_back_from_a_copy(repo: Repo, tmp_path: Path) -> None:
    before = contents(repo)
    shutil.copytree(repo.path, tmp_path / "copy" / ".cas")
    copy = Repo.open(tmp_path / "copy" / ".cas")
    for key in pack_files(repo):
        (repo.path / key).unlink()
    fresh = reopened(repo)
    planned = repair.plan(fresh, look(repo).damage)
    assert len(planned.gone) == len(fresh.refresh().packs)
    for _ in range(10):  # what is found names what else is missing
        if not repaired(repo, copy).found:
            break
    repair.accept(reopened(repo), look(repo).damage, "lost")  # the list still names the packs
    assert errors(look(repo)) == []
    assert contents(reopened(repo)) == before
    assert not reopened(repo).refresh().tombstones


def test_a_pack_that_is_gone_stays_listed_until_the_loss_is_accepted(repo: Repo) -> None:
    path, _ = at(repo, WEIGHTS[0])
    away = path.with_suffix(".away")
    path.rename(away)
    repaired(repo)
    away.rename(path)
    assert errors(look(repo)) == []  # it was put back
    path.rename(away)
    repair.accept(reopened(repo), look(repo).damage, "lost")
    assert errors(look(repo)) == []
    with pytest.raises(CasError):
        reopened(repo).store.read(Kind.BLOB, blob_id(WEIGHTS[0]))


def test_what_an_unlisted_pack_has_is_taken_from_there(repo: Repo) -> None:
    writer = ObjectWriter(repo.backend, PackedStore(repo.backend, list), lambda: os.urandom(16))
    writer.blob(WEIGHTS[0])
    writer.seal()
    ruin(repo, WEIGHTS[0])
    done = repaired(repo)
    assert done.found == 1
    assert errors(look(repo)) == []


@pytest.fixture
def leaning(tmp_path: Path) -> Repo:
    """A run whose weights are stored as deltas, one on another."""
    repo = repository(tmp_path)
    drift_run(repo, steps=4, size=300_000)
    repack.execute(repo, repack.plan(repo))
    return reopened(repo)


def base_of_all(repo: Repo) -> ObjectId:
    """Return the one that is stored whole."""
    ids = [blob_id(drifting(1, step, 300_000)) for step in range(4)]
    places = {id: repo.store.locate(id) for id in ids}
    (found,) = [id for id, place in places.items() if place and place.row.codec not in DELTAS]
    return found


def test_deltas_on_what_is_lost_go_with_it_only_when_the_loss_is_accepted(leaning: Repo) -> None:
    repo = leaning
    base = base_of_all(repo)
    place = repo.store.locate(base)
    assert place is not None
    flip(repo.path / place.pack.key, place.row.offset + 200)
    repaired(repo)
    found = look(repo)
    assert found.damage.helpless
    assert found.report.whole_commits == 0
    while (found := look(repo)).damage.helpless:
        repaired(repo, give_up=True)
    repair.accept(reopened(repo), found.damage, "lost")
    assert errors(look(repo)) == []
    gc.execute(reopened(repo), gc.plan(reopened(repo)))
    for step in range(4):
        commit_files(reopened(repo), {"w": drifting(1, step, 300_000)}, ref=f"tags/t{step}")
    assert errors(look(repo)) == []
    for step in range(4):
        data = drifting(1, step, 300_000)
        assert reopened(repo).store.read(Kind.BLOB, blob_id(data)) == data


def test_deltas_come_back_with_their_base(leaning: Repo) -> None:
    repo = leaning
    base = base_of_all(repo)
    data = repo.store.read(Kind.BLOB, base)
    place = repo.store.locate(base)
    assert place is not None
    flip(repo.path / place.pack.key, place.row.offset + 200)
    repaired(repo)
    commit_files(reopened(repo), {"w": data}, ref="tags/base")
    found = look(repo)
    assert errors(found) == []
    assert found.report.whole_commits == found.report.commits


Named = set[tuple[ObjectId, Kind]]


def named(repo: Repo) -> Named:
    """Return every object that is stored, whoever needs it."""
    return {
        (row.id, KINDS[row.kind])
        for info in repo.refresh().packs
        for row in read_footer(repo.backend, info)
    }


def readable(repo: Repo, objects: Named) -> set[ObjectId]:
    """Return those of these objects that can be read."""
    store = reopened(repo).store
    found: set[ObjectId] = set()
    for id, kind in objects:
        try:
            store.read(kind, id)
        except CasError:
            continue
        found.add(id)
    return found


@pytest.mark.torture
def test_no_repair_makes_anything_unreadable(repo: Repo, tmp_path: Path) -> None:
    """Whatever was damaged: what could be read before can be read after it."""
    rng = random.Random(5)
    consolidate(repo.backend, repo.store.index, os.urandom(16))
    objects = named(repo)
    for number in range(amount(6, 500)):
        folder = tmp_path / "torn" / ".cas"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(repo.path, folder)
        torn = Repo.open(folder, who="ada", clock=repo.clock)
        torn.refresh()
        for _ in range(rng.randrange(1, 4)):
            hurt(torn, rng)
        before = readable(torn, objects)
        repaired(torn)
        assert before <= readable(torn, objects), number
        left = [f for f in look(torn).findings if f.what in {"pack", "index", "damaged"}]
        kept = [f for f in left if f.severity == ERROR and "file is missing" not in f.detail]
        assert all("of which there is no good record" in f.detail for f in kept), (number, kept)


def hurt(repo: Repo, rng: random.Random) -> None:
    path = repo.path / rng.choice(sorted(pack_files(repo)))
    raw = bytearray(path.read_bytes())
    start = rng.randrange(len(raw))
    match rng.randrange(3):
        case 0:
            raw[start] ^= 1 << rng.randrange(8)
        case 1:
            raw[start : start + 4096] = bytes(len(raw[start : start + 4096]))
        case _:
            del raw[max(len(raw) - rng.randrange(1, 300), 30) :]
    path.write_bytes(raw)


def test_a_repair_that_would_drop_a_good_record_would_be_noticed(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above can fail."""
    from cas.repo.check import salvage

    objects = named(repo)
    ruin(repo, WEIGHTS[0])
    before = readable(repo, objects)
    assert BlobId(blob_id(WEIGHTS[1])) in before
    saved = salvage.salvaged

    def fewer(*args: object) -> object:
        return (part for part in saved(*args) if isinstance(part, salvage.Ruined))  # type: ignore[arg-type]

    monkeypatch.setattr(repair, "salvaged", fewer)
    repaired(repo)
    assert not before <= readable(repo, objects)


def test_it_stops_when_somebody_has_replaced_the_pack(repo: Repo) -> None:
    ruin(repo, WEIGHTS[0])
    late = reopened(repo)
    planned = repair.plan(late, look(repo).damage)
    repaired(repo)
    with pytest.raises(CasError, match="changed since"):
        repair.execute(late, planned)
    assert errors(look(repo)) == errors(look(repo))


def test_a_loss_that_nobody_keeps_costs_nothing(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/two")
    id = run.checkpoint(1, {"w": WEIGHTS[3]})
    set_ref(repo, f"{HOLDS}{id}", None)
    ruin(repo, WEIGHTS[3])
    repaired(repo)
    gc.execute(reopened(repo), gc.plan(reopened(repo)))
    assert errors(look(repo)) == []
    run.checkpoint(2, {"w": WEIGHTS[3]})
    assert PinnedStore(repo.backend, repo.refresh().packs).places(blob_id(WEIGHTS[3]))


def test_transactions_go_on_beside_it(repo: Repo) -> None:
    ruin(repo, WEIGHTS[0])
    planned = repair.plan(reopened(repo), look(repo).damage)
    commit_files(repo, {"x": noise(40, 3000)}, ref="tags/x")
    repair.execute(reopened(repo), planned)
    transact(reopened(repo), "more", lambda tx: tx.set_ref("tags/y", tx.ref("tags/x")))
    assert reopened(repo).store.read(Kind.BLOB, blob_id(noise(40, 3000)))
