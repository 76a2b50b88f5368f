"""A tree node is refused unless its columns make a directory."""

from typing import Any

import pytest

from cas.errors import CasError, CorruptionError, InvalidInputError, UnsupportedError
from cas.ids import ObjectId, blob_id
from cas.objects import canonical
from cas.objects.node import MAX_ENTRIES, MAX_LINK, Entry, EntryKind, Node

ID = ObjectId(b"i" * 32)
TARGET = b"../x"
LEAF = Node(
    level=0,
    names=["a", "b", "c", b"\xff"],
    ids=ID + ID + blob_id(TARGET) + ID,
    sizes=[1, 2, 4, 3],
    kinds=bytes([1, 3, 2, 0x84]),
    modes=[0o755, 0o700, 0, 0],
    links=[TARGET],
)
INNER = Node(level=2, names=["b", b"\xff"], ids=ID + ID, sizes=[1, 2], counts=[2, 1])
WHOLE = [
    Entry(b"a", EntryKind.FILE, ID, 1, 0o755),
    Entry(b"b", EntryKind.TREE, ID, 2, 0o700),
    Entry.to_link(b"c", TARGET),
    Entry(b"\xff", EntryKind.STATE, ID, 3, stored=False),
]


def edited(node: Node, **changes: Any) -> bytes:
    fields = canonical.decode(node.to_bytes())
    assert isinstance(fields, dict)
    return canonical.encode({**fields, **changes})


LEAF_DAMAGE: dict[str, dict[str, Any]] = {
    "a name too few": {"names": ["a", "b", "c"]},
    "a name that is a number": {"names": ["a", "b", "c", 1]},
    "names out of order": {"names": ["b", "a", "c", b"\xff"]},
    "a name twice": {"names": ["a", "a", "c", b"\xff"]},
    "a bin name that is UTF-8": {"names": ["a", b"b", "c", b"\xff"]},
    "an empty name": {"names": ["", "b", "c", b"\xff"]},
    "this directory": {"names": [".", "b", "c", b"\xff"]},
    "the directory above": {"names": ["..", "b", "c", b"\xff"]},
    "a slash": {"names": ["a", "b/", "c", b"\xff"]},
    "a slash in a bin name": {"names": ["a", "b", "c", b"\xff/"]},
    "a zero byte": {"names": ["a", "b\0", "c", b"\xff"]},
    "a name too long": {"names": ["a", "b" * 4097, "c", b"\xff"]},
    "ids cut short": {"ids": bytes(127)},
    "a size too many": {"sizes": [1, 2, 4, 3, 5]},
    "a negative size": {"sizes": [-1, 2, 4, 3]},
    "a size that is a float": {"sizes": [1.0, 2, 4, 3]},
    "sizes beyond 2^63": {"sizes": [2**63 - 1, 1, 4, 0]},
    "a kind that does not exist": {"kinds": bytes([1, 3, 2, 0])},
    "a link that is only named": {"kinds": bytes([1, 3, 0x82, 0x84])},
    "a kind too many": {"kinds": bytes([1, 3, 2, 0x84, 1])},
    "a mode with other bits": {"modes": [0o4755, 0o700, 0, 0]},
    "a negative mode": {"modes": [-1, 0o700, 0, 0]},
    "a mode of a state": {"modes": [0o755, 0o700, 0, 0o644]},
    "a mode of a link": {"modes": [0o755, 0o700, 0o777, 0]},
    "a target too many": {"links": [TARGET, TARGET]},
    "a target too few": {"links": []},
    "another target": {"links": [b"../y"]},
    "a target of another size": {"links": [b"../xy"]},
    "an empty target": {"links": [b""], "sizes": [1, 2, 0, 3]},
    "a target that is text": {"links": ["../x"]},
    "counts in a leaf": {"counts": [1, 1, 1, 1]},
    "a level that is inner": {"level": 1},
    "a negative level": {"level": -1},
    "a level beyond a byte": {"level": 256},
    "a level that is a bool": {"level": False},
    "an unknown field": {"x": 1},
    "version 0": {"v": 0},
}
INNER_DAMAGE: dict[str, dict[str, Any]] = {
    "names out of order": {"names": ["b", "a"]},
    "one child": {"names": ["b"], "ids": ID[:], "sizes": [1], "counts": [1]},
    "no children": {"names": [], "ids": b"", "sizes": [], "counts": []},
    "an empty child": {"counts": [0, 1]},
    "a negative count": {"counts": [-1, 5]},
    "counts beyond 2^63": {"counts": [2**63, 1]},
    "a count too few": {"counts": [3]},
    "a count that is a float": {"counts": [2.0, 1]},
    "an id too few": {"ids": bytes(32)},
    "kinds in an inner node": {"kinds": b"\1\1"},
    "a level that is a leaf's": {"level": 0},
}


