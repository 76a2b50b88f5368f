"""What the store promises for all inputs: it comes back, once, however it came in."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cas.backend.memory import MemoryBackend
from cas.codec.base import CodecTag
from cas.codec.element import Element
from cas.ids import CommitId, ObjectId, blob_id
from cas.objects.kind import Kind
from cas.repo import root as roots
from cas.repo.root import FIRST_PREVIOUS, Operation, RefChange, Root
from cas.store.merge import merge
from cas.store.pack import Footer, PackClass, PackInfo, Row, read_footer, walk
from cas.store.packed import PackedStore
from cas.store.recipe import Recipe
from cas.store.record import DELTAS, MAX_DEPTH, RecordHeader
from cas.store.segment import Segment
from tests.support.builders import noise
from tests.support.stores import Shelf

KIB = 1024
ids = st.binary(min_size=32, max_size=32).map(ObjectId)
names = st.binary(min_size=16, max_size=16)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
rows = st.builds(
    Row,
    ids, u64, u32, u64, st.sampled_from(list(Kind)).map(int), st.integers(0, 255),
    st.integers(0, MAX_DEPTH),
)  # fmt: skip
infos = st.builds(
    PackInfo,
    names,
    st.integers(0, 2**62),
    st.binary(min_size=32, max_size=32),
    st.sampled_from(PackClass),
)
objects = st.lists(
    st.tuples(
        st.sampled_from(list(Kind)),
        st.binary(max_size=300) | st.sampled_from([b"a" * 70_000, noise(1, 90 * KIB)]),
    ),
    max_size=12,
)


@given(
    kind=st.sampled_from(Kind),
    codec=st.sampled_from(CodecTag),
    id=ids,
    size=st.integers(0, 2**30),
    body=st.binary(max_size=50),
)
def test_a_record_header_comes_back(
    kind: Kind, codec: int, id: ObjectId, size: int, body: bytes
) -> None:
    header = RecordHeader.of(kind, codec, id, size, body, depth=int(codec in DELTAS))
    read = RecordHeader.from_bytes(header.to_bytes() + body)
    assert read == header
    assert read.checksum(body) == read.check


@given(pieces=st.lists(st.tuples(ids, st.integers(0, 2**40)), min_size=1, max_size=50))
def test_a_recipe_comes_back(pieces: list[tuple[ObjectId, int]]) -> None:
    recipe = Recipe(tuple(size for _, size in pieces), b"".join(id for id, _ in pieces))
    read = Recipe.from_bytes(recipe.to_bytes(), recipe.size)
    assert list(read.pieces()) == pieces


@given(found=st.lists(rows, max_size=20), bases=st.lists(ids, max_size=3))
def test_a_footer_comes_back_in_order(found: list[Row], bases: list[ObjectId]) -> None:
    footer = replace(Footer.of(found), bases=b"".join(bases))
    read = Footer.from_bytes(footer.to_bytes())
    assert read == footer
    assert sorted(map(Row.to_bytes, found)) == [row.to_bytes() for row in read]


@given(st.lists(st.tuples(names, st.lists(rows, max_size=8)), max_size=6))
def test_merging_keeps_every_row_in_its_pack(packs: list[tuple[bytes, list[Row]]]) -> None:
    segments = [Segment(Footer.of(found).rows, (name,)) for name, found in packs]
    merged = Segment.from_bytes(merge(segments).to_bytes())
    held = {(row.id, row.offset, merged.packs[row.pack]) for row in merged}
    assert held == {(row.id, row.offset, name) for name, found in packs for row in found}
    assert [row.id for row in merged] == sorted(row.id for row in merged)


@given(given_objects=objects)
@settings(max_examples=60)
def test_what_is_written_is_read(given_objects: list[tuple[Kind, bytes]]) -> None:
    shelf = Shelf()
    writer = shelf.writer()
    write: dict[Kind, Callable[[bytes], ObjectId]] = {
        Kind.BLOB: writer.blob,
        Kind.MANIFEST: writer.manifest,
        Kind.TREE: writer.tree,
        Kind.COMMIT: writer.commit,
    }
    written = {(kind, write[kind](data)): data for kind, data in given_objects}
    shelf.publish(writer)
    fresh = PackedStore(shelf.backend, lambda: shelf.packs)
    for (kind, id), data in written.items():
        assert fresh.read(kind, id) == data
    # Each once, and the footers say what walking the records says.
    found = []
    for info in shelf.packs:
        rows = list(read_footer(shelf.backend, info))
        walked = list(walk(shelf.backend, info, info.length))
        assert {(at, header.id) for at, header in walked} == {(r.offset, r.id) for r in rows}
        found += [row.id for row in rows]
    assert len(found) == len(set(found)) == len({id for _, id in written})


@given(
    seed=st.integers(0, 3),
    size=st.sampled_from([0, 1, 500 * KIB, 512 * KIB, 513 * KIB, 1700 * KIB, 9000 * KIB]),
    steps=st.lists(st.integers(1, 3000 * KIB), min_size=1, max_size=5),
    element=st.sampled_from([None, Element(4)]),
)
@example(seed=0, size=9000 * KIB, steps=[8 * KIB * KIB], element=None)
@settings(max_examples=30, deadline=None)
def test_buffers_of_any_size_give_the_same_id_and_pieces(
    seed: int, size: int, steps: list[int], element: Element | None
) -> None:
    data = noise(seed, size)
    buffers: list[memoryview] = []
    at = 0
    while at < size:
        # Step by step, and never so finely that the test takes long.
        step = max(steps[len(buffers) % len(steps)], size // 50)
        buffers.append(memoryview(data)[at : at + step])
        at += step
    one, two = Shelf(), Shelf()
    streamed, whole = one.writer(), two.writer()
    assert streamed.stream(buffers, size, element) == (blob_id(data), size)
    assert whole.blob(data, element) == blob_id(data)
    one.publish(streamed)
    two.publish(whole)
    assert one.store.read(Kind.BLOB, blob_id(data)) == data
    assert stored(one) == stored(two)


def stored(shelf: Shelf) -> set[tuple[ObjectId, int, int]]:
    return {
        (row.id, row.codec, row.size)
        for info in shelf.packs
        for row in read_footer(shelf.backend, info)
    }


operations = st.builds(
    Operation, names, st.text(max_size=20), st.text(max_size=20), st.integers(0, 2**60)
)
refs = st.dictionaries(st.text(min_size=1, max_size=10), ids.map(CommitId), max_size=6)
texts = st.text(max_size=10)


@given(
    operation=operations,
    packs=st.lists(infos, max_size=5, unique_by=lambda info: info.name),
    condemned=st.lists(infos, max_size=3, unique_by=lambda info: info.name),
    refs=refs,
    tombstones=st.dictionaries(ids, texts, max_size=3),
)
def test_a_root_comes_back(
    operation: Operation,
    packs: list[PackInfo],
    condemned: list[PackInfo],
    refs: dict[str, CommitId],
    tombstones: dict[ObjectId, str],
) -> None:
    root = Root(
        seq=7,
        previous=FIRST_PREVIOUS,
        operation=operation,
        changes=tuple(RefChange(name, None, id) for name, id in refs.items()),
        packs=tuple(packs),
        condemned=tuple(condemned),
        tombstones=tombstones,
        refs=refs,
    )
    backend = MemoryBackend()
    published = roots.publish(backend, root, b"n" * 16)
    assert roots.read(backend, 7) == published == replace(root, check=published.check)


@given(data=st.data())
@settings(max_examples=40)
def test_snapshots_make_no_difference(data: st.DataObject) -> None:
    """A chain of roots reads back the same whether or not snapshots are taken on the way."""
    backend = MemoryBackend()
    root = Root(seq=1, previous=FIRST_PREVIOUS, operation=Operation(b"o" * 16, "", "", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roots, "CHANGES_LIMIT", 3)
        root = roots.publish(backend, root, b"\0" * 16)
        for number in range(1, 8):
            state = data.draw(refs)
            packs = tuple(data.draw(st.lists(infos, max_size=8, unique_by=lambda i: i.name)))
            changes = [
                RefChange(name, root.refs.get(name), state.get(name))
                for name in sorted(root.refs.keys() | state.keys())
            ]
            after = root.follow(root.operation, changes, packs=packs)
            root = roots.publish(backend, after, bytes([number]) * 16)
            read = roots.newest(backend, hint=1)
            assert read.refs == state
            assert {info.name: info for info in read.packs} == {info.name: info for info in packs}
            assert read.previous == after.previous
