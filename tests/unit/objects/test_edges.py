"""The one walk step yields every object that an object needs, and no other."""

from typing import Any

import pytest

from cas.errors import CorruptionError
from cas.ids import (
    CommitId,
    ObjectId,
    TreeId,
    blob_id,
    commit_id,
    manifest_id,
    tree_id,
)
from cas.objects import canonical, tree
from cas.objects.commit import RUN, Commit, Parent
from cas.objects.edges import Kind, id_of, parse, references
from cas.objects.manifest import Column, Series, SeriesRow, State, TensorRow
from cas.objects.node import Entry, EntryKind, Node


def some(letter: bytes) -> ObjectId:
    return ObjectId(letter * 32)


def leaf(*entries: Entry) -> Node:
    written: list[bytes] = []

    def write(raw: bytes) -> TreeId:
        written.append(raw)
        return tree_id(raw)

    tree.build(entries, write)
    return Node.from_bytes(written[-1])


SMALL = bytes(8)
LEAF = leaf(
    Entry(b"a", EntryKind.FILE, some(b"a"), 1),
    Entry(b"b", EntryKind.FILE, some(b"b"), 1, stored=False),
    Entry.to_link(b"c", b"a"),
    Entry(b"d", EntryKind.TREE, some(b"d"), 1),
    Entry(b"e", EntryKind.TREE, some(b"e"), 1, stored=False),
    Entry(b"f", EntryKind.STATE, some(b"f"), 1),
    Entry(b"g", EntryKind.SERIES, some(b"g"), 1),
    Entry(b"h", EntryKind.SERIES, some(b"h"), 1, stored=False),
)
INNER = Node(level=1, names=["a", "b"], ids=b"a" * 32 + b"b" * 32, sizes=[1, 2], counts=[1, 1])
STATE = State(
    None,
    (
        TensorRow(("a",), "float64", (1,), blob_id(SMALL), SMALL),
        TensorRow(("b",), "float64", (9,), blob_id(bytes(72)), None),
    ),
)
SERIES = Series(
    (
        SeriesRow("a", 1, Column.of(SMALL), Column.of(SMALL)),
        SeriesRow("b", 9, Column.of(b"s" * 72), Column.of(b"v" * 72)),
    )
)
COMMIT = Commit(
    kind=RUN,
    tree=TreeId(some(b"t")),
    payload=TreeId(some(b"p")),
    parents=(Parent("dataset", CommitId(some(b"1"))), Parent("previous", CommitId(some(b"2")))),
)
OBJECTS: dict[str, tuple[Kind, Any, ObjectId]] = {
    "leaf": (Kind.TREE, LEAF, tree_id(LEAF.to_bytes())),
    "inner": (Kind.TREE, INNER, tree_id(INNER.to_bytes())),
    "state": (Kind.MANIFEST, STATE, manifest_id(STATE.to_bytes())),
    "series": (Kind.MANIFEST, SERIES, manifest_id(SERIES.to_bytes())),
    "commit": (Kind.COMMIT, COMMIT, commit_id(COMMIT.to_bytes())),
}


def test_a_blob_names_nothing() -> None:
    assert list(references(b"a" * 32)) == []


def test_a_leaf_needs_what_is_stored() -> None:
    assert list(references(LEAF)) == [
        (Kind.BLOB, some(b"a")),
        (Kind.TREE, some(b"d")),
        (Kind.MANIFEST, some(b"f")),
        (Kind.MANIFEST, some(b"g")),
    ]


def test_an_inner_node_needs_its_children() -> None:
    assert list(references(INNER)) == [(Kind.TREE, some(b"a")), (Kind.TREE, some(b"b"))]


def test_a_manifest_needs_the_blobs_that_are_not_inline() -> None:
    assert list(references(STATE)) == [(Kind.BLOB, blob_id(bytes(72)))]
    assert list(references(SERIES)) == [
        (Kind.BLOB, blob_id(b"s" * 72)),
        (Kind.BLOB, blob_id(b"v" * 72)),
    ]


def test_a_commit_needs_its_trees_and_parents() -> None:
    assert list(references(COMMIT)) == [
        (Kind.TREE, some(b"t")),
        (Kind.TREE, some(b"p")),
        (Kind.COMMIT, some(b"1")),
        (Kind.COMMIT, some(b"2")),
    ]
    bare = Commit(kind=RUN, tree=TreeId(some(b"t")))
    assert list(references(bare)) == [(Kind.TREE, some(b"t"))]


@pytest.mark.parametrize(("kind", "value", "id"), OBJECTS.values(), ids=OBJECTS)
def test_parse_and_id_go_by_kind(kind: Kind, value: Any, id: ObjectId) -> None:
    raw = value.to_bytes()
    assert parse(kind, raw).to_bytes() == raw  # type: ignore[union-attr]
    assert parse(kind, raw, strict=True).to_bytes() == raw  # type: ignore[union-attr]
    assert id_of(kind, raw) == id == value.id


def test_one_content_has_another_id_in_every_kind() -> None:
    assert len({id_of(kind, b"same") for kind in Kind}) == len(Kind)


def test_a_blob_is_its_bytes() -> None:
    assert parse(Kind.BLOB, memoryview(b"abc")) == b"abc"
    assert parse(Kind.BLOB, b"abc", strict=True) == b"abc"
    assert id_of(Kind.BLOB, b"abc") == blob_id(b"abc")


@pytest.mark.parametrize(("kind", "value", "id"), OBJECTS.values(), ids=OBJECTS)
def test_only_strict_parsing_insists_on_the_canonical_form(
    kind: Kind, value: Any, id: ObjectId
) -> None:
    raw = value.to_bytes()
    # The version, `v: 1` at the end or wherever it sorts, in a longer form of the same integer.
    longer = raw.replace(b"\xa1v\x01", b"\xa1v\xcc\x01", 1)
    assert longer != raw
    assert parse(kind, longer).to_bytes() == raw  # type: ignore[union-attr]
    with pytest.raises(CorruptionError):
        parse(kind, longer, strict=True)
    assert id_of(kind, longer) != id


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.BLOB])
def test_what_is_of_another_kind_is_corruption(kind: Kind) -> None:
    for raw in (b"", b"text", canonical.encode({"v": 1})):
        with pytest.raises(CorruptionError):
            parse(kind, raw)