@pytest.mark.parametrize("changes", LEAF_DAMAGE.values(), ids=LEAF_DAMAGE)
def test_a_damaged_leaf_is_corruption(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptionError):
        Node.from_bytes(edited(LEAF, **changes))


@pytest.mark.parametrize("changes", INNER_DAMAGE.values(), ids=INNER_DAMAGE)
def test_a_damaged_inner_node_is_corruption(changes: dict[str, Any]) -> None:
    plain = {name: bytes(item) if name == "ids" else item for name, item in changes.items()}
    with pytest.raises(CorruptionError):
        Node.from_bytes(edited(INNER, **plain))


@pytest.mark.parametrize("kinds", [[6, 3, 2, 0x84], [1, 3, 2, 0x87]])
def test_kinds_of_a_newer_cas_are_unsupported(kinds: list[int]) -> None:
    with pytest.raises(UnsupportedError):
        Node.from_bytes(edited(LEAF, kinds=bytes(kinds)))
    with pytest.raises(UnsupportedError):
        Node.from_bytes(edited(LEAF, v=2, order="random"))


def test_the_damage_above_is_the_only_thing_wrong() -> None:
    assert Node.from_bytes(edited(LEAF)) == LEAF
    assert Node.from_bytes(edited(INNER)).to_bytes() == INNER.to_bytes()
    assert list(LEAF.entries()) == WHOLE


def test_every_entry_is_found_and_nothing_else() -> None:
    for entry in WHOLE:
        assert LEAF.find(entry.name) == entry
    for name in (b"", b"A", b"bb", b"\xff\xff"):
        assert LEAF.find(name) is None


def test_what_is_below_is_summed() -> None:
    assert (LEAF.size, LEAF.count, LEAF.last) == (10, 4, b"\xff")
    assert (INNER.size, INNER.count, INNER.last) == (3, 3, b"\xff")
    assert [child.last for child in INNER.children()] == [b"b", b"\xff"]


def test_a_leaf_has_no_children_and_an_inner_node_no_entries() -> None:
    with pytest.raises(InvalidInputError):
        list(LEAF.children())
    with pytest.raises(InvalidInputError):
        list(INNER.entries())


def test_a_node_has_at_most_4096_rows() -> None:
    names = [f"{number:05}" for number in range(MAX_ENTRIES + 1)]
    rows = len(names)
    fields = {"ids": bytes(32 * rows), "sizes": [0] * rows}
    with pytest.raises(InvalidInputError, match="at most"):
        Node(level=0, names=names, kinds=b"\1" * rows, modes=[0] * rows, **fields)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="at most"):
        Node(level=1, names=names, counts=[1] * rows, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [b"", b"a\0b", b"a" * (MAX_LINK + 1)])
def test_a_link_that_no_system_can_make_is_refused(target: bytes) -> None:
    with pytest.raises(CasError):
        Node(
            level=0,
            names=["a"],
            ids=blob_id(target),
            sizes=[len(target)],
            kinds=b"\2",
            modes=[0],
            links=[target],
        )
