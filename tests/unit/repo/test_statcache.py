"""The stat cache: what is unchanged is not read, and what may have changed always is."""

import gc as python_gc
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cas.errors import CorruptionError, InvalidInputError
from cas.ids import TreeId, blob_id, tree_id
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind, TreeSummary
from cas.progress import Silent
from cas.repo.collect import gc
from cas.repo.layout import HOLDS
from cas.repo.person import Committed, Told, commit_paths
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest, statcache
from cas.repo.trees.ingest import Modes, add
from cas.repo.trees.statcache import (
    COARSE,
    NO_ID,
    SETTLED,
    TICK,
    Known,
    Notes,
    StatCache,
    file_row,
    key_of,
    parts,
    tree_of,
    tree_row,
)
from tests.support.builders import reopened, repository
from tests.support.stores import Shelf
from tests.unit.repo.test_ingest import listing

FINE = 5_000_000_000_000_001  # nanoseconds; not a whole millisecond
HOUR = 3_600_000_000_000


def later() -> int:
    """A clock by which every file of a test is old."""
    return time.time_ns() + HOUR


class Opened:
    """Which files and folders were opened, and how many names were looked at."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.folders = 0
        self.looks = 0

    def open(self, path: bytes, flags: int, *, dir_fd: int | None) -> int:
        if flags & os.O_DIRECTORY:
            self.folders += 1
        else:
            self.files.append(os.fsdecode(os.path.basename(path)))
        return os.open(path, flags, dir_fd=dir_fd)

    def stat(self, *args: Any, **options: Any) -> os.stat_result:
        self.looks += 1
        return os.stat(*args, **options)


class Bench:
    """A folder, a store and a cache file; `add` is what one process does."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shelf = Shelf()
        self.folder = place / "data"
        self.folder.mkdir()
        self.file = place / "repo" / "cache" / "statcache.db"
        self.file.parent.parent.mkdir()
        self.monkeypatch = monkeypatch
        self.opened = Opened()
        self.written = 0

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def cache(self, clock: Callable[[], int] = later) -> StatCache:
        return StatCache(self.file, clock=clock)

    def add(
        self, clock: Callable[[], int] = later, cache: StatCache | None = None, **options: Any
    ) -> Entry:
        """Add the folder, and note what was opened; the result is what adding it anew gives."""
        self.opened = Opened()
        path = options.pop("path", self.folder)
        with self.monkeypatch.context() as patch, cache or self.cache(clock) as used:
            patch.setattr(ingest, "_open", self.opened.open)
            patch.setattr(ingest, "_stat", self.opened.stat)
            writer = self.shelf.writer()
            entry = add(writer, path, cache=used, **options)
            self.written = writer.stored
            self.shelf.publish(writer)
            used.save()
        options.pop("progress", None)
        assert entry == add(Shelf().writer(), path, **options)
        return entry

    def read(self, *path: str) -> bytes:
        entry = add(Shelf().writer(), self.folder)
        found = listing(self.shelf.store, TreeId(entry.id))["/".join(path).encode()]
        return self.shelf.store.read(Kind.BLOB, found.id)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path, monkeypatch)
    for name in ("a", "b", "sub/c", "sub/deep/d"):
        bench.write(name, name.encode() * 100)
    return bench


