"""A newest root that is lost: nothing is collected, and what it named is brought back."""

import os
from pathlib import Path
from typing import Any

import pytest

from cas.errors import CorruptionError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import DRAFT, Commit, JournalPosition
from cas.repo import root as roots
from cas.repo.check import fsck, lostroots, repair
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, JOURNALS, MAIN, OPEN, PACKS, ROOTS, root_key
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.repo.transaction import Transaction, transact
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    read_tree,
    reopened,
    repository,
    set_ref,
    write_files,
)
from tests.support.crashing import contents


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = repository(tmp_path)
    commit_files(repo, {"a": noise(1, 3000)})
    set_ref(repo, "tags/first", repo.root.refs[MAIN])
    return repo


def errors(repo: Repo) -> list[str]:
    return [one.detail for one in fsck.check(repo, full=True) if one.severity == fsck.ERROR]


def lose_newest(repo: Repo) -> int:
    """Remove the newest root, as somebody may by hand."""
    seq = repo.refresh().seq
    (repo.path / root_key(seq)).unlink()
    return seq


def spoil_newest(repo: Repo) -> int:
    seq = repo.refresh().seq
    path = repo.path / root_key(seq)
    path.write_bytes(bytes(path.stat().st_size))
    return seq


def test_nothing_is_collected_when_the_newest_root_is_gone(repo: Repo) -> None:
    id = commit_files(repo, {"b": noise(2, 3000)}, payload={"w": noise(3, 9000)})
    before = pack_files(repo)
    seq = lose_newest(repo)
    again = reopened(repo)
    with pytest.raises(RefusedError, match=f"root {seq} was the newest, and is gone"):
        gc.plan(again)
    assert pack_files(repo) == before
    assert MAIN in again.refresh().refs
    assert again.root.refs[MAIN] != id


def test_whoever_takes_its_number_leaves_that_on_record(repo: Repo) -> None:
    commit_files(repo, {"b": noise(2, 3000)})
    seq = lose_newest(repo)
    again = reopened(repo)
    commit_files(again, {"c": b"c"}, ref="tags/c")
    assert again.root.seq == seq
    third = reopened(repo)
    assert third.lost() == seq
    with pytest.raises(RefusedError, match="was the newest"):
        gc.plan(third)
    assert any("was the newest" in told for told in errors(third))


def test_a_handle_that_saw_it_notices_too(repo: Repo) -> None:
    seq = lose_newest(repo)
    repo.backend.write_hint("root", "1")
    commit_files(repo, {"c": b"c"}, ref="tags/c")
    assert repo.root.seq == seq
    assert reopened(repo).lost() == seq


def test_a_view_that_is_behind_says_nothing_for_good(repo: Repo) -> None:
    """A file server may show a hint before it shows the root: then the number cannot be taken."""
    late = reopened(repo)
    path = repo.path / root_key(repo.refresh().seq)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    late.refresh()
    aside.rename(path)
    commit_files(late, {"c": b"c"}, ref="tags/c")
    assert late.lost() == 0
    assert not gc.plan(late).orphans


