"""Index files are made now and then, are merged geometrically, and can be thrown away."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from cas.backend.base import WHOLE, Span
from cas.backend.memory import MemoryBackend
from cas.errors import BackendError, StorageFullError
from cas.ids import Buffer, ObjectId, blob_id
from cas.objects.kind import Kind
from cas.store import index as indexes
from cas.store.index import UNCOVERED, Segments, consolidate
from cas.store.indexfile import IndexFile
from cas.store.merge import merge
from cas.store.pack import read_footer
from cas.store.packed import PackedStore
from cas.store.segment import BLOCK, HEADER, Segment
from tests.support.stores import Shelf

NAME = b"\x01" * 16
KEY = f"index/{NAME.hex()}.idx"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def add(shelf: Shelf, number: int) -> ObjectId:
    writer = shelf.writer()
    id = writer.blob(b"blob %d" % number)
    shelf.publish(writer)
    return id


def footers(shelf: Shelf) -> list[Segment]:
    return [part for part in shelf.store.index.segments if isinstance(part, Segment)]


class Counting(MemoryBackend):
    """Counts what is read of each folder."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def read(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        found = super().read(key, spans)
        self.bytes[key.split("/", maxsplit=1)[0]] += sum(map(len, found))
        return found


class TestConsolidate:
    def test_few_packs_have_no_index_file(self, shelf: Shelf) -> None:
        for number in range(UNCOVERED - 1):
            add(shelf, number)
        assert not consolidate(shelf.backend, shelf.store.index, b"\x01" * 16)
        assert list(shelf.backend.scan("index/")) == []

    def test_many_have_one_that_finds_everything(self, shelf: Shelf) -> None:
        ids = [add(shelf, number) for number in range(UNCOVERED)]
        assert consolidate(shelf.backend, shelf.store.index, b"\x01" * 16)
        fresh = PackedStore(shelf.backend, lambda: shelf.packs)
        assert fresh.index.uncovered == []
        assert [fresh.read(Kind.BLOB, id) for id in ids] == [
            b"blob %d" % number for number in range(UNCOVERED)
        ]

    def test_it_is_disposable(self, shelf: Shelf) -> None:
        ids = [add(shelf, number) for number in range(UNCOVERED)]
        consolidate(shelf.backend, shelf.store.index, b"\x01" * 16)
        for info in list(shelf.backend.scan("index/")):
            shelf.backend.delete(info.key)
        fresh = PackedStore(shelf.backend, lambda: shelf.packs)
        assert all(fresh.find(id) for id in ids)

    def test_rows_of_packs_that_are_not_listed_are_passed_over(self, shelf: Shelf) -> None:
        ids = [add(shelf, number) for number in range(UNCOVERED)]
        consolidate(shelf.backend, shelf.store.index, b"\x01" * 16)
        gone = shelf.packs.pop(0)
        shelf.backend.delete(gone.key)
        fresh = PackedStore(shelf.backend, lambda: shelf.packs)
        assert [fresh.find(id) is None for id in ids] == [True] + [False] * (UNCOVERED - 1)

    def test_a_row_moves_a_logarithmic_number_of_times(self, shelf: Shelf) -> None:
        written = 0
        for number in range(UNCOVERED * 16):
            add(shelf, number)
            name = number.to_bytes(16, "big")
            if consolidate(shelf.backend, shelf.store.index, name):
                (raw,) = shelf.backend.read(f"index/{name.hex()}.idx", [Span(0, None)])
                written += len(Segment.from_bytes(raw))
                shelf.store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        assert written <= UNCOVERED * 16 * 5
        assert len(list(shelf.backend.scan("index/"))) <= 5

    def test_a_long_lived_store_lets_go_of_what_was_merged(self, shelf: Shelf) -> None:
        for number in range(UNCOVERED * 8):
            add(shelf, number)
            consolidate(shelf.backend, shelf.store.index, number.to_bytes(16, "big"))
        add(shelf, UNCOVERED * 8)
        there = {info.key for info in shelf.backend.scan("index/")}
        assert set(shelf.store._segments._files) == there
        assert len(shelf.store._segments._footers) < UNCOVERED

    def test_what_was_merged_goes_and_what_was_left_is_passed_over(self, shelf: Shelf) -> None:
        ids = [add(shelf, number) for number in range(UNCOVERED)]
        small = merge(footers(shelf)[:3])
        consolidate(shelf.backend, shelf.store.index, b"\x01" * 16)
        shelf.backend.put_new("index/left.idx", small.to_bytes())
        store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        assert store.index.superseded == ["index/left.idx"]
        assert [len(store.index.find(id)) for id in ids] == [1] * UNCOVERED

    def test_few_packs_with_many_rows_have_one_too(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexes, "UNCOVERED_ROWS", 2)
        add(shelf, 1)
        assert not consolidate(shelf.backend, shelf.store.index, NAME)
        add(shelf, 2)
        assert consolidate(shelf.backend, shelf.store.index, NAME)

    def test_rows_of_packs_that_are_not_listed_are_not_merged_on(self, shelf: Shelf) -> None:
        ids = [add(shelf, number) for number in range(UNCOVERED)]
        consolidate(shelf.backend, shelf.store.index, NAME)
        del shelf.packs[:3]
        ids += [add(shelf, number) for number in range(UNCOVERED, 2 * UNCOVERED)]
        assert consolidate(shelf.backend, shelf.store.index, b"\x02" * 16)
        (file,) = Segments(shelf.backend).files()
        assert sorted(row.id for row in file.starting(b"")) == sorted(ids[3:])
        assert set(file.packs) == {info.name for info in shelf.packs}

    def test_a_large_one_is_the_same_and_never_in_memory_as_a_whole(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(UNCOVERED):
            add(shelf, number)
        whole = merge(footers(shelf)).to_bytes()
        monkeypatch.setattr(indexes, "STREAMED", 1)
        assert consolidate(shelf.backend, shelf.store.index, NAME)
        assert shelf.backend.read(KEY, [WHOLE]) == [whole]

    def test_a_large_one_that_cannot_be_written_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Full(MemoryBackend):
            def create(self, key: str):  # type: ignore[no-untyped-def]
                sink = super().create(key)
                if key.startswith("index/"):
                    monkeypatch.setattr(sink, "write", self.refuse)
                return sink

            def refuse(self, buffers: Sequence[Buffer]) -> None:
                raise StorageFullError("no space")

        shelf = Shelf(Full())
        for number in range(UNCOVERED):
            add(shelf, number)
        monkeypatch.setattr(indexes, "STREAMED", 1)
        with pytest.raises(StorageFullError):
            consolidate(shelf.backend, shelf.store.index, NAME)
        monkeypatch.undo()
        assert consolidate(shelf.backend, shelf.store.index, NAME)

    def test_one_that_is_damaged_is_merged_from_footers(self, shelf: Shelf) -> None:
        ids = [add(shelf, number) for number in range(UNCOVERED)]
        consolidate(shelf.backend, shelf.store.index, NAME)
        damage(shelf, HEADER.size)
        shelf.store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        ids += [add(shelf, number) for number in range(UNCOVERED, 2 * UNCOVERED)]
        assert consolidate(shelf.backend, shelf.store.index, b"\x02" * 16)
        store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        assert len(store.index.segments) == 1
        assert all(store.find(id) for id in ids)

    def test_a_pack_that_is_missing_is_not_covered(self, shelf: Shelf) -> None:
        ids = [add(shelf, number) for number in range(UNCOVERED + 1)]
        (lost,) = (info for info in shelf.packs if info.name == shelf.packs[3].name)
        (raw,) = shelf.backend.read(lost.key, [WHOLE])
        shelf.backend.delete(lost.key)
        store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        assert consolidate(shelf.backend, store.index, NAME)
        shelf.backend.put_new(lost.key, raw)
        assert PackedStore(shelf.backend, lambda: list(shelf.packs)).find(ids[3])


def damage(shelf: Shelf, at: int, key: str = KEY) -> None:
    """Flip a bit of an index file."""
    (raw,) = shelf.backend.read(key, [WHOLE])
    shelf.backend.delete(key)
    shelf.backend.put_new(key, raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])


