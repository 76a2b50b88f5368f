"""Any ref keeps records along every role; a hold alone keeps a payload."""

from dataclasses import replace
from pathlib import Path

import pytest

from cas.errors import CorruptionError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import DATASET, INPUT, Commit, Parent
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind, build
from cas.repo import root as roots
from cas.repo.layout import DATASETS, HOLDS, MAIN
from cas.repo.marking import reach
from cas.repo.reach import Trouble, Walk
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.store.pinned import PinnedStore
from tests.support.builders import RunBuilder, commit_files, noise, repository, set_ref, write_files


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def payload_ids(repo: Repo, id: CommitId) -> set[ObjectId]:
    payload = repo.commit(id).payload
    assert payload is not None
    found: set[ObjectId] = {payload}
    for entry in repo.entries(payload):
        found.add(entry.id)
        if entry.kind is EntryKind.STATE:
            found.update(row.id for row in repo.manifest(entry.id).rows if row.data is None)  # type: ignore[arg-type, union-attr]
    return found


def live(repo: Repo) -> set[ObjectId]:
    return set(reach(repo, repo.refresh()).ids())


def test_a_ref_keeps_ancestors_as_records_along_every_role(repo: Repo) -> None:
    data = commit_files(repo, {"d": noise(1, 200)}, ref=f"{DATASETS}d", kind=INPUT)
    first = commit_files(repo, {"a": noise(2, 200)}, parents=(Parent(DATASET, data),))
    second = commit_files(repo, {"a": noise(3, 200)})
    set_ref(repo, f"{DATASETS}d", None)
    kept = live(repo)
    assert {data, first, second} <= kept
    assert {repo.commit(id).tree for id in (data, first, second)} <= kept


def test_without_its_hold_a_payload_is_not_kept_and_the_record_is(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/run")
    one, two = (run.checkpoint(n, {"w": noise(n, 500)}, value=1.0) for n in (1, 2))
    weights = payload_ids(repo, one)
    assert weights <= live(repo)
    set_ref(repo, f"{HOLDS}{one}", None)
    assert not weights & live(repo)
    assert {one, repo.commit(one).tree} | payload_ids(repo, two) <= live(repo)


def test_a_hold_alone_keeps_record_and_payload(repo: Repo) -> None:
    id = commit_files(repo, {"a": b"x"}, payload={"w": noise(1, 100)})
    set_ref(repo, MAIN, None)
    assert {id, repo.commit(id).tree} | payload_ids(repo, id) <= live(repo)


def test_pieces_of_a_recipe_are_kept(repo: Repo) -> None:
    commit_files(repo, {"big": noise(1, 2_000_000)})
    recipes = [p for p in repo.store.index.starting(b"") if p.row.codec == 128]
    assert recipes
    recipe = repo.store.recipe(recipes[0])
    assert recipe is not None
    assert {id for id, _ in recipe.pieces()} <= live(repo)


def test_what_is_only_named_is_not_followed(repo: Repo) -> None:
    named = ObjectId(b"\7" * 32)

    def make(transaction: Transaction) -> None:
        entry = Entry(b"far", EntryKind.FILE, named, 10, mode=0o644, stored=False)
        tree = build([entry], transaction.writer.tree).id
        transaction.set_ref(MAIN, transaction.record(Commit(kind="commit", tree=tree)))

    transact(repo, "named", make)
    assert named not in live(repo)


def forgetful(repo: Repo) -> tuple[ObjectId, CommitId]:
    """Commit a tree whose file was never written."""
    gone = ObjectId(b"\7" * 32)

    def make(transaction: Transaction) -> CommitId:
        deep = build([Entry(b"lost.bin", EntryKind.FILE, gone, 10, 0o644)], transaction.writer.tree)
        entries = [Entry(b"sub", EntryKind.TREE, deep.id, 10, 0o755)]
        tree = build(entries, transaction.writer.tree).id
        id = transaction.record(Commit(kind="commit", tree=tree))
        transaction.set_ref(MAIN, id)
        return id

    return gone, transact(repo, "forget", make)


def test_a_missing_object_is_named_by_ref_commit_and_path(repo: Repo) -> None:
    gone, id = forgetful(repo)
    with pytest.raises(CorruptionError) as caught:
        reach(repo, repo.refresh())
    for part in (gone.short, MAIN, id.short, "sub/lost.bin"):
        assert part in str(caught.value)


def test_a_tombstone_makes_a_missing_object_fine(repo: Repo) -> None:
    gone, id = forgetful(repo)
    root = replace(repo.refresh(), tombstones={gone: "lost"})
    kept = set(reach(repo, root).ids())
    assert id in kept
    assert gone not in kept


def test_a_walk_goes_on_after_trouble(repo: Repo) -> None:
    whole = commit_files(repo, {"a": noise(1, 100)})
    forgetful(repo)
    set_ref(repo, "tags/whole", whole)
    troubles: list[Trouble] = []
    root = repo.refresh()
    walk = Walk(PinnedStore(repo.backend, root.packs), root.refs, trouble=troubles.append)
    visits = list(walk.visits())
    assert len(troubles) == 1
    assert repo.commit(whole).tree in {visit.id for visit in visits}
    kinds = [visit.kind for visit in visits]
    assert kinds[:2] == [Kind.COMMIT, Kind.COMMIT]
    assert Kind.COMMIT not in kinds[2:]


def test_an_object_of_another_kind_than_named_is_corruption(repo: Repo) -> None:
    def make(transaction: Transaction) -> None:
        blob = transaction.writer.blob(b"no tree")
        entry = Entry(b"dir", EntryKind.TREE, blob, 7, mode=0o755)
        tree = build([entry], transaction.writer.tree).id
        transaction.set_ref(MAIN, transaction.record(Commit(kind="commit", tree=tree)))

    transact(repo, "confuse", make)
    with pytest.raises(CorruptionError, match="dir"):
        reach(repo, repo.refresh())


def test_other_refs_can_be_asked_about(repo: Repo) -> None:
    id = commit_files(repo, {"a": noise(1, 100)})
    assert not reach(repo, repo.refresh(), {}).objects
    assert set(reach(repo, repo.root, {"tags/x": id}).ids()) == live(repo)


def test_a_damaged_record_gives_way_to_a_good_one(repo: Repo) -> None:
    data = noise(1, 1000)
    commit_files(repo, {"a": data})
    first = repo.store.index.starting(b"")
    place = next(p for p in first if p.row.size == len(data))
    other = repo.refresh()
    damage(repo, place.pack.key, place.row.offset + 100)
    duplicate(repo, data)
    found = reach(repo, repo.refresh()).place(place.row.id)
    assert found is not None
    assert found.pack not in other.packs


def damage(repo: Repo, key: str, at: int) -> None:
    path = repo.path / key
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF
    path.write_bytes(raw)


def duplicate(repo: Repo, data: bytes) -> None:
    """Store a blob once more, as two writers that do not see each other do."""
    from cas.store.writer import ObjectWriter

    empty = PinnedStore(repo.backend, [])
    writer = ObjectWriter(repo.backend, empty, lambda: b"\1" * 16)
    write_files(Transaction(repo, repo.root, writer), {"copy": data})
    packs = tuple(writer.seal())
    after = repo.root.follow(repo.root.operation, packs=repo.root.packs + packs)
    repo.adopt(roots.publish(repo.backend, after, b"\2" * 16))
