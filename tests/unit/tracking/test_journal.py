"""The journal survives its run, and says whether the run lives."""

import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cas.backend.files import FileOps
from cas.errors import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    TrackingError,
    UnsupportedError,
)
from cas.ids import Buffer
from cas.tracking.captured.environment import HostInfo
from cas.tracking.ends.liveness import claimed, is_locked, recoverable
from cas.tracking.journals import journal as module
from cas.tracking.journals.journal import Header, read_journal
from cas.tracking.journals.journalwriter import JournalWriter
from cas.tracking.numbers.metrics import MetricLog

HEADER = Header("exp/brave-otter", "runs/exp/brave-otter", b"u" * 16, "here", "boot", "ns", 7, 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals" / "one"


def test_frames_come_back_with_their_positions(path: Path) -> None:
    writer = JournalWriter.create(path, HEADER)
    first = writer.append([{"t": "a"}, {"t": "b", "n": 1.5}])
    last = writer.append([{"t": "c"}])
    journal = read_journal(path)
    assert journal.header == HEADER
    assert journal.frames == ({"t": "a"}, {"t": "b", "n": 1.5}, {"t": "c"})
    assert journal.positions[1:] == (first, last)
    assert last == path.stat().st_size == writer.position
    assert not journal.torn
    assert journal.after(first) == ({"t": "c"},)
    assert [entry.name for entry in path.parent.iterdir()] == ["one"]
    writer.close()


@pytest.mark.parametrize("cut", [1, 5, 13])
def test_a_torn_end_is_left_out(path: Path, cut: int) -> None:
    writer = JournalWriter.create(path, HEADER)
    whole = writer.append([{"t": "a"}])
    writer.append([{"t": "torn"}])
    writer.close()
    os.truncate(path, path.stat().st_size - cut)
    journal = read_journal(path)
    assert journal.torn
    assert (journal.frames, journal.positions) == (({"t": "a"},), (whole,))


def test_reading_stops_at_a_damaged_frame_and_at_a_forged_length(path: Path) -> None:
    writer = JournalWriter.create(path, HEADER)
    start = writer.position
    writer.append([{"t": "a"}, {"t": "b"}])
    writer.close()
    raw = bytearray(path.read_bytes())
    raw[start + 14] ^= 1
    path.write_bytes(raw)
    assert read_journal(path).frames == ()
    raw[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    assert read_journal(path).torn


def test_a_newer_journal_is_refused_and_what_is_none_is_corruption(path: Path) -> None:
    path.parent.mkdir()
    with pytest.raises(NotFoundError):
        read_journal(path)
    for content in (b"", b"hello", module.to_frame([1]), module.to_frame({"v": 1, "run": "x"})):
        path.write_bytes(content)
        with pytest.raises(CorruptionError):
            read_journal(path)
    path.write_bytes(module.to_frame({"v": 2, "what": "ever"}) + module.to_frame("new"))
    with pytest.raises(UnsupportedError):
        read_journal(path)


def test_the_lock_lives_as_long_as_the_writer(path: Path) -> None:
    assert not is_locked(path)
    writer = JournalWriter.create(path, HEADER)
    assert is_locked(path)
    with claimed(path) as mine:
        assert not mine
    writer.close()
    assert not is_locked(path)
    with claimed(path) as mine:
        assert mine
        assert is_locked(path)
        with claimed(path) as second:
            assert not second
    with claimed(path.with_name("nowhere")) as mine:
        assert not mine


def test_the_lock_ends_with_the_process(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.unit.tracking.test_journal import *\n"
        "path = Path(sys.argv[1]); JournalWriter.create(path, HEADER).append([{'t': 'a'}])\n"
        "os._exit(0 if is_locked(path) else 1)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert not is_locked(path)
    assert read_journal(path).frames == ({"t": "a"},)


def test_a_path_is_taken_once(path: Path) -> None:
    JournalWriter.create(path, HEADER).close()
    before = path.read_bytes()
    with pytest.raises(ConflictError):
        JournalWriter.create(path, replace(HEADER, pid=8))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["one"]


def test_a_closed_journal_refuses_and_a_needless_one_goes(path: Path) -> None:
    writer = JournalWriter.create(path, HEADER)
    writer.close(delete=True)
    writer.close()
    assert not path.exists()
    with pytest.raises(TrackingError):
        writer.append([{"t": "a"}])


def test_a_forked_child_has_no_journal_and_leaves_the_parents(path: Path) -> None:
    writer = JournalWriter.create(path, HEADER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads may be running
        child = os.fork()
    if child == 0:
        refused = 1
        try:
            writer.append([{"t": "child"}])
        except TrackingError:
            writer.close(delete=True)
            refused = 0
        finally:
            os._exit(refused)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert is_locked(path)
    writer.append([{"t": "parent"}])
    assert read_journal(path).frames == ({"t": "parent"},)
    writer.close()


class Small(FileOps):
    """A disk on which there is only so much room."""

    room: int | None = None

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        if self.room is None:
            return super().write(fd, buffers)
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = super().write(fd, [memoryview(buffers[0])[: self.room]])
        self.room -= done
        return done


def test_a_write_that_fails_halfway_leaves_nothing(path: Path) -> None:
    ops = Small()
    writer = JournalWriter.create(path, HEADER, ops=ops)
    ops.room = 20
    with pytest.raises(StorageFullError):
        writer.append([{"t": "a" * 100}])
    assert ops.room == 0
    ops.room = None
    writer.append([{"t": "b"}])
    assert read_journal(path).frames == ({"t": "b"},)
    writer.close()


def test_without_locks_a_run_is_taken_to_live(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lockless(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", lockless)
    writer = JournalWriter.create(path, HEADER)
    assert is_locked(path)
    writer.close()


HERE = HostInfo("here", "boot", "ns")


@pytest.mark.parametrize(
    ("here", "locked", "answer"),
    [
        (HERE, False, True),
        (HERE, True, False),
        (replace(HERE, pidns="other"), False, False),
        (replace(HERE, boot="later"), False, True),
        (replace(HERE, boot="later", pidns="other"), False, True),
        (replace(HERE, boot="later"), True, False),
        (replace(HERE, host="there"), False, False),
        (replace(HERE, boot=""), False, False),
    ],
)
def test_only_what_is_surely_dead_is_recovered(here: HostInfo, locked: bool, answer: bool) -> None:
    assert recoverable(HEADER, locked=locked, here=here) is answer


def test_a_host_without_a_name_proves_nothing() -> None:
    nameless = replace(HEADER, host="")
    assert not recoverable(nameless, locked=False, here=replace(HERE, host=""))


def test_a_header_is_checked() -> None:
    with pytest.raises(InvalidInputError):
        replace(HEADER, uid=b"short")
    with pytest.raises(InvalidInputError):
        replace(HEADER, pid="7")  # type: ignore[arg-type]


@pytest.fixture
def three(path: Path) -> list[bytes]:
    """The header and three frames of equal length, as they stand in a journal."""
    path.parent.mkdir(exist_ok=True)
    raw = module.to_frame(HEADER.to_value())
    parts = [raw]
    for number in range(3):
        parts.append(module.placed([{"t": "params", "params": {"n": number}}], len(raw)))
        raw += parts[-1]
    path.write_bytes(raw)
    assert len(read_journal(path).frames) == 3
    return parts


@pytest.mark.parametrize("gone", [1, 2])
def test_a_frame_that_is_gone_ends_the_journal_there(
    path: Path, three: list[bytes], gone: int
) -> None:
    path.write_bytes(b"".join(part for number, part in enumerate(three) if number != gone))
    journal = read_journal(path)
    assert journal.torn
    assert [frame["params"]["n"] for frame in journal.frames] == list(range(gone - 1))


@pytest.mark.parametrize(
    ("order", "read"),
    [((0, 2, 1, 3), []), ((0, 1, 1, 2, 3), [0]), ((0, 1, 3, 2), [0]), ((0, 1, 2, 2), [0, 1])],
)
def test_frames_that_stand_elsewhere_end_it(
    path: Path, three: list[bytes], order: tuple[int, ...], read: list[int]
) -> None:
    path.write_bytes(b"".join(three[number] for number in order))
    journal = read_journal(path)
    assert journal.torn
    assert [frame["params"]["n"] for frame in journal.frames] == read


def test_frames_that_do_not_say_where_they_begin_are_read(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    frames = [{"t": "a"}, {"t": "b"}]
    path.write_bytes(b"".join(map(module.to_frame, [HEADER.to_value(), *frames])))
    assert list(read_journal(path).frames) == frames


def test_one_too_long_to_say_so_is_written_all_the_same(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    long = {"t": "x", "data": bytes(module.MAX_FRAME - 20)}
    raw = module.to_frame(HEADER.to_value())
    path.write_bytes(raw + module.placed([long, {"t": "y"}], len(raw)))
    assert [frame["t"] for frame in read_journal(path).frames] == ["x", "y"]


def test_the_example_of_the_format_page_is_a_journal(path: Path) -> None:
    page = Path("docs/format/journal.md").read_text()
    example = bytes.fromhex(page.partition("```hex Journal\n")[2].partition("```")[0])
    path.parent.mkdir()
    path.write_bytes(example)
    journal = read_journal(path)
    assert not journal.torn
    assert journal.header.run == "mnist/brave-otter"
    header = module.to_frame(journal.header.to_value())
    assert header + module.placed(journal.frames, len(header)) == example
    log = MetricLog()
    log.replay(journal.frames)
    assert log.summary()["loss"]["last"] == 0.5
