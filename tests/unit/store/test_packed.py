"""Reading takes the one form that everybody takes, and looks in the newest root on a miss."""

import os
import signal
import threading

import pytest

from cas.backend.memory import MemoryBackend
from cas.codec.base import CodecTag
from cas.codec.element import Element
from cas.errors import CorruptionError, NotFoundError
from cas.ids import BlobId, ObjectId, blob_id
from cas.objects.kind import Kind
from cas.store.pack import PackInfo
from cas.store.packed import PackedStore
from cas.store.recipe import Recipe
from cas.store.record import RECIPE, RecordHeader
from cas.store.segment import Segment
from tests.support.builders import noise
from tests.support.faulty import RecordingBackend
from tests.support.stores import Shelf

MIB = 1024 * 1024
DATA = noise(1, 5000)
ID = blob_id(DATA)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def whole(depth: int = 0) -> tuple[RecordHeader, bytes]:
    bare = RecordHeader(Kind.BLOB, CodecTag.RAW, depth, ID, len(DATA), len(DATA), b"\0" * 8)
    check = bare.checksum(DATA)
    return RecordHeader(bare.kind, bare.codec, depth, ID, bare.size, bare.stored, check), DATA


def as_recipe(shelf: Shelf) -> tuple[RecordHeader, bytes]:
    writer = shelf.writer()
    pieces = [writer.blob(DATA[:2000]), writer.blob(DATA[2000:])]
    shelf.publish(writer)
    body = Recipe((2000, 3000), b"".join(pieces)).to_bytes()
    return RecordHeader.of(Kind.BLOB, RECIPE, ID, len(DATA), body), body


def put(shelf: Shelf, *records: tuple[RecordHeader, bytes]) -> None:
    """Publish each record in a pack of its own."""
    for header, body in records:
        writer = shelf.writer(PackedStore(shelf.backend, list))
        writer.copy(header, body)
        shelf.publish(writer)


class TestOrder:
    def test_whole_before_recipe_before_delta_then_depth_then_pack(self, shelf: Shelf) -> None:
        put(shelf, as_recipe(shelf), whole(depth=2), whole(depth=1), whole(), whole())
        places = shelf.store.index.find(ID)
        assert [(place.row.codec == RECIPE, place.row.depth) for place in places] == [
            (False, 0), (False, 0), (True, 0), (False, 1), (False, 2),
        ]  # fmt: skip
        numbers = [shelf.packs.index(place.pack) for place in places]
        assert numbers[0] < numbers[1]

    def test_it_is_the_same_whatever_the_index_is_made_of(self, shelf: Shelf) -> None:
        from cas.store.merge import merge

        put(shelf, whole(), as_recipe(shelf), whole(depth=1))
        before = shelf.store.index.find(ID)
        footers = [part for part in shelf.store.index.segments if isinstance(part, Segment)]
        merged = merge(footers)
        shelf.backend.put_new("index/1.idx", merged.to_bytes())
        fresh = PackedStore(shelf.backend, lambda: shelf.packs)
        found = list(dict.fromkeys((p.pack, p.row.offset) for p in fresh.index.find(ID)))
        assert found == [(place.pack, place.row.offset) for place in before]


