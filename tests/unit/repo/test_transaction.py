"""Whatever others do meanwhile, a transaction is published whole, again, or not at all."""

import _thread
import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cas.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    ReadOnlyError,
    StorageFullError,
)
from cas.ids import CommitId, ObjectId, blob_id
from cas.objects.commit import COMMIT, Commit
from cas.objects.kind import Kind
from cas.repo import root as roots
from cas.repo import transaction as transactions
from cas.repo.collect import gc
from cas.repo.gate import Gate
from cas.repo.repo import Repo
from cas.repo.root import Operation
from cas.repo.transaction import Transaction, transact
from cas.repo.trees.ingest import file_entry, nest
from cas.store.pack import PackClass, PackInfo
from cas.store.record import RECIPE
from tests.support.builders import (
    commit_files,
    noise,
    pack_files,
    read_tree,
    reopened,
    repository,
    set_ref,
)
from tests.support.faulty import Fault, FaultyOps, RecordingOps
from tests.support.torture import amount

NAME = "tags/one"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def commit(transaction: Transaction, message: str, data: bytes = b"") -> CommitId:
    """Write a commit of one file."""
    writer = transaction.writer
    tree = nest(writer, [(b"file", file_entry(writer, b"file", data))]).id
    return transaction.record(Commit(kind=COMMIT, tree=tree, message=message))


def collect(repo: Repo, *packs: PackInfo, files: bool = True) -> None:
    """Do what gc does, without a look at what is live: condemn packs, delete them, clear them."""
    operation = Operation(b"g" * 16, "", "gc", 0)
    root = repo.refresh()
    gone = {info.name for info in packs}
    left = tuple(info for info in root.packs if info.name not in gone)
    root = roots.publish(
        repo.backend, root.follow(operation, packs=left, condemned=packs), b"1" * 16
    )
    if files:
        for info in packs:
            repo.backend.delete(info.key)
        roots.publish(repo.backend, root.follow(operation, condemned=()), b"2" * 16)


class TestPublishing:
    def test_objects_and_refs_appear_together(self, repo: Repo) -> None:
        def build(transaction: Transaction) -> CommitId:
            id = commit(transaction, "hello", b"data")
            transaction.set_ref(NAME, id)
            assert reopened(repo).root.refs == {}
            return id

        id = transact(repo, "test", build)
        seen = reopened(repo)
        assert seen.root.refs == {NAME: id}
        assert read_tree(seen, seen.commit(id).tree) == {"file": b"data"}

    def test_a_root_says_who_what_and_what_moved(self, repo: Repo) -> None:
        one = commit_files(repo, {"a": b"1"}, ref=NAME)
        two = commit_files(repo, {"a": b"2"}, ref=NAME)
        root = reopened(repo).root
        assert (root.operation.who, root.operation.what) == ("ada@host", "commit")
        assert [(c.name, c.old, c.new) for c in root.changes] == [(NAME, one, two)]

    def test_nothing_done_is_no_root(self, repo: Repo) -> None:
        before = repo.refresh().seq
        assert transact(repo, "test", lambda _: "result") == "result"
        id = commit_files(repo, {"a": b"1"}, ref=NAME)
        transact(repo, "test", lambda transaction: transaction.set_ref(NAME, id))
        assert repo.refresh().seq == before + 1

    def test_a_ref_sees_what_the_transaction_did(self, repo: Repo) -> None:
        old = commit_files(repo, {"a": b"1"}, ref=NAME)

        def build(transaction: Transaction) -> None:
            assert transaction.ref(NAME) == old
            new = commit(transaction, "new")
            transaction.set_ref(NAME, new)
            assert transaction.ref(NAME) == new
            transaction.set_ref(NAME, None)
            assert transaction.ref(NAME) is None

        transact(repo, "test", build)
        assert NAME not in repo.root.refs

    def test_a_ref_to_what_is_not_stored_is_refused(self, repo: Repo) -> None:
        with pytest.raises(NotFoundError):
            set_ref(repo, NAME, CommitId(ObjectId(b"\x33" * 32)))

    @pytest.mark.parametrize("name", ["", "a//b", "a/../b", ".a", "-a", "a b", "a~1", "a\n", "é@x"])
    def test_a_name_that_cannot_be_is_refused(self, repo: Repo, name: str) -> None:
        id = commit_files(repo, {"a": b"1"}, ref=NAME)
        with pytest.raises(InvalidInputError):
            set_ref(repo, name, id)

    def test_an_error_of_the_builder_leaves_nothing(self, repo: Repo) -> None:
        def build(transaction: Transaction) -> None:
            commit(transaction, "x", noise(1, 600_000))
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            transact(repo, "test", build)
        assert pack_files(repo) == {}
        assert list((repo.path / "sessions").iterdir()) == []
        assert repo.refresh().seq == 1

    def test_a_small_commit_costs_four_syncs(self, repo: Repo) -> None:
        commit_files(repo, {"a": b"1"})  # the folders are there from now on
        ops = RecordingOps()
        again = reopened(repo, ops)
        commit_files(again, {"a": b"2"})
        synced = [
            (call, Path(path).relative_to(repo.path).parts[0])
            for call, path in ops.calls
            if call in {"fsync", "fsync_dir"}
        ]
        assert synced == [
            ("fsync", "packs"), ("fsync_dir", "packs"), ("fsync", "tmp"), ("fsync_dir", "roots"),
        ]  # fmt: skip


