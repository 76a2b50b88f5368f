"""A collection by itself: only when it is due, in time, and for nothing when there is nothing."""

from itertools import count
from pathlib import Path

import pytest

from cas.repo import config
from cas.repo.check import fsck
from cas.repo.collect import gc, gcauto
from cas.repo.repo import Repo
from cas.tracking import upkeep
from cas.tracking.ends import ending
from tests.support.builders import commit_files, noise, reopened, repository, set_ref, whole
from tests.support.crashing import Quick
from tests.support.faulty import RecordingOps


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return reopened(repository(tmp_path), Quick())


def busy(repo: Repo, times: int) -> None:
    for number in range(times):
        commit_files(repo, {"n": b"%d" % number}, ref=f"tags/{number}")


def test_it_is_due_after_many_packs_and_not_right_after_a_collection(repo: Repo) -> None:
    assert not gcauto.is_due(repo)
    busy(repo, gcauto.PACKS)
    assert gcauto.is_due(repo)
    gc.execute(repo, gc.plan(repo))
    assert not gcauto.is_due(repo)
    assert len(repo.root.packs) < 5


def test_it_is_due_after_many_operations(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcauto, "ROOTS", 10)
    gc.execute(repo, gc.plan(repo))
    busy(repo, 6)
    assert not gcauto.is_due(repo)
    for number in range(6):
        set_ref(repo, f"tags/{number}", None)
    assert gcauto.is_due(repo)


def test_to_find_out_that_nothing_is_due_reads_one_small_file(repo: Repo) -> None:
    gc.execute(repo, gc.plan(repo))
    ops = RecordingOps()
    again = reopened(repo, ops)
    assert again.root.seq
    ops.calls.clear()
    assert not gcauto.is_due(again)
    assert {name for name, _ in ops.calls} <= {"open_read", "pread", "close"}
    assert len({path for _, path in ops.calls}) == 1


def test_only_a_repository_that_is_set_to_it_collects_by_itself(repo: Repo) -> None:
    busy(repo, gcauto.PACKS)
    assert not gcauto.wanted(repo)
    config.change(repo, "gc.auto", "auto")
    assert gcauto.wanted(repo)
    config.change(repo, "gc.auto", "never")
    assert not gcauto.wanted(repo)


def test_it_ends_in_time_and_leaves_the_rest_for_later(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000), "b": noise(2, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    commit_files(repo, {"a": noise(1, 300_000)})
    for limit in range(12):
        ticks = count()
        gcauto.collect(repo, limit, lambda ticks=ticks: float(next(ticks)))  # type: ignore[misc]
        found = list(fsck.check(reopened(repo, Quick()), full=True))
        # Copies that no root lists may be left; what was condemned is deleted to the end.
        assert {one.what for one in found} <= {"orphan-pack"}
    done = gcauto.collect(repo, 1e9, lambda: 0.0)
    assert done is not None
    assert gc.plan(repo).empty
    assert whole(repo)


def test_no_time_at_all_changes_nothing(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 300_000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    before = repo.refresh().seq
    ticks = count()
    assert gcauto.collect(repo, -1, lambda: float(next(ticks))) is None
    assert repo.refresh().seq == before


def test_it_starts_after_a_commit_but_never_beside_an_open_run(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def start(command: object, _: object) -> None:
        started.append(command)

    busy(repo, gcauto.PACKS)
    assert not upkeep.after_commit(repo, start)
    config.change(repo, "gc.auto", "auto")
    assert upkeep.after_commit(repo, start)
    assert upkeep.after_run(repo, start)
    assert [command[-2:] for command in started] == [("gc", "--auto")] * 2  # type: ignore[index]
    monkeypatch.setattr(ending, "runs_are_open", lambda: True)
    assert not upkeep.after_commit(repo, start)
