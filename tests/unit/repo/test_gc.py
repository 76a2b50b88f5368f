"""gc gives back what nothing keeps, exactly as its plan says, and nothing else ever."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.backend.local import LocalBackend
from cas.backend.sink import FileSink
from cas.codec.element import Element
from cas.errors import BackendError, ConflictError, RefusedError
from cas.ids import Buffer, CommitId, TreeId, blob_id
from cas.objects.commit import Commit
from cas.repo import gate
from cas.repo import root as roots
from cas.repo.collect import gc, gcplan, gctidy
from cas.repo.collect.gcplan import GcPlan
from cas.repo.collect.replace import swap
from cas.repo.layout import HOLDS, MAIN, SESSIONS
from cas.repo.packfiles import pack_files as pack_files_of
from cas.repo.repo import Repo
from cas.repo.session import Session
from cas.repo.transaction import Transaction, begun, transact
from cas.store.pack import PackClass
from cas.store.packed import PackedStore
from cas.store.pinned import PinnedStore
from cas.store.writer import ObjectWriter
from tests.support.builders import (
    Files,
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    read_tree,
    reopened,
    repository,
    set_ref,
    whole,
    write_files,
)

START = 1_700_000_000  # long ago


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def collect(repo: Repo) -> GcPlan:
    """Collect, and hold the plan to what it says."""
    before = sum(pack_files(repo).values())
    done = gc.execute(repo, gc.plan(repo))
    assert done.freed_bytes == before - sum(pack_files(repo).values())
    assert done.kept_bytes == sum(info.length for info in repo.refresh().packs)
    assert whole(repo)
    return done


def contents(repo: Repo, id: CommitId) -> object:
    return read_tree(repo, repo.commit(id).tree)


def unreferenced(repo: Repo, files: Files) -> None:
    """Commit files and forget about them."""
    commit_files(repo, files, ref="tags/gone")
    set_ref(repo, "tags/gone", None)


def test_a_repository_where_everything_is_needed_stays_as_it_is(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 1000)})
    before = repo.refresh()
    plan = gc.plan(repo)
    assert plan.empty
    assert plan.freed_bytes == 0
    gc.execute(repo, plan)
    assert repo.refresh() == before


def test_a_wholly_dead_pack_goes(repo: Repo) -> None:
    kept = commit_files(repo, {"a": noise(1, 1000)})
    names = set(pack_files(repo))
    unreferenced(repo, {"b": noise(2, 300_000)})
    done = collect(repo)
    assert len(done.dead) == 2
    assert done.rewrites == ()
    assert set(pack_files(repo)) == names
    assert done.freed_bytes > 300_000
    assert contents(repo, kept) == {"a": noise(1, 1000)}


def test_a_plan_changes_nothing(repo: Repo) -> None:
    unreferenced(repo, {"b": noise(2, 3000)})
    before, files = repo.refresh(), pack_files(repo)
    assert gc.plan(repo).freed_bytes > 3000
    assert (repo.refresh(), pack_files(repo)) == (before, files)


def test_prune_then_gc_keeps_the_record_and_frees_the_payload(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    one, two = (run.checkpoint(n, {"w": noise(n, 400_000)}, value=1.0 * n) for n in (1, 2))
    set_ref(repo, f"{HOLDS}{one}", None)
    assert collect(repo).freed_bytes > 400_000
    assert repo.commit(one).step == 1
    assert "summary.json" in read_tree(repo, repo.commit(one).tree)
    payload = repo.commit(two).payload
    assert payload is not None
    assert read_tree(repo, payload) == {"state": {"w": noise(2, 400_000)}}


def test_a_metadata_pack_with_anything_dead_is_always_replaced(repo: Repo) -> None:
    """A look-up would find the dead tree, whose file is gone."""
    file = noise(1, 300_000)
    unreferenced(repo, {"gone": file})

    def make(transaction: Transaction) -> None:
        dead = write_files(transaction, {"dead": file, "other": noise(2, 100)})
        # Far less than a quarter of the pack is dead.
        live = write_files(transaction, {f"l{n}": noise(n, 5000) for n in range(20)})
        assert dead != live
        transaction.set_ref(MAIN, transaction.record(Commit(kind="commit", tree=live)))

    transact(repo, "half", make)
    done = collect(repo)
    assert [rewrite.pack.kind for rewrite in done.rewrites] == [PackClass.METADATA]
    assert gc.plan(repo).empty


def test_a_large_data_pack_is_replaced_only_when_that_frees_a_quarter(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcplan, "SMALL_DATA", 0)
    pieces = {f"p{n}": noise(n, 300_000) for n in range(5)}
    commit_files(repo, pieces)
    set_ref(repo, MAIN, None)
    commit_files(repo, dict(list(pieces.items())[:4]))
    assert not any(r.pack.kind is PackClass.DATA for r in gc.plan(repo).rewrites)
    collect(repo)
    assert gc.plan(repo).empty
    set_ref(repo, MAIN, None)
    commit_files(repo, dict(list(pieces.items())[:3]))
    assert collect(repo).freed_bytes > 600_000


def test_a_small_data_pack_is_replaced_for_anything_dead(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 10_000)})
    set_ref(repo, MAIN, None)
    id = commit_files(repo, {"a": noise(1, 300_000)})
    assert collect(repo).freed_bytes > 10_000
    assert contents(repo, id) == {"a": noise(1, 300_000)}


def test_many_small_metadata_packs_are_merged(repo: Repo) -> None:
    ids = [commit_files(repo, {"a": str(n).encode()}, ref=f"tags/{n}") for n in range(gcplan.MANY)]
    assert gc.plan(repo).empty
    ids.append(commit_files(repo, {"a": b"more"}, ref="tags/more"))
    done = collect(repo)
    assert len(done.rewrites) == gcplan.MANY + 1
    assert done.freed_bytes > 0
    assert len(repo.root.packs) == 2
    assert [contents(repo, id) for id in ids[-1:]] == [{"a": b"more"}]
    assert gc.plan(repo).empty


def duplicate(repo: Repo, files: Files) -> TreeId:
    """Store files once more, as writers that do not see each other do."""
    writer = ObjectWriter(repo.backend, PinnedStore(repo.backend, []), lambda: os.urandom(16))
    tree = write_files(Transaction(repo, repo.root, writer), files)
    packs = repo.root.packs + tuple(writer.seal())
    publish(repo, repo.root.follow(repo.root.operation, packs=packs))
    return tree


def publish(repo: Repo, root: roots.Root) -> None:
    repo.adopt(roots.publish(repo.backend, root, os.urandom(16)))
    repo.store.refresh()


def test_a_second_copy_is_given_back(repo: Repo) -> None:
    files = {"a": noise(1, 400_000), "b": noise(2, 2_000_000)}
    id = commit_files(repo, files)
    duplicate(repo, files)
    assert collect(repo).freed_bytes > 2_400_000
    assert contents(repo, id) == files
    assert gc.plan(repo).empty


def test_the_good_one_of_two_copies_stays(repo: Repo) -> None:
    files = {"a": noise(1, 400_000)}
    id = commit_files(repo, files)
    damage(repo, files["a"])
    duplicate(repo, files)
    gc.execute(repo, gc.plan(repo))
    assert contents(reopened(repo), id) == files
    assert whole(repo)


def test_of_two_cuts_of_one_blob_one_goes_with_its_pieces(repo: Repo) -> None:
    """The recipe that nobody takes must not stay behind without its pieces."""
    data = noise(1, 6_000_000)

    def make(transaction: Transaction) -> CommitId:
        tree = write_files(transaction, {"a": data})
        id = transaction.record(Commit(kind="commit", tree=tree))
        transaction.set_ref(MAIN, id)
        return id

    id = transact(repo, "one cut", make)
    writer = ObjectWriter(repo.backend, PinnedStore(repo.backend, []), lambda: os.urandom(16))
    assert writer.blob(data, Element(4)) == blob_id(data)
    packs = repo.root.packs + tuple(writer.seal())
    publish(repo, repo.root.follow(repo.root.operation, packs=packs))
    assert len(repo.store.index.find(blob_id(data))) == 2
    assert collect(repo).freed_bytes > 6_000_000
    assert len(repo.store.index.find(blob_id(data))) == 1
    assert contents(repo, id) == {"a": data}


def test_what_a_pack_that_stays_holds_too_is_not_copied(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcplan, "SMALL_DATA", 0)
    shared = noise(1, 300_000)
    unreferenced(repo, {"a": shared, "dead": noise(2, 300_000)})
    big = {"a": shared, **{f"p{n}": noise(n + 10, 400_000) for n in range(4)}}
    duplicate(repo, big)
    id = commit_files(repo, big)
    copied = collect(repo).new_bytes
    assert copied < 300_000
    assert contents(repo, id) == big
    assert gc.plan(repo).empty


def test_a_copy_in_a_pack_that_goes_too_is_none_to_rely_on(repo: Repo) -> None:
    shared = noise(1, 300_000)
    unreferenced(repo, {"a": shared, "dead": noise(2, 300_000)})
    duplicate(repo, {"a": shared, "dead too": noise(3, 300_000)})
    id = commit_files(repo, {"a": shared})
    assert collect(repo).new_bytes > 300_000
    assert contents(reopened(repo), id) == {"a": shared}


def orphan(repo: Repo) -> str:
    """Leave a pack behind that no root lists."""
    writer = ObjectWriter(repo.backend, repo.store, lambda: os.urandom(16))
    writer.blob(noise(5, 300_000))
    (info,) = writer.seal()
    return info.key


def test_an_orphan_goes_through_a_root(repo: Repo) -> None:
    commit_files(repo, {"a": b"a"})
    key = orphan(repo)
    before = repo.refresh().seq
    done = gc.execute(repo, gc.plan(repo))
    assert [info.key for info in done.orphans] == [key]
    assert done.freed_bytes > 300_000
    assert key not in pack_files(repo)
    condemning = roots.read(repo.backend, before + 1)
    assert [info.key for info in condemning.condemned] == [key]
    assert repo.refresh().condemned == ()
    assert repo.root.seq == before + 2


def test_orphans_are_left_alone_while_a_session_is_open_that_may_own_them(repo: Repo) -> None:
    with Session.open(repo.path / SESSIONS, "other", "training"):
        key = orphan(repo)
        assert gc.plan(repo).orphans == ()
        gc.execute(repo, gc.plan(repo))
        assert key in pack_files(repo)
    assert len(gc.plan(repo).orphans) == 1


def test_orphans_that_are_older_than_every_session_go(repo: Repo) -> None:
    key = orphan(repo)
    os.utime(repo.path / key, (START, START))
    with Session.open(repo.path / SESSIONS, "other", "training"):
        (found,) = gc.plan(repo).orphans
        assert found.key == key
        younger = orphan(repo)
        gc.execute(repo, gc.plan(repo))
        assert key not in pack_files(repo)
        assert younger in pack_files(repo)


def test_other_files_among_the_packs_are_left_alone(repo: Repo) -> None:
    orphan(repo)
    stray = repo.path / "packs" / "notes.txt"
    stray.write_text("mine")
    odd = repo.path / "packs" / ("zz" * 16 + ".pack")
    odd.write_text("mine")
    gc.execute(repo, gc.plan(repo))
    assert stray.exists()
    assert odd.exists()


def test_goes_on_with_what_an_earlier_collection_condemned(repo: Repo) -> None:
    commit_files(repo, {"a": b"a"})
    key = orphan(repo)
    (info,) = gc.plan(repo).orphans
    publish(repo, repo.root.follow(repo.root.operation, condemned=(info,)))
    plan = gc.plan(repo)
    assert plan.leftovers == (info,)
    assert plan.orphans == ()
    assert plan.freed_bytes > 300_000
    gc.execute(repo, plan)
    assert key not in pack_files(repo)
    assert repo.refresh().condemned == ()


def test_the_root_that_condemns_is_durable_before_anything_is_deleted(repo: Repo) -> None:
    """Another collection may have put it, and the power may fail before it is synced."""
    orphan(repo)
    collected_halfway(repo)
    again = meddled(repo, lambda: None)
    assert isinstance(again.backend, Meddled)
    gc.execute(again, gc.plan(again))
    assert again.backend.order[:3] == ["sync roots/", "delete packs", "sync packs/"]


class Meddled(LocalBackend):
    """A backend that lets somebody else act right before the next new root is put."""

    meddle: Callable[[], None] | None = None
    fails: bool = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.created: list[str] = []
        self.order: list[str] = []

    def create(self, key: str) -> FileSink:
        self.created.append(key)
        return super().create(key)

    def delete(self, key: str) -> None:
        if self.fails:
            raise BackendError("pulled the plug")
        self.order.append(f"delete {key.partition('/')[0]}")
        super().delete(key)

    def sync(self, prefix: str) -> None:
        self.order.append(f"sync {prefix}")
        super().sync(prefix)

    def put_new(self, key: str, data: Buffer) -> None:
        if self.meddle and key.startswith("roots/"):
            meddle, self.meddle = self.meddle, None
            meddle()
        super().put_new(key, data)


def meddled(repo: Repo, meddle: Callable[[], None]) -> Repo:
    again = reopened(repo)
    again.backend = Meddled(repo.path)
    again.backend.meddle = meddle
    again.store = PackedStore(again.backend, lambda: again.refresh().packs)
    return again


def test_what_comes_alive_while_it_marks_stays(repo: Repo) -> None:
    files: Files = {"a": noise(1, 300_000), "sub": {"b": noise(2, 5000)}}
    commit_files(repo, {"kept": b"kept"})
    unreferenced(repo, files)
    ids: list[CommitId] = []
    slow = meddled(repo, lambda: ids.append(commit_files(reopened(repo), files, ref="tags/back")))
    plan = gc.plan(slow)
    assert plan.freed_bytes > 300_000
    gc.execute(slow, plan)
    assert whole(repo)
    assert contents(reopened(repo), ids[0]) == files


def test_what_dies_while_it_marks_does_not_stay_half(repo: Repo) -> None:
    """Taking only what the first plan named would leave a dead tree without its file."""
    file = noise(1, 300_000)
    commit_files(repo, {"a": file, "dead": noise(3, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    commit_files(repo, {"a": file}, ref="tags/dies")
    commit_files(repo, {"kept": b"kept"})
    slow = meddled(repo, lambda: set_ref(reopened(repo), "tags/dies", None))
    gc.execute(slow, gc.plan(slow))
    assert whole(repo)
    assert sum(pack_files(repo).values()) < 5000


def test_copies_that_still_fit_are_not_made_again(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    id = commit_files(repo, {"a": noise(1, 300_000)})
    slow = meddled(repo, lambda: void(commit_files(reopened(repo), {"n": b"n"}, ref="tags/n")))
    done = gc.execute(slow, gc.plan(slow))
    backend = slow.backend
    assert isinstance(backend, Meddled)
    assert len(backend.created) == 1
    assert done.kept_bytes == sum(info.length for info in repo.refresh().packs)
    assert whole(repo)
    assert contents(reopened(repo), id) == {"a": noise(1, 300_000)}


def test_copies_that_no_longer_fit_are_condemned_too(repo: Repo) -> None:
    files = {f"p{n}": noise(n, 300_000) for n in range(3)}
    commit_files(repo, files, ref="tags/all")
    set_ref(repo, "tags/all", None)
    commit_files(repo, {"p0": files["p0"]}, ref="tags/dies")
    id = commit_files(repo, {"p1": files["p1"]})
    slow = meddled(repo, lambda: set_ref(reopened(repo), "tags/dies", None))
    gc.execute(slow, gc.plan(slow))
    assert whole(repo)
    assert contents(reopened(repo), id) == {"p1": files["p1"]}
    assert sum(pack_files(repo).values()) < 310_000


def test_two_collections_at_once_do_not_harm_each_other(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    id = commit_files(repo, {"a": noise(1, 300_000)})
    other = reopened(repo)
    slow = meddled(repo, lambda: void(gc.execute(other, gc.plan(other))))
    gc.execute(slow, gc.plan(slow))
    assert contents(reopened(repo), id) == {"a": noise(1, 300_000)}
    gc.execute(repo, gc.plan(repo))
    assert whole(repo)
    assert gc.plan(repo).empty


def void(_: object) -> None:
    return None


def test_copies_that_another_collection_condemned_are_made_again(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    id = commit_files(repo, {"a": noise(1, 300_000)})
    other = reopened(repo)

    def condemn_copies() -> None:
        root = other.refresh()
        known = {info.name for info in root.packs + root.condemned}
        copies = tuple(f.info for f in pack_files_of(other.backend) if f.info.name not in known)
        if not copies:  # what needs no copies goes first
            assert isinstance(slow.backend, Meddled)
            slow.backend.meddle = condemn_copies
            return
        condemned.append(copies)
        publish(other, other.root.follow(other.root.operation, condemned=copies))

    condemned: list[object] = []
    slow = meddled(repo, condemn_copies)
    gc.execute(slow, gc.plan(slow))
    assert condemned
    assert whole(repo)
    assert contents(reopened(repo), id) == {"a": noise(1, 300_000)}


def test_gives_up_when_others_never_stop_publishing(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "ATTEMPTS", 20)
    monkeypatch.setattr(gate, "PATIENCE_S", 0)
    unreferenced(repo, {"a": noise(1, 3000)})
    other = reopened(repo)
    slow = meddled(repo, lambda: None)
    backend = slow.backend
    assert isinstance(backend, Meddled)

    def publish_and_come_again() -> None:
        commit_files(other, {"n": str(other.root.seq).encode()})
        backend.meddle = publish_and_come_again

    backend.meddle = publish_and_come_again
    with pytest.raises(ConflictError):
        gc.execute(slow, gc.plan(slow))
    backend.meddle = None
    gc.execute(slow, gc.plan(slow))
    assert whole(repo)


def racing_writer(repo: Repo, files: Files, during: Callable[[Transaction], None]) -> CommitId:
    """Commit files; on the first attempt something happens before it can publish."""
    attempts = iter([True])

    def make(transaction: Transaction) -> CommitId:
        id = transaction.record(Commit(kind="commit", tree=write_files(transaction, files)))
        transaction.set_ref("tags/late", id)
        if next(attempts, False):
            during(transaction)
        return id

    return transact(repo, "late", make)


def test_a_writer_that_relied_on_the_dead_writes_it_anew(repo: Repo) -> None:
    files: Files = {
        "a": noise(1, 300_000),
        "big": noise(2, 2_000_000),
        "sub": {"b": noise(3, 5000)},
    }
    commit_files(repo, {"kept": b"kept"})
    unreferenced(repo, files)
    other = reopened(repo)

    def during(transaction: Transaction) -> None:
        assert transaction.writer.relied
        assert gc.execute(other, gc.plan(other)).freed_bytes > 2_000_000

    id = racing_writer(repo, files, during)
    assert whole(repo)
    assert contents(reopened(repo), id) == files


def collected(repo: Repo) -> None:
    gc.execute(repo, gc.plan(repo))


def collected_halfway(repo: Repo) -> None:
    """Condemn, and die before anything is deleted."""
    dying = meddled(repo, lambda: None)
    assert isinstance(dying.backend, Meddled)
    dying.backend.fails = True
    with pytest.raises(BackendError):
        gc.execute(dying, gc.plan(dying))


@pytest.mark.parametrize("collecting", [collected, collected_halfway])
def test_a_writer_whose_packs_are_condemned_writes_them_anew(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, collecting: Callable[[Repo], None]
) -> None:
    files = {"a": noise(1, 300_000), "big": noise(2, 2_000_000)}
    other = reopened(repo)
    commit_files(repo, {"kept": b"kept"})

    def during(transaction: Transaction) -> None:
        transaction.writer.seal()
        # Sessions only spare work: without them it must be as safe.
        with monkeypatch.context() as patch:
            patch.setattr(gctidy, "others", lambda *_, **__: iter(()))
            assert len(gc.plan(other).orphans) == 2
            collecting(other)

    id = racing_writer(repo, files, during)
    gc.execute(other, gc.plan(other))
    assert whole(repo)
    assert contents(reopened(repo), id) == files


def test_a_hold_that_stood_already_stands_when_the_writer_publishes(repo: Repo) -> None:
    """A prune in between takes the hold; the writer must set it again, not believe it is there."""
    files: Files = {"w": noise(1, 300_000)}
    id = commit_files(repo, {"a": b"a"}, payload=files, ref="datasets/d", kind="input")
    other = reopened(repo)
    attempts = iter([True])

    def make(transaction: Transaction) -> None:
        tree, payload = (write_files(transaction, part) for part in ({"a": b"a"}, files))
        commit = Commit(kind="input", tree=tree, payload=payload)
        transaction.set_ref("datasets/again", transaction.record(commit))
        if next(attempts, False):
            set_ref(other, f"{HOLDS}{id}", None)

    transact(repo, "again", make)
    assert repo.refresh().refs[f"{HOLDS}{id}"] == id
    assert whole(repo)


def test_a_reader_with_an_old_root_finds_what_was_moved(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)}, ref="tags/x")
    id = commit_files(repo, {"a": noise(1, 300_000)})
    reader = reopened(repo)
    assert reader.store.locate(id)
    set_ref(repo, "tags/x", None)
    collect(repo)
    assert contents(reader, id) == {"a": noise(1, 300_000)}


def damage(repo: Repo, data: bytes) -> None:
    place = repo.store.locate(blob_id(data))
    assert place is not None
    path = repo.path / place.pack.key
    raw = bytearray(path.read_bytes())
    raw[place.row.offset + 200] ^= 0xFF
    path.write_bytes(raw)


def test_refuses_when_a_pack_that_is_needed_is_gone(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000)})
    unreferenced(repo, {"b": noise(2, 3000)})
    place = repo.store.locate(blob_id(noise(1, 300_000)))
    assert place is not None
    (repo.path / place.pack.key).unlink()
    files = pack_files(repo)
    with pytest.raises(RefusedError, match=place.pack.name.hex()):
        gc.plan(reopened(repo))
    assert pack_files(repo) == files


def test_refuses_when_what_it_must_copy_is_damaged(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 3000)})
    set_ref(repo, MAIN, None)
    commit_files(repo, {"a": noise(1, 300_000)})
    damage(repo, noise(1, 300_000))
    place = repo.store.locate(blob_id(noise(1, 300_000)))
    assert place
    plan = gc.plan(reopened(repo))
    assert place.pack.key in {rewrite.pack.key for rewrite in plan.rewrites}
    with pytest.raises(RefusedError, match="damaged"):
        gc.execute(repo, plan)
    assert repo.refresh().listed(place.pack.name)
    assert place.pack.key in pack_files(repo)


def test_refuses_when_something_kept_is_missing(repo: Repo) -> None:
    def make(transaction: Transaction) -> None:
        commit = Commit(kind="commit", tree=TreeId(blob_id(b"never written")))
        id = transaction.writer.commit(commit.to_bytes())
        transaction.set_ref("tags/broken", id)

    transact(repo, "broken", make)
    with pytest.raises(RefusedError, match="tags/broken"):
        gc.plan(repo)


def test_removes_index_files_that_help_nobody(repo: Repo) -> None:
    for n in range(40):
        commit_files(repo, {"a": str(n).encode()}, ref=f"tags/{n}")
    assert list(repo.backend.scan("index/"))
    collect(repo)
    assert not list(repo.backend.scan("index/"))
    assert whole(repo)


def test_a_lying_index_file_cannot_make_it_delete_what_lives(repo: Repo) -> None:
    from cas.store.segment import Segment

    id = commit_files(repo, {"a": noise(1, 300_000)})
    names = tuple(info.name for info in repo.root.packs)
    repo.backend.put_new("index/00.idx", Segment(b"", names).to_bytes())
    liar = reopened(repo)
    assert liar.store.locate(id) is None
    assert gc.plan(liar).empty


def test_a_pack_that_comes_is_not_condemned_as_well(repo: Repo) -> None:
    """It may stand among what leaves: a copy that was open when somebody looked for strays."""
    commit_files(repo, {"a": noise(1, 3000)})
    base = repo.refresh()
    (pack,) = base.packs[-1:]
    operation = begun(repo, "gc")
    after = swap(repo, base, operation, [pack], [pack])
    assert after is not None
    assert pack.name not in {info.name for info in after.condemned}
