"""A diff names every path that differs, and reads only what does."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from cas.ids import ObjectId, TreeId
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.repo.trees.diff import diff
from cas.repo.trees.ingest import file_entry, nest
from tests.support.builders import repository

Spec = Mapping[bytes, bytes | Entry]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def tree(repo: Repo, spec: Spec) -> TreeId:
    def make(transaction: object) -> TreeId:
        writer = transaction.writer  # type: ignore[attr-defined]
        items = [
            (path, item if isinstance(item, Entry) else file_entry(writer, b"x", item))
            for path, item in spec.items()
        ]
        return nest(writer, items).id

    return transact(repo, "test", make)


def told(repo: Repo, old: Spec | None, new: Spec | None) -> list[tuple[bytes, str]]:
    """The changes between two trees, as path and `-`, `+` or `~`."""
    trees = [None if spec is None else tree(repo, spec) for spec in (old, new)]
    return [
        (change.path, "+" if change.old is None else "-" if change.new is None else "~")
        for change in diff(repo, *trees)
    ]


def test_equal_trees_do_not_differ(repo: Repo) -> None:
    assert told(repo, {b"a/b": b"1"}, {b"a/b": b"1"}) == []
    assert told(repo, None, None) == []


def test_every_path_is_told_once_in_order(repo: Repo) -> None:
    old = {b"a": b"1", b"b/x": b"1", b"b/y": b"2", b"c/z": b"3", b"same/f": b"0"}
    new = {b"a": b"2", b"b/x": b"1", b"b/w": b"2", b"d/z": b"3", b"same/f": b"0"}
    assert told(repo, old, new) == [
        (b"a", "~"),
        (b"b/w", "+"),
        (b"b/y", "-"),
        (b"c", "-"),
        (b"c/z", "-"),
        (b"d", "+"),
        (b"d/z", "+"),
    ]


def test_all_of_a_tree_is_new_beside_none(repo: Repo) -> None:
    spec = {b"a/b": b"1", b"c": b"2"}
    assert told(repo, None, spec) == [(b"a", "+"), (b"a/b", "+"), (b"c", "+")]
    assert told(repo, spec, None) == [(b"a", "-"), (b"a/b", "-"), (b"c", "-")]


def test_a_file_that_became_a_directory_is_one_change(repo: Repo) -> None:
    assert told(repo, {b"x": b"1"}, {b"x/y": b"1"}) == [(b"x", "~"), (b"x/y", "+")]
    assert told(repo, {b"x/y": b"1"}, {b"x": b"1"}) == [(b"x", "~"), (b"x/y", "-")]


def test_permission_bits_count_for_files_and_directories(repo: Repo) -> None:
    old = tree(repo, {b"d/f": b"1"})
    entry = repo.lookup(old, b"d")
    assert entry is not None
    closed = tree(repo, {b"d": Entry(b"d", EntryKind.TREE, entry.id, entry.size, 0o700)})
    (change,) = diff(repo, old, closed)
    assert change.old is not None
    assert change.new is not None
    assert (change.path, change.old.mode, change.new.mode) == (b"d", 0o755, 0o700)


def test_links_differ_by_their_targets(repo: Repo) -> None:
    old, new = Entry.to_link(b"l", b"one"), Entry.to_link(b"l", b"two")
    assert told(repo, {b"l": old}, {b"l": new}) == [(b"l", "~")]


def test_what_is_only_named_is_not_descended_into(repo: Repo) -> None:
    one, two = (
        Entry(b"d", EntryKind.TREE, ObjectId(bytes([n]) * 32), 5, 0o755, stored=False)
        for n in (1, 2)
    )
    assert told(repo, {b"d": one}, {b"d": two}) == [(b"d", "~")]
    assert told(repo, {b"d": one}, None) == [(b"d", "-")]


def test_of_large_directories_only_what_differs_is_read(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [b"%06d" % number for number in range(20_000)]

    def large(changed: bytes, dropped: bytes) -> TreeId:
        def make(transaction: object) -> TreeId:
            writer = transaction.writer  # type: ignore[attr-defined]
            one, two = writer.blob(b"1"), writer.blob(b"2")
            entries = (
                Entry(name, EntryKind.FILE, two if name == changed else one, 1, 0o644)
                for name in names
                if name != dropped
            )
            return build(entries, writer.tree).id

        return transact(repo, "test", make)

    old, new = large(b"", b""), large(b"010000", b"000500")
    reads: Counter[ObjectId] = Counter()
    read = repo.store.read

    def counted(kind: Kind, id: ObjectId) -> bytes:
        reads[id] += 1
        return read(kind, id)

    monkeypatch.setattr(repo.store, "read", counted)
    changes = [(change.path, change.new is None) for change in diff(repo, old, new)]
    assert changes == [(b"000500", True), (b"010000", False)]
    assert sum(reads.values()) <= 8


def test_directories_of_different_height_are_compared(repo: Repo) -> None:
    def make(count: int) -> TreeId:
        def build_it(transaction: object) -> TreeId:
            writer = transaction.writer  # type: ignore[attr-defined]
            id = writer.blob(b"1")
            entries = (Entry(b"%05d" % n, EntryKind.FILE, id, 1, 0o644) for n in range(count))
            return build(entries, writer.tree).id

        return transact(repo, "test", build_it)

    small, large = make(3), make(9000)
    assert repo.node(small).level < repo.node(large).level
    assert [c.path for c in diff(repo, small, large)] == [b"%05d" % n for n in range(3, 9000)]
    assert sum(1 for c in diff(repo, large, small) if c.new is None) == 8997
