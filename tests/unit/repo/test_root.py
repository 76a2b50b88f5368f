"""Roots are numbered, created once, and found from any hint."""

from dataclasses import replace
from itertools import pairwise

import pytest

from cas.backend.base import Span
from cas.backend.memory import MemoryBackend
from cas.errors import ConflictError, CorruptionError, NotFoundError
from cas.ids import CommitId, ObjectId
from cas.repo import root as roots
from cas.repo.layout import root_key
from cas.repo.root import FIRST_PREVIOUS, Operation, RefChange, Root
from cas.store.pack import PackClass, PackInfo
from tests.support.faulty import RecordingBackend

OPERATION = Operation(b"o" * 16, "ada@host", "test", 1)
COMMIT = CommitId(ObjectId(b"\x11" * 32))
OTHER = CommitId(ObjectId(b"\x22" * 32))


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


def pack(number: int) -> PackInfo:
    return PackInfo(number.to_bytes(16, "big"), 100 + number, b"f" * 32, PackClass.DATA)


def first(backend: MemoryBackend) -> Root:
    root = Root(seq=1, previous=FIRST_PREVIOUS, operation=OPERATION)
    return roots.publish(backend, root, b"\0" * 16)


def chain(backend: MemoryBackend, length: int) -> Root:
    root = first(backend)
    for number in range(2, length + 1):
        root = roots.publish(backend, root.follow(OPERATION), number.to_bytes(16, "big"))
    return root


class TestFollow:
    def test_refs_move_and_go(self) -> None:
        root = Root(seq=4, previous=b"", operation=OPERATION, refs={"a": COMMIT}, check=b"c")
        after = root.follow(OPERATION, [RefChange("a", COMMIT, None), RefChange("b", None, OTHER)])
        assert (after.seq, after.previous, after.refs) == (5, b"c", {"b": OTHER})
        assert root.refs == {"a": COMMIT}

    def test_what_is_not_said_stays(self) -> None:
        root = Root(
            seq=1, previous=b"", operation=OPERATION, packs=(pack(1),), condemned=(pack(2),)
        )
        after = root.follow(OPERATION)
        assert (after.packs, after.condemned) == (root.packs, root.condemned)
        assert root.follow(OPERATION, condemned=()).condemned == ()
        assert after.listed(pack(1).name)
        assert not after.listed(pack(2).name)


class TestPublish:
    def test_a_taken_number_is_a_conflict_and_stays_as_it_is(self, backend: MemoryBackend) -> None:
        root = first(backend)
        mine = replace(OPERATION, what="mine")
        roots.publish(backend, root.follow(mine), b"1" * 16)
        with pytest.raises(ConflictError):
            roots.publish(backend, root.follow(replace(OPERATION, what="late")), b"2" * 16)
        assert roots.read(backend, 2).operation.what == "mine"

    def test_each_names_the_one_before(self, backend: MemoryBackend) -> None:
        chain(backend, 5)
        read = [roots.read(backend, seq) for seq in range(1, 6)]
        assert read[0].previous == FIRST_PREVIOUS
        assert all(after.previous == before.check for before, after in pairwise(read))


class TestNewest:
    @pytest.mark.parametrize("hint", [0, 1, 3, 5, 6, 999])
    def test_any_hint_leads_there(self, backend: MemoryBackend, hint: int) -> None:
        chain(backend, 5)
        assert roots.newest(backend, hint).seq == 5

    def test_a_good_hint_needs_no_listing(self, backend: MemoryBackend) -> None:
        chain(backend, 5)
        recorded = RecordingBackend(backend)
        assert roots.newest(recorded, 5).seq == 5
        assert recorded.count("scan") == 0
        assert recorded.count("read") == 2

    def test_older_roots_may_be_gone(self, backend: MemoryBackend) -> None:
        chain(backend, 5)
        for seq in (1, 2, 3):
            backend.delete(root_key(seq))
        assert [roots.newest(backend, hint).seq for hint in (0, 2, 4)] == [5, 5, 5]
        with pytest.raises(NotFoundError):
            roots.read(backend, 2)

    def test_no_root_at_all_is_corruption(self, backend: MemoryBackend) -> None:
        with pytest.raises(CorruptionError, match="has no root"):
            roots.newest(backend, 0)

    def test_a_damaged_newest_root_is_not_passed_over(self, backend: MemoryBackend) -> None:
        chain(backend, 2)
        backend.delete(root_key(2))
        backend.put_new(root_key(2), b"CASO damaged")
        for hint in (0, 1, 2):
            with pytest.raises(CorruptionError):
                roots.newest(backend, hint)


class TestSnapshots:
    def grown(self, backend: MemoryBackend, count: int, each: int) -> Root:
        """A chain in which every root adds some refs and a pack."""
        root = first(backend)
        for number in range(count):
            changes = [RefChange(f"r/{number}-{n}", None, COMMIT) for n in range(each)]
            after = root.follow(OPERATION, changes, packs=(*root.packs, pack(number)))
            root = roots.publish(backend, after, number.to_bytes(16, "big"))
        return root

    def test_a_root_stays_small_however_many_refs_there_are(self, backend: MemoryBackend) -> None:
        root = self.grown(backend, 30, 100)
        assert len(root.refs) == 3000
        (raw,) = backend.read(root_key(root.seq), [Span(0, None)])
        assert len(raw) < 1100 * 60
        assert roots.newest(backend, 0).refs == root.refs

    def test_the_roots_of_a_long_run_take_little_room(self, backend: MemoryBackend) -> None:
        root = self.grown(backend, 500, 1)
        written = [*backend.scan("roots/"), *backend.scan("snapshots/")]
        assert sum(info.size_bytes for info in written) < 500 * 10_000
        assert roots.newest(backend, 0).refs == root.refs
        assert roots.newest(backend, 0).packs == root.packs

    def test_a_snapshot_is_read_once(self, backend: MemoryBackend) -> None:
        known = self.grown(backend, 200, 1)
        assert known.refs_base
        assert known.packs_base
        after = roots.publish(backend, known.follow(OPERATION), b"z" * 16)
        recorded = RecordingBackend(backend)
        assert roots.newest(recorded, 0, known) == after
        assert recorded.count("read", "snapshots/") == 0
        assert roots.newest(recorded, after.seq) == after
        assert recorded.count("read", "snapshots/") == 2

    def test_a_root_that_is_known_is_not_read_again(self, backend: MemoryBackend) -> None:
        known = chain(backend, 3)
        recorded = RecordingBackend(backend)
        assert roots.newest(recorded, 0, known) is known
        assert recorded.touched == {("read", root_key(3)): 1, ("read", root_key(4)): 1}

    def test_a_known_root_that_is_gone_is_not_believed(self, backend: MemoryBackend) -> None:
        known = chain(backend, 3)
        other = MemoryBackend()
        chain(other, 2)
        assert roots.newest(other, 0, known).seq == 2

    def test_refs_that_went_since_the_snapshot_stay_away(
        self, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(roots, "CHANGES_LIMIT", 5)
        root = self.grown(backend, 10, 1)
        gone = [RefChange("r/0-0", COMMIT, None), RefChange("r/1-0", COMMIT, OTHER)]
        root = roots.publish(backend, root.follow(OPERATION, gone, packs=root.packs[1:]), b"x" * 16)
        read = roots.newest(backend, 0)
        assert "r/0-0" not in read.refs
        assert read.refs["r/1-0"] == OTHER
        assert read.packs == root.packs  # in the same order: it decides which record is taken
        assert read.packs[0] == pack(1)