class TestRaces:
    def test_two_that_move_different_refs_both_win(self, repo: Repo) -> None:
        other = reopened(repo)
        calls = 0

        def build(transaction: Transaction) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                commit_files(other, {"b": b"2"}, ref="tags/two")
            transaction.set_ref(NAME, commit(transaction, "one"))

        transact(repo, "test", build)
        assert set(repo.refresh().refs) == {NAME, "tags/two"}
        assert calls == 1  # nothing that it relied on has moved

    def test_two_that_move_one_ref_come_one_after_the_other(self, repo: Repo) -> None:
        first = commit_files(repo, {"a": b"1"}, ref=NAME)
        other = reopened(repo)
        seen: list[CommitId | None] = []
        rival: list[CommitId] = []

        def build(transaction: Transaction) -> None:
            seen.append(transaction.ref(NAME))
            if len(seen) == 1:
                rival.append(commit_files(other, {"b": b"2"}, ref=NAME))
            transaction.set_ref(NAME, commit(transaction, "mine"))

        transact(repo, "test", build)
        assert seen == [first, rival[0]]

    def test_many_handles_at_once_lose_nothing(self, repo: Repo) -> None:
        def work(number: int) -> None:
            own = reopened(repo)
            for step in range(5):
                commit_files(own, {"f": b"%d %d" % (number, step)}, ref=f"tags/{number}-{step}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fresh = reopened(repo)
        assert len(fresh.root.refs) == 20
        for id in fresh.root.refs.values():
            assert read_tree(fresh, fresh.commit(id).tree)
        assert fresh.root.seq == 21

    def test_losing_for_ever_is_a_conflict(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transactions, "ATTEMPTS", 3)
        other = reopened(repo)
        calls = 0

        def build(transaction: Transaction) -> None:
            nonlocal calls
            calls += 1
            commit_files(other, {"b": b"%d" % calls}, ref=NAME)
            transaction.set_ref(NAME, commit(transaction, "mine"))

        with pytest.raises(ConflictError):
            transact(repo, "test", build)
        assert calls == 3


class TestCollected:
    """A collector is at work between the look-up and the root."""

    def first_time(self, action: Callable[[], None]) -> Callable[[], None]:
        done: list[bool] = []

        def once() -> None:
            if not done:
                done.append(True)
                action()

        return once

    def test_what_was_relied_on_and_is_gone_is_written_again(self, repo: Repo) -> None:
        transact(repo, "test", lambda transaction: transaction.writer.blob(b"shared"))
        (pack,) = repo.root.packs
        other = reopened(repo)
        interfere = self.first_time(lambda: collect(other, pack))
        hits: list[int] = []

        def build(transaction: Transaction) -> CommitId:
            id = commit(transaction, "uses it", b"shared")
            hits.append(len(transaction.writer.relied))
            interfere()
            transaction.set_ref(NAME, id)
            return id

        id = transact(repo, "test", build)
        fresh = reopened(repo)
        assert read_tree(fresh, fresh.commit(id).tree) == {"file": b"shared"}
        assert hits == [1, 0]

    def test_what_was_relied_on_and_moved_is_found_again(self, repo: Repo) -> None:
        transact(repo, "test", lambda transaction: transaction.writer.blob(b"shared"))
        (pack,) = repo.root.packs
        other = reopened(repo)

        def move() -> None:
            place = other.store.find(blob_id(b"shared"))
            assert place is not None
            header, body = other.store.body(place)
            transact(other, "repack", lambda transaction: transaction.writer.copy(header, body))
            collect(other, pack)

        interfere = self.first_time(move)
        calls: list[int] = []

        def build(transaction: Transaction) -> CommitId:
            calls.append(1)
            id = commit(transaction, "uses it", b"shared")
            interfere()
            transaction.set_ref(NAME, id)
            return id

        id = transact(repo, "test", build)
        assert len(calls) == 1
        fresh = reopened(repo)
        assert read_tree(fresh, fresh.commit(id).tree) == {"file": b"shared"}

    @pytest.mark.parametrize("files", [True, False], ids=["swept", "condemned"])
    @pytest.mark.parametrize("kind", PackClass)
    def test_own_packs_that_are_gone_are_written_again_whole(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch, kind: PackClass, files: bool
    ) -> None:
        # A recipe in one pack, its pieces in the other: neither may hide that the other is gone.
        data = noise(1, 3_000_000)
        other = reopened(repo)
        publish = transactions._publish
        calls: list[int] = []

        def interfered(transaction: Transaction, operation: Operation, gate: Gate) -> bool:
            calls.append(1)
            if len(calls) == 1:
                packs = transaction.writer.seal()
                collect(other, *(info for info in packs if info.kind is kind), files=files)
                transaction.root = repo.refresh()
            return publish(transaction, operation, gate)

        monkeypatch.setattr(transactions, "_publish", interfered)

        def build(transaction: Transaction) -> CommitId:
            id = commit(transaction, "large", data)
            transaction.set_ref(NAME, id)
            return id

        id = transact(repo, "test", build)
        fresh = reopened(repo)
        assert read_tree(fresh, fresh.commit(id).tree) == {"file": data}
        place = fresh.store.find(blob_id(data))
        assert place is not None
        assert place.row.codec == RECIPE
        assert len(calls) == 2

    def test_pieces_that_an_own_recipe_relied_on_are_written_again(self, repo: Repo) -> None:
        data = noise(1, 3_000_000)
        transact(repo, "test", lambda t: t.writer.stream([data[:2_900_000]], len(data)))
        old = repo.root.packs
        other = reopened(repo)
        interfere = self.first_time(lambda: collect(other, *old))

        def build(transaction: Transaction) -> CommitId:
            id = commit(transaction, "longer", data)
            interfere()
            transaction.set_ref(NAME, id)
            return id

        id = transact(repo, "test", build)
        fresh = reopened(repo)
        assert read_tree(fresh, fresh.commit(id).tree) == {"file": data}


class TestTrouble:
    @pytest.mark.parametrize("at", [1, 2, 3])
    def test_a_full_disk_is_told_and_nothing_is_published(self, repo: Repo, at: int) -> None:
        commit_files(repo, {"a": b"1"}, ref=NAME)
        before = repo.refresh().seq
        ops = FaultyOps(Fault(at, errno.ENOSPC, "write"))
        with pytest.raises(StorageFullError, match="free space"):
            commit_files(reopened(repo, ops), {"a": noise(at, 600_000)}, ref=NAME)
        assert reopened(repo).root.seq == before
        assert list((repo.path / "sessions").iterdir()) == []

    def test_a_failed_sync_before_the_root_publishes_nothing(self, repo: Repo) -> None:
        commit_files(repo, {"a": b"1"}, ref=NAME)
        before = repo.refresh().seq
        for at in (1, 2):  # the pack, the root's file
            faulty = reopened(repo, FaultyOps(Fault(at, errno.EIO, "fsync")))
            with pytest.raises(Exception, match="input/output error"):
                commit_files(faulty, {"a": b"2"}, ref=NAME)
            assert reopened(repo).root.seq == before

    def test_a_failed_sync_after_the_root_is_an_unknown_outcome(self, repo: Repo) -> None:
        commit_files(repo, {"a": b"1"}, ref=NAME)
        faulty = reopened(repo, FaultyOps(Fault(2, errno.EIO, "fsync_dir")))
        with pytest.raises(OutcomeUnknownError) as caught:
            commit_files(faulty, {"a": b"2"}, ref=NAME)
        # Here it did last, and the operation id says so.
        assert reopened(repo).root.operation.id.hex() == caught.value.operation

    def test_trouble_with_the_index_afterwards_does_not_undo_anything(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> bool:
            raise StorageFullError("no space")

        monkeypatch.setattr(transactions, "consolidate", full)
        id = commit_files(repo, {"a": b"1"}, ref=NAME)
        assert reopened(repo).root.refs[NAME] == id

    def test_a_repository_that_cannot_be_written_says_so(self, repo: Repo) -> None:
        # A file in place of the folder: also root cannot write there.
        (repo.path / "sessions").rmdir() if (repo.path / "sessions").exists() else None
        (repo.path / "sessions").write_bytes(b"")
        with pytest.raises(ReadOnlyError, match="cannot write to"):
            commit_files(repo, {"a": b"1"})

    def test_ctrl_c_does_not_cut_publishing_in_two(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish = roots.publish

        def interrupted(*arguments: object) -> roots.Root:
            _thread.interrupt_main()
            return publish(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(roots, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            commit_files(repo, {"a": b"1"}, ref=NAME)
        fresh = reopened(repo)
        id = fresh.root.refs[NAME]
        assert read_tree(fresh, fresh.commit(id).tree) == {"a": b"1"}
        assert list((repo.path / "sessions").iterdir()) == []
        # The handle is as good as before.
        monkeypatch.setattr(roots, "publish", publish)
        assert commit_files(repo, {"a": b"2"}, ref=NAME) == repo.root.refs[NAME]

    @pytest.mark.parametrize("begun", [True, False])
    def test_ctrl_c_while_the_thread_starts_leaves_nothing_at_work(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch, *, begun: bool
    ) -> None:
        """Either the operation has taken place when the interrupt is raised, or it never does."""
        start, publish, late = threading.Thread.start, roots.publish, threading.Event()

        def slowly(*arguments: object) -> roots.Root:
            late.wait(0.2)
            return publish(*arguments)  # type: ignore[arg-type]

        def interrupted(thread: threading.Thread) -> None:
            if thread.name != "cas-publish":
                return start(thread)
            if begun:
                start(thread)
            raise KeyboardInterrupt

        seq = repo.refresh().seq
        monkeypatch.setattr(roots, "publish", slowly)
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            commit_files(repo, {"a": b"1"}, ref=NAME)
        assert reopened(repo).refresh().seq == seq + begun

    def test_ctrl_c_at_any_time_leaves_nothing_at_work(self) -> None:
        """While others want the interpreter too, it comes in the midst of starting a thread."""
        idle = threading.Event()
        spinners = [threading.Thread(target=spin, args=(idle,)) for _ in range(3)]
        for spinner in spinners:
            spinner.start()
        try:
            for number in range(amount(60, 3000)):
                assert not cut_short(0.0005 * (number % 3))
        finally:
            idle.set()
            for spinner in spinners:
                spinner.join()

    def test_a_hold_comes_with_every_payload(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"}, ref=NAME, payload={"w": b"2"})
        assert repo.root.refs == {NAME: id, f"holds/{id}": id}


def test_a_reader_finds_what_a_collector_moved(repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"}, ref=NAME)
    reader = reopened(repo)
    assert reader.store.find(id) is not None
    (pack,) = repo.root.packs

    def copy_all(transaction: Transaction) -> None:
        for place in list(repo.store.index.starting(b"")):
            transaction.writer.copy(*repo.store.body(place))

    transact(repo, "repack", copy_all)
    collect(repo, pack)
    assert read_tree(reader, reader.commit(id).tree) == {"a": b"1"}
    assert reader.store.read(Kind.COMMIT, id)
    assert replace(reader.root, check=b"").listed(pack.name) is False


def test_no_pack_stays_open_afterwards(tmp_path: Path) -> None:
    """Its space would not be free when another process has deleted it."""
    repo = repository(tmp_path)
    for number in range(3):
        commit_files(repo, {"a": noise(number, 90_000)}, ref="tags/a")
    assert open_packs(repo) == []
    reader = reopened(repo)
    id = reader.refresh().refs["tags/a"]
    assert read_tree(reader, reader.commit(id).tree)
    assert open_packs(repo) != []
    set_ref(repo, "tags/a", None)
    gc.execute(repo, gc.plan(repo))
    repo.backend.close()
    assert any("deleted" in path for path in open_packs(repo))
    reader.store.refresh()
    assert open_packs(repo) == []


def open_packs(repo: Repo) -> list[str]:
    """Return the packs that this process holds open, deleted ones too."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(entry.path))
    return [path for path in found if path.startswith(f"{repo.path}/packs/")]


def spin(idle: threading.Event) -> None:
    while not idle.is_set():
        sum(range(1000))


def cut_short(pause: float) -> bool:
    """Interrupt something; say whether that came back before it was done."""
    done: list[bool] = []

    def act() -> None:
        time.sleep(pause)
        _thread.interrupt_main()
        time.sleep(0.001)
        done.append(True)

    try:
        transactions._uninterrupted(act)
        time.sleep(0.05)  # the interrupt may come a little later than its end
    except KeyboardInterrupt:
        return not done
    return False
