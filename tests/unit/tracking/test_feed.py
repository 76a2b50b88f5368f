"""A journal that goes while its run lives is written anew, and says the same."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import cas as package
from cas.backend.files import FileOps
from cas.errors import BackendError
from cas.ids import Buffer
from cas.tracking.ends.liveness import is_locked
from cas.tracking.journals import feed as module
from cas.tracking.journals import journalwriter
from cas.tracking.journals.feed import create_journal, pieces
from cas.tracking.journals.journal import ALIVE, read_journal
from cas.tracking.journals.journalwriter import JournalWriter
from cas.tracking.journals.state import RunState
from cas.tracking.numbers.metrics import MetricLog
from cas.tracking.run import Run
from tests.support.builders import repository
from tests.support.runs import eventually


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(module, "BEHIND_SECONDS", 0.01)
    monkeypatch.setattr(module, "ANEW_SECONDS", 0.0)
    run = package.track("a", name="x", params={"lr": 1})
    (here / "x.txt").write_text("x")
    run.log_artifact("x.txt")
    run.track_dataset([1.0], name="d")
    run.save_checkpoint(model={"w": 1}, step=0, wait=True)
    for step in range(5):
        run.log({"loss": step})
    run._live.flush()
    return run


def told(path: Path) -> RunState:
    """What somebody else would make of a journal."""
    journal = read_journal(path)
    state = RunState(journal.header.run, journal.header.ref, journal.header.uid)
    state.replay(journal.frames)
    return state


def same(one: RunState, other: RunState) -> bool:
    return (
        (one.run, one.ref, one.uid, one.params, one.tip, one.seq)
        == (other.run, other.ref, other.uid, other.params, other.tip, other.seq)
        and (one.parents, one.artifacts) == (other.parents, other.artifacts)
        and one.metrics.drained() == other.metrics.drained()
    )


@pytest.mark.parametrize("how", ["removed", "replaced", "shortened handle"])
def test_a_journal_that_is_gone_is_written_anew(run: Run, how: str) -> None:
    path = run._live._feed._journal.path
    before = told(path)
    position = run._live.state.position
    match how:
        case "removed":
            path.unlink()
        case "replaced":
            copy = path.with_name("copy")
            copy.write_bytes(path.read_bytes())
            copy.replace(path)
        case _:
            run._live._feed._journal._broken = "it was said to be broken"
    eventually(lambda: path.exists() and is_locked(path) and not run._live._feed._journal.lost())
    assert same(told(path), before)
    run.log({"loss": 5.0})
    run.log_params({"late": True})
    after = told(path)
    assert after.params == {"lr": 1, "late": True}
    assert after.metrics.summary()["loss"]["count"] == 6
    assert run._live.state.position >= position  # commits name positions
    assert read_journal(path).positions[-1] >= run._live.state.position
    assert run.finish() is not None
    assert not path.exists()


def test_a_repository_that_is_gone_does_not_come_back(run: Run) -> None:
    away = run.repo.path.with_name("away")
    run.repo.path.rename(away)
    for step in range(3):
        run.log({"loss": step})
        run._live.flush()
    assert not run.repo.path.exists()
    away.rename(run.repo.path)
    run.finish()


def test_many_points_are_written_anew_in_bounded_frames(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POINTS", 2)
    path = run._live._feed._journal.path
    path.unlink()
    run._live.flush()
    points = [frame for frame in read_journal(path).frames if frame["t"] == "points"]
    assert len(points) == 3
    assert told(path).metrics.summary()["loss"]["count"] == 5
    run.finish()


class Syncs(FileOps):
    """File operations that count syncs, and fail at some."""

    def __init__(self) -> None:
        self.fail = False
        self.synced: list[int] = []
        self.written = 0

    def fsync(self, fd: int) -> None:
        self.synced.append(fd)
        if self.fail:
            raise OSError(errno.EIO, "Input/output error")

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        self.written += 1
        return super().write(fd, buffers)


@pytest.fixture
def journal(tmp_path: Path) -> tuple[JournalWriter, Syncs]:
    repo, ops = repository(tmp_path), Syncs()
    repo.ops = ops
    return create_journal(repo, RunState("a/x", "runs/a/x", b"u" * 16), "x.journal"), ops


def test_a_sign_of_life_comes_when_nothing_else_does(
    journal: tuple[JournalWriter, Syncs],
) -> None:
    writer, _ = journal
    start = writer._appended_at
    writer.tend(start + journalwriter.ALIVE_SECONDS - 1)
    assert read_journal(writer.path).frames == ()
    writer.tend(start + journalwriter.ALIVE_SECONDS)
    assert read_journal(writer.path).frames == ({"t": ALIVE},)
    state = RunState("a/x", "runs/a/x", b"u" * 16)
    state.replay(read_journal(writer.path).frames)
    assert state.frames() == []
    writer.close()


def test_syncs_are_as_rare_as_the_disk_is_slow(
    journal: tuple[JournalWriter, Syncs], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, ops = journal
    ops.synced.clear()
    now = writer._appended_at
    writer.tend(now)
    assert ops.synced == []  # nothing new
    writer.append([{"t": "a"}])
    writer.tend(now + 0.1)
    writer.append([{"t": "a"}])
    writer.tend(now + 0.5)
    assert len(ops.synced) == 1  # the last was less than a second ago
    writer.tend(now + 1.2)
    assert len(ops.synced) == 2
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(
        "cas.tracking.journals.journalwriter.time.monotonic", lambda: next(clock, 9.0)
    )
    writer.append([{"t": "a"}])
    clock = iter([0.0, 2.0])
    writer.tend(now + 3)
    writer.append([{"t": "a"}])
    writer.tend(now + 3 + 2 / journalwriter.SYNC_SHARE - 1)
    assert len(ops.synced) == 3  # it took two seconds, so the next comes after forty
    monkeypatch.undo()
    writer.close()


def test_after_a_sync_that_failed_the_same_file_is_never_synced_again(
    journal: tuple[JournalWriter, Syncs],
) -> None:
    writer, ops = journal
    writer.append([{"t": "a"}])
    old = writer._fd
    ops.fail = True
    with pytest.raises(BackendError):
        writer.tend(writer._appended_at)
    ops.fail = False
    ops.synced.clear()
    writer.tend(writer._appended_at + 1000)
    assert ops.synced == []
    assert writer.lost()
    header = read_journal(writer.path).header
    writer.begin_anew(header, [{"t": "a"}])
    assert ops.synced
    assert old not in ops.synced
    assert not writer.lost()
    assert [frame["t"] for frame in read_journal(writer.path).frames if frame["t"] != ALIVE] == [
        "a"
    ]
    writer.close()


def test_a_disk_that_keeps_failing_is_not_filled(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "ANEW_SECONDS", 1000.0)
    ops = Syncs()
    ops.fail = True
    journal = run._live._feed._journal
    journal._ops = ops
    journal.path.unlink()
    capsys.readouterr()
    for step in range(20):
        run.log({"loss": step})
        run._live._feed.flush_or_tell()
    assert len(ops.synced) == 1
    assert capsys.readouterr().err.count("would be lost if the process died") == 1
    assert os.listdir(journal.path.parent) == []
    ops.fail = False
    commit = run.finish()
    assert commit is not None


def test_points_that_were_left_out_count_once_in_however_many_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cas.tracking.journals.feed.POINTS", 3)
    log = MetricLog(every=2)
    for step in range(17):
        log.add({"m": step / 3, "n": -step / 7}, step, 0.0, step // 5)
    frames = list(pieces(log.drain()))
    assert max(len(frame["steps"][0]) // 8 for frame in frames if frame["steps"]) == 3
    again = MetricLog()
    again.replay(frames)
    assert again.summary() == log.summary()
    again.every = 2
    for one in (log, again):
        one.add({"m": 1.0}, 17, 0.0)
    once_more = MetricLog()
    again.drain()
    once_more.replay(pieces(again.drained()))
    assert once_more.summary() == log.summary()
