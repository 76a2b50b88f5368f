"""Whether a run lives is told from what changed between two looks, by one clock of one kernel."""

import json
import os
from pathlib import Path

import pytest

from cas.repo.repo import Repo
from cas.tracking.captured.environment import HostInfo
from cas.tracking.ends import liveness
from cas.tracking.ends.liveness import Watch, recoverable
from cas.tracking.journals.journal import Header
from tests.support.builders import repository

HERE = HostInfo("here", "boot", "ns")


class Ticks:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


@pytest.fixture
def journal(repo: Repo) -> Path:
    path = repo.path / "journals" / "a.journal"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def look(repo: Repo, journal: Path, ticks: Ticks, here: HostInfo = HERE) -> float:
    """One command: it looks, and notes down what it saw."""
    watch = Watch(repo, here, ticks=ticks)
    silent = watch.silent_seconds("a", [journal])
    watch.save()
    return silent


def test_what_does_not_change_between_looks_is_silent(repo: Repo, journal: Path) -> None:
    ticks = Ticks()
    assert look(repo, journal, ticks) == 0
    ticks.now += 400
    assert look(repo, journal, ticks) == 400
    ticks.now += 300
    assert look(repo, journal, ticks) == 700


@pytest.mark.parametrize("change", ["append", "touch", "replace", "remove"])
def test_any_change_is_a_sign_of_life(repo: Repo, journal: Path, change: str) -> None:
    ticks = Ticks()
    look(repo, journal, ticks)
    ticks.now += 700
    match change:
        case "append":
            with journal.open("ab") as file:
                file.write(b"two")
        case "touch":
            os.utime(journal, (1, 1))
        case "replace":
            state = journal.stat()
            other = journal.with_name("other")
            other.write_bytes(b"one")
            os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
            other.replace(journal)
        case "remove":
            journal.unlink()
    assert look(repo, journal, ticks) == 0
    ticks.now += 1
    assert look(repo, journal, ticks) == 1


def test_the_stamps_of_files_are_no_clock(repo: Repo, journal: Path) -> None:
    """A server whose clock jumps by two days makes nobody silent."""
    ticks = Ticks()
    os.utime(journal, (1, 1))  # as long ago as can be
    assert look(repo, journal, ticks) == 0
    ticks.now += 5
    assert look(repo, journal, ticks) == 5


@pytest.mark.parametrize("other", [HostInfo("here", "later", "ns"), HostInfo("there", "b2", "x")])
def test_each_kernel_counts_for_itself(repo: Repo, journal: Path, other: HostInfo) -> None:
    ticks, theirs = Ticks(), Ticks()
    look(repo, journal, ticks)
    theirs.now = 10**9
    assert look(repo, journal, theirs, other) == 0
    ticks.now += 50
    assert look(repo, journal, ticks) == 50


def test_a_clock_that_went_back_begins_anew(repo: Repo, journal: Path) -> None:
    ticks = Ticks()
    look(repo, journal, ticks)
    ticks.now = 10
    assert look(repo, journal, ticks) == 0
    ticks.now = 30
    assert look(repo, journal, ticks) == 20


def test_without_a_name_for_the_clock_nothing_is_silent(repo: Repo, journal: Path) -> None:
    ticks, nowhere = Ticks(), HostInfo("here", "", "")
    look(repo, journal, ticks, nowhere)
    ticks.now += 10_000
    assert look(repo, journal, ticks, nowhere) == 0
    assert not list((repo.path / "hints").glob("watch-*"))


@pytest.mark.parametrize(
    "nonsense", ["", "{", "[]", '{"a": 5}', '{"a": [1]}', '{"a": ["x", "y"]}', "[" * 9000]
)
def test_notes_are_only_a_hint(repo: Repo, journal: Path, nonsense: str) -> None:
    ticks = Ticks()
    look(repo, journal, ticks)
    (note,) = (repo.path / "hints").glob("watch-*")
    note.write_text(nonsense)
    ticks.now += 700
    assert look(repo, journal, ticks) == 0


def test_what_was_done_with_a_journal_begins_the_waiting_anew(repo: Repo, journal: Path) -> None:
    ticks = Ticks()
    look(repo, journal, ticks)
    ticks.now += 700
    watch = Watch(repo, HERE, ticks=ticks)
    assert watch.silent_seconds("a", [journal]) == 700
    watch.begin_again("a")
    watch.save()
    assert look(repo, journal, ticks) == 0


def test_what_is_no_longer_looked_at_is_forgotten(repo: Repo, journal: Path) -> None:
    look(repo, journal, Ticks())
    watch = Watch(repo, HERE)
    watch.save()
    (note,) = (repo.path / "hints").glob("watch-*")
    assert json.loads(note.read_text()) == {}


def test_a_reader_notes_nothing_down(repo: Repo, journal: Path) -> None:
    Watch(repo, HERE).silent_seconds("a", [journal])
    assert not list((repo.path / "hints").glob("watch-*"))


def test_another_host_of_the_same_name_is_no_reboot() -> None:
    header = Header("a/x", "runs/a/x", b"u" * 16, "here", "before", "ns", 7, 10)
    assert recoverable(header, locked=False, here=HERE, local=True)
    assert not recoverable(header, locked=False, here=HERE, local=False)


def test_sleep_counts() -> None:
    assert liveness.uptime() > 0
