"""Captured code that has not changed is not read again; what may hold a secret always is."""

import ast
import importlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cas.objects.kind import Kind
from cas.objects.tree import EntryKind
from cas.repo.trees.statcache import StatCache
from cas.tracking.captured import codefiles
from cas.tracking.captured.codefiles import CodeFiles
from cas.tracking.captured.source import LINK, Source, SourceFile, capture_source, read_clean
from cas.tracking.privacy import redaction
from cas.tracking.privacy.redaction import Redaction
from cas.tracking.privacy.secrets import REMOVED, Taken
from tests.support.stores import Shelf

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
HOUR = 3_600_000_000_000
Contents = dict[bytes, tuple[int, bytes]]


def later() -> int:
    """A clock by which every file of a test is old."""
    return time.time_ns() + HOUR


class Bench:
    """A project, a store and a cache; `store` is what one start of a run does."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shelf = Shelf()
        self.folder = place / "project"
        self.folder.mkdir()
        self.file = place / "repo" / "cache" / "statcache.db"
        self.file.parent.parent.mkdir()
        self.read: list[bytes] = []
        self.taken: dict[bytes, list[Taken]] = {}
        self.during: Callable[[SourceFile], object] = lambda _: None
        monkeypatch.setattr(codefiles, "read_clean", self._read)
        for name, text in (("train.py", "print(1)\n"), ("lib/a.py", "a = 1\n"), ("x.sh", "ls\n")):
            self.write(name, text)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def source(self) -> Source:
        return capture_source(self.folder / "train.py", self.folder)

    def store(self, source: Source | None = None, clock: Callable[[], int] = later) -> Contents:
        """Store the code; return the mode and the bytes of each file, and the target of links."""
        self.read = []
        with StatCache(self.file, clock=clock) as cache:
            writer = self.shelf.writer()
            files = CodeFiles(writer, cache)
            files.store(source or self.source())
            self.shelf.publish(writer)
            cache.save()
        self.taken = files.taken
        found = {}
        for path, entry in files.entries:
            if entry.kind is EntryKind.LINK:
                found[path] = (0, entry.link or b"")
            else:
                data = self.shelf.store.read(Kind.BLOB, entry.id)
                assert len(data) == entry.size
                found[path] = (entry.mode, data)
        return found

    def _read(self, file: SourceFile) -> tuple[bytes, list[Taken]]:
        self.read.append(file.path)
        found = read_clean(file)
        self.during(file)
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield Bench(tmp_path, monkeypatch)
    redaction.use(Redaction())


def test_what_is_as_it_was_is_not_read_again(bench: Bench) -> None:
    (bench.folder / "link.py").symlink_to("train.py")
    (bench.folder / "x.sh").chmod(0o755)
    first = bench.store()
    assert first == {
        b"lib/a.py": (0o644, b"a = 1\n"),
        b"link.py": (0, b"train.py"),
        b"train.py": (0o644, b"print(1)\n"),
        b"x.sh": (0o755, b"ls\n"),
    }
    assert bench.read == [b"lib/a.py", b"train.py", b"x.sh"]
    assert bench.store() == first
    assert bench.read == []
    bench.write("lib/a.py", "a = 22\n")
    bench.write("lib/b.py", "b = 1\n")
    (bench.folder / "train.py").unlink()
    second = bench.store(capture_source(bench.folder / "x.sh", bench.folder))
    assert bench.read == [b"lib/a.py", b"lib/b.py"]
    assert second[b"lib/a.py"] == (0o644, b"a = 22\n")
    assert b"train.py" not in second
    bench.store(capture_source(bench.folder / "x.sh", bench.folder))
    assert bench.read == []


def test_a_file_with_a_secret_is_filtered_and_told_each_time(bench: Bench) -> None:
    bench.write("lib/a.py", f'token = "{TOKEN}"\n')
    for _ in range(2):
        found = bench.store()
        assert found[b"lib/a.py"][1] == f'token = "{REMOVED}"\n'.encode()
        assert [one.kind for one in bench.taken[b"lib/a.py"]] == ["GitHub token"]
        assert b"lib/a.py" in bench.read
    assert bench.read == [b"lib/a.py"]


def test_a_secret_as_long_as_what_stands_for_it_is_told_each_time(bench: Bench) -> None:
    redaction.use(Redaction(names=("badge",)))
    bench.write("lib/a.py", f"badge = '{'x' * len(REMOVED)}'\n")
    for _ in range(2):
        assert bench.store()[b"lib/a.py"][1] == f"badge = '{REMOVED}'\n".encode()
        assert len(bench.taken[b"lib/a.py"]) == 1


def test_other_rules_and_another_filter_look_at_everything_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("lib/a.py", "badge = 'room-17-of-ours'\nmail = 'ada@example.org'\n")
    bench.store()
    redaction.use(Redaction(names=("badge",), pii=("email",)))
    found = bench.store()
    assert len(bench.read) == 3
    assert found[b"lib/a.py"][1].count(REMOVED.encode()) == 2
    redaction.use(Redaction())
    bench.store()
    assert bench.read == []  # by these rules it is as it was
    monkeypatch.setattr(codefiles, "_source_of_filter", lambda: b"another")
    bench.store()
    assert len(bench.read) == 3


def test_a_filter_whose_code_cannot_be_read_lets_nothing_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codefiles, "FILTER", (pytest,))
    monkeypatch.setattr(pytest, "__file__", "/nowhere/pytest.py")
    for _ in range(2):
        codefiles._source_of_filter.cache_clear()  # as in another process
        bench.store()
        assert len(bench.read) == 3
    codefiles._source_of_filter.cache_clear()


def test_a_file_that_changes_while_it_is_read_is_read_again(bench: Bench) -> None:
    def change(file: SourceFile) -> None:
        if file.path == b"train.py":
            bench.write("train.py", "print(2)\n")  # of the same size

    bench.during = change
    assert bench.store()[b"train.py"][1] == b"print(1)\n"
    bench.during = lambda _: None
    assert bench.store()[b"train.py"][1] == b"print(2)\n"
    assert bench.read == [b"train.py"]


def test_a_file_that_is_another_one_after_it_was_read_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    row_of = codefiles._row

    def row(file: SourceFile) -> bytes | None:
        seen.append(file.path)
        found = row_of(file)
        return found and (found if seen.count(file.path) == 1 else b"another")

    with monkeypatch.context() as patch:
        patch.setattr(codefiles, "_row", row)
        bench.store()
    bench.store()
    assert len(bench.read) == 3


def test_a_file_that_was_not_read_to_its_end_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(codefiles, "read_clean", lambda file: read_clean(file, limit=2))
        assert bench.store()[b"x.sh"][1] == b"ls"
    assert bench.store()[b"x.sh"][1] == b"ls\n"


def test_a_file_that_is_as_new_as_the_look_is_read_again(bench: Bench) -> None:
    for _ in range(2):
        bench.store(clock=lambda: (bench.folder / "x.sh").stat().st_mtime_ns + 1000)
        assert b"x.sh" in bench.read


def test_what_the_store_has_lost_is_read_again(bench: Bench) -> None:
    first = bench.store()
    bench.shelf = Shelf()
    assert bench.store() == first
    assert len(bench.read) == 3


def test_what_went_away_since_it_was_listed_is_left_out(bench: Bench) -> None:
    source = bench.source()
    (bench.folder / "x.sh").unlink()
    os.mkfifo(bench.folder / "x.sh")
    bench.during = lambda _: (bench.folder / "train.py").unlink(missing_ok=True)
    assert list(bench.store(source)) == [b"lib/a.py"]
    assert bench.read == [b"lib/a.py", b"train.py"]
    gone = SourceFile(b"gone", bench.folder / "gone", LINK, 0, 1)
    assert bench.store(Source(bench.folder, ".", (gone,))) == {}


def test_the_filter_is_named_by_all_of_its_code() -> None:
    wanted, todo = set(), ["cas.tracking.privacy.secrets"]
    while todo:
        name = todo.pop()
        wanted.add(name)
        tree = ast.parse(Path(importlib.import_module(name).__file__ or "").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cas.tracking"):
                inner = (
                    [f"{node.module}.{one.name}" for one in node.names]
                    if node.module == "cas.tracking.privacy"
                    else [str(node.module)]
                )
                todo += [one for one in inner if one not in wanted]
    assert {module.__name__ for module in codefiles.FILTER} == wanted