def test_a_copy_whose_hint_came_later_has_lost_nothing(repo: Repo, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(repo.path, tmp_path / "copy" / ".cas")
    commit_files(repo, {"b": b"b"})
    shutil.copy(repo.path / "hints" / "root", tmp_path / "copy" / ".cas" / "hints" / "root")
    for _ in range(2):
        copy = Repo.open(tmp_path / "copy" / ".cas", who="eve@host", clock=repo.clock)
        assert copy.lost() == 0
        assert not errors(copy)
        commit_files(copy, {"c": b"c"}, ref="tags/c")
        gc.execute(copy, gc.plan(copy))


@pytest.mark.parametrize("lose", [lose_newest, spoil_newest])
def test_what_it_named_is_brought_back_where_it_was(repo: Repo, lose: object) -> None:
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(0, {"w": noise(4, 3000)}, value=1.0)
    last = run.checkpoint(1, {"w": noise(5, 3000)}, value=0.5)
    refs = dict(repo.refresh().refs)
    seq = (spoil_newest if lose is spoil_newest else lose_newest)(repo)
    again = reopened(repo)
    if lose is spoil_newest:
        with pytest.raises(CorruptionError):
            again.refresh()
        assert lostroots.go_on(again).seq == seq + 1
    assert again.refresh().refs != refs
    assert lostroots.bring_back(again) == {"runs/exp/one": last}
    assert again.refresh().refs == refs
    payload = again.commit(last).payload
    assert payload is not None
    assert read_tree(again, payload) == {"state": {"w": noise(5, 3000)}}
    assert lostroots.bring_back(again) == {}
    left = errors(again)
    assert len(left) == 1
    assert repair.accept(again, fsck.examine(again, full=True).damage, "lost") == 1
    assert not errors(again)
    gc.execute(again, gc.plan(again))
    assert again.refresh().refs == refs
    assert not errors(again)


def test_a_commit_goes_on_where_the_one_before_it_is(repo: Repo) -> None:
    set_ref(repo, "heads/other", commit_files(repo, {"o": b"o"}, ref="tags/o"))
    id = commit_files(repo, {"b": b"b"}, payload={"w": noise(3, 9000)})
    lose_newest(repo)
    again = reopened(repo)
    assert lostroots.bring_back(again) == {MAIN: id}
    assert f"{HOLDS}{id}" in again.root.refs


def test_where_it_was_and_is_no_more_it_gets_a_tag(repo: Repo) -> None:
    id = commit_files(repo, {"b": b"b"})
    lose_newest(repo)
    again = reopened(repo)
    other = commit_files(again, {"c": b"c"})
    assert lostroots.bring_back(again) == {f"tags/found-{id.short}": id}
    assert again.root.refs[MAIN] == other


def test_all_roots_are_gone(repo: Repo) -> None:
    ids = [
        commit_files(repo, {"b": noise(n, 5000)}, payload={"w": noise(20 + n, 900)}) for n in (1, 2)
    ]
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(0, {"w": noise(4, 3000)}, value=1.0)
    end = run.finish()
    set_ref(repo, "tags/first", None)  # nothing says what a tag was called
    before = contents(repo)
    for path in (repo.path / ROOTS).iterdir():
        path.unlink()
    again = reopened(repo)
    with pytest.raises(CorruptionError):
        again.refresh()
    lostroots.go_on(again)
    assert lostroots.bring_back(again) == {MAIN: ids[-1], "runs/exp/one": end}
    assert contents(again) == before
    repair.accept(again, fsck.examine(again, full=True).damage, "lost")
    assert not errors(again)
    gc.execute(again, gc.plan(again))
    assert contents(reopened(repo)) == before


def test_what_is_not_whole_is_left_where_it_is(repo: Repo) -> None:
    listed = {info.key for info in repo.refresh().packs}
    commit_files(repo, {"b": noise(6, 300_000)}, ref="tags/x", payload={"w": noise(7, 300_000)})
    seq = lose_newest(repo)
    fresh = [repo.path / info.key for info in repo.backend.scan(PACKS) if info.key not in listed]
    data = max(fresh, key=lambda path: path.stat().st_size)
    os.truncate(data, data.stat().st_size // 4)
    again = reopened(repo)
    assert lostroots.bring_back(again) == {}
    assert again.refresh().seq == seq - 1


def test_a_payload_that_is_not_whole_is_not_held(repo: Repo) -> None:
    listed = {info.key for info in repo.refresh().packs}
    id = commit_files(repo, {"b": b"b"}, payload={"w": noise(7, 600_000)})
    lose_newest(repo)
    fresh = [repo.path / info.key for info in repo.backend.scan(PACKS) if info.key not in listed]
    data = max(fresh, key=lambda path: path.stat().st_size)
    os.truncate(data, data.stat().st_size // 2)
    again = reopened(repo)
    assert lostroots.bring_back(again) == {MAIN: id}
    assert f"{HOLDS}{id}" not in again.root.refs
    left = [one for one in fsck.check(again, full=True) if one.severity != fsck.INFO]
    assert [one.what for one in left] == ["root"]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_draft_is_brought_back_for_as_long_as_its_journal_is_there(
    repo: Repo, *, is_open: bool
) -> None:
    uid = bytes(range(16))

    def make(transaction: Transaction) -> CommitId:
        tree = write_files(transaction, {"a": b"logged"})
        journal = JournalPosition(uid, 3)
        commit = Commit(kind=DRAFT, tree=tree, experiment="exp", run="one", journal=journal)
        id = transaction.record(commit)
        transaction.set_ref(f"{OPEN}exp/one", id)
        return id

    id = transact(repo, "draft", make)
    lose_newest(repo)
    (repo.path / JOURNALS).mkdir()
    if is_open:
        (repo.path / JOURNALS / f"{uid.hex()}.journal").touch()
    again = reopened(repo)
    assert lostroots.bring_back(again) == ({f"{OPEN}exp/one": id} if is_open else {})


def test_old_roots_that_are_damaged_are_given_up_too(repo: Repo) -> None:
    set_ref(repo, "tags/more", repo.root.refs[MAIN])
    path = repo.path / root_key(2)
    path.write_bytes(bytes(path.stat().st_size))
    assert len(errors(repo)) == 1
    damage = fsck.examine(repo, full=True).damage
    assert damage.roots == [2]
    assert repair.accept(repo, damage, "lost") == 1
    assert not errors(repo)
    warned = [one for one in fsck.check(repo) if one.severity == fsck.WARNING]
    assert [one.name for one in warned] == [root_key(2)]
    path.unlink()
    assert not errors(repo)
    # What comes to harm later is an error again.
    for name in ("tags/x", "tags/y"):
        set_ref(repo, name, repo.root.refs[MAIN])
    (repo.path / root_key(repo.refresh().seq - 1)).unlink()
    assert len(errors(repo)) == 1


def test_a_root_that_another_thread_finds_first_is_not_lost(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = roots.publish

    def seen_by_others(*args: Any) -> Root:
        root = publish(*args)
        repo.refresh()  # as another thread that has this handle too
        repo.refresh()
        return root

    monkeypatch.setattr(roots, "publish", seen_by_others)
    commit_files(repo, {"b": noise(2, 3000)})
    assert repo.lost() == 0
    assert errors(repo) == []
