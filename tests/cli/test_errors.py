"""Bad input and bad circumstances: one line, an exit code by category, no traceback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.cli.session import Session
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import commit_files, noise, pack_files, reopened, repository
from tests.support.faulty import Fault, FaultyOps


def test_not_a_repository(cas: Cas, place: Path) -> None:
    for command in ("log", "show", "status", "ls", "tag", "gc", "fsck"):
        result = cas(command)
        assert result.code == 3
        assert "cas init" in result.err


def test_unknown_and_ambiguous_revisions(cas: Cas, repo: Repo) -> None:
    first = commit_files(repo, {"a": b"1"}, ref="tags/main")
    second = commit_files(repo, {"a": b"2"})
    assert cas("show", "nope").code == 3
    result = cas("show", "main")
    assert result.code == 4
    assert "heads/main, tags/main" in result.err
    assert first != second


def test_an_unreadable_file(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "loop").symlink_to("loop")
    (place / "d").mkdir()
    result = cas("commit", "loop/x")
    assert result.code == 2
    assert "loop" in result.err


@pytest.mark.parametrize(("number", "code"), [(28, 10), (122, 10), (30, 11), (13, 11), (5, 9)])
def test_a_medium_that_fails_while_it_is_written(
    cas: Cas, repo: Repo, number: int, code: int
) -> None:
    commit_files(repo, {"a": b"1"})
    session = Session()
    session.repo = reopened(repo, FaultyOps(Fault(1, number, "open_new")))
    result = cas("tag", "v1", session=session)
    assert result.code == code
    assert result.err.count("\n") == 1
    assert cas("log", "HEAD").code == 0
    assert "tags/v1" not in repo.refresh().refs


def damage(path: Path, at: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def test_a_damaged_pack(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "x").write_bytes(noise(1, 2_000_000))
    cas("commit", "x")
    largest = max(pack_files(repo).items(), key=lambda item: item[1])[0]
    damage(repo.path / largest, 1_000_000)
    result = cas("cat", "HEAD:x")
    assert result.code == 7
    assert result.err.count("\n") == 1
    assert cas("log", "HEAD").code == 0
    assert cas("checkout", "HEAD", "--to", "out").code == 7
    assert not (place / "out" / "x").exists()


def test_a_damaged_root(cas: Cas, repo: Repo) -> None:
    commit_files(repo, {"a": b"1"})
    newest = max((repo.path / "roots").iterdir())
    damage(newest, -1)
    result = cas("log")
    assert result.code == 7
    assert "cas fsck" in result.err


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("cas repository\nversion 999\nrequires\nid 00\n", 8),
        (f"cas repository\nversion 1\nrequires teleport\nid {0:032x}\n", 8),
        ("something else\n", 7),
        ("", 7),
    ],
)
def test_a_newer_or_damaged_format(cas: Cas, repo: Repo, text: str, code: int) -> None:
    path = repo.path / "format"
    path.chmod(0o644)
    path.write_text(text)
    for command in ("log", "status", "fsck"):
        assert cas(command).code == code


@pytest.fixture
def sealed(place: Path) -> Iterator[Path]:
    """A folder with a repository that can be read but not written to."""
    repo = repository(place)
    commit_files(repo, {"a": b"1"}, payload={"x": b"data"})
    yield place
    for path in [place, *place.rglob("*")]:
        path.chmod(0o755)


# Without this capability root is held to permission bits too; others have none to drop.
OBEY = """
import ctypes, os, sys
if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0):
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "cas", *sys.argv[1:]])
"""


def on_read_only(folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on a repository where nothing may be written, whoever runs the tests."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", OBEY, *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("root without the right to give up its rights")
    return done


def test_reading_commands_work_on_a_repository_that_cannot_be_written_to(sealed: Path) -> None:
    for args in (["log", "HEAD"], ["show"], ["ls"], ["cat", "HEAD:x"], ["status"], ["tag"]):
        done = on_read_only(sealed, *args)
        assert (done.returncode, done.stderr) == (0, ""), args
    assert on_read_only(sealed, "cat", "HEAD:x").stdout == "data"


def test_writing_commands_say_that_it_cannot_be_written_to(sealed: Path) -> None:
    for args in (["tag", "v1"], ["commit", "."], ["config", "mode", "min"]):
        done = on_read_only(sealed, *args)
        assert done.returncode == 11, done.stderr
        assert done.stderr.startswith("cas: cannot write")
        assert done.stderr.count("\n") == 1


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    assert Session().who == f"uid4242424@{os.uname().nodename}"
