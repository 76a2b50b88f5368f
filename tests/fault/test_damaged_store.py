"""Whatever happens to stored bytes, the reader says which kind of trouble it is."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from struct import pack_into
from typing import Any

import pytest

from cas.backend.base import Span
from cas.backend.memory import MemoryBackend
from cas.codec.base import CodecTag
from cas.errors import CasError, CorruptionError, UnsupportedError
from cas.ids import CommitId, ObjectId, blob_id, digest
from cas.objects import canonical
from cas.objects.kind import Kind
from cas.repo import root as roots
from cas.repo.layout import root_key, snapshot_key
from cas.repo.root import FIRST_PREVIOUS, Operation, RefChange, Root, RootFile
from cas.store.merge import merge
from cas.store.pack import (
    FOOTER_HEAD,
    HEADER,
    TRAILER,
    Footer,
    PackClass,
    PackInfo,
    Row,
    check_header,
    read_footer,
    walk,
)
from cas.store.packed import PackedStore
from cas.store.pinned import PinnedStore
from cas.store.recipe import Recipe
from cas.store.record import MAX_DEPTH, MAX_WHOLE, RECIPE, RecordHeader
from cas.store.segment import Segment
from tests.support.builders import noise
from tests.support.stores import Shelf

BODY = b"hello"
INTACT = RecordHeader.of(Kind.BLOB, CodecTag.RAW, blob_id(BODY), len(BODY), BODY)
TROUBLE = (CorruptionError, UnsupportedError)


def at(offset: int, layout: str, value: int | bytes) -> Callable[[bytes], bytes]:
    """Overwrite one field."""

    def change(raw: bytes) -> bytes:
        changed = bytearray(raw)
        pack_into(layout, changed, offset, value)
        return bytes(changed)

    return change


def flips(raw: bytes) -> Iterator[bytes]:
    """The bytes with each of them changed in turn."""
    for place in range(len(raw)):
        yield raw[:place] + bytes([raw[place] ^ 0x41]) + raw[place + 1 :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], type[CasError]]] = {
    "emptied": (lambda raw: b"", CorruptionError),
    "cut short": (lambda raw: raw[:-1], CorruptionError),
    "overwritten": (lambda raw: b"\0" * len(raw), CorruptionError),
    "magic": (at(0, "<4s", b"CASQ"), CorruptionError),
    "from the future": (at(4, "<B", 2), UnsupportedError),
    "version 0": (at(4, "<B", 0), CorruptionError),
    "kind 0": (at(5, "<B", 0), CorruptionError),
    "kind 9": (at(5, "<B", 9), CorruptionError),
    "depth": (at(7, "<B", MAX_DEPTH + 1), CorruptionError),
    "more than memory": (at(40, "<Q", MAX_WHOLE + 1), CorruptionError),
}


class TestRecord:
    @pytest.mark.parametrize(("damage", "error"), DAMAGE.values(), ids=DAMAGE)
    def test_a_damaged_header_has_a_name(
        self, damage: Callable[[bytes], bytes], error: type[CasError]
    ) -> None:
        with pytest.raises(error):
            RecordHeader.from_bytes(damage(INTACT.to_bytes()))

    def test_the_checksum_covers_every_byte_of_header_and_body(self) -> None:
        front = INTACT.to_bytes()
        for changed in flips(front + BODY):
            try:
                header = RecordHeader.from_bytes(changed[: len(front)])
            except TROUBLE:
                continue
            assert header.checksum(changed[len(front) :]) != header.check

    def test_a_recipe_may_be_larger_than_memory(self) -> None:
        large = replace(INTACT, codec=RECIPE, size=MAX_WHOLE * 1000)
        assert RecordHeader.from_bytes(large.to_bytes()) == large


class TestRecipe:
    RAW = Recipe((3, 2), blob_id(b"hel") + blob_id(b"lo")).to_bytes()

    def test_every_flip_and_every_cut_is_corruption(self) -> None:
        for changed in [*flips(self.RAW), *(self.RAW[:n] for n in range(len(self.RAW)))]:
            with pytest.raises(CorruptionError):
                Recipe.from_bytes(changed, 5)

    def test_another_size_is_corruption(self) -> None:
        with pytest.raises(CorruptionError, match="makes 5 bytes of a blob of 6"):
            Recipe.from_bytes(self.RAW, 6)

    @pytest.mark.parametrize("count", [0, 65_537, 2**32 - 1])
    def test_a_count_is_not_believed(self, count: int) -> None:
        with pytest.raises(CorruptionError):
            Recipe.from_bytes(at(32, "<I", count)(self.RAW), 5)


def packed() -> tuple[Shelf, PackInfo, bytes]:
    """A small pack: its shelf, what the root says of it, its bytes."""
    shelf = Shelf()
    writer = shelf.writer()
    writer.blob(b"hello")
    writer.tree(b"\x80")
    (info,) = shelf.publish(writer)
    (raw,) = shelf.backend.read(info.key, [Span(0, None)])
    return shelf, info, raw


def holding(info: PackInfo, raw: bytes) -> MemoryBackend:
    backend = MemoryBackend()
    backend.put_new(info.key, raw)
    return backend


def read_all(backend: MemoryBackend, info: PackInfo) -> list[bytes]:
    """Everything that a reader of one pack does."""
    (front,) = backend.read(info.key, [Span(0, HEADER.size)])
    check_header(front, info)
    store = PackedStore(backend, lambda: [info])
    return [store.read(Kind(row.kind), row.id) for row in read_footer(backend, info)]


class TestPack:
    def test_an_intact_one_is_read(self) -> None:
        _, info, raw = packed()
        assert sorted(read_all(holding(info, raw), info)) == [b"hello", b"\x80"]

    def test_every_cut_is_corruption(self) -> None:
        _, info, raw = packed()
        for length in range(len(raw)):
            with pytest.raises(CorruptionError):
                read_all(holding(info, raw[:length]), info)

    def test_every_flip_is_noticed_or_harmless(self) -> None:
        shelf, info, raw = packed()
        padding = {6, 7, *range(len(raw) - 3, len(raw))}
        # Who decodes compares the id, which says more than the record's checksum.
        for row in read_footer(shelf.backend, info):
            end = row.offset + RecordHeader.SIZE
            padding |= set(range(end - RecordHeader.CHECK_SIZE, end))
        for place, changed in enumerate(flips(raw)):
            if place in padding:
                assert len(read_all(holding(info, changed), info)) == 2
                continue
            with pytest.raises(TROUBLE):
                read_all(holding(info, changed), info)

    @pytest.mark.parametrize("cut", [False, True])
    def test_a_damaged_footer_keeps_nobody_from_the_records(self, cut: bool) -> None:
        shelf, info, raw = packed()
        footer = at(info.length - TRAILER.size - 10, "<4s", b"oops")(raw)
        damaged = raw[: -TRAILER.size - 20] if cut else footer
        store = PackedStore(holding(info, damaged), lambda: [info])
        for row in read_footer(shelf.backend, info):
            kind = Kind(row.kind)
            assert store.read(kind, row.id) == shelf.store.read(kind, row.id)
        with pytest.raises(CorruptionError):
            PinnedStore(holding(info, damaged), [info])

    def test_a_listed_length_that_is_no_packs_is_corruption(self) -> None:
        _, info, raw = packed()
        for length in (0, 1, TRAILER.size, len(raw) - 1, len(raw) + 1, 2**62):
            with pytest.raises(CorruptionError):
                read_footer(holding(info, raw), replace(info, length=length))

    def test_a_newer_version_is_told_apart(self) -> None:
        _, info, raw = packed()
        with pytest.raises(UnsupportedError):
            check_header(at(4, "<B", 2)(raw)[: HEADER.size], info)
        changed = holding(info, at(len(raw) - TRAILER.size + 44, "<B", 2)(raw))
        with pytest.raises(UnsupportedError):
            read_footer(changed, info)

    def test_walking_needs_no_footer_and_stops_where_the_records_do(self) -> None:
        shelf, info, raw = packed()
        found = {header.id: offset for offset, header in walk(shelf.backend, info, info.length)}
        assert found == {row.id: row.offset for row in read_footer(shelf.backend, info)}
        start = max(found.values())
        cut = holding(info, raw[: start + 10])
        assert len(list(walk(cut, info, start + 10))) == 1


class TestFooter:
    RAW = Footer.of([Row(blob_id(b"x"), 24, 1, 1, Kind.BLOB, CodecTag.RAW, 0)]).to_bytes()

    @pytest.mark.parametrize(
        ("damage", "error"),
        [
            (at(0, "<4s", b"CASX"), CorruptionError),
            (at(4, "<B", 0), CorruptionError),
            (at(4, "<B", 9), UnsupportedError),
            (at(8, "<I", 2), CorruptionError),
            (at(8, "<I", 2**32 - 1), CorruptionError),
            (at(12, "<I", 1), CorruptionError),
        ],
    )
    def test_damage_has_a_name(
        self, damage: Callable[[bytes], bytes], error: type[CasError]
    ) -> None:
        with pytest.raises(error):
            Footer.from_bytes(damage(self.RAW))

    def test_every_cut_is_corruption(self) -> None:
        for length in range(len(self.RAW)):
            with pytest.raises(CorruptionError):
                Footer.from_bytes(self.RAW[:length])
        assert len(Footer.from_bytes(self.RAW)) == 1
        assert len(self.RAW) == FOOTER_HEAD.size + Row.SIZE


class TestIndex:
    def test_every_cut_and_every_flip_is_noticed(self) -> None:
        _, info, _ = packed()
        row = Row(blob_id(b"x"), 24, 1, 1, Kind.BLOB, CodecTag.RAW, 0)
        raw = merge([Segment(row.to_bytes(), (info.name,))]).to_bytes()
        assert list(Segment.from_bytes(raw)) == [row]
        for length in range(len(raw)):
            with pytest.raises(CorruptionError):
                Segment.from_bytes(raw[:length])
        for place, changed in enumerate(flips(raw)):
            if place in {5, 6, 7, *range(len(raw) - 3, len(raw))}:  # padding
                continue
            with pytest.raises(TROUBLE):
                Segment.from_bytes(changed)

    def test_a_damaged_index_file_is_as_good_as_none(self) -> None:
        shelf, info, _ = packed()
        shelf.backend.put_new("index/00.idx", b"CASI" + noise(1, 500))
        store = PackedStore(shelf.backend, lambda: [info])
        assert store.read(Kind.BLOB, blob_id(b"hello")) == b"hello"

    def test_an_index_file_that_names_a_pack_it_does_not_know_is_passed_over(self) -> None:
        shelf, info, _ = packed()
        row = Row(blob_id(b"hello"), 24, 5, 5, Kind.BLOB, CodecTag.RAW, 0, pack=7)
        segment = Segment(row.to_bytes(), (b"\x99" * 16,))
        shelf.backend.put_new("index/00.idx", segment.to_bytes())
        store = PackedStore(shelf.backend, lambda: [info])
        assert store.read(Kind.BLOB, blob_id(b"hello")) == b"hello"


COMMIT = CommitId(ObjectId(b"\x11" * 32))


def small_root() -> Root:
    operation = Operation(b"\x01" * 16, "ada@host", "init", 5)
    return Root(
        seq=1,
        previous=FIRST_PREVIOUS,
        operation=operation,
        changes=(RefChange("tags/a", None, COMMIT),),
        packs=(PackInfo(b"\x02" * 16, 100, b"\x03" * 32, PackClass.DATA),),
        refs={"tags/a": COMMIT},
    )


class TestRoot:
    def published(self) -> tuple[MemoryBackend, bytes]:
        backend = MemoryBackend()
        roots.publish(backend, small_root(), os.urandom(16))
        (raw,) = backend.read(root_key(1), [Span(0, None)])
        return backend, raw

    def replaced(self, raw: bytes) -> MemoryBackend:
        backend = MemoryBackend()
        backend.put_new(root_key(1), raw)
        return backend

    def test_every_cut_and_every_flip_is_noticed(self) -> None:
        _, raw = self.published()
        assert roots.read(self.replaced(raw), 1).refs == {"tags/a": COMMIT}
        for length in range(len(raw)):
            with pytest.raises(CorruptionError):
                roots.read(self.replaced(raw[:length]), 1)
        for place, changed in enumerate(flips(raw)):
            if place in {5, 6, 7}:  # padding
                continue
            with pytest.raises(TROUBLE):
                roots.read(self.replaced(changed), 1)

    def forged(self, **other: Any) -> MemoryBackend:
        """A root with a right digest and wrong fields."""
        _, raw = self.published()
        fields = {**RootFile.from_bytes(raw).raw, **other}
        kept = {name: value for name, value in fields.items() if value is not ...}
        return self.replaced(roots.envelope(b"CASO", canonical.encode(kept)))

    @pytest.mark.parametrize(
        "value", [..., None, 1, -1, 1.5, "x", b"x", [1], ["x"], {"x": 1}, [[]]]
    )
    @pytest.mark.parametrize(
        "field",
        ["seq", "operation", "changes", "refs_set", "refs_base", "packs_base", "packs_added",
         "packs_gone", "refs_gone", "condemned", "tombstones", "previous"],
    )  # fmt: skip
    def test_fields_of_the_wrong_kind_are_corruption_or_make_no_difference(
        self, field: str, value: Any
    ) -> None:
        # Nothing but these two may come out of it.
        with suppress(*TROUBLE):
            roots.read(self.forged(**{field: value}), 1)

    def test_a_newer_version_is_told_apart(self) -> None:
        with pytest.raises(UnsupportedError):
            roots.read(self.forged(v=2), 1)
        _, raw = self.published()
        with pytest.raises(UnsupportedError):
            roots.read(self.replaced(at(4, "<B", 2)(raw)), 1)

    def test_another_roots_bytes_are_corruption(self) -> None:
        _, raw = self.published()
        backend = MemoryBackend()
        backend.put_new(root_key(2), raw)
        with pytest.raises(CorruptionError, match="root 2 calls itself 1"):
            roots.read(backend, 2)


class TestSnapshot:
    def published(self) -> tuple[MemoryBackend, str, bytes]:
        refs = {f"tags/{number}": COMMIT for number in range(roots.CHANGES_LIMIT + 1)}
        backend = MemoryBackend()
        root = roots.publish(backend, replace(small_root(), refs=refs), b"\x05" * 16)
        assert root.refs_base is not None
        key = snapshot_key(root.refs_base.name)
        (raw,) = backend.read(key, [Span(0, None)])
        return backend, key, raw

    def damaged(self, raw: bytes | None) -> MemoryBackend:
        backend, key, _ = self.published()
        backend.delete(key)
        if raw is not None:
            backend.put_new(key, raw)
        return backend

    def test_an_intact_one_is_read(self) -> None:
        _, _, raw = self.published()
        assert len(roots.read(self.damaged(raw), 1).refs) == roots.CHANGES_LIMIT + 1

    def test_cuts_flips_and_other_snapshots_are_noticed(self) -> None:
        _, _, raw = self.published()
        other = roots.envelope(b"CASS", canonical.encode({"names": [], "ids": b""}))
        bad = [raw[:0], raw[:43], raw[:-1], raw[:-1] + b"\x00", other, b"CASO" + raw[4:]]
        for changed in bad:
            with pytest.raises(CorruptionError):
                roots.read(self.damaged(changed), 1)
        with pytest.raises(UnsupportedError):
            roots.read(self.damaged(at(4, "<B", 2)(raw)), 1)

    def test_a_missing_one_is_not_taken_for_the_end_of_the_roots(self) -> None:
        with pytest.raises(CorruptionError, match="which is gone"):
            roots.newest(self.damaged(None), hint=1)


class TestObjects:
    """A record whose bytes are not what it says leaves look-ups; another one takes its place."""

    def twice(self, data: bytes) -> tuple[Shelf, list[PackInfo]]:
        """The same blob in two packs."""
        shelf = Shelf()
        for _ in range(2):
            writer = shelf.writer(PackedStore(shelf.backend, list))  # which finds nothing
            writer.blob(data)
            shelf.publish(writer)
        return shelf, shelf.packs

    def spoil(self, shelf: Shelf, info: PackInfo, place: int) -> None:
        (raw,) = shelf.backend.read(info.key, [Span(0, None)])
        shelf.backend.delete(info.key)
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        shelf.backend.put_new(info.key, changed)

    def test_the_other_record_is_read(self) -> None:
        data = noise(1, 1000)
        shelf, (first, _) = self.twice(data)
        self.spoil(shelf, first, 200)
        assert shelf.store.read(Kind.BLOB, blob_id(data)) == data

    def test_the_other_record_is_read_when_a_pack_is_gone(self) -> None:
        data = noise(1, 1000)
        shelf, (first, _) = self.twice(data)
        shelf.backend.delete(first.key)
        assert shelf.store.read(Kind.BLOB, blob_id(data)) == data

    def test_with_no_other_it_is_corruption_and_then_stored_anew(self) -> None:
        data = noise(1, 1000)
        shelf, packs = self.twice(data)
        for info in packs:
            self.spoil(shelf, info, 200)
        with pytest.raises(CorruptionError, match="are not its bytes"):
            shelf.store.read(Kind.BLOB, blob_id(data))
        writer = shelf.writer()
        writer.blob(data)
        shelf.publish(writer)
        assert shelf.store.read(Kind.BLOB, blob_id(data)) == data

    def test_bytes_under_another_id_are_never_returned(self) -> None:
        # Everything is consistent but the id: only hashing the bytes tells.
        shelf = Shelf()
        header = RecordHeader.of(Kind.BLOB, CodecTag.RAW, blob_id(b"right"), 5, b"wrong")
        writer = shelf.writer()
        writer.copy(header, b"wrong")
        shelf.publish(writer)
        with pytest.raises(CorruptionError, match="are not its bytes"):
            shelf.store.read(Kind.BLOB, blob_id(b"right"))

    def test_a_wrong_kind_is_corruption_and_no_damage(self) -> None:
        shelf = Shelf()
        writer = shelf.writer()
        id = writer.blob(b"hello")
        shelf.publish(writer)
        with pytest.raises(CorruptionError, match="is not a tree"):
            shelf.store.read(Kind.TREE, id)
        assert shelf.store.read(Kind.BLOB, id) == b"hello"

    def test_a_tree_is_never_put_together_from_pieces(self) -> None:
        shelf = Shelf()
        writer = shelf.writer()
        piece = writer.blob(b"\x80")
        body = Recipe((1,), piece).to_bytes()
        id = ObjectId(b"\x42" * 32)
        writer.copy(RecordHeader.of(Kind.TREE, RECIPE, id, 1, body), body)
        shelf.publish(writer)
        with pytest.raises(CorruptionError):
            shelf.store.read(Kind.TREE, id)

    @pytest.mark.parametrize("codec", [77, 255])
    def test_a_codec_of_a_newer_cas_is_told_apart(self, codec: int) -> None:
        shelf = Shelf()
        writer = shelf.writer()
        id = blob_id(b"x")
        writer.copy(RecordHeader.of(Kind.BLOB, codec, id, 1, b"x"), b"x")
        shelf.publish(writer)
        with pytest.raises(UnsupportedError, match="use a newer cas"):
            shelf.store.read(Kind.BLOB, id)

    def test_recipes_nested_too_deep_are_corruption(self) -> None:
        shelf = Shelf()
        writer = shelf.writer()
        id: ObjectId = writer.blob(b"x")
        for number in range(5):
            body = Recipe((1,), id).to_bytes()
            id = ObjectId(digest(b"%d" % number))
            writer.copy(RecordHeader.of(Kind.BLOB, RECIPE, id, 1, body), body)
        shelf.publish(writer)
        with pytest.raises(CorruptionError, match="nested more than 3 deep"):
            shelf.store.read(Kind.BLOB, id)

    def test_a_recipe_of_itself_ends(self) -> None:
        shelf = Shelf()
        writer = shelf.writer()
        id = ObjectId(b"\x55" * 32)
        body = Recipe((4,), id).to_bytes()
        writer.copy(RecordHeader.of(Kind.BLOB, RECIPE, id, 4, body), body)
        shelf.publish(writer)
        with pytest.raises(CorruptionError):
            shelf.store.read(Kind.BLOB, id)

    def test_a_piece_of_another_size_is_corruption(self) -> None:
        shelf = Shelf()
        writer = shelf.writer()
        piece = writer.blob(b"xx")
        body = Recipe((3,), piece).to_bytes()
        id = ObjectId(b"\x55" * 32)
        writer.copy(RecordHeader.of(Kind.BLOB, RECIPE, id, 3, body), body)
        shelf.publish(writer)
        with pytest.raises(CorruptionError, match="does not have the 3 bytes"):
            shelf.store.read(Kind.BLOB, id)

    def test_a_pack_that_is_gone_keeps_nobody_from_the_others(self) -> None:
        shelf = Shelf()
        kept, lost = shelf.writer(), shelf.writer()
        here, gone = kept.blob(b"hello"), lost.blob(b"world")
        shelf.publish(kept)
        (info,) = shelf.publish(lost)
        shelf.backend.delete(info.key)
        fresh = PackedStore(shelf.backend, lambda: shelf.packs)
        assert fresh.read(Kind.BLOB, here) == b"hello"
        assert fresh.locate(gone) is None
        with pytest.raises(CorruptionError, match=f"{info.key} is listed, and missing"):
            fresh.read(Kind.BLOB, gone)

    def test_a_pack_that_is_gone_is_told_with_its_name(self) -> None:
        shelf = Shelf()
        writer = shelf.writer()
        id = writer.blob(b"hello")
        (info,) = shelf.publish(writer)
        shelf.backend.delete(info.key)
        with pytest.raises(CorruptionError, match=f"{info.key} is listed, and missing"):
            shelf.store.read(Kind.BLOB, id)
        fresh = PackedStore(shelf.backend, lambda: shelf.packs)
        with pytest.raises(CorruptionError, match=f"{info.key} is listed, and missing"):
            fresh.read(Kind.BLOB, id)