class TestUnchanged:
    def test_a_tree_costs_one_look_a_name_and_opens_no_file(self, bench: Bench) -> None:
        os.symlink("a", bench.folder / "link")
        bench.add()
        assert sorted(bench.opened.files) == ["a", "b", "c", "d"]
        bench.add()
        assert (bench.opened.files, bench.opened.folders) == ([], 3)
        assert bench.opened.looks == 1 + 7  # the top, four files, two folders, one link
        assert bench.written == 0

    def test_one_changed_file_is_read_and_writes_the_nodes_above(self, bench: Bench) -> None:
        for number in range(300):
            bench.write(f"many/{number}", b"x" * number)
        bench.add()
        bench.write("sub/c", b"changed")
        bench.add()
        assert bench.opened.files == ["c"]
        assert bench.written < 1000
        bench.add()
        assert bench.opened.files == []

    def test_a_single_file_is_not_read_again(self, bench: Bench) -> None:
        path = bench.folder / "a"
        bench.add(path=path)
        bench.add(path=path)
        assert bench.opened.files == []
        path.write_bytes(b"other")
        bench.add(path=path)
        assert bench.opened.files == ["a"]

    def test_the_first_attempt_of_a_transaction_spares_the_second(self, bench: Bench) -> None:
        cache = bench.cache()
        writer = bench.shelf.writer()
        with cache:
            first = add(writer, bench.folder, cache=cache)
            bench.opened = Opened()
            bench.monkeypatch.setattr(ingest, "_open", bench.opened.open)
            assert add(writer, bench.folder, cache=cache) == first
            assert bench.opened.files == []
            writer.restart()  # as when what it wrote was condemned
            assert add(writer, bench.folder, cache=cache) == first
        assert sorted(bench.opened.files) == ["a", "b", "c", "d"]

    def test_what_was_not_saved_is_forgotten(self, bench: Bench) -> None:
        with bench.cache() as cache:
            add(bench.shelf.writer(), bench.folder, cache=cache)
        bench.add()
        assert len(bench.opened.files) == 4

    def test_much_that_is_learnt_does_not_wait_in_memory(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cas.repo.trees.statcache.PENDING", 200)
        with bench.cache() as cache:
            writer = bench.shelf.writer()
            add(writer, bench.folder, cache=cache)
            bench.shelf.publish(writer)
        bench.add()
        assert bench.opened.files == []


class TestChanged:
    """Each of these changes is seen: `Bench.add` compares with a walk that has no cache."""

    def test_a_file_of_the_same_size_with_its_old_time(self, bench: Bench) -> None:
        path = bench.folder / "a"
        bench.add()
        was = path.stat()
        path.write_bytes(b"b" * 100)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert path.stat().st_mtime_ns == was.st_mtime_ns
        bench.add()
        assert bench.opened.files == ["a"]
        assert bench.read("a") == b"b" * 100

    def test_a_file_that_took_the_place_of_another(self, bench: Bench) -> None:
        bench.add()
        was = (bench.folder / "a").stat()
        other = bench.write("../other", b"b" * 100)
        os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns - HOUR))
        other.rename(bench.folder / "a")
        bench.add()
        assert bench.opened.files == ["a"]

    def test_a_file_behind_another_name_of_it(self, bench: Bench) -> None:
        os.link(bench.folder / "a", bench.folder / "same")
        os.link(bench.folder / "a", bench.folder.parent / "outside")
        bench.add()
        (bench.folder.parent / "outside").write_bytes(b"b" * 100)
        bench.add()
        assert bench.opened.files == ["a", "same"]

    def test_names_that_changed_places(self, bench: Bench) -> None:
        bench.write("b", b"z" * 100)
        bench.add()
        (bench.folder / "a").rename(bench.folder / "x")
        (bench.folder / "b").rename(bench.folder / "a")
        (bench.folder / "x").rename(bench.folder / "b")
        bench.add()
        assert bench.read("a") == b"z" * 100

    def test_a_folder_that_changed_places(self, bench: Bench) -> None:
        bench.write("tub/c", b"other" * 20)
        bench.add()
        (bench.folder / "sub").rename(bench.folder / "x")
        (bench.folder / "tub").rename(bench.folder / "sub")
        bench.add()
        assert bench.read("sub", "c") == b"other" * 20

    def test_names_that_came_and_went(self, bench: Bench) -> None:
        bench.add()
        (bench.folder / "a").unlink()
        bench.write("0", b"new")
        bench.write("sub/zz", b"new")
        bench.add()
        assert bench.opened.files == ["zz", "0"]

    def test_bits_and_links(self, bench: Bench) -> None:
        os.symlink("a", bench.folder / "link")
        bench.add()
        (bench.folder / "a").chmod(0o711)
        (bench.folder / "sub").chmod(0o700)
        bench.add()
        (bench.folder / "link").unlink()
        os.symlink("b", bench.folder / "link")
        bench.add()
        assert bench.opened.files == []

    def test_a_file_that_became_a_folder(self, bench: Bench) -> None:
        bench.add()
        (bench.folder / "a").unlink()
        bench.write("a/inside", b"x")
        bench.add()
        assert bench.opened.files == ["inside"]

    def test_what_the_caller_wants_of_it(self, bench: Bench) -> None:
        (bench.folder / "a").chmod(0o600)
        bench.add()
        portable = bench.add(modes=Modes.PORTABLE)
        assert portable.id != bench.add().id
        assert bench.opened.files == []
        without = bench.add(ignore=lambda path: path == b"sub/deep")
        assert without.id != bench.add().id
        other = bench.add(ignore=lambda path: path.endswith(b"c"))
        assert other.id not in {without.id, portable.id}

    def test_a_pipe_is_found_also_where_all_was_known(self, bench: Bench) -> None:
        bench.add()
        os.mkfifo(bench.folder / "sub" / "queue")
        with pytest.raises(InvalidInputError, match="it is a pipe"):
            bench.add()


