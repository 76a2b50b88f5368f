"""The writer stores each thing once, in the right pack, and remembers what it relies on."""

from array import array
from collections.abc import Sequence
from itertools import count

import pytest

from cas.backend.base import Sink
from cas.backend.memory import MemoryBackend
from cas.codec import choose
from cas.codec.base import CodecTag
from cas.codec.element import Element
from cas.errors import CorruptionError, InvalidInputError
from cas.ids import BlobId, Buffer, blob_id, tree_id
from cas.objects.kind import Kind
from cas.store import encoding, pieces
from cas.store import writer as writing
from cas.store.pack import PackClass, read_footer
from cas.store.packed import PackedStore
from cas.store.record import RECIPE, RecordHeader
from cas.store.writer import ObjectWriter
from tests.support.builders import noise
from tests.support.faulty import RecordingBackend
from tests.support.stores import Shelf

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def rows(shelf: Shelf) -> list[tuple[PackClass, Kind, int]]:
    """Every record that is listed: the kind of its pack, its own, its codec."""
    return sorted(
        (info.kind, Kind(row.kind), row.codec)
        for info in shelf.packs
        for row in read_footer(shelf.backend, info)
    )


class TestGivenUp:
    """Three packs of data are full and sealed when it is given up."""

    @pytest.fixture
    def writer(self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> ObjectWriter:
        monkeypatch.setattr(writing, "PACK_LEAST", 400 * KIB)
        writer = shelf.writer()
        for seed in range(3):
            writer.blob(noise(seed, 500 * KIB))
        writer.tree(b"\x80")
        assert writer.stored > MIB
        return writer

    def test_what_nobody_was_handed_goes(self, shelf: Shelf, writer: ObjectWriter) -> None:
        assert list(shelf.backend.scan("packs/"))
        writer.discard()
        assert list(shelf.backend.scan("packs/")) == []

    def test_what_somebody_may_have_published_stays(
        self, shelf: Shelf, writer: ObjectWriter
    ) -> None:
        packs = writer.seal()
        writer.blob(noise(9, 300 * KIB))
        writer.discard()
        assert {info.key for info in shelf.backend.scan("packs/")} == {pack.key for pack in packs}

    def test_a_forked_child_leaves_its_parent_what_is_sealed(
        self, shelf: Shelf, writer: ObjectWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = {info.key for info in writer.packs.values()}
        monkeypatch.setattr("cas.store.writer.os.getpid", lambda: -1)
        writer.discard()
        assert there
        assert {info.key for info in shelf.backend.scan("packs/")} == there


class TestPlaces:
    def test_a_small_transaction_is_one_metadata_pack(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        writer.blob(b"x" * 1000)
        writer.tree(b"\x80")
        writer.commit(b"\x81")
        (info,) = shelf.publish(writer)
        assert info.kind is PackClass.METADATA
        assert len(read_footer(shelf.backend, info)) == 3

    def test_a_large_one_has_a_data_pack(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        writer.tree(b"\x80")
        for seed in range(6):
            writer.blob(noise(seed, 64 * KIB))
        assert {info.kind for info in shelf.publish(writer)} == set(PackClass)
        assert [kind for pack, kind, _ in rows(shelf) if pack is PackClass.METADATA] == [Kind.TREE]

    def test_only_data_is_no_metadata_pack(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        writer.blob(noise(1, 300 * KIB))
        assert [info.kind for info in shelf.publish(writer)] == [PackClass.DATA]

    def test_recipes_stand_with_the_metadata(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        writer.blob(noise(1, 2 * MIB))
        shelf.publish(writer)
        recipes = [pack for pack, _, codec in rows(shelf) if codec == RECIPE]
        assert recipes == [PackClass.METADATA]

    def test_nothing_written_is_no_pack(self, shelf: Shelf) -> None:
        assert shelf.publish(shelf.writer()) == []

    def test_a_full_pack_is_sealed_and_the_next_begun(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writing, "PACK_LIMIT", 400 * KIB)
        writer = shelf.writer()
        for seed in range(4):
            writer.blob(noise(seed, 300 * KIB))
        assert len(shelf.publish(writer)) == 2

    def test_names_of_packs_are_made_durable_also_when_the_last_was_just_full(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writing, "PACK_LIMIT", 400 * KIB)
        backend = RecordingBackend(MemoryBackend())
        shelf = Shelf(backend)
        writer = shelf.writer()
        writer.blob(noise(1, 300 * KIB))
        writer.blob(noise(2, 300 * KIB))
        assert len(writer.seal()) == 1
        assert backend.count("sync", "packs/") == 1
        writer.seal()
        assert backend.count("sync", "packs/") == 1

    def test_what_is_stored_is_counted(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        writer.blob(b"x")
        writer.tree(b"\x80")
        assert writer.stored == 2 * RecordHeader.SIZE + 2
        shelf.publish(writer)
        assert writer.stored == 2 * RecordHeader.SIZE + 2


class TestOnce:
    def test_in_one_transaction(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        data = noise(1, MIB)
        ids = {writer.blob(data), writer.stream([data], len(data))[0], writer.blob(data)}
        assert len(ids) == 1
        shelf.publish(writer)
        found = [row.id for info in shelf.packs for row in read_footer(shelf.backend, info)]
        assert len(found) == len(set(found))

    def test_across_transactions_with_the_pack_relied_on(self, shelf: Shelf) -> None:
        first = shelf.writer()
        id = first.blob(b"hello")
        (info,) = shelf.publish(first)
        second = shelf.writer()
        assert second.blob(b"hello") == id
        assert shelf.publish(second) == []
        assert second.relied == {id: info.name}

    def test_a_changed_middle_stores_only_what_changed(self, shelf: Shelf) -> None:
        data = bytearray(noise(1, 4 * MIB))
        writer = shelf.writer()
        writer.blob(bytes(data))
        shelf.publish(writer)
        data[2 * MIB : 2 * MIB + 10] = b"inserted here, and longer"
        second = shelf.writer()
        second.blob(bytes(data))
        shelf.publish(second)
        assert second.stored < MIB

    def test_starting_again_writes_all_of_it_again(self, shelf: Shelf) -> None:
        # A recipe that stands must not hide pieces that are gone.
        data = noise(1, 2 * MIB)
        writer = shelf.writer()
        id = writer.blob(data)
        lost = {info.kind: info for info in writer.seal()}[PackClass.DATA]
        shelf.backend.delete(lost.key)
        writer.restart()
        assert writer.blob(data) == id
        shelf.publish(writer)
        assert shelf.store.read(Kind.BLOB, id) == data


class TestForms:
    @pytest.mark.parametrize("size", [0, 1, 512 * KIB, 512 * KIB + 1, 9 * MIB])
    @pytest.mark.parametrize("element", [None, Element(4)])
    def test_any_size_comes_back(self, shelf: Shelf, size: int, element: Element | None) -> None:
        data = noise(size, size)
        writer = shelf.writer()
        id = writer.blob(data, element)
        shelf.publish(writer)
        assert id == blob_id(data)
        assert shelf.store.read(Kind.BLOB, id) == data

    def test_numbers_are_cut_in_blocks(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        data = noise(1, 9 * MIB)
        id = writer.blob(data, Element(4))
        shelf.publish(writer)
        place = shelf.store.find(id)
        assert place is not None
        recipe = shelf.store.recipe(place)
        assert recipe is not None
        assert recipe.sizes == (4 * MIB, 4 * MIB, MIB)

    def test_numbers_up_to_a_block_are_whole(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        id = writer.blob(bytes(4 * MIB), Element(8))
        shelf.publish(writer)
        place = shelf.store.find(id)
        assert place is not None
        assert shelf.store.recipe(place) is None

    @pytest.mark.parametrize("data", [array("d", [1.5, 2.5]), array("d"), array("b", [-1])])
    def test_views_of_wider_items_are_their_bytes(self, shelf: Shelf, data: "array[float]") -> None:
        writer = shelf.writer()
        id = writer.blob(memoryview(data), Element(data.itemsize))
        shelf.publish(writer)
        assert shelf.store.read(Kind.BLOB, id) == data.tobytes()

    def test_what_compresses_is_compressed_and_the_rest_is_not(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        writer.blob(b"text " * 1000)
        writer.blob(noise(1, 5000))
        shelf.publish(writer)
        assert [codec for _, _, codec in rows(shelf)] == [CodecTag.RAW, CodecTag.ZSTD]

    def test_a_codec_that_is_wrong_is_found_out_while_the_source_is_there(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = choose.encode

        def wrong(data: Buffer, element: Element | None = None) -> tuple[CodecTag, Buffer]:
            return right(b"y" * len(data), element)

        monkeypatch.setattr(choose, "encode", wrong)
        with pytest.raises(CorruptionError, match="does not give"):
            shelf.writer().blob(b"x" * 1000)

    def test_very_large_blobs_are_grouped(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writing, "GROUP", 3)
        data = noise(1, 3 * MIB)
        writer = shelf.writer()
        id, size = writer.stream([data], writing.GROUP_FROM)
        shelf.publish(writer)
        assert (id, size) == (blob_id(data), len(data))
        assert shelf.store.read(Kind.BLOB, id) == data
        place = shelf.store.find(id)
        assert place is not None
        recipe = shelf.store.recipe(place)
        assert recipe is not None
        inner = [shelf.store.find(piece) for piece, _ in recipe.pieces()]
        assert {place.row.codec for place in inner if place} == {RECIPE}

    def test_a_source_that_never_ends_is_refused(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pieces, "MAX_PIECES", 10)
        endless = (noise(seed, MIB) for seed in count())
        writer = shelf.writer()
        with pytest.raises(InvalidInputError, match="grew far beyond"):
            writer.stream([next(endless) for _ in range(12)], 100)


class TestTrouble:
    def test_what_no_reader_would_decode_is_not_written(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(encoding, "MAX_WHOLE", 100)
        with pytest.raises(InvalidInputError, match="a manifest of 101 bytes is too large"):
            shelf.writer().manifest(b"x" * 101)

    def test_giving_up_removes_what_is_not_sealed(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        writer.tree(b"\x80")
        writer.blob(noise(1, MIB))
        writer.discard()
        assert list(shelf.backend.scan("packs/")) == []

    def test_copies_keep_their_form(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        data = b"text " * 1000
        id = writer.blob(data)
        shelf.publish(writer)
        place = shelf.store.find(id)
        assert place is not None
        header, body = shelf.store.body(place)
        copier = shelf.writer(PackedStore(shelf.backend, list))
        copier.copy(header, body)
        copier.copy(header, body)
        (info,) = shelf.publish(copier)
        (row,) = read_footer(shelf.backend, info)
        assert (row.id, row.codec, info.kind) == (id, CodecTag.ZSTD, PackClass.DATA)

    def test_nothing_is_listed_that_failed_to_seal(self) -> None:
        class Full(RecordingBackend):
            def create(self, key: str) -> Sink:
                return FullSink()

        full = Full(MemoryBackend())
        writer = ObjectWriter(full, PackedStore(MemoryBackend(), list), lambda: b"n" * 16)
        writer.tree(b"\x80")
        with pytest.raises(OSError, match="no space"):
            writer.seal()
        assert writer.packs == {}
        assert tree_id(b"\x80") in writer.own

    def test_a_piece_that_was_a_recipe_is_stored_whole_once(self, shelf: Shelf) -> None:
        data = noise(1, 700 * KIB)
        writer = shelf.writer()
        id = writer.blob(data)
        for _ in range(3):
            assert writer.piece(data, Element(4)) == id
        shelf.publish(writer)
        found = [place.row.codec == RECIPE for place in shelf.store.index.find(id)]
        assert found == [False, True]

    def test_what_is_small_keeps_no_large_buffer_alive(self) -> None:
        data = noise(1, MIB)
        body = encoding.encode(Kind.BLOB, blob_id(data[:100]), memoryview(data)[:100]).body
        assert isinstance(body, bytes)


class FullSink:
    def write(self, buffers: Sequence[Buffer]) -> None:
        """Take it."""

    def seal(self) -> None:
        raise OSError("no space left on device")

    def discard(self) -> None:
        """Nothing is there."""


def test_ids_are_those_of_the_kinds(shelf: Shelf) -> None:
    writer = shelf.writer()
    ids = [writer.blob(b"\x80"), writer.manifest(b"\x80"), writer.tree(b"\x80")]
    ids.append(writer.commit(b"\x80"))
    assert len(set(ids)) == 4
    shelf.publish(writer)
    for kind, id in zip([Kind.BLOB, Kind.MANIFEST, Kind.TREE, Kind.COMMIT], ids, strict=True):
        assert shelf.store.read(kind, id) == b"\x80"
    assert BlobId(blob_id(b"\x80")) == ids[0]
