"""A checkout plans first, changes nothing that is there, and says what it cannot write."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.errors import (
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    StorageFullError,
)
from cas.ids import ObjectId, TreeId
from cas.objects.tree import Entry, EntryKind
from cas.progress import Silent
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.repo.trees import checkout, folder, ingest
from tests.support.builders import repository

ID = ObjectId(bytes(32))


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path / "home")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def tree(repo: Repo, *entries: Entry, **files: bytes) -> TreeId:
    """Store files, by name with `_` for `/`, and entries as they are; return their tree."""

    def build(transaction: object) -> TreeId:
        writer = transaction.writer  # type: ignore[attr-defined]
        items = [
            (name.replace("_", "/").encode(), ingest.file_entry(writer, b"x", data))
            for name, data in files.items()
        ]
        return ingest.nest(writer, [*items, *((entry.name, entry) for entry in entries)]).id

    return transact(repo, "test", build)


def check_out(repo: Repo, what: Entry | TreeId, target: Path, *, force: bool = False) -> None:
    checkout.execute(repo, checkout.plan(repo, what, target), force=force)


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder: bytes of files, `@` and the target for links, `/` for folders."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = b"@" + os.fsencode(os.readlink(path))
        else:
            found[name] = b"/" if path.is_dir() else path.read_bytes()
    return found


class TestPlan:
    def test_tells_new_from_equal_from_different(self, repo: Repo, target: Path) -> None:
        stored = tree(repo, Entry.to_link(b"l", b"a"), a=b"1", b=b"2", c=b"3", d_e=b"45")
        target.mkdir()
        (target / "a").write_bytes(b"1")
        (target / "b").write_bytes(b"9")
        os.symlink("elsewhere", target / "l")
        (target / "mine").write_bytes(b"stays")
        planned = checkout.plan(repo, stored, target)
        assert planned.write == (b"c", b"d", b"d/e")
        assert planned.equal == {b"a"}
        assert planned.conflicts == (b"b", b"l")
        assert planned.size_bytes == 4

    def test_changes_nothing(self, repo: Repo, target: Path) -> None:
        checkout.plan(repo, tree(repo, a_b=b"1"), target)
        assert not target.exists()

    @pytest.mark.parametrize("kind", ["file", "link", "folder"])
    def test_another_kind_of_thing_is_different(self, repo: Repo, target: Path, kind: str) -> None:
        stored = {
            "file": tree(repo, x=b"1"),
            "link": tree(repo, Entry.to_link(b"x", b"1")),
            "folder": tree(repo, x_y=b"1"),
        }
        target.mkdir()
        if kind == "file":
            (target / "x").write_bytes(b"1")
        elif kind == "link":
            os.symlink("1", target / "x")
        else:
            (target / "x").mkdir()
            (target / "x" / "y").write_bytes(b"1")
        for other, id in stored.items():
            planned = checkout.plan(repo, id, target)
            assert planned.conflicts == (() if other == kind else (b"x",))

    def test_states_are_counted_and_named_ones_listed(self, repo: Repo, target: Path) -> None:
        state = Entry(b"weights", EntryKind.STATE, ID, 10)
        series = Entry(b"metrics", EntryKind.SERIES, ID, 10)
        named = Entry(b"raw.bin", EntryKind.FILE, ID, 10, 0o644, stored=False)
        stored = tree(repo, state, series, named, a=b"1")
        planned = checkout.plan(repo, stored, target)
        assert (planned.states, planned.named, planned.write) == (2, (b"raw.bin",), (b"a",))
        checkout.execute(repo, planned)
        assert files(target) == {"a": b"1"}

    def test_data_that_is_gone_is_named_before_anything_is_written(
        self, repo: Repo, target: Path
    ) -> None:
        stored = tree(repo, Entry(b"pruned", EntryKind.FILE, ID, 10, 0o644), a=b"1")
        with pytest.raises(NotFoundError, match="data of pruned not found"):
            check_out(repo, stored, target)
        assert not target.exists()

    def test_the_repository_itself_is_no_target(self, repo: Repo) -> None:
        for place in (repo.path, repo.path / "packs", repo.path / "new"):
            with pytest.raises(InvalidInputError, match="inside the repository"):
                checkout.plan(repo, tree(repo, a=b"1"), place)

    def test_a_file_is_no_target(self, repo: Repo, target: Path) -> None:
        target.write_bytes(b"x")
        with pytest.raises(InvalidInputError, match="is not a folder"):
            checkout.plan(repo, tree(repo, a=b"1"), target)


class TestOneEntry:
    def test_a_file_or_link_goes_there_under_its_name(self, repo: Repo, target: Path) -> None:
        stored = tree(repo, Entry.to_link(b"l", b"/abs"), a_f=b"1")
        for path in (b"a/f", b"l"):
            entry = repo.lookup(stored, path)
            assert entry is not None
            check_out(repo, entry, target)
        assert files(target) == {"f": b"1", "l": b"@/abs"}

    def test_a_directory_becomes_the_target(self, repo: Repo, target: Path) -> None:
        entry = repo.lookup(tree(repo, a_f=b"1"), b"a")
        assert entry is not None
        check_out(repo, entry, target)
        assert files(target) == {"f": b"1"}
        assert target.stat().st_mode & 0o777 == 0o755

    def test_a_state_says_how_it_is_read(self, repo: Repo, target: Path) -> None:
        with pytest.raises(InvalidInputError, match=r"w is a state.*cas\.load"):
            checkout.plan(repo, Entry(b"w", EntryKind.STATE, ID, 1), target)

    def test_what_is_only_named_says_so(self, repo: Repo, target: Path) -> None:
        with pytest.raises(NotFoundError, match="only its fingerprint"):
            checkout.plan(repo, Entry(b"w", EntryKind.FILE, ID, 1, stored=False), target)


class TestExecute:
    def test_writes_bytes_bits_and_links(self, repo: Repo, tmp_path: Path, target: Path) -> None:
        source = tmp_path / "in"
        (source / "locked").mkdir(parents=True)
        (source / "locked" / "run").write_bytes(b"#!")
        (source / "locked" / "run").chmod(0o750)
        os.symlink("/etc", source / "locked" / "out")
        (source / "locked").chmod(0o555)
        (source / "none").write_bytes(b"")
        (source / "none").chmod(0)
        entry = transact(repo, "test", lambda t: ingest.add(t.writer, source))
        check_out(repo, entry, target)
        assert files(target) == files(source)
        for name in ("locked", "locked/run", "none"):
            assert (target / name).lstat().st_mode == (source / name).lstat().st_mode

    def test_the_umask_takes_nothing_away(self, repo: Repo, target: Path) -> None:
        stored = tree(repo, a_b=b"1")
        before = os.umask(0o077)
        try:
            check_out(repo, stored, target)
        finally:
            os.umask(before)
        assert (target / "a").stat().st_mode & 0o777 == 0o755
        assert (target / "a" / "b").stat().st_mode & 0o777 == 0o644

    def test_what_differs_is_refused_by_name_and_nothing_is_written(
        self, repo: Repo, target: Path
    ) -> None:
        stored = tree(repo, **dict.fromkeys("abcdef", b"1"))
        target.mkdir()
        for name in "bcdef":
            (target / name).write_bytes(b"mine")
        with pytest.raises(RefusedError) as caught:
            check_out(repo, stored, target)
        assert "b, c, d and 2 more" in str(caught.value)
        assert "--force" in str(caught.value)
        assert not (target / "a").exists()

    def test_force_overwrites_what_differs_and_leaves_the_rest(
        self, repo: Repo, target: Path
    ) -> None:
        stored = tree(repo, Entry.to_link(b"l", b"to"), a=b"1", b=b"2", d_e=b"3", f=b"4")
        target.mkdir()
        (target / "a").write_bytes(b"other")
        (target / "b").mkdir()
        (target / "d").write_bytes(b"a file where a folder goes")
        os.symlink("/nowhere", target / "f")
        (target / "l").write_bytes(b"a file where a link goes")
        (target / "mine").write_bytes(b"stays")
        check_out(repo, stored, target, force=True)
        assert files(target) == {
            "a": b"1", "b": b"2", "d": b"/", "d/e": b"3", "f": b"4", "l": b"@to", "mine": b"stays",
        }  # fmt: skip

    def test_force_writes_over_a_link_and_not_through_it(
        self, repo: Repo, target: Path, tmp_path: Path
    ) -> None:
        stored = tree(repo, a=b"1", d_e=b"2")
        target.mkdir()
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "e").write_bytes(b"precious")
        os.symlink("../precious/e", target / "a")
        os.symlink("../precious", target / "d")
        check_out(repo, stored, target, force=True)
        assert files(tmp_path / "precious") == {"e": b"precious"}
        assert files(target) == {"a": b"1", "d": b"/", "d/e": b"2"}

    def test_force_does_not_remove_a_folder_that_holds_something(
        self, repo: Repo, target: Path
    ) -> None:
        stored = tree(repo, a=b"1")
        (target / "a").mkdir(parents=True)
        (target / "a" / "mine").write_bytes(b"stays")
        with pytest.raises(RefusedError, match="not empty"):
            check_out(repo, stored, target, force=True)
        assert files(target) == {"a": b"/", "a/mine": b"stays"}

    def test_permission_bits_of_what_is_there_change_only_by_force(
        self, repo: Repo, target: Path
    ) -> None:
        stored = tree(repo, a=b"1", d_e=b"2")
        (target / "d").mkdir(parents=True, mode=0o700)
        (target / "a").write_bytes(b"1")
        (target / "a").chmod(0o600)
        planned = checkout.plan(repo, stored, target)
        assert planned.modes == (b"a", b"d")
        checkout.execute(repo, planned)
        assert (target / "a").stat().st_mode & 0o777 == 0o600
        assert (target / "d").stat().st_mode & 0o777 == 0o700
        check_out(repo, stored, target, force=True)
        assert (target / "a").stat().st_mode & 0o777 == 0o644
        assert (target / "d").stat().st_mode & 0o777 == 0o755

    def test_twice_is_once(self, repo: Repo, target: Path) -> None:
        stored = tree(repo, Entry.to_link(b"l", b"to"), a=b"1", d_e=b"2" * 900_000)
        check_out(repo, stored, target)
        before = {path: path.lstat() for path in target.rglob("*")}
        planned = checkout.plan(repo, stored, target)
        assert (planned.write, planned.conflicts, planned.size_bytes) == ((), (), 0)
        checkout.execute(repo, planned)
        after = {path: path.lstat() for path in target.rglob("*")}
        assert [state.st_ino for state in before.values()] == [s.st_ino for s in after.values()]
        assert [s.st_mtime_ns for s in before.values()] == [s.st_mtime_ns for s in after.values()]

    def test_the_target_may_be_a_link_that_the_user_made(self, repo: Repo, target: Path) -> None:
        real = target.parent / "real"
        real.mkdir()
        os.symlink("real", target)
        check_out(repo, tree(repo, a=b"1"), target)
        assert files(real) == {"a": b"1"}

    def test_a_target_that_leads_nowhere_is_named(self, repo: Repo, target: Path) -> None:
        os.symlink("nowhere", target)
        with pytest.raises(InvalidInputError, match="leads nowhere"):
            check_out(repo, tree(repo, a=b"1"), target)

    def test_what_appears_meanwhile_is_not_overwritten(self, repo: Repo, target: Path) -> None:
        stored = tree(repo, a=b"1", b=b"2")
        planned = checkout.plan(repo, stored, target)
        target.mkdir()
        (target / "b").write_bytes(b"mine")
        with pytest.raises(RefusedError, match=r"out/b: something is there"):
            checkout.execute(repo, planned)
        assert files(target) == {"a": b"1", "b": b"mine"}

    def test_progress_counts_the_bytes(self, repo: Repo, target: Path) -> None:
        class Counting(Silent):
            def __init__(self) -> None:
                self.total: int | None = None
                self.units = 0

            def start(self, what: str, total: int | None = None) -> None:
                self.total = total

            def advance(self, units: int = 1) -> None:
                self.units += units

        counting = Counting()
        planned = checkout.plan(repo, tree(repo, a=b"1" * 700_000, b=b""), target)
        checkout.execute(repo, planned, progress=counting)
        assert counting.total == counting.units == 700_000


class TestTrouble:
    def test_a_size_that_is_not_the_files_is_corruption(self, repo: Repo, target: Path) -> None:
        (good,) = repo.entries(tree(repo, a=b"12345"))
        lying = Entry(b"a", EntryKind.FILE, good.id, 4, 0o644)
        with pytest.raises(CorruptionError, match="5 bytes where its tree says 4"):
            check_out(repo, tree(repo, lying), target)
        assert files(target) == {}

    def test_a_full_disk_is_told_and_leaves_no_rest(
        self, repo: Repo, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = tree(repo, a=b"1" * 700_000)
        written: list[int] = []

        def full(fd: int, data: memoryview, offset: int) -> int:
            if written:
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(os.pwrite(fd, data[:1000], offset))
            return 1000

        planned = checkout.plan(repo, stored, target)
        with monkeypatch.context() as patch:
            patch.setattr(folder, "_write", full)
            with pytest.raises(StorageFullError, match=r"out/a: no space left"):
                checkout.execute(repo, planned)
        assert written
        assert os.listdir(target) == []

    def test_a_tree_of_too_many_entries_is_refused(self, repo: Repo, target: Path) -> None:
        inner = tree(repo, a=b"1")
        for _ in range(20):
            twice = [Entry(name, EntryKind.TREE, inner, 0, 0o755) for name in (b"x", b"y")]
            inner = tree(repo, *twice)
        with pytest.raises(InvalidInputError, match="more entries"):
            checkout.plan(repo, inner, target, max_entries=1000)

    def test_names_that_the_file_system_merges_are_found_out(
        self, repo: Repo, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What a file system that ignores case says when both names are to be made.
        stored = tree(repo, README=b"1", readme=b"2")
        planned = checkout.plan(repo, stored, target)
        monkeypatch.setattr(os, "link", _caseless(os.link))
        with pytest.raises(RefusedError, match="takes two names of the tree for one"):
            checkout.execute(repo, planned)
        assert files(target) == {"README": b"1"}

    def test_a_name_that_is_kept_differently_is_found_out(
        self, repo: Repo, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # HFS+ for instance takes letters and accents apart.
        planned = checkout.plan(repo, tree(repo, é=b"1"), target)
        monkeypatch.setattr(folder.Folder, "names", lambda _: {"e\u0301".encode()})
        with pytest.raises(InvalidInputError, match=r"out/é under another name"):
            checkout.execute(repo, planned)

    def test_a_file_system_without_links_is_written_all_the_same(
        self, repo: Repo, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        planned = checkout.plan(repo, tree(repo, a=b"1", b=b"2"), target)
        target.mkdir()
        monkeypatch.setattr(os, "link", refuse)
        (target / "b").write_bytes(b"mine")
        with pytest.raises(RefusedError):
            checkout.execute(repo, planned)
        assert files(target) == {"a": b"1", "b": b"mine"}

    def test_a_name_beyond_what_the_file_system_holds_is_told(
        self, repo: Repo, target: Path
    ) -> None:
        stored = tree(repo, **{"n" * 300: b"1"})
        with pytest.raises(InvalidInputError, match="cannot hold this name"):
            check_out(repo, stored, target)
        assert not target.exists() or files(target) == {}


def _caseless(link: object) -> object:
    made: set[bytes] = set()

    def caseless(source: bytes, name: bytes, **options: int) -> None:
        if name.lower() in made:
            raise FileExistsError(errno.EEXIST, "File exists", name)
        made.add(name.lower())
        link(source, name, **options)  # type: ignore[operator]

    return caseless


@pytest.fixture(autouse=True)
def _writable_afterwards(tmp_path: Path) -> Iterator[None]:
    """Let pytest remove folders that were checked out read-only."""
    yield
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
