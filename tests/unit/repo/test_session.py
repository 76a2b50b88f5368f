"""A session lasts as long as its process, whatever becomes of that."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cas.backend.files import FileOps, is_locked
from cas.errors import BackendError, ReadOnlyError
from cas.repo.session import Session, others
from tests.support.faulty import Fault, FaultyOps

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
    with pytest.raises(ReadOnlyError, match=r"cannot write to .* not a folder"):
        Session.open(tmp_path / "file", "mine", "a commit")


@pytest.mark.parametrize("operation", ["open_new", "write", "lock", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_a_session_that_cannot_begin_leaves_nothing_behind(
    folder: Path, operation: str, code: int
) -> None:
    ops = FaultyOps(*(Fault(at, code, operation) for at in (1, 2)))
    with pytest.raises(BackendError, match="cannot write"):
        Session.open(folder, "mine", "a commit", ops=ops)
    assert sorted(ops.opened.values()) == []
    assert list(others(folder, "another")) == []


def test_work_that_is_done_does_not_fail_with_its_session(folder: Path) -> None:
    ops = FaultyOps(Fault(1, errno.EROFS, "unlink"), Fault(1, errno.EIO, "close"))
    with Session.open(folder, "mine", "a commit", ops=ops):
        pass
    assert len(ops.happened) == 2
    assert list(others(folder, "another")) == []
    assert list(folder.iterdir()) == []


def test_where_there_are_no_locks_every_session_counts(folder: Path) -> None:
    ops = FaultyOps(*(Fault(at, errno.ENOLCK, "lock") for at in (1, 2)))
    with Session.open(folder, "mine", "a commit", ops=ops):
        assert len(list(others(folder, "another", ops=ops))) == 1


def test_it_has_the_group_and_mode_of_the_repository(folder: Path) -> None:
    folder.parent.chmod(0o2770)
    before = os.umask(0o077)
    try:
        with Session.open(folder, "mine", "a commit"):
            assert (folder / "mine").stat().st_mode & 0o777 == 0o660
            assert folder.stat().st_mode & 0o7777 == 0o2770
    finally:
        os.umask(before)


def test_nobody_finds_it_unlocked_or_closed_to_the_group(folder: Path) -> None:
    seen: list[tuple[int, bool | None]] = []

    class Seeing(FileOps):
        def rename(self, old: str, new: str) -> None:
            fd = os.open(old, os.O_RDONLY)
            seen.append((os.fstat(fd).st_mode & 0o777, is_locked(FileOps(), fd)))
            os.close(fd)
            super().rename(old, new)

    folder.parent.chmod(0o2770)
    before = os.umask(0o077)
    try:
        Session.open(folder, "mine", "a commit", ops=Seeing()).close()
    finally:
        os.umask(before)
    assert seen[-1] == (0o660, True)
