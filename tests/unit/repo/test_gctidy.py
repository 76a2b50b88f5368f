"""What gc clears away beside packs, and by which evidence."""

import os
from pathlib import Path

import pytest

from cas.backend.local import LocalBackend
from cas.repo.check import fsck
from cas.repo.collect import gc, gctidy, reserve
from cas.repo.collect.gctidy import Collected, last_collection
from cas.repo.layout import JOURNALS, RESERVE, ROOTS, SESSIONS, SNAPSHOTS, TMP, root_key
from cas.repo.repo import Repo
from cas.repo.session import Session
from tests.support.builders import commit_files, noise, reopened, repository, set_ref
from tests.support.crashing import Quick

LONG_AGO = 1_700_000_000


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return reopened(repository(tmp_path), Quick())


def collect(repo: Repo) -> None:
    gc.execute(repo, gc.plan(repo))


def left(repo: Repo, name: str, *, old: bool = True) -> Path:
    """Leave a file behind."""
    path = repo.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"left")
    if old:
        os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def numbers(repo: Repo) -> list[int]:
    return [int(info.key.removeprefix(ROOTS)) for info in repo.backend.scan(ROOTS)]


def whole(repo: Repo) -> bool:
    return not list(fsck.check(reopened(repo, Quick()), full=True))


def test_temporary_files_that_are_older_than_every_session_go(repo: Repo) -> None:
    old, new = left(repo, f"{TMP}00aa"), left(repo, f"{TMP}00bb", old=False)
    collect(repo)
    assert not old.exists()
    assert new.exists()


def test_temporary_files_stay_that_a_live_session_may_own(repo: Repo) -> None:
    with Session.open(repo.path / SESSIONS, "long", "training"):
        os.utime(repo.path / SESSIONS / "long", (LONG_AGO - 10, LONG_AGO - 10))
        mine, older = left(repo, f"{TMP}00aa"), left(repo, f"{TMP}00bb")
        os.utime(older, (LONG_AGO - 20, LONG_AGO - 20))
        collect(repo)
        assert mine.exists()
        assert not older.exists()


def test_logs_without_a_journal_and_journals_never_begun_go(repo: Repo) -> None:
    gone = [left(repo, f"{JOURNALS}/{name}") for name in ("aa.log", "bb.journal.new")]
    kept = [
        left(repo, f"{JOURNALS}/{name}")
        for name in ("cc.journal", "cc.log", "dd-1.journal", "notes.txt")
    ]
    collect(repo)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_what_somebody_has_locked_stays(repo: Repo) -> None:
    path = left(repo, f"{JOURNALS}/bb.journal.new")
    fd = repo.ops.open_read(os.fspath(path))
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX)
    collect(repo)
    assert path.exists()
    os.close(fd)
    collect(repo)
    assert not path.exists()


def aged(repo: Repo) -> None:
    for info in repo.backend.scan(ROOTS):
        os.utime(repo.path / info.key, (LONG_AGO, LONG_AGO))


def moved(repo: Repo, times: int) -> None:
    """Make operations, old ones by the clock of the file system."""
    first = commit_files(repo, {"a": b"a"}, ref="tags/x")
    second = commit_files(repo, {"a": b"b"}, ref="tags/x")
    start = repo.root.seq
    for number in range(times):
        set_ref(repo, f"tags/{start}-{number}", (first, second)[number % 2])
    aged(repo)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gctidy, "KEPT_ROOTS", 20)


@pytest.mark.usefixtures("few")
def test_roots_stay_back_to_the_last_collection(repo: Repo) -> None:
    moved(repo, 60)
    collect(repo)
    last = last_collection(repo)
    assert last.root == repo.root.seq
    assert numbers(repo)[0] == 1, "there was no collection before this one"
    moved(repo, 30)
    collect(repo)
    assert numbers(repo)[0] == last.root
    assert numbers(repo)[-1] == repo.root.seq
    assert whole(repo)
    old = reopened(repo, Quick())
    old.backend.write_hint("root", "3")  # a hint that was passed by
    assert old.refresh().seq == repo.root.seq


