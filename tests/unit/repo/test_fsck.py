"""fsck says what is wrong with which name, and goes on."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cas.backend.base import WHOLE
from cas.backend.local import LocalBackend
from cas.errors import CorruptionError
from cas.ids import ObjectId, blob_id, tree_id
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind, build
from cas.repo import root as roots
from cas.repo.check import fsck, packcheck
from cas.repo.collect import gc
from cas.repo.collect.gcplan import GcPlan
from cas.repo.layout import FORMAT, HOLDS, MAIN, root_key
from cas.repo.repo import Repo
from cas.repo.root import RefChange
from cas.repo.transaction import Transaction, transact
from cas.store.pack import PackClass, PackInfo, PackWriter, read_footer
from cas.store.record import RECIPE, RecordHeader
from cas.store.segment import Segment
from cas.store.writer import ObjectWriter
from tests.support.builders import RunBuilder, commit_files, noise, reopened, repository, set_ref

BIG = noise(7, 1_500_000)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = repository(tmp_path)
    commit_files(repo, {"a.txt": b"hello" * 200, "sub": {"big": BIG, "b": noise(2, 300)}})
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(1, {"w": noise(3, 300_000)}, value=0.5)
    run.finish()
    return repo


def look(repo: Repo, *, full: bool = True) -> list[fsck.Finding]:
    return list(fsck.check(reopened(repo), full=full))


def whats(repo: Repo, *, full: bool = True) -> set[tuple[str, str]]:
    return {(finding.severity, finding.what) for finding in look(repo, full=full)}


@pytest.mark.parametrize("full", [False, True])
def test_says_nothing_of_a_whole_repository_and_counts(repo: Repo, full: bool) -> None:
    report = fsck.Report()
    assert list(fsck.check(repo, full=full, report=report)) == []
    assert report.roots == repo.root.seq
    assert report.commits == 3
    assert report.refs == len(repo.root.refs) == 3
    assert report.packs == len(repo.root.packs)
    assert report.bytes == sum(info.length for info in repo.root.packs)
    assert report.objects > 10
    assert report.errors == 0


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF
    path.write_bytes(raw)


def in_pack(repo: Repo, id: ObjectId, at: int = 100) -> None:
    """Damage the body of an object's record."""
    place = repo.store.locate(id)
    assert place is not None
    flip(repo.path / place.pack.key, place.row.offset + at)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def data_pack(repo: Repo) -> Path:
    place = repo.store.locate(blob_id(noise(3, 300_000)))
    assert place is not None
    return repo.path / place.pack.key


DAMAGE: dict[str, tuple[Callable[[Repo], None], str]] = {
    "format overwritten": (lambda r: void((r.path / FORMAT).write_text("x")), "format"),
    "format from the future": (lambda r: newer(r.path / FORMAT), "format"),
    "root flipped": (lambda r: flip(r.path / root_key(2), 60), "root"),
    "newest root flipped": (lambda r: flip(r.path / root_key(r.refresh().seq), 60), "root"),
    "root gone": (lambda r: (r.path / root_key(2)).unlink(), "root"),
    "pack gone": (lambda r: data_pack(r).unlink(), "pack"),
    "pack cut short": (lambda r: cut(data_pack(r)), "pack"),
    "pack header flipped": (lambda r: flip(data_pack(r), 10), "pack"),
    "pack footer flipped": (lambda r: flip(data_pack(r), data_pack(r).stat().st_size - 80), "pack"),
    "record header flipped": (lambda r: flip(data_pack(r), 24 + 9), "damaged"),
}


def void(_: object) -> None:
    return None


def newer(path: Path) -> None:
    path.write_text(path.read_text().replace("version 1", "version 9"))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("harm", "what"), DAMAGE.values(), ids=DAMAGE)
def test_structural_damage_is_found(
    repo: Repo, harm: Callable[[Repo], None], what: str, full: bool
) -> None:
    harm(repo)
    assert ("error", what) in {(f.severity, f.what) for f in fsck.check(repo, full=full)}


def test_a_damaged_body_is_found_by_a_full_check_and_named(repo: Repo) -> None:
    in_pack(repo, blob_id(noise(3, 300_000)))
    assert look(repo, full=False) == []
    (finding,) = look(repo)
    assert (finding.severity, finding.what) == ("error", "damaged")
    assert finding.name == f"blob {blob_id(noise(3, 300_000))}"
    for part in ("runs/exp/one", "state/w"):
        assert part in finding.detail