class TestTimes:
    """A file that may change and look the same is not trusted."""

    @staticmethod
    def stamp(path: Path) -> int:
        found = path.stat()
        return max(found.st_mtime_ns, found.st_ctime_ns)

    def test_a_file_as_new_as_the_look_is_read_again(self, bench: Bench) -> None:
        newest = max(self.stamp(path) for path in bench.folder.rglob("*") if path.is_file())
        for clock in (newest, newest, newest + TICK, newest + SETTLED + 1):
            bench.add(lambda clock=clock: clock)  # type: ignore[misc]
            assert "d" in bench.opened.files  # the one that was written last
        bench.add(lambda: newest + SETTLED + 2)
        assert bench.opened.files == []

    def test_a_time_to_come_is_never_trusted(self, bench: Bench) -> None:
        os.utime(bench.folder / "a", (4_000_000_000, 4_000_000_000))
        bench.add()
        bench.add()
        assert bench.opened.files == ["a"]

    def test_nothing_is_trusted_once_the_clock_is_set_back(self, bench: Bench) -> None:
        first = min(self.stamp(path) for path in bench.folder.rglob("*") if path.is_file())
        bench.add()
        bench.add(lambda: first - 1)
        assert sorted(bench.opened.files) == ["a", "b", "c", "d"]

    @pytest.mark.parametrize("seconds", [-1, 0, 1, 20_000_000_000])
    def test_odd_times_are_no_error(self, bench: Bench, seconds: int) -> None:
        try:
            os.utime(bench.folder / "a", (seconds, seconds))
        except OverflowError:
            pytest.skip("no such time here")
        bench.add()
        bench.add()
        assert bench.opened.files in ([], ["a"])

    @pytest.mark.parametrize("late", [False, True])
    def test_a_file_that_changes_while_it_is_read_is_read_again(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, late: bool
    ) -> None:
        path = bench.folder / "a"
        change = [lambda: path.write_bytes(b"z" * 100)]

        class Changing(Silent):
            reads = 0

            def advance(self, units: int = 1) -> None:
                self.reads += 1
                if late and self.reads == 3:  # after `d` and `c`
                    change.pop()()

        def opened(name: bytes, flags: int, *, dir_fd: int | None) -> int:
            if not late and name == b"a" and change:
                change.pop()()
            return os.open(name, flags, dir_fd=dir_fd)

        writer = bench.shelf.writer()
        with bench.cache() as cache, monkeypatch.context() as patch:
            patch.setattr(ingest, "_open", opened)
            add(writer, bench.folder, cache=cache, progress=Changing())
            bench.shelf.publish(writer)
            cache.save()
            known = cache.find(key_of(os.fsencode(bench.folder), "full"), later())
        # A change that came after the last look at the file shows in the next one.
        assert known
        assert (known.tree is None) != late
        bench.add()
        assert bench.opened.files == ["a"]
        assert bench.read("a") == b"z" * 100

    @pytest.mark.parametrize(
        ("size", "mtime", "ctime", "device", "margin"),
        [
            (100, FINE, FINE, 1, TICK),
            (100, FINE, FINE - 1, 1, COARSE),
            (600_000, FINE, FINE, 1, SETTLED),
            (100, FINE, FINE, 2, SETTLED),
            (0, FINE, FINE, 2, None),
            (0, FINE, FINE, 1, TICK),
            (100, -1, FINE, 1, None),
            (100, FINE - HOUR, FINE, 1, TICK),
            (100, FINE + HOUR, FINE, 1, TICK),
        ],
    )
    def test_how_old_is_old_enough(
        self, size: int, mtime: int, ctime: int, device: int, margin: int | None
    ) -> None:
        row = made_row(b"f", size, mtime, ctime, device)

        def trusted(began: int) -> bool:
            notes = Notes(began, {1})
            notes.add(row, b"i" * 32)
            return notes.known(b"key", row, TREE).tree is not None

        if margin is None:
            assert not trusted(FINE + 1000 * SETTLED)
        else:
            assert not trusted(max(mtime, ctime) + margin)
            assert trusted(max(mtime, ctime) + margin + 1)