@pytest.mark.usefixtures("few")
def test_so_many_roots_stay_in_any_case(repo: Repo) -> None:
    moved(repo, 60)
    collect(repo)
    moved(repo, 5)
    collect(repo)
    assert numbers(repo)[0] == repo.root.seq - 20


@pytest.mark.usefixtures("few")
def test_young_roots_stay(repo: Repo) -> None:
    moved(repo, 60)
    collect(repo)
    moved(repo, 40)
    young = repo.path / root_key(11)
    os.utime(young)
    collect(repo)
    assert numbers(repo)[0] == 11


@pytest.mark.usefixtures("few")
def test_snapshots_go_with_the_last_root_that_names_them(repo: Repo) -> None:
    moved(repo, 200)
    collect(repo)
    before = {info.key for info in repo.backend.scan(SNAPSHOTS)}
    assert len(before) > 1
    moved(repo, 200)
    collect(repo)
    assert before - {info.key for info in repo.backend.scan(SNAPSHOTS)}
    assert whole(repo)
    assert len(reopened(repo).refresh().refs) == 401


@pytest.mark.usefixtures("few")
def test_each_deleted_root_is_durable_before_the_next(repo: Repo) -> None:
    """A root whose next one is gone would be taken for the newest."""
    moved(repo, 60)
    collect(repo)
    moved(repo, 30)
    order: list[str] = []

    class Watched(LocalBackend):
        def delete(self, key: str) -> None:
            if key.startswith(ROOTS):
                order.append(key)
            super().delete(key)

        def sync(self, prefix: str) -> None:
            if prefix == ROOTS:
                order.append("sync")
            super().sync(prefix)

    repo.backend = Watched(repo.path, ops=Quick())
    collect(repo)
    done = [word for word in order if word != "sync"]
    assert len(done) > 20
    assert done == sorted(done)
    first = order.index(done[0])
    assert order[first + 1 : first + 2 * len(done) : 2] == ["sync"] * len(done)


def test_no_more_are_deleted_at_once_than_take_a_moment(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gctidy, "KEPT_ROOTS", 5)
    monkeypatch.setattr(gctidy, "TRIMMED", 7)
    moved(repo, 40)
    collect(repo)
    moved(repo, 10)
    collect(repo)
    assert numbers(repo)[0] == 8
    assert whole(repo)


@pytest.mark.parametrize("hint", ["", "x y", "1", "-1 2", "999999 3", "9" * 30 + " 1"])
def test_a_note_that_makes_no_sense_says_nothing(repo: Repo, hint: str) -> None:
    repo.backend.write_hint("gc", hint)
    assert last_collection(repo) == Collected()


def test_the_reserve_is_made_again_and_grows_with_the_snapshots(repo: Repo) -> None:
    collect(repo)
    assert repo.backend.size(RESERVE) == reserve.SIZE
    commit_files(repo, {"a": noise(1, 100)})
    moved(repo, 200)
    collect(repo)
    size = repo.backend.size(RESERVE)
    assert size is not None
    assert size > reserve.SIZE
    assert reserve.give_up(repo)
    assert not reserve.give_up(repo)


@pytest.mark.usefixtures("few")
def test_an_old_root_that_is_damaged_keeps_nobody_from_tidying_up(repo: Repo) -> None:
    moved(repo, 60)
    collect(repo)
    before = last_collection(repo)
    path = repo.path / root_key(3)
    path.write_bytes(bytes(path.stat().st_size))
    moved(repo, 30)
    reserve.give_up(repo)
    collect(repo)
    assert numbers(repo)[0] == before.root
    assert last_collection(repo).root == repo.root.seq
    assert repo.backend.size(RESERVE) is not None