def test_a_damaged_tree_is_named_and_the_rest_is_still_checked(repo: Repo) -> None:
    in_pack(repo, repo.commit(repo.root.refs[MAIN]).tree)
    in_pack(repo, blob_id(noise(3, 300_000)))
    found = look(repo)
    assert {f.what for f in found} == {"damaged"}
    details = " ".join(f.detail for f in found)
    assert MAIN in details
    assert "state/w" in details


def test_a_damaged_piece_of_a_large_file_is_named_by_the_file(repo: Repo) -> None:
    place = repo.store.locate(blob_id(BIG))
    assert place is not None
    recipe = repo.store.recipe(place)
    assert recipe is not None
    piece, _ = next(recipe.pieces())
    in_pack(repo, piece)
    (finding,) = look(repo)
    assert (finding.severity, finding.name) == ("error", f"blob {piece}")
    assert "sub/big" in finding.detail


def test_a_damaged_record_that_nobody_needs_is_a_warning(repo: Repo) -> None:
    commit_files(repo, {"x": noise(9, 3000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    in_pack(repo, blob_id(noise(9, 3000)))
    assert whats(repo) == {("warning", "damaged")}


def forge(repo: Repo, write: Callable[[ObjectWriter], None]) -> None:
    """List a pack with records that no writer would make."""
    writer = ObjectWriter(repo.backend, repo.store, lambda: os.urandom(16))
    write(writer)
    after = repo.root.follow(repo.root.operation, packs=repo.root.packs + tuple(writer.seal()))
    repo.adopt(roots.publish(repo.backend, after, os.urandom(16)))
    repo.store.refresh()


def test_a_recipe_that_makes_other_bytes_is_found(repo: Repo) -> None:
    place = repo.store.locate(blob_id(BIG))
    assert place is not None
    _, body = repo.store.body(place)
    wrong = blob_id(b"something else")
    header = RecordHeader.of(Kind.BLOB, RECIPE, wrong, len(BIG), bytes(body))
    forge(repo, lambda writer: writer.copy(header, bytes(body)))
    assert whats(repo) == {("warning", "damaged")}


def test_a_recipe_that_is_needed_and_makes_other_bytes_is_an_error(repo: Repo) -> None:
    place = repo.store.locate(blob_id(BIG))
    assert place is not None
    _, body = repo.store.body(place)
    wrong = blob_id(b"something else")
    header = RecordHeader.of(Kind.BLOB, RECIPE, wrong, len(BIG), bytes(body))

    def make(transaction: Transaction) -> None:
        transaction.writer.copy(header, bytes(body))
        entries = [Entry(b"wrong", EntryKind.FILE, wrong, len(BIG), 0o644)]
        tree = build(entries, transaction.writer.tree).id
        transaction.set_ref("tags/w", transaction.record(Commit(kind="commit", tree=tree)))

    transact(repo, "wrong", make)
    (finding,) = look(repo)
    assert (finding.severity, finding.what) == ("error", "damaged")
    assert "wrong" in finding.detail


def test_bytes_that_are_not_canonical_are_found(repo: Repo) -> None:
    loose = bytes.fromhex("de0001a17601")  # a map in a longer form than it needs
    header = RecordHeader.of(Kind.TREE, 0, tree_id(loose), len(loose), loose)
    forge(repo, lambda writer: writer.copy(header, loose))
    assert whats(repo) == {("warning", "damaged")}


def test_a_missing_object_is_named_by_ref_and_path(repo: Repo) -> None:
    gone = blob_id(b"never written")

    def make(transaction: Transaction) -> None:
        entries = [Entry(b"lost.bin", EntryKind.FILE, gone, 13, 0o644)]
        tree = build(entries, transaction.writer.tree).id
        transaction.set_ref("tags/l", transaction.record(Commit(kind="commit", tree=tree)))

    transact(repo, "lose", make)
    (finding,) = look(repo)
    assert (finding.severity, finding.what) == ("error", "missing")
    assert "tags/l" in finding.detail
    assert "lost.bin" in finding.detail
    set_ref(repo, "tags/l", None)
    assert whats(repo) == {("error", "half")}


def publish(repo: Repo, root: roots.Root) -> None:
    repo.adopt(roots.publish(repo.backend, root, os.urandom(16)))


def test_a_ref_to_nothing_is_found(repo: Repo) -> None:
    nothing = Commit(kind="commit", tree=repo.commit(repo.root.refs[MAIN]).tree, seq=99).id
    change = RefChange("tags/t", None, nothing)
    publish(repo, repo.root.follow(repo.root.operation, [change]))
    (finding,) = look(repo)
    assert (finding.what, finding.name) == ("dangling-ref", f"commit {nothing}")
    assert "tags/t" in finding.detail


def test_a_tombstone_is_accepted(repo: Repo) -> None:
    place = repo.store.locate(blob_id(noise(3, 300_000)))
    assert place is not None
    lost = {row.id: "lost" for row in read_footer(repo.backend, place.pack)}
    (repo.path / place.pack.key).unlink()
    packs = tuple(info for info in repo.root.packs if info != place.pack)
    root = replace(repo.root, tombstones=lost)
    publish(repo, root.follow(repo.root.operation, packs=packs))
    assert look(repo) == []


def test_a_hold_under_a_wrong_name_is_found(repo: Repo) -> None:
    change = RefChange(f"{HOLDS}{'00' * 32}", None, repo.root.refs[MAIN])
    publish(repo, repo.root.follow(repo.root.operation, [change]))
    assert whats(repo) == {("error", "hold")}


def test_a_payload_that_is_not_whole_is_found_through_its_hold(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/two")
    id = run.checkpoint(1, {"w": noise(30, 300_000)})
    set_ref(repo, f"{HOLDS}{id}", None)
    place = repo.store.locate(blob_id(noise(30, 300_000)))
    assert place is not None
    packs = tuple(info for info in repo.root.packs if info != place.pack)
    publish(repo, repo.root.follow(repo.root.operation, packs=packs))
    assert {f.what for f in look(repo, full=False)} == {"orphan-pack"}
    publish(repo, repo.root.follow(repo.root.operation, [RefChange(f"{HOLDS}{id}", None, id)]))
    (finding, _) = look(repo, full=False)
    assert finding.what == "missing"
    assert "state/w" in finding.detail


def test_orphans_and_condemned_packs_are_told_as_information(repo: Repo) -> None:
    writer = ObjectWriter(repo.backend, repo.store, lambda: os.urandom(16))
    writer.blob(noise(5, 3000))
    (info,) = writer.seal()
    assert whats(repo) == {("info", "orphan-pack")}
    publish(repo, repo.root.follow(repo.root.operation, condemned=(info,)))
    assert whats(repo) == {("info", "condemned-pack")}


def test_a_pack_that_is_listed_and_condemned_is_an_error(repo: Repo) -> None:
    publish(repo, repo.root.follow(repo.root.operation, condemned=repo.root.packs[:1]))
    assert ("error", "pack") in whats(repo)


def test_an_index_file_that_lies_is_found(repo: Repo) -> None:
    names = tuple(info.name for info in repo.root.packs)
    repo.backend.put_new("index/00.idx", Segment(b"", names).to_bytes())
    assert whats(repo) == {("error", "index")}


def test_an_index_file_that_is_damaged_is_found(repo: Repo) -> None:
    repo.backend.put_new("index/00.idx", b"CASI nonsense")
    assert whats(repo) == {("error", "index")}


def test_an_index_file_of_packs_long_gone_is_fine(repo: Repo) -> None:
    repo.backend.put_new("index/00.idx", Segment(b"", (b"\1" * 16,)).to_bytes())
    assert look(repo) == []


def test_roots_that_do_not_follow_one_another_are_found(repo: Repo) -> None:
    last = repo.refresh()
    publish(repo, replace(last.follow(last.operation), previous=b"\1" * 32))
    assert whats(repo) == {("error", "root")}


def test_a_listed_pack_that_never_was_is_found(repo: Repo) -> None:
    ghost = PackInfo(b"\1" * 16, 500, b"\0" * 32, PackClass.DATA)
    publish(repo, repo.root.follow(repo.root.operation, packs=(*repo.root.packs, ghost)))
    (finding,) = look(repo)
    assert (finding.what, finding.name) == ("pack", ghost.key)


def test_it_changes_nothing(repo: Repo) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in repo.path.rglob("*") if path.is_file()}

    flip(data_pack(repo), 300)
    before = files()
    look(repo)
    assert files() == before
    assert repo.backend.read(FORMAT, [WHOLE])


def test_a_checksum_that_is_damaged_itself_is_found(repo: Repo) -> None:
    """Nothing else would tell: the bytes are what the id names, until gc cannot copy them."""
    place = repo.store.locate(blob_id(noise(3, 300_000)))
    assert place is not None
    check = place.row.offset + RecordHeader.SIZE - RecordHeader.CHECK_SIZE
    flip(repo.path / place.pack.key, check)
    assert ("error", "damaged") in whats(repo)


def test_bytes_that_are_not_what_the_id_names_are_found(repo: Repo) -> None:
    """With a checksum that is right: whoever wrote them was wrong, not the disk."""
    body = noise(5, 300)
    header = RecordHeader.of(Kind.BLOB, 0, blob_id(noise(6, 300)), len(body), body)
    forge(repo, lambda writer: writer.copy(header, body))
    assert whats(repo) == {("warning", "damaged")}


def test_a_footer_that_leaves_out_a_record_is_found(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = blob_id(noise(8, 300_000))

    def forgetful(writer: PackWriter) -> PackInfo:
        writer.rows = [row for row in writer.rows if row.id != gone]
        return seal(writer)

    seal = PackWriter.seal
    monkeypatch.setattr(PackWriter, "seal", forgetful)
    files = {"a": noise(8, 300_000), "b": noise(9, 300_000)}
    forge(repo, lambda writer: void([writer.blob(data) for data in files.values()]))
    assert ("error", "pack") in whats(repo, full=False)


def test_every_byte_of_an_index_file_counts(repo: Repo) -> None:
    for number in range(12):
        commit_files(repo, {"n": b"%d" % number}, ref="tags/n")
    (path,) = (repo.path / "index").iterdir()
    raw = path.read_bytes()
    silent = []
    for at in range(0, len(raw), 7):
        flip(path, at)
        if not whats(repo, full=False) & {("error", "index")}:
            silent.append(at if at < len(raw) - 3 else at - len(raw))
        path.write_bytes(raw)
    assert set(silent) <= {5, 6, 7, -1, -2, -3}, "more than what nobody reads"


def test_a_snapshot_in_the_place_of_another_is_found(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole by itself, and not the one that the root names."""
    monkeypatch.setattr(roots, "CHANGES_LIMIT", 2)
    before = {path.name for path in (repo.path / "snapshots").glob("*")}
    id = repo.refresh().refs[MAIN]
    paths: list[Path] = []
    for name in "abcdefgh":
        set_ref(repo, f"tags/{name}", id)
        base = repo.root.refs_base
        if base is not None and base.name.hex() not in {*before, *(p.name for p in paths)}:
            paths.append(repo.path / "snapshots" / base.name.hex())
    paths[-1].write_bytes(paths[-2].read_bytes())
    with pytest.raises(CorruptionError, match="is not the one its root names"):
        reopened(repo).refresh()
    assert ("error", "root") in whats(repo, full=False)


def test_a_newest_root_that_is_gone_is_an_error(repo: Repo) -> None:
    newest = repo.refresh().seq
    repo.backend.delete(root_key(newest))
    found = look(reopened(repo))
    assert [f.name for f in found if f.severity == fsck.ERROR] == [root_key(newest)]


def test_what_a_collection_takes_away_meanwhile_is_no_error(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunBuilder(repo, "exp/two")
    run.checkpoint(1, {"w": noise(4, 300_000)}, value=0.5)
    set_ref(repo, "runs/exp/two", None)
    set_ref(repo, f"{HOLDS}{run.ids[0]}", None)
    looker = reopened(repo)
    checked = packcheck.structure
    collected: list[GcPlan] = []

    def structure(backend: LocalBackend, pack: PackInfo) -> packcheck.Finding | None:
        if not collected:
            collected.append(gc.execute(repo, gc.plan(repo)))
        return checked(backend, pack)

    monkeypatch.setattr(packcheck, "structure", structure)
    assert look(looker) == []
    assert collected[0].freed_bytes > 300_000