class TestStore:
    def test_what_was_collected_is_read_and_stored_again(self, bench: Bench) -> None:
        bench.add()
        bench.shelf.packs.clear()
        bench.shelf.store.refresh()
        entry = bench.add()
        assert sorted(bench.opened.files) == ["a", "b", "c", "d"]
        assert set(listing(bench.shelf.store, TreeId(entry.id))) >= {b"a", b"sub/deep/d"}
        assert bench.read("sub", "c") == b"sub/c" * 100

    def test_a_tree_that_was_collected_is_made_of_files_that_were_not(self, bench: Bench) -> None:
        writer = bench.shelf.writer()
        for name in ("a", "b", "sub/c", "sub/deep/d"):
            writer.blob(name.encode() * 100)
        bench.shelf.publish(writer)
        kept = list(bench.shelf.packs)
        bench.add()
        bench.shelf.packs[:] = kept
        bench.shelf.store.refresh()
        entry = bench.add()
        assert bench.opened.files == []
        assert set(listing(bench.shelf.store, TreeId(entry.id))) >= {b"a", b"sub/deep/d"}

    def test_a_tree_vouches_for_nothing_where_something_was_lost(self, bench: Bench) -> None:
        writer = bench.shelf.writer()
        for name in ("b", "sub/c", "sub/deep/d"):
            writer.blob(name.encode() * 100)
        bench.shelf.publish(writer)
        kept = list(bench.shelf.packs)
        writer = bench.shelf.writer()
        writer.blob(b"a" * 100)
        (lost,) = bench.shelf.publish(writer)
        assert lost not in kept
        bench.add()
        bench.shelf.packs.remove(lost)
        bench.shelf.store.refresh()
        bench.add(cache=StatCache(bench.file, clock=later, complete=lambda: False))
        assert bench.opened.files == ["a"]
        assert bench.read("a") == b"a" * 100

    @pytest.mark.parametrize("damage", ["gone", "garbage", "other value"])
    def test_a_cache_that_is_damaged_costs_time_alone(self, bench: Bench, damage: str) -> None:
        bench.add()
        if damage == "gone":
            bench.file.unlink()
        elif damage == "garbage":
            bench.file.write_bytes(b"x" * 10_000)
        else:
            swap_values(bench)
        bench.add()
        assert len(bench.opened.files) == 4
        bench.add()
        bench.add()
        assert bench.opened.files == []


def swap_values(bench: Bench) -> None:
    """Give each key the value of another, whole and sound."""
    import sqlite3

    file = sqlite3.connect(bench.file)
    with file:
        rows = file.execute("SELECT key, value FROM items ORDER BY key").fetchall()
        values = [value for _, value in rows]
        swapped = zip([key for key, _ in rows], values[1:] + values[:1], strict=True)
        file.executemany("INSERT OR REPLACE INTO items VALUES (?, ?)", swapped)
    file.close()


def made_row(name: bytes, size: int, mtime: int, ctime: int, device: int) -> bytes:
    found = SimpleNamespace(
        st_mode=0o100644,
        st_size=size,
        st_mtime_ns=mtime,
        st_ctime_ns=ctime,
        st_ino=7,
        st_dev=device,
    )
    return file_row(name, cast("os.stat_result", found))


TREE = TreeSummary(tree_id(b""), 5, 1)


