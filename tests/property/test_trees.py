"""Trees: one root per set of entries, small changes for small changes, everything found again."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CasError, CorruptionError, InvalidInputError
from cas.ids import ObjectId, TreeId, blob_id, tree_id
from cas.objects import canonical, tree
from cas.objects.node import MAX_NAME, Child, Entry, EntryKind, Node, raw_name, stored_name


class Nodes:
    """A store of nodes that counts what is written and read."""

    def __init__(self) -> None:
        self.raw: dict[TreeId, bytes] = {}
        self.reads = 0

    def write(self, raw: bytes) -> TreeId:
        id = tree_id(raw)
        self.raw[id] = raw
        return id

    def read(self, id: TreeId) -> Node:
        self.reads += 1
        return Node.from_bytes(self.raw[id])


@contextmanager
def cut_after(one_in: int, limit: int) -> Iterator[None]:
    """Small nodes, so that a few entries make several levels."""
    with mock.patch.object(tree, "BOUNDARY", one_in), mock.patch.object(tree, "MAX_ENTRIES", limit):
        yield


def file(name: bytes, content: bytes = b"", *, mode: int = 0o644) -> Entry:
    return Entry(name, EntryKind.FILE, blob_id(content), len(content), mode)


names = (
    (st.binary(min_size=1, max_size=6) | st.text(min_size=1, max_size=6).map(str.encode))
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda raw: raw not in {b".", b".."})
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    name = draw(names)
    kind = draw(st.sampled_from(EntryKind))
    if kind == EntryKind.LINK:
        target = draw(st.binary(min_size=1, max_size=6).filter(lambda raw: b"\0" not in raw))
        return Entry.to_link(name, target)
    mode = draw(st.integers(0, 0o777)) if kind in {EntryKind.FILE, EntryKind.TREE} else 0
    id = ObjectId(draw(st.binary(min_size=32, max_size=32)))
    return Entry(name, kind, id, draw(st.integers(0, 2**40)), mode, stored=draw(st.booleans()))


directories = st.lists(entries(), max_size=60, unique_by=lambda entry: entry.name).map(
    lambda rows: sorted(rows, key=lambda entry: entry.name)
)


def cut(rows: list[Child], level: int, one_in: int, limit: int) -> Iterator[list[Child]]:
    """Cut one level into groups as the format page says it."""
    group: list[Child] = []
    for row in rows:
        group.append(row)
        last = row.last + (bytes([level]) if level else b"")
        if int.from_bytes(blob_id(last)[:4], "little") % one_in == 0 or len(group) == limit:
            yield group
            group = []
    if group:
        yield group


def reference_root(rows: list[Entry], one_in: int, limit: int) -> TreeId:
    """The root of a directory, level by level, written a second time."""
    by_name = {entry.name: entry for entry in rows}
    level, children = 0, [Child(entry.name, TreeId(entry.id), entry.size, 1) for entry in rows]
    while level == 0 or len(children) > 1:
        above = []
        for group in cut(children, level, one_in, limit) if children else [[]]:
            if level and len(group) == 1:
                above.append(group[0])
                continue
            members = [by_name[child.last] for child in group] if level == 0 else []
            raw = canonical.encode(
                {
                    "v": 1,
                    "level": level,
                    "names": [stored_name(child.last) for child in group],
                    "ids": b"".join(child.id for child in group),
                    "sizes": [child.size for child in group],
                }
                | (
                    {"counts": [child.count for child in group]}
                    if level
                    else {
                        "kinds": bytes(row.kind + (0 if row.stored else 128) for row in members),
                        "modes": [row.mode for row in members],
                        "links": [row.link for row in members if row.link is not None],
                    }
                )
            )
            last = group[-1].last if group else b""
            size, count = sum(child.size for child in group), sum(child.count for child in group)
            above.append(Child(last, tree_id(raw), size, count))
        level, children = level + 1, above
    return children[0].id


@given(directories, st.sampled_from([(2, 5), (4, 4), (3, 100), (1024, 3), (1024, 4096)]))
def test_the_root_is_the_documented_one(rows: list[Entry], split: tuple[int, int]) -> None:
    nodes = Nodes()
    with cut_after(*split):
        made = tree.build(iter(rows), nodes.write)
    assert made.id == reference_root(rows, *split)
    assert (made.size, made.count) == (sum(row.size for row in rows), len(rows))


@given(directories, names, st.sampled_from([(2, 5), (4, 4), (1024, 3), (1024, 4096)]))
def test_all_that_was_built_is_scanned_and_found(
    rows: list[Entry], other: bytes, split: tuple[int, int]
) -> None:
    nodes = Nodes()
    with cut_after(*split):
        made = tree.build(rows, nodes.write)
    assert list(tree.scan(made.id, nodes.read)) == rows
    for row in rows:
        assert tree.find(made.id, row.name, nodes.read) == row
    expected = next((row for row in rows if row.name == other), None)
    assert tree.find(made.id, other, nodes.read) == expected


@given(directories)
def test_every_node_comes_back_byte_for_byte(rows: list[Entry]) -> None:
    nodes = Nodes()
    with cut_after(3, 6):
        tree.build(rows, nodes.write)
    for id, raw in nodes.raw.items():
        node = Node.from_bytes(raw)
        assert node.to_bytes() == raw
        assert node.id == id
        canonical.check(raw)


@given(directories, directories)
def test_a_directory_does_not_remember_what_it_was(old: list[Entry], new: list[Entry]) -> None:
    """Edited entry by entry into another one, it has the root of the other one."""
    nodes, fresh = Nodes(), Nodes()
    with cut_after(4, 8):
        root = tree.build(old, nodes.write).id
        held = {entry.name: entry for entry in tree.scan(root, nodes.read)}
        held |= {entry.name: entry for entry in new}
        wanted = {entry.name for entry in new}
        edited = [held[name] for name in sorted(held) if name in wanted]
        assert tree.build(edited, nodes.write) == tree.build(new, fresh.write)


@given(directories.filter(bool), st.data())
def test_a_damaged_node_is_an_error_of_ours(rows: list[Entry], data: st.DataObject) -> None:
    nodes = Nodes()
    with cut_after(3, 6):
        tree.build(rows, nodes.write)
    raw = bytearray(data.draw(st.sampled_from(sorted(nodes.raw.values()))))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        node = Node.from_bytes(raw)
    except CasError:
        return
    assert Node.from_bytes(node.to_bytes()) == node


def numbered(count: int) -> list[Entry]:
    return [file(b"%06d.png" % number, b"%d" % number) for number in range(count)]


def written(before: Iterable[Entry], after: Iterable[Entry]) -> int:
    """How many nodes the second state needs that the first has not."""
    nodes = Nodes()
    tree.build(before, nodes.write)
    known = len(nodes.raw)
    tree.build(after, nodes.write)
    return len(nodes.raw) - known


CHANGES: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "changed": lambda rows: [*rows[:9999], file(rows[9999].name, b"new"), *rows[10_000:]],
    "added": lambda rows: [*rows[:9999], file(b"009998.pnh"), *rows[9999:]],
    "removed": lambda rows: [*rows[:9999], *rows[10_000:]],
    "added at the end": lambda rows: [*rows, file(b"1")],
    "added at the front": lambda rows: [file(b"!"), *rows],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_one_entry_of_twenty_thousand_rewrites_two_nodes(
    change: Callable[[list[Entry]], list[Entry]],
) -> None:
    rows = numbered(20_000)
    # One leaf and the root above it.
    assert written(rows, change(rows)) == 2


def test_adding_or_removing_the_end_of_a_node_touches_its_neighbours_only() -> None:
    rows = numbered(20_000)
    ends = [row for row in rows if int.from_bytes(blob_id(row.name)[:4], "little") % 1024 == 0]
    # Two leaves become one, and the root.
    assert written(rows, [row for row in rows if row != ends[3]]) == 2
    assert written([row for row in rows if row != ends[3]], rows) == 3


def test_a_large_directory_has_this_root_in_format_1() -> None:
    nodes = Nodes()
    made = tree.build(numbered(20_000), nodes.write)
    assert made.id.hex() == "4724988953c32331b47b581999826763331b5e96d840875d117c6ae1925b42ef"
    assert (made.count, len(nodes.raw)) == (20_000, 27)


def test_a_name_is_found_by_reading_one_node_per_level() -> None:
    nodes = Nodes()
    made = tree.build(numbered(20_000), nodes.write)
    assert tree.find(made.id, b"012345.png", nodes.read) is not None
    assert nodes.reads == 2


def test_a_node_ends_after_4096_names_that_all_go_on() -> None:
    def goes_on(row: Entry) -> bool:
        return int.from_bytes(blob_id(row.name)[:4], "little") % 1024 != 0

    rows = [row for row in numbered(10_000) if goes_on(row)][:9000]
    nodes = Nodes()
    made = tree.build(rows, nodes.write)
    assert [child.count for child in nodes.read(made.id).children()] == [4096, 4096, 808]


def test_building_holds_no_more_than_a_node() -> None:
    """The nodes are written while the entries come, not at the end."""
    nodes = Nodes()
    seen: list[int] = []

    def rows() -> Iterator[Entry]:
        for entry in numbered(20_000):
            seen.append(len(nodes.raw))
            yield entry

    tree.build(rows(), nodes.write)
    assert seen[-1] >= 10


def test_an_empty_directory_is_one_empty_leaf() -> None:
    nodes = Nodes()
    made = tree.build([], nodes.write)
    assert (made.size, made.count, len(nodes.raw)) == (0, 0, 1)
    assert list(tree.scan(made.id, nodes.read)) == []
    assert tree.find(made.id, b"a", nodes.read) is None


@pytest.mark.parametrize(
    "rows",
    [
        [b"b", b"a"],
        [b"a", b"a"],
        [b""],
        [b"."],
        [b".."],
        [b"a/b"],
        [b"a\0b"],
        [b"a" * (MAX_NAME + 1)],
        ["é".encode() * (MAX_NAME // 2 + 1)],
        [b"\xff" * (MAX_NAME + 1)],
        [b"\xff/"],
        # UTF-16 would sort this pair the other way round.
        ["\U00010000".encode(), "\uffff".encode()],
    ],
)
def test_names_out_of_order_or_impossible_are_refused(rows: list[bytes]) -> None:
    with pytest.raises(InvalidInputError):
        tree.build(map(file, rows), Nodes().write)


def test_a_name_twice_is_refused_where_a_node_ends_too() -> None:
    with cut_after(1024, 2), pytest.raises(InvalidInputError):
        tree.build(map(file, [b"a", b"b", b"b"]), Nodes().write)


def test_the_longest_names_are_kept() -> None:
    nodes = Nodes()
    rows = [file(b"a" * MAX_NAME), file("é".encode() * (MAX_NAME // 2)), file(b"\xff" * MAX_NAME)]
    made = tree.build(rows, nodes.write)
    assert list(tree.scan(made.id, nodes.read)) == rows


def leaf(*names: bytes) -> Node:
    kept = Nodes()
    made = tree.build(map(file, names), kept.write)
    return kept.read(made.id)


def inner(nodes: Nodes, level: int, *children: Node, last: bytes = b"", count: int = 0) -> TreeId:
    """An inner node that says of its last child what it is told to say."""
    names = [stored_name(child.last or b"") for child in children]
    node = Node(
        level=level,
        names=[*names[:-1], last.decode() or names[-1]],
        ids=b"".join(nodes.write(child.to_bytes()) for child in children),
        sizes=[child.size for child in children],
        counts=[*(child.count for child in children[:-1]), count or children[-1].count],
    )
    return nodes.write(node.to_bytes())


def test_nodes_that_disagree_are_corruption() -> None:
    nodes = Nodes()
    a, b, overlapping = leaf(b"a"), leaf(b"b", b"c"), leaf(b"A", b"c")
    assert [row.name for row in tree.scan(inner(nodes, 1, a, b), nodes.read)] == [b"a", b"b", b"c"]
    nested = nodes.read(inner(nodes, 1, b, leaf(b"d")))
    other_last = inner(nodes, 1, a, b, last=b"d")
    for root in (
        other_last,
        inner(nodes, 1, a, b, count=3),
        inner(nodes, 1, a, overlapping),
        inner(nodes, 1, a, nested),
    ):
        with pytest.raises(CorruptionError):
            list(tree.scan(root, nodes.read))
    with pytest.raises(CorruptionError):
        tree.find(other_last, b"c", nodes.read)


def test_names_are_text_unless_they_are_not_unicode() -> None:
    for raw in (b"a", "é".encode(), b"\xff", b"\xed\xa0\x80"):
        assert raw_name(stored_name(raw)) == raw
    assert isinstance(stored_name(b"a"), str)
    assert isinstance(stored_name(b"\xed\xa0\x80"), bytes)
