"""A session lasts as long as its process, whatever becomes of that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cas.errors import ReadOnlyError
from cas.repo.session import Session, others

HOLD = """
import sys
from pathlib import Path
from cas.repo.session import Session
session = Session.open(Path(sys.argv[1]), "theirs", "a long commit")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def test_others_are_seen_and_the_own_is_not(folder: Path) -> None:
    with Session.open(folder, "mine", "a commit"):
        assert list(others(folder, "mine")) == []
        (told,) = others(folder, "another")
        assert told.startswith(f"a commit by process {os.getpid()} on ")
    assert list(others(folder, "another")) == []
    assert list(folder.iterdir()) == []


def test_a_process_that_dies_leaves_no_session(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert [told.split(" by ")[0] for told in others(folder, "mine")] == ["a long commit"]
        process.kill()
    assert (folder / "theirs").exists()
    assert list(others(folder, "mine")) == []
    assert not (folder / "theirs").exists()


def test_no_folder_is_no_session(folder: Path) -> None:
    assert list(others(folder, "mine")) == []


def test_where_it_is_not_allowed_to_write_it_says_whom_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cas.repo.session._locked", denied)
    with pytest.raises(ReadOnlyError, match="ask its owner for write permission"):
        Session.open(tmp_path / "sessions", "mine", "a commit")


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReadOnlyError, match="cannot write to"):
        Session.open(tmp_path / "file", "mine", "a commit")