class TestForm:
    KEY = key_of(b"/a", "full")

    ROWS = b"a\0" + bytes(44) + b"b\0" + bytes(44)

    @pytest.fixture
    def known(self) -> Known:
        return Known.of(self.KEY, self.ROWS, blob_id(b"a") + NO_ID, 2, replace(TREE, count=2))

    @pytest.mark.parametrize("tree", [None, replace(TREE, count=2)])
    def test_it_comes_back(self, tree: TreeSummary | None) -> None:
        known = Known.of(self.KEY, self.ROWS, blob_id(b"a") + NO_ID, 2, tree)
        again = Known.from_bytes(self.KEY, known.raw)
        assert again == known
        assert (again.newest, again.tree) == (2, tree)
        assert list(again.ids_of(self.ROWS)) == [blob_id(b"a"), NO_ID]

    def test_it_is_still_the_same_with_equal_rows_alone(self, known: Known) -> None:
        assert known.is_still(self.ROWS)
        assert not known.is_still(self.ROWS[46:])
        assert not known.is_still(self.ROWS[:46])
        assert not known.is_still(NO_ID + self.ROWS)
        assert not known.is_still(self.ROWS[:-1] + b"x")
        assert not known.is_still(b"")

    def test_every_changed_byte_is_found_out(self, known: Known) -> None:
        raw = known.raw
        for at in range(len(raw)):
            changed = bytearray(raw)
            changed[at] ^= 1
            with pytest.raises(CorruptionError):
                Known.from_bytes(self.KEY, bytes(changed))
        for end in range(len(raw)):
            with pytest.raises(CorruptionError):
                Known.from_bytes(self.KEY, raw[:end])

    def test_a_value_belongs_to_its_key(self, known: Known) -> None:
        with pytest.raises(CorruptionError):
            Known.from_bytes(key_of(b"/a", "portable"), known.raw)

    def test_rows_say_what_they_were_made_of(self) -> None:
        assert parts(made_row(b"a\n", 5, 1, 2, 3)) == (b"a\n", 0o100644, 5)
        row = tree_row(b"b", 0o40755, TREE)
        assert (parts(row), tree_of(row)) == ((b"b", 0o40755, 5), TREE.id)

    def test_whatever_stat_says_anew_makes_another_row(self) -> None:
        fields = ["st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev"]
        found = SimpleNamespace(**dict.fromkeys(fields, 7))
        first = file_row(b"a", cast("os.stat_result", found))
        for field in fields:
            changed = SimpleNamespace(**vars(found) | {field: 8})
            assert file_row(b"a", cast("os.stat_result", changed)) != first

    def test_rows_sort_as_names_do(self) -> None:
        names = sorted([b"a", b"a-", b"a.b", b"aa", b"a\x01", b"\xff", b"A"])
        rows = [made_row(name, 2**40, 1, 2, 3) for name in names]
        assert sorted(rows) == rows

    def test_ids_are_found_whatever_came_and_went_between(self) -> None:
        def rows(names: str) -> bytes:
            return b"".join(made_row(name.encode(), 1, 1, 1, 1) for name in names)

        ids = b"".join(name.encode() * 32 for name in "bdfh")
        known = Known.of(self.KEY, rows("bdfh"), ids, 1, None)
        asked = rows("abcd") + made_row(b"f", 9, 1, 1, 1) + rows("hz")
        found = [id[:1].strip(b"\0").decode() or "-" for id in known.ids_of(asked)]
        assert "".join(found) == "-b-d-h-"
        assert list(known.ids_of(b"")) == []


class TestCommit:
    def commit(self, bench: Bench, repo: Repo) -> Committed:
        """Commit the folder; every file has been old for an hour."""
        bench.opened = Opened()
        with bench.monkeypatch.context() as patch:
            patch.setattr(ingest, "_open", bench.opened.open)
            patch.setattr(statcache, "_kernel_time", later)
            return commit_paths(repo, [bench.folder], bench.folder, Told("ada"))

    def test_a_commit_teaches_the_next_one(self, bench: Bench, tmp_path: Path) -> None:
        repo = repository(tmp_path / "project")
        first = self.commit(bench, repo)
        assert len(bench.opened.files) == 4
        second = self.commit(bench, reopened(repo))
        assert bench.opened.files == []
        payload = repo.commit(first.id).payload
        assert payload == repo.commit(second.id).payload is not None
        assert (second.given_bytes, second.previous) == (first.given_bytes, first.id)

    def test_a_commit_that_fails_teaches_nothing(self, bench: Bench, tmp_path: Path) -> None:
        repo = repository(tmp_path / "project")
        queue = bench.folder / "z"
        os.mkfifo(queue)
        with pytest.raises(InvalidInputError):
            self.commit(bench, repo)
        queue.unlink()
        self.commit(bench, repo)
        assert len(bench.opened.files) == 4

    def test_after_prune_and_gc_everything_is_stored_again(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        repo = repository(tmp_path / "project")
        first = self.commit(bench, repo)
        payload = repo.commit(first.id).payload
        assert payload is not None

        def let_go(tx: Transaction) -> None:
            tx.set_ref(f"{HOLDS}{first.id}", None)

        transact(repo, "prune", let_go)
        gc.execute(repo, gc.plan(repo))
        assert repo.store.find(payload) is None
        again = self.commit(bench, reopened(repo))
        assert len(bench.opened.files) == 4
        repo = reopened(repo)
        assert repo.commit(again.id).payload == payload
        for name in ("a", "sub/deep/d"):
            entry = repo.lookup(payload, name.encode())
            assert entry
            assert repo.store.read(Kind.BLOB, entry.id) == name.encode() * 100


def test_the_kind_of_what_is_named_is_kept(bench: Bench) -> None:
    assert bench.add().kind is EntryKind.TREE
    assert bench.add(path=bench.folder / "a").kind is EntryKind.FILE


def test_no_file_stays_open(bench: Bench) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    python_gc.collect()  # what other tests have left open is not ours
    before = len(os.listdir("/proc/self/fd"))
    bench.add()
    bench.write("sub/c", b"changed")
    bench.add()
    os.mkfifo(bench.folder / "sub" / "deep" / "queue")
    with pytest.raises(InvalidInputError):
        bench.add()
    assert len(os.listdir("/proc/self/fd")) <= before
