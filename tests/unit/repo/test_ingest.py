"""What a folder holds becomes a tree, and nothing else does."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas.errors import InvalidInputError
from cas.ids import TreeId, blob_id
from cas.objects.kind import Kind
from cas.objects.node import Node
from cas.objects.tree import Entry, EntryKind, scan
from cas.progress import Silent
from cas.repo.trees import ingest
from cas.repo.trees.ingest import Modes, add, file_entry, nest
from cas.repo.trees.names import MAX_NESTING
from cas.store.packed import PackedStore
from tests.support.builders import noise
from tests.support.stores import Shelf
from tests.support.tensorfiles import safetensors


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def listing(store: PackedStore, tree: TreeId) -> dict[bytes, Entry]:
    """The entries of a directory and all below, by path."""
    found: dict[bytes, Entry] = {}
    for entry in scan(tree, lambda id: Node.from_bytes(store.read(Kind.TREE, id))):
        found[entry.name] = entry
        if entry.kind is EntryKind.TREE:
            for path, inner in listing(store, TreeId(entry.id)).items():
                found[entry.name + b"/" + path] = inner
    return found


def stored(shelf: Shelf, path: Path, **options: object) -> dict[bytes, Entry]:
    writer = shelf.writer()
    entry = add(writer, path, **options)  # type: ignore[arg-type]
    shelf.publish(writer)
    assert entry.kind is EntryKind.TREE
    return listing(shelf.store, TreeId(entry.id))


class TestFiles:
    @pytest.mark.parametrize("size", [0, 1, 524_287, 524_288, 524_289, 9_000_000])
    def test_a_file_has_the_id_of_its_bytes(self, shelf: Shelf, tmp_path: Path, size: int) -> None:
        data = noise(size, size)
        (tmp_path / "file").write_bytes(data)
        writer = shelf.writer()
        entry = add(writer, tmp_path / "file")
        shelf.publish(writer)
        assert (entry.kind, entry.id, entry.size) == (EntryKind.FILE, blob_id(data), size)
        assert shelf.store.read(Kind.BLOB, entry.id) == data

    def test_the_entry_has_the_name_and_the_bits(self, shelf: Shelf, tmp_path: Path) -> None:
        (tmp_path / "run.sh").write_bytes(b"x")
        (tmp_path / "run.sh").chmod(0o4751)
        entry = add(shelf.writer(), tmp_path / "run.sh")
        assert (entry.name, entry.mode) == (b"run.sh", 0o751)

    @pytest.mark.parametrize(("mode", "kept"), [(0o600, 0o644), (0o711, 0o755), (0o664, 0o644)])
    def test_portable_bits_are_the_same_under_any_umask(
        self, shelf: Shelf, folder: Path, mode: int, kept: int
    ) -> None:
        (folder / "file").write_bytes(b"x")
        (folder / "file").chmod(mode)
        (folder / "sub").mkdir(0o700)
        found = stored(shelf, folder, modes=Modes.PORTABLE)
        assert (found[b"file"].mode, found[b"sub"].mode) == (kept, 0o755)

    def test_a_file_that_grows_is_stored_as_it_was_read(self, shelf: Shelf, tmp_path: Path) -> None:
        path = tmp_path / "log"
        path.write_bytes(b"a" * 600_000)

        class Growing(Silent):
            def advance(self, units: int = 1) -> None:
                if path.stat().st_size < 1_000_000:
                    with path.open("ab") as file:
                        file.write(b"b" * 600_000)

        writer = shelf.writer()
        entry = add(writer, path, progress=Growing())
        shelf.publish(writer)
        read = shelf.store.read(Kind.BLOB, entry.id)
        assert read == b"a" * 600_000 + b"b" * 600_000
        assert entry.size == len(read)

    def test_a_small_file_that_grows_is_whole_or_streamed(
        self, shelf: Shelf, tmp_path: Path
    ) -> None:
        # Files below /proc say that they are empty.
        path = Path("/proc/self/maps")
        if not path.exists():
            pytest.skip("no /proc here")
        writer = shelf.writer()
        entry = add(writer, path)
        shelf.publish(writer)
        assert entry.size == len(shelf.store.read(Kind.BLOB, entry.id)) > 0

    def test_progress_counts_every_byte(self, shelf: Shelf, folder: Path) -> None:
        class Counting(Silent):
            def __init__(self) -> None:
                self.units = 0

            def advance(self, units: int = 1) -> None:
                self.units += units

        (folder / "small").write_bytes(b"x" * 10)
        (folder / "large").write_bytes(b"x" * 5_000_000)
        counting = Counting()
        add(shelf.writer(), folder, progress=counting)
        assert counting.units == 5_000_010

    def test_progress_goes_on_while_a_large_file_of_tensors_is_cut(
        self, shelf: Shelf, tmp_path: Path
    ) -> None:
        told: list[int] = []

        class Telling(Silent):
            def advance(self, units: int = 1) -> None:
                told.append(units)

        data = safetensors({"w": ("U8", [6_000_000], noise(1, 6_000_000))})
        (tmp_path / "large").write_bytes(data)
        add(shelf.writer(), tmp_path / "large", progress=Telling())
        assert sum(told) == len(data)
        assert max(told) < 5_000_000

    def test_a_document_in_memory_is_a_file(self, shelf: Shelf) -> None:
        entry = file_entry(shelf.writer(), b"a.json", b"{}\n")
        assert entry == Entry(b"a.json", EntryKind.FILE, blob_id(b"{}\n"), 3, 0o644)


class TestFolders:
    def test_everything_below_is_there(self, shelf: Shelf, folder: Path) -> None:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "empty").mkdir()
        (folder / "a" / "file").write_bytes(b"12345")
        os.symlink("../nowhere", folder / "a" / "link")
        found = stored(shelf, folder)
        assert set(found) == {b"a", b"a/b", b"a/b/empty", b"a/file", b"a/link"}
        assert found[b"a/link"] == Entry.to_link(b"link", b"../nowhere")
        assert found[b"a"].size == 5 + len(b"../nowhere")

    def test_names_come_in_raw_byte_order_and_as_they_are(self, shelf: Shelf, folder: Path) -> None:
        names = [
            b"b",
            b"B",
            b"a b",
            b"\xff\xfe",
            "é".encode(),
            b"e\xcc\x81",
            b"x\ny",
            b"aa:b",
            b"p\\q",
        ]
        for name in names:
            Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(name)
        assert list(stored(shelf, folder)) == sorted(names)

    def test_links_below_the_top_are_not_followed(self, shelf: Shelf, folder: Path) -> None:
        (folder.parent / "outside").mkdir()
        (folder.parent / "outside" / "secret").write_bytes(b"x")
        os.symlink("../outside", folder / "dir")
        os.symlink(".", folder / "circle")
        os.symlink("secret", folder / "dangling")
        found = stored(shelf, folder, follow=True)
        assert {entry.kind for entry in found.values()} == {EntryKind.LINK}

    @pytest.mark.parametrize("name", ["dir", "file"])
    def test_a_link_that_takes_a_place_after_the_look_is_not_followed(
        self, shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (folder.parent / "outside").mkdir()
        (folder.parent / "outside" / "secret").write_bytes(b"x")
        (folder / "dir").mkdir()
        (folder / "file").write_bytes(b"x")
        target = "../outside" if name == "dir" else "../outside/secret"

        def opened(path: bytes, flags: int, *, dir_fd: int | None) -> int:
            if path == name.encode():
                (folder / name).rename(folder.parent / "moved")
                os.symlink(target, folder / name)
            return os.open(path, flags, dir_fd=dir_fd)

        monkeypatch.setattr(ingest, "_open", opened)
        with pytest.raises(InvalidInputError, match=f"cannot read .*/data/{name}: "):
            add(shelf.writer(), folder)

    def test_a_link_at_the_top_is_stored_or_followed(self, shelf: Shelf, folder: Path) -> None:
        (folder / "file").write_bytes(b"x")
        link = folder.parent / "link"
        os.symlink("data", link)
        assert add(shelf.writer(), link) == Entry.to_link(b"link", b"data")
        followed = add(shelf.writer(), link, follow=True)
        assert (followed.name, followed.kind) == (b"link", EntryKind.TREE)
        assert followed.id == add(shelf.writer(), folder).id

    def test_metadata_folders_are_left_out_everywhere(self, shelf: Shelf, folder: Path) -> None:
        for place in (folder, folder / "sub"):
            (place / ".cas").mkdir(parents=True)
            (place / ".cas" / "format").write_bytes(b"x")
            (place / ".gitignore").write_bytes(b"x")
        (folder / ".git").mkdir()
        (folder / "sub" / ".git").write_bytes(b"gitdir: elsewhere\n")
        assert set(stored(shelf, folder)) == {b".gitignore", b"sub", b"sub/.gitignore"}

    def test_what_is_ignored_is_not_looked_at(self, shelf: Shelf, folder: Path) -> None:
        (folder / "keep").mkdir()
        (folder / "keep" / "file.tmp").write_bytes(b"x")
        (folder / "keep" / "file").write_bytes(b"x")
        (folder / "venv").mkdir()
        os.mkfifo(folder / "venv" / "pipe")
        asked: list[bytes] = []

        def ignore(path: bytes) -> bool:
            asked.append(path)
            return path == b"venv" or path.endswith(b".tmp")

        assert set(stored(shelf, folder, ignore=ignore)) == {b"keep", b"keep/file"}
        assert sorted(asked) == [b"keep", b"keep/file", b"keep/file.tmp", b"venv"]

    def test_equal_folders_are_one_tree(self, shelf: Shelf, tmp_path: Path) -> None:
        for place in ("one", "two"):
            (tmp_path / place / "sub").mkdir(parents=True)
            (tmp_path / place / "sub" / "file").write_bytes(b"x")
        os.utime(tmp_path / "one" / "sub" / "file", (1, 1))
        writer = shelf.writer()
        assert add(writer, tmp_path / "one").id == add(writer, tmp_path / "two").id

    def test_a_folder_is_named_also_where_the_path_does_not(
        self, shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "sub").mkdir()
        monkeypatch.chdir(folder / "sub")
        assert add(shelf.writer(), Path()).name == b"sub"
        assert add(shelf.writer(), Path("..")).name == b"data"

    def test_nesting_has_a_limit_and_says_so(self, shelf: Shelf, folder: Path) -> None:
        path = folder
        for _ in range(MAX_NESTING):
            path /= "d"
        path.mkdir(parents=True)
        assert len(stored(shelf, folder)) == MAX_NESTING
        (path / "d").mkdir()
        with pytest.raises(InvalidInputError, match=r"nested more than 128 folders deep"):
            add(shelf.writer(), folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Let permission bits count, also for tests that run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestRefusals:
    def test_a_pipe_is_named(self, shelf: Shelf, folder: Path) -> None:
        os.mkfifo(folder / "queue")
        with pytest.raises(InvalidInputError, match=r"cannot store .*/data/queue: it is a pipe"):
            add(shelf.writer(), folder)

    def test_a_socket_is_named(
        self, shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)  # the name of a socket is at most 108 bytes long
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("s")
            with pytest.raises(InvalidInputError, match=r"/data/s: it is a socket"):
                add(shelf.writer(), folder)

    def test_a_device_is_named(self, shelf: Shelf) -> None:
        with pytest.raises(InvalidInputError, match=r"/dev/null: it is a device"):
            add(shelf.writer(), Path("/dev/null"))

    def test_what_is_not_there_is_named(self, shelf: Shelf, folder: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"cannot read .*/nope: no such file"):
            add(shelf.writer(), folder / "nope")

    @pytest.mark.parametrize("what", ["file", "sub"])
    def test_what_may_not_be_read_is_named(
        self, shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        (folder / "file").write_bytes(b"x")
        (folder / "sub").mkdir()
        (folder / what).chmod(0)
        # `tmp_path` is closed to others, so the way to it is walked by root.
        for above in (folder, *folder.parents):
            if above.stat().st_uid == os.geteuid() and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o055)
        with as_nobody(), pytest.raises(InvalidInputError) as caught:
            add(shelf.writer(), folder)
        assert str(caught.value) == f"cannot read {folder}/{what}: permission denied"

    @pytest.mark.parametrize("name", [".GIT", "git~1", ".git.", ".cas ", "C:x", "..\\up", "\\root"])
    def test_a_name_that_no_checkout_writes_is_not_stored(
        self, shelf: Shelf, folder: Path, name: str
    ) -> None:
        (folder / name).write_bytes(b"x")
        with pytest.raises(InvalidInputError, match="rename it, or leave it out"):
            add(shelf.writer(), folder)

    def test_an_odd_name_is_told_on_one_line(self, shelf: Shelf, folder: Path) -> None:
        os.mkfifo(os.fsencode(folder) + b"/a\nb\xff")
        with pytest.raises(InvalidInputError) as caught:
            add(shelf.writer(), folder)
        assert str(caught.value).isprintable()


class TestNest:
    def test_paths_in_any_order_become_folders(self, shelf: Shelf) -> None:
        writer = shelf.writer()
        leaf = file_entry(writer, b"x", b"12")
        link = Entry.to_link(b"y", b"to")
        paths = [(b"z", leaf), (b"a/b/c", leaf), (b"a-b", leaf), (b"a/b/a", link), (b"a/d", leaf)]
        one, two = nest(writer, paths), nest(writer, reversed(paths))
        shelf.publish(writer)
        found = listing(shelf.store, one.id)
        assert one == two
        assert list(found) == [b"a", b"a/b", b"a/b/a", b"a/b/c", b"a/d", b"a-b", b"z"]
        assert {found[path].mode for path in (b"a", b"a/b")} == {0o755}
        assert found[b"a/b/c"].name == b"c"
        assert (one.size, one.count) == (10, 3)

    def test_nothing_is_the_empty_folder(self, shelf: Shelf, folder: Path) -> None:
        writer = shelf.writer()
        assert nest(writer, ()).id == add(writer, folder).id

    def test_it_is_what_adding_the_same_folder_gives(self, shelf: Shelf, folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a" / "f").write_bytes(b"x")
        writer = shelf.writer()
        entry = add(writer, folder, modes=Modes.PORTABLE)
        assert nest(writer, [(b"a/f", file_entry(writer, b"f", b"x"))]).id == entry.id

    @pytest.mark.parametrize(
        "paths",
        [
            [b"a", b"a"],
            [b"a", b"a/b"],
            [b"a/b", b"a"],
            [b"../a"],
            [b"/a"],
            [b"a//b"],
            [b""],
            [b"a/"],
            [b".git/config"],
            [b"a/.CAS/b"],
            [b"/".join([b"d"] * (MAX_NESTING + 1))],
        ],
    )
    def test_paths_that_make_no_folders_are_refused(self, shelf: Shelf, paths: list[bytes]) -> None:
        writer = shelf.writer()
        leaf = file_entry(writer, b"x", b"")
        with pytest.raises(InvalidInputError):
            nest(writer, [(path, leaf) for path in paths])
