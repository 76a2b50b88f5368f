"""Index files are made now and then, are merged geometrically, and can be thrown away."""

import pytest

from cas.backend.base import Span
from cas.codec.base import CodecTag
from cas.ids import ObjectId, blob_id
from cas.objects.kind import Kind
from cas.store.index import UNCOVERED, Segment, consolidate, merge
from cas.store.pack import Row, read_footer
from cas.store.packed import PackedStore
from tests.support.stores import Shelf


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def add(shelf: Shelf, number: int) -> ObjectId:
    writer = shelf.writer()
    id = writer.blob(b"blob %d" % number)
    shelf.publish(writer)
    return id


def row(id: bytes, pack: int = 0, offset: int = 24) -> Row:
    return Row(ObjectId(id * 32), offset, 1, 1, Kind.BLOB, CodecTag.RAW, 0, pack)


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
        small = merge(shelf.store.index.segments[:3])
        consolidate(shelf.backend, shelf.store.index, b"\x01" * 16)
        shelf.backend.put_new("index/left.idx", small.to_bytes())
        store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        assert store.index.superseded == ["index/left.idx"]
        assert [len(store.index.find(id)) for id in ids] == [1] * UNCOVERED


class TestMerge:
    def test_packs_are_numbered_anew_and_equal_rows_are_one(self) -> None:
        one = Segment(row(b"a").to_bytes() + row(b"c", 1).to_bytes(), (b"1" * 16, b"2" * 16))
        two = Segment(row(b"b").to_bytes() + row(b"c").to_bytes(), (b"2" * 16,))
        merged = merge([one, two])
        names = [(found.id[:1], merged.packs[found.pack]) for found in merged]
        assert names == [(b"a", b"1" * 16), (b"b", b"2" * 16), (b"c", b"2" * 16)]

    def test_nothing_is_nothing(self) -> None:
        assert len(merge([])) == 0
        assert Segment.from_bytes(merge([]).to_bytes()) == Segment(memoryview(b""), ())


class TestSegment:
    def test_finds_by_prefix(self) -> None:
        rows = [row(letter) for letter in (b"a", b"b", b"c")]
        segment = Segment(b"".join(found.to_bytes() for found in rows), (b"p" * 16,))
        assert list(segment.starting(b"b")) == [rows[1]]
        assert list(segment.starting(b"b" * 32)) == [rows[1]]
        assert list(segment.starting(b"bz")) == []
        assert list(segment.starting(b"")) == rows

    def test_a_footer_has_its_rows_in_order(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        ids = sorted(writer.blob(b"%d" % number) for number in range(50))
        (info,) = shelf.publish(writer)
        footer = read_footer(shelf.backend, info)
        assert [found.id for found in footer] == ids
        assert blob_id(b"7") in ids
