"""What goes in comes out bit for bit, whatever the files are called and whatever is in them."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.ids import TreeId, blob_id
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.repo.trees import checkout
from cas.repo.trees.diff import diff
from cas.repo.trees.ingest import Modes, add
from cas.repo.trees.names import refusal
from tests.support.builders import repository

# A file is its mode and bytes, a link its target, a folder its mode and what is in it.
Tree: TypeAlias = "dict[bytes, tuple[int, bytes | Tree] | bytes]"

# As somebody else than root, what may not be read cannot be stored.
READABLE = 0 if os.geteuid() == 0 else 0o600
SEARCHABLE = 0 if os.geteuid() == 0 else 0o700

odd = st.sampled_from(
    [b"a:b.txt", b"x\\y", b"a b ", b"...", b"-rf", b"~", b"\xff", b"caf\xe9", "é".encode(), b"*",
     b"e\xcc\x81", b"new\nline", b"\x1b[31m", b"CON", b".gitignore", b".case", b"git", b"A", b"a",
     "\u202ereversed".encode(), b"n" * 255]
)  # fmt: skip
names = (odd | st.binary(min_size=1, max_size=12)).filter(
    lambda name: b"/" not in name and b"\0" not in name and refusal(name) is None
)
targets = st.binary(min_size=1, max_size=30).filter(lambda target: b"\0" not in target)
contents = st.binary(max_size=200) | st.builds(
    lambda seed, size: (seed * size)[:size],
    st.binary(min_size=1, max_size=7),
    st.sampled_from([524_288, 524_289, 700_000]),
)
files = st.tuples(st.integers(0, 0o777).map(lambda mode: mode | READABLE), contents)
trees = st.recursive(
    st.dictionaries(names, files | targets, max_size=4),
    lambda inner: st.dictionaries(
        names,
        files | targets | st.tuples(st.integers(0, 0o777).map(lambda m: m | SEARCHABLE), inner),
        max_size=4,
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return repository(tmp_path_factory.mktemp("home"))


@contextmanager
def place() -> Iterator[Path]:
    """A folder for one example, removed afterwards whatever its bits are."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)
        for folder, inner, _ in os.walk(os.fsencode(path)):
            for name in inner:
                if not os.path.islink(os.path.join(folder, name)):
                    os.chmod(os.path.join(folder, name), 0o700)


def stored(repo: Repo, path: Path, modes: Modes = Modes.FULL) -> Entry:
    return transact(repo, "test", lambda transaction: add(transaction.writer, path, modes=modes))


def write(folder: bytes, tree: Tree) -> None:
    for name, item in tree.items():
        path = os.path.join(folder, name)
        if isinstance(item, bytes):
            os.symlink(item, path)
            continue
        mode, inner = item
        if isinstance(inner, dict):
            os.mkdir(path)
            write(path, inner)
        else:
            with open(path, "wb") as file:
                file.write(inner)
        os.chmod(path, mode)


def read(folder: bytes) -> Tree:
    found: Tree = {}
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        state = os.lstat(path)
        mode = stat.S_IMODE(state.st_mode)
        if stat.S_ISLNK(state.st_mode):
            found[name] = os.readlink(path)
        elif stat.S_ISDIR(state.st_mode):
            found[name] = (mode, read(path))
        else:
            with open(path, "rb") as file:
                found[name] = (mode, file.read())
    return found


@given(tree=trees)
@settings(max_examples=60)
def test_a_folder_comes_back_bit_for_bit(repo: Repo, tree: Tree) -> None:
    with place() as base:
        one, two = base / "one", base / "two"
        one.mkdir()
        write(os.fsencode(one), tree)
        entry = stored(repo, one)
        checkout.execute(repo, checkout.plan(repo, entry, two))
        assert read(os.fsencode(two)) == tree

        # The copy is the same tree, and a checkout over it has nothing left to do.
        assert stored(repo, two).id == entry.id
        planned = checkout.plan(repo, entry, two)
        assert (planned.write, planned.conflicts, planned.modes) == ((), (), ())


@given(old=trees, new=trees)
@settings(max_examples=30)
def test_a_diff_is_empty_exactly_between_equal_folders(repo: Repo, old: Tree, new: Tree) -> None:
    with place() as base:
        ids = []
        for name, tree in (("old", old), ("new", new)):
            (base / name).mkdir()
            write(os.fsencode(base / name), tree)
            ids.append(TreeId(stored(repo, base / name).id))
        changed = {change.path for change in diff(repo, ids[0], ids[1])}
    paths = [dict(flat(tree)) for tree in (old, new)]
    assert changed == {
        path
        for path in paths[0].keys() | paths[1].keys()
        if paths[0].get(path) != paths[1].get(path)
    }


def flat(tree: Tree, front: bytes = b"") -> Iterator[tuple[bytes, object]]:
    """Every path with what counts there: of a folder, only its mode."""
    for name, item in tree.items():
        path = front + name
        if not isinstance(item, bytes) and isinstance(item[1], dict):
            yield path, (item[0], None)
            yield from flat(item[1], path + b"/")
        else:
            yield path, item


@given(data=contents, mode=st.integers(0, 0o777))
@settings(max_examples=20)
def test_portable_trees_differ_by_content_alone(repo: Repo, data: bytes, mode: int) -> None:
    with place() as base:
        ids = set()
        for name, bits in (("one", mode | READABLE), ("two", (mode & 0o100) | 0o600)):
            path = base / name
            path.mkdir()
            (path / "f").write_bytes(data)
            (path / "f").chmod(bits)
            (path / "d").mkdir(mode=bits | 0o700)
            entry = stored(repo, path, Modes.PORTABLE)
            ids.add(entry.id)
            file = repo.lookup(entry.id, b"f")
            assert file is not None
            assert (file.kind, file.id, file.size) == (EntryKind.FILE, blob_id(data), len(data))
    assert len(ids) == 1
