"""A cache file saves time or does nothing; it never fails and never keeps what is damaged."""

import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from cas.repo import cachefile
from cas.repo.cachefile import CacheFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "test.db"


def kept(path: Path, key: bytes = b"k") -> bytes | None:
    """What a process that comes later finds."""
    file = CacheFile(path)
    try:
        return file.get(key)
    finally:
        file.close()


def keep(path: Path, values: dict[bytes, bytes]) -> None:
    file = CacheFile(path)
    file.put(values)
    file.close()


def test_what_was_put_is_found_by_the_next_process(path: Path) -> None:
    assert kept(path) is None
    keep(path, {b"k": b"1", b"other": b"\0\xff"})
    assert (kept(path), kept(path, b"other"), kept(path, b"none")) == (b"1", b"\0\xff", None)
    keep(path, {b"k": b"2"})
    assert (kept(path), kept(path, b"other")) == (b"2", b"\0\xff")


def test_two_processes_may_have_it_open(path: Path) -> None:
    one, two = CacheFile(path), CacheFile(path)
    assert one.get(b"k") is two.get(b"k") is None
    one.put({b"k": b"1"})
    two.put({b"j": b"2"})
    assert (one.get(b"j"), two.get(b"k")) == (b"2", b"1")
    one.close()
    two.close()


def test_while_another_process_writes_nothing_is_found_and_nothing_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cachefile, "WAIT", 0.01)
    keep(path, {b"k": b"1"})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    file = CacheFile(path)
    assert file.get(b"k") is None
    file.put({b"k": b"2"})
    file.close()
    other.execute("COMMIT")
    other.close()
    assert kept(path) == b"1"


@pytest.mark.parametrize(
    "content",
    [b"no database", b"SQLite format 3\0" + bytes(84), b"SQLite format 3\0" + b"x" * 5000],
)
def test_what_is_no_database_is_begun_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    kept(path)
    keep(path, {b"k": b"1"})
    assert kept(path) == b"1"


def test_damage_in_the_middle_is_no_error(path: Path) -> None:
    keep(path, {bytes([n]): bytes([n]) * 9000 for n in range(50)})
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 4096):
        raw[at : at + 16] = b"\xff" * 16
    path.write_bytes(raw)
    for n in range(50):
        kept(path, bytes([n]))
    keep(path, {b"k": b"1"})
    keep(path, {b"k": b"1"})
    assert kept(path) == b"1"


def test_another_version_is_begun_anew(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE items (something, else_)")
    other.execute("PRAGMA user_version = 7")
    other.close()
    keep(path, {b"k": b"1"})
    assert kept(path) == b"1"


def test_a_file_that_has_grown_too_large_is_begun_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(path, {b"k": bytes(100_000)})
    monkeypatch.setattr(cachefile, "MAX_BYTES", 50_000)
    assert kept(path) is None
    assert path.stat().st_size < 50_000


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file in the place of the folder")
    keep(tmp_path / "cache" / "test.db", {b"k": b"1"})
    assert kept(tmp_path / "cache" / "test.db") is None
    assert (tmp_path / "cache").read_bytes() == b"a file in the place of the folder"
    keep(tmp_path / "no" / "such" / "folder.db", {b"k": b"1"})
    assert not (tmp_path / "no").exists()


def test_python_without_sqlite_goes_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    keep(path, {b"k": b"1"})
    assert kept(path) is None
    assert not path.exists()


def test_a_value_of_another_type_is_none(path: Path) -> None:
    keep(path, {b"k": b"1"})
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE items SET value = 'text'")
    other.close()
    assert kept(path) is None


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o770, 0o660), (0o700, 0o600)])
def test_the_file_has_the_rights_of_the_folder(path: Path, folder: int, file: int) -> None:
    path.parent.parent.chmod(folder)
    keep(path, {b"k": b"1"})
    assert stat.S_IMODE(path.stat().st_mode) == file
    assert stat.S_IMODE(path.parent.stat().st_mode) == folder