class TestReading:
    def test_pieces_come_one_by_one_and_make_the_whole(self, shelf: Shelf) -> None:
        put(shelf, as_recipe(shelf))
        assert [len(piece) for piece in shelf.store.pieces(BlobId(ID))] == [2000, 3000]
        assert shelf.store.read(Kind.BLOB, ID) == DATA

    @pytest.mark.parametrize("size", [0, 1, 4999, 5001])
    def test_filling_insists_on_the_size(self, shelf: Shelf, size: int) -> None:
        put(shelf, as_recipe(shelf))
        with pytest.raises(CorruptionError, match=f"does not have the {size} bytes"):
            shelf.store.fill(BlobId(ID), memoryview(bytearray(size)))
        target = bytearray(5000)
        shelf.store.fill(BlobId(ID), memoryview(target))
        assert target == DATA

    def test_a_slice_reads_only_the_pieces_that_it_touches(self) -> None:
        backend = RecordingBackend(MemoryBackend())
        shelf = Shelf(backend)
        writer = shelf.writer()
        data = noise(2, 40 * 1024 * 1024)
        id = writer.blob(data, Element(4))
        shelf.publish(writer)
        shelf.store.locate(id)
        before = backend.bytes_read
        found = b"".join(shelf.store.slice(id, 9 * MIB - 5, 9 * MIB + 5))
        assert found == data[9 * MIB - 5 : 9 * MIB + 5]
        assert backend.bytes_read - before < 5 * MIB

    def test_many_blobs_fill_their_own_targets(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        blobs = [noise(seed, size) for seed, size in enumerate([0, 1, 70_000, 5 * MIB, 70_000])]
        ids = [writer.blob(data, Element(4)) for data in blobs]
        shelf.publish(writer)
        targets = [bytearray(len(data)) for data in blobs]
        views = [memoryview(target) for target in targets]
        shelf.store.fill_all(zip(ids, views, strict=True))
        assert targets == blobs

    def test_a_piece_that_was_stored_as_a_recipe_is_stored_whole_as_well(
        self, shelf: Shelf
    ) -> None:
        block = noise(3, 4 * MIB)
        writer = shelf.writer()
        id = writer.blob(block)
        assert writer.piece(block, Element(4)) == id
        whole = writer.blob(block + block[:MIB], Element(4))
        shelf.publish(writer)
        assert not [p for p in shelf.store.index.find(id)[:1] if p.row.codec == RECIPE]
        assert shelf.store.read(Kind.BLOB, whole) == block + block[:MIB]

    def test_what_is_nowhere_is_not_found(self, shelf: Shelf) -> None:
        with pytest.raises(NotFoundError, match=f"blob {ID} not found"):
            shelf.store.read(Kind.BLOB, ID)

    def test_the_prefix_of_an_id_finds_it(self, shelf: Shelf) -> None:
        put(shelf, whole())
        assert [place.row.id for place in shelf.store.index.starting(ID[:3])] == [ID]
        assert list(shelf.store.index.starting(b"\xff\xff\xff")) == []


class TestNewerRoots:
    def test_a_miss_looks_in_the_newest_root(self, shelf: Shelf) -> None:
        store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        assert store.find(ID) is None
        put(shelf, whole())
        assert store.locate(ID) is None
        assert store.read(Kind.BLOB, ID) == DATA

    def test_a_pack_that_was_collected_leads_to_one_look(self, shelf: Shelf) -> None:
        put(shelf, whole())
        store = PackedStore(shelf.backend, shelf._listed)
        assert store.locate(ID) is not None
        # What gc does: a copy is listed, the old pack is off the list and deleted.
        (old,) = shelf.packs
        shelf.packs.clear()
        put(shelf, whole())
        shelf.backend.delete(old.key)
        before = shelf.looks
        assert store.read(Kind.BLOB, ID) == DATA
        assert shelf.looks == before + 1

    def test_a_pack_that_went_between_root_and_footer_leads_to_another_look(
        self, shelf: Shelf
    ) -> None:
        put(shelf, whole())
        (old,) = shelf.packs
        shelf.packs.clear()
        put(shelf, whole())
        shelf.backend.delete(old.key)
        answers = [[old], list(shelf.packs)]
        store = PackedStore(shelf.backend, lambda: answers.pop(0) if answers else shelf.packs)
        assert store.read(Kind.BLOB, ID) == DATA

    def test_what_was_pruned_meanwhile_is_not_found(self, shelf: Shelf) -> None:
        put(shelf, whole())
        store = PackedStore(shelf.backend, shelf._listed)
        assert store.locate(ID) is not None
        (old,) = shelf.packs
        shelf.packs.clear()
        shelf.backend.delete(old.key)
        with pytest.raises(NotFoundError):
            store.read(Kind.BLOB, ID)

    def test_a_refresh_says_whether_anything_changed(self, shelf: Shelf) -> None:
        put(shelf, whole())
        store = PackedStore(shelf.backend, lambda: list(shelf.packs))
        assert store.refresh()
        assert not store.refresh()


def test_ids_of_unknown_objects_do_not_disturb(shelf: Shelf) -> None:
    put(shelf, whole())
    for byte in (0, 0x7F, 0xFF):
        assert shelf.store.find(ObjectId(bytes([byte]) * 32)) is None


class TestLies:
    def delta_on(self, shelf: Shelf, base: BlobId) -> BlobId:
        data = noise(7, 5000)
        body = b"".join((base, b"\x01\x00"))
        header = RecordHeader.of(Kind.BLOB, CodecTag.DELTA, blob_id(data), len(data), body, depth=1)
        put(shelf, (header, body))
        return blob_id(data)

    def test_a_base_of_another_size_is_not_even_read(self, shelf: Shelf) -> None:
        """It may be a recipe of any number of bytes."""
        writer = shelf.writer()
        base = writer.blob(noise(3, 3 * MIB))
        shelf.publish(writer)
        id = self.delta_on(shelf, base)
        watched = RecordingBackend(shelf.backend)
        store = PackedStore(watched, lambda: shelf.packs)
        store.refresh()
        before = watched.bytes_read
        with pytest.raises(CorruptionError, match="5000"):
            store.read(Kind.BLOB, id)
        assert watched.bytes_read - before < MIB
        # It leaves look-ups as any damaged record does.
        assert store.locate(id) is None

    def test_a_piece_of_another_size_is_not_even_read(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        piece = writer.blob(noise(3, 3 * MIB))
        shelf.publish(writer)
        body = Recipe((10,), piece).to_bytes()
        id = blob_id(b"0123456789")
        put(shelf, (RecordHeader.of(Kind.BLOB, RECIPE, id, 10, body), body))
        watched = RecordingBackend(shelf.backend)
        store = PackedStore(watched, lambda: shelf.packs)
        store.refresh()
        before = watched.bytes_read
        with pytest.raises(CorruptionError, match="10 bytes"):
            store.whole(id)
        assert watched.bytes_read - before < MIB


def test_a_forked_child_reads_while_another_thread_refreshed(shelf: Shelf) -> None:
    put(shelf, whole())
    inside, go_on = threading.Event(), threading.Event()
    main = threading.get_ident()

    def newest() -> list[PackInfo]:
        if threading.get_ident() != main:
            inside.set()
            assert go_on.wait(10)
        return shelf.packs

    store = PackedStore(shelf.backend, newest)
    store.refresh()
    thread = threading.Thread(target=store.refresh)
    thread.start()
    assert inside.wait(10)
    child = os.fork()
    if not child:
        signal.alarm(5)  # it would wait for ever
        os._exit(0 if store.refresh() is False and store.read(Kind.BLOB, ID) == DATA else 1)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