class TestTrouble:
    @pytest.fixture
    def ids(self, shelf: Shelf) -> list[ObjectId]:
        ids = [add(shelf, number) for number in range(UNCOVERED)]
        assert consolidate(shelf.backend, shelf.store.index, NAME)
        shelf.store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        return ids

    def test_damage_that_is_met_late_leads_to_the_footers(
        self, shelf: Shelf, ids: list[ObjectId]
    ) -> None:
        damage(shelf, HEADER.size)
        index = shelf.store.index
        assert index.uncovered == []
        assert [len(index.find(id)) for id in ids] == [1] * UNCOVERED
        assert index.uncovered == shelf.packs
        assert shelf.store.refresh() is False

    def test_so_does_a_file_that_goes_meanwhile(self, shelf: Shelf, ids: list[ObjectId]) -> None:
        index = shelf.store.index
        shelf.backend.delete(KEY)
        assert [place.row.id for place in index.starting(ids[0][:2])] == [ids[0]]
        assert index.uncovered == shelf.packs

    def test_or_to_the_one_that_it_was_merged_into(self, shelf: Shelf, ids: list[ObjectId]) -> None:
        index = shelf.store.index
        (file,) = (part for part in index.segments if isinstance(part, IndexFile))
        shelf.backend.put_new("index/02.idx", merge([file]).to_bytes())
        shelf.backend.delete(KEY)
        assert [len(index.find(id)) for id in ids] == [1] * UNCOVERED
        assert index.uncovered == []

    def test_a_pack_that_went_with_it_is_a_miss(self, shelf: Shelf, ids: list[ObjectId]) -> None:
        index = shelf.store.index
        shelf.backend.delete(KEY)
        shelf.backend.delete(shelf.packs[0].key)
        assert [len(index.find(id)) for id in ids] == [0] + [1] * (UNCOVERED - 1)

    def test_many_look_ups_do_without_it_as_well(
        self, shelf: Shelf, ids: list[ObjectId], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexes, "MANY", 1)
        damage(shelf, HEADER.size)
        found = shelf.store.index.find_many(ids)
        assert [place.row.id for place in found if place] == ids

    def test_trouble_of_the_medium_is_no_verdict(
        self, shelf: Shelf, ids: list[ObjectId], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segments = Segments(shelf.backend)
        with monkeypatch.context() as patch:
            patch.setattr(shelf.backend, "read", failing)
            assert segments.files() == []
        assert len(segments.files()) == 1

    def test_a_file_that_is_still_written_is_read_when_it_is_whole(self, shelf: Shelf) -> None:
        raw = Segment(b"", (NAME,)).to_bytes()
        segments = Segments(shelf.backend)
        shelf.backend.put_new(KEY, raw[:-1])
        assert segments.files() == []
        shelf.backend.delete(KEY)
        shelf.backend.put_new(KEY, raw)
        assert len(segments.files()) == 1


def failing(key: str, spans: Sequence[Span]) -> list[bytes]:
    raise BackendError("input/output error")


class TestCost:
    def test_opening_reads_the_end_a_look_up_one_block_and_a_refresh_nothing(self) -> None:
        backend = Counting()
        shelf = Shelf(backend)
        writer = shelf.writer()
        ids = [writer.blob(b"%d" % number) for number in range(2000)]
        shelf.publish(writer)
        rows = merge(footers(shelf))
        backend.put_new(KEY, rows.to_bytes())
        backend.bytes.clear()

        store = PackedStore(backend, lambda: list(shelf.packs))
        assert store.index.uncovered == []
        opened = backend.bytes["index"]
        assert opened < len(rows.rows) / 100
        assert store.locate(ids[0]) is not None
        assert backend.bytes["index"] - opened <= BLOCK
        read = backend.bytes["index"]
        store.locate(ids[0])
        writer = shelf.writer()
        writer.blob(b"more")
        shelf.packs += [info for info in writer.seal() if info not in shelf.packs]
        assert store.refresh()
        assert backend.bytes["index"] == read

    def test_footers_are_read_once(self) -> None:
        backend = Counting()
        shelf = Shelf(backend)
        add(shelf, 1)
        read = backend.bytes["packs"]
        assert read > 0
        add(shelf, 2)
        assert backend.bytes["packs"] == 2 * read

    def test_a_file_that_is_no_good_is_opened_once(self) -> None:
        backend = Counting()
        backend.put_new(KEY, b"CASI" * 50)
        segments = Segments(backend)
        assert segments.files() == []
        read = backend.bytes["index"]
        assert read > 0
        assert segments.files() == []
        assert backend.bytes["index"] == read

    def test_a_small_store_does_without_numpy(self) -> None:
        code = """
import sys
from cas.backend.memory import MemoryBackend
from cas.ids import blob_id
from cas.objects.kind import Kind
from cas.store.index import Index, Segments, consolidate
from cas.store.pack import PackClass, PackWriter
from cas.store.pinned import PinnedStore
from cas.store.record import RecordHeader

backend = MemoryBackend()
packs, ids = [], []
for number in range(20):
    writer = PackWriter(backend, number.to_bytes(16, "big"), PackClass.DATA)
    for part in range(50):
        data = b"%d-%d" % (number, part)
        ids.append(blob_id(data))
        writer.add(RecordHeader.of(Kind.BLOB, 1, ids[-1], len(data), data), data)
    packs.append(writer.seal())
assert consolidate(backend, Index(Segments(backend), packs), bytes(16))
index = Index(Segments(backend), packs)
assert all(index.find(id) for id in ids)
assert None not in index.find_many(ids[:500])
assert all(PinnedStore(backend, packs).places(id) for id in ids)
assert "numpy" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", code], check=True)


def test_a_footer_has_its_rows_in_order(shelf: Shelf) -> None:
    writer = shelf.writer()
    ids = sorted(writer.blob(b"%d" % number) for number in range(50))
    (info,) = shelf.publish(writer)
    footer = read_footer(shelf.backend, info)
    assert [found.id for found in footer] == ids
    assert blob_id(b"7") in ids
    assert shelf.store.read(Kind.BLOB, blob_id(b"7")) == b"7"
