"""Nothing is collected while a ref is gone that no operation has dropped."""

from pathlib import Path

import pytest

from cas.errors import RefusedError
from cas.ids import CommitId
from cas.repo.check import fsck, repair
from cas.repo.collect import gc
from cas.repo.collect.gctidy import HINT, Collected, last_collection
from cas.repo.layout import root_key
from cas.repo.reflog import history
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.undo import execute as undo
from cas.repo.undo import plan as undo_plan
from tests.support.builders import (
    commit_files,
    lose_ref,
    noise,
    reopened,
    repository,
    set_ref,
    whole,
)
from tests.unit.repo.test_gc import meddled

HUNDREDS = 300  # of refs, so that snapshots come in between


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def collect(repo: Repo) -> None:
    repo = reopened(repo)
    gc.execute(repo, gc.plan(repo))


def found(repo: Repo) -> fsck.Examined:
    return fsck.examine(reopened(repo))


def test_a_ref_of_the_last_collection_that_is_gone_stops_the_next(repo: Repo) -> None:
    id = commit_files(repo, {"a": noise(1, 300_000)}, ref="tags/a")
    collect(repo)
    commit_files(repo, {"b": b"2"})
    lose_ref(repo, "tags/a")
    commit_files(repo, {"c": b"3"})
    with pytest.raises(RefusedError, match=rf"tags/a \(commit {id.short}\).*accept-loss"):
        gc.plan(reopened(repo))
    assert reopened(repo).commit(id).tree


def test_one_that_came_since_stops_it_too(repo: Repo) -> None:
    collect(repo)
    commit_files(repo, {"a": b"1"}, ref="tags/a")
    lose_ref(repo, "tags/a")
    with pytest.raises(RefusedError, match="tags/a"):
        collect(repo)


def test_one_that_is_elsewhere_stops_it_too(repo: Repo) -> None:
    commit_files(repo, {"a": b"1"}, ref="tags/a")
    other = commit_files(repo, {"b": b"2"})
    collect(repo)
    lose_ref(repo, "tags/a", to=other)
    with pytest.raises(RefusedError, match="tags/a"):
        collect(repo)


def test_one_that_an_operation_dropped_does_not(repo: Repo) -> None:
    id = commit_files(repo, {"a": noise(1, 300_000)}, ref="tags/a")
    collect(repo)
    set_ref(repo, "tags/a", None)
    set_ref(repo, "tags/a", id)
    set_ref(repo, "tags/a", None)
    before = gc.plan(reopened(repo))
    assert before.freed_bytes > 300_000
    collect(repo)


def test_one_that_was_dropped_and_made_again_and_then_lost_stops_it(repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"}, ref="tags/a")
    collect(repo)
    set_ref(repo, "tags/a", None)
    set_ref(repo, "tags/a", id)
    lose_ref(repo, "tags/a")
    with pytest.raises(RefusedError, match="tags/a"):
        collect(repo)


def test_the_last_collection_is_found_where_no_hint_says_which_it_was(repo: Repo) -> None:
    commit_files(repo, {"a": b"1"}, ref="tags/a")
    commit_files(repo, {"b": b"1"}, ref="tags/b")
    set_ref(repo, "tags/b", None)
    collect(repo)
    lose_ref(repo, "tags/a")
    repo.backend.write_hint(HINT, "nonsense")
    assert last_collection(reopened(repo)) == Collected()
    with pytest.raises(RefusedError, match="tags/a"):
        collect(repo)


def test_the_first_collection_asks_as_well(repo: Repo) -> None:
    commit_files(repo, {"a": b"1"}, ref="tags/a")
    lose_ref(repo, "tags/a")
    with pytest.raises(RefusedError, match="tags/a"):
        collect(repo)


def test_among_hundreds_of_refs_with_snapshots_in_between(repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"}, ref="tags/a")
    for batch in range(3):
        with_many(repo, [f"tags/{batch}-{n}" for n in range(HUNDREDS)], id)
    collect(repo)
    with_many(repo, [f"tags/later-{n}" for n in range(HUNDREDS)], id)
    with_many(repo, [f"tags/0-{n}" for n in range(HUNDREDS)], None)
    assert repo.refresh().refs_base is not None
    collect(repo)
    lose_ref(repo, "tags/later-7")
    with_many(repo, [f"tags/last-{n}" for n in range(HUNDREDS)], id)
    with pytest.raises(RefusedError, match=r"why tags/later-7 \(commit \w+\) is gone"):
        collect(repo)
    assert [one.name for one in found(repo).damage.vanished] == ["tags/later-7"]


def with_many(repo: Repo, names: list[str], id: CommitId | None) -> None:
    def build(transaction: Transaction) -> None:
        for name in names:
            transaction.set_ref(name, id)

    transact(repo, "many", build)


def test_a_root_that_cannot_be_read_is_named(repo: Repo) -> None:
    commit_files(repo, {"a": b"1"}, ref="tags/a")
    collect(repo)
    set_ref(repo, "tags/a", None)
    dropped = repo.refresh().seq
    commit_files(repo, {"b": b"2"})
    path = repo.path / root_key(dropped)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(RefusedError, match=f"root {dropped}, which might, cannot be read"):
        collect(repo)
    path.write_bytes(raw)
    collect(repo)


def test_one_that_is_lost_while_gc_works_stops_it(repo: Repo) -> None:
    id = commit_files(repo, {"a": noise(1, 300_000)}, ref="tags/a")
    commit_files(repo, {"b": noise(2, 300_000)}, ref="tags/b")
    set_ref(repo, "tags/b", None)
    other = reopened(repo)
    slow = meddled(repo, lambda: lose_ref(other, "tags/a"))
    with pytest.raises(RefusedError, match="tags/a"):
        gc.execute(slow, gc.plan(slow))
    assert reopened(repo).commit(id).tree


def test_fsck_names_it_and_gives_it_up_only_when_told(repo: Repo) -> None:
    id = commit_files(repo, {"a": noise(1, 300_000)}, ref="tags/a")
    collect(repo)
    lose_ref(repo, "tags/a")
    commit_files(repo, {"b": b"2"})
    (finding,) = [one for one in found(repo).findings if one.severity == fsck.ERROR]
    assert (finding.what, finding.name) == ("vanished-ref", "tags/a")
    assert str(id) in finding.detail
    handle = reopened(repo)
    assert repair.accept(handle, found(repo).damage, "lost") == 1
    assert found(repo).report.errors == 0
    assert repair.accept(reopened(repo), found(repo).damage, "lost") == 0
    past = next(history(reopened(repo)))
    assert [(change.name, change.old, change.new) for change in past.changes] == [
        ("tags/a", id, None)
    ]
    # On record as it is now, it can be taken back as anything else.
    undo(handle, undo_plan(handle, past.id))
    assert reopened(repo).refresh().refs["tags/a"] == id
    set_ref(reopened(repo), "tags/a", None)
    collect(repo)
    assert whole(repo)


def test_one_that_was_put_back_is_no_finding(repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"}, ref="tags/a")
    collect(repo)
    lose_ref(repo, "tags/a")
    set_ref(repo, "tags/a", id)
    assert found(repo).report.errors == 0
    collect(repo)
