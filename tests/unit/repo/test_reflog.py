"""The reflog tells every operation, and whether the chain of roots vouches for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from cas.errors import AmbiguousError, CorruptionError, NotFoundError
from cas.ids import CommitId
from cas.repo import root as roots
from cas.repo.layout import root_key
from cas.repo.reflog import find, history, names, shown
from cas.repo.repo import Repo
from cas.repo.root import FIRST_PREVIOUS, Operation, RefChange, Root
from cas.repo.transaction import transact
from tests.support.builders import Clock, commit_files, reopened, repository, set_ref


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def rewritten(repo: Repo, root: Root) -> None:
    """Put another root in the place of one."""
    repo.backend.delete(root_key(root.seq))
    roots.publish(repo.backend, root, b"w" * 16)


def test_tells_each_operation_with_the_refs_that_it_moved(repo: Repo) -> None:
    first = commit_files(repo, {"a": b"1"})
    set_ref(repo, "tags/v1", first)
    set_ref(repo, "tags/v1", None)
    found = list(history(repo))
    assert [past.number for past in found] == [4, 3, 2, 1]
    assert [past.operation.what for past in found] == ["ref", "ref", "commit", "init"]
    assert found[0].changes == (RefChange("tags/v1", first, None),)
    assert {change.name for change in found[2].changes} == {"heads/main"}
    assert {past.operation.who for past in found} == {"ada@host"}
    assert [past.operation.time for past in found] == sorted(
        (past.operation.time for past in found), reverse=True
    )
    assert all(past.vouched for past in found)


def test_replaying_it_gives_the_refs(repo: Repo) -> None:
    for number in range(80):  # beyond a snapshot
        id = commit_files(repo, {"a": b"%d" % number}, ref=f"tags/{number % 70}")
    set_ref(repo, "tags/3", None)
    refs: dict[str, CommitId] = {}
    for past in reversed(list(history(repo))):
        for change in past.changes:
            assert refs.pop(change.name, None) == change.old
            if change.new is not None:
                refs[change.name] = change.new
    assert refs == repo.root.refs
    assert refs["tags/9"] == id


def test_what_a_run_does_is_told_apart(repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"})
    transact(repo, "checkpoint a/x", lambda tx: tx.set_ref("runs/a/x", id), run="a/x")
    transact(repo, "tag", lambda tx: tx.set_ref("tags/x", id))
    assert [past.operation.run for past in history(reopened(repo))] == ["", "a/x", "", ""]


def test_the_words_of_an_operation_are_what_was_said(repo: Repo) -> None:
    id = commit_files(repo, {"a": b"1"})
    odd = Repo.open(repo.path, who="zoë@höst", clock=Clock())
    transact(odd, "née\n\x1b[0m", lambda tx: tx.set_ref("tags/x", id))
    past = next(history(repo))
    assert (past.operation.who, past.operation.what) == ("zoë@höst", "née\n\x1b[0m")


def test_roots_that_gc_took_are_not_there(repo: Repo) -> None:
    for number in range(6):
        set_ref(repo, f"tags/{number}", commit_files(repo, {"a": b"1"}))
    for number in (1, 2, 3, 5):
        repo.backend.delete(root_key(number))
    found = list(history(repo))
    assert [past.number for past in found][-3:] == [7, 6, 4]
    assert [past.number for past in found if not past.vouched] == [4]  # 5 cannot vouch for it
    with pytest.raises(NotFoundError):
        find(repo, "3")


def test_a_root_that_was_changed_later_is_not_vouched_for(repo: Repo) -> None:
    for number in range(3):
        set_ref(repo, f"tags/{number}", commit_files(repo, {"a": b"1"}))
    root = roots.read(repo.backend, 3)
    rewritten(repo, replace(root, operation=replace(root.operation, who="eve@elsewhere")))
    found = list(history(reopened(repo)))
    assert next(past for past in found if past.number == 3).operation.who == "eve@elsewhere"
    assert not next(past for past in found if past.number == 3).vouched
    assert all(past.vouched for past in found if past.number > 3)


def test_roots_that_the_newest_does_not_come_from_are_told_apart(repo: Repo) -> None:
    # As in a copy that was made while somebody wrote: roots 3 and 4 were not whole there.
    id = commit_files(repo, {"a": b"1"})
    trunk = repo.root
    set_ref(repo, "tags/lost", id)
    set_ref(repo, "tags/lost-too", id)
    operation = Operation(b"n" * 16, "ada@host", "goes on", 1)
    roots.publish(repo.backend, replace(trunk.follow(operation), seq=5), b"w" * 16)
    found = {past.number: past.vouched for past in history(reopened(repo))}
    assert found == {5: True, 4: False, 3: False, 2: True, 1: True}


def test_a_damaged_root_is_told_where_it_comes(repo: Repo) -> None:
    for number in range(3):
        set_ref(repo, f"tags/{number}", commit_files(repo, {"a": b"1"}))
    repo.backend.delete(root_key(3))
    repo.backend.put_new(root_key(3), b"CASO and nothing else")
    log = history(repo)
    assert [next(log).number for _ in range(4)] == [7, 6, 5, 4]
    with pytest.raises(CorruptionError, match="root 3"):
        next(log)


def test_a_root_without_its_fields_is_damage(repo: Repo) -> None:
    raw = roots.RootFile({"v": 1, "seq": 2, "previous": FIRST_PREVIOUS}, b"").to_bytes()
    set_ref(repo, "tags/a", commit_files(repo, {"a": b"1"}))
    repo.backend.delete(root_key(2))
    repo.backend.put_new(root_key(2), raw)
    with pytest.raises(CorruptionError, match="root 2 does not have the fields"):
        list(history(repo))


class TestFind:
    def test_by_number_and_by_id(self, repo: Repo) -> None:
        set_ref(repo, "tags/a", commit_files(repo, {"a": b"1"}))
        for past in history(repo):
            assert find(repo, str(past.number)) == past
            assert find(repo, past.id) == find(repo, past.id[:12].upper()) == past

    @pytest.mark.parametrize("word", ["99", "0", "-1", "no", "abc", "x" * 40, "9" * 40, ""])
    def test_what_there_is_not(self, repo: Repo, word: str) -> None:
        with pytest.raises(NotFoundError):
            find(repo, word)

    def test_an_id_that_begins_two(self, repo: Repo) -> None:
        for last in (b"1", b"2"):
            operation = Operation(b"\xab" * 15 + last, "ada@host", "again", 1)
            roots.publish(repo.backend, repo.refresh().follow(operation), last * 16)
        with pytest.raises(AmbiguousError, match="operation 3"):
            find(repo, "abababab")
        assert find(repo, "ab" * 15 + "31").number == 2

    def test_a_number_is_a_number_first(self, repo: Repo) -> None:
        operation = Operation(bytes.fromhex("0001" + "0" * 28), "ada@host", "x", 1)
        roots.publish(repo.backend, repo.refresh().follow(operation), b"w" * 16)
        assert find(repo, "0001").number == 1
        assert find(repo, "00010").number == 2


def test_a_word_stands_for_names_in_every_room() -> None:
    assert {"runs/a/x", "tags/a/x", "a/x", "open/a/x", "archived/a/x"} <= names("a/x")
    assert "heads/main" in names("HEAD")
    assert "tags/v1" in names("refs/tags/v1")


def test_a_hold_is_shown_in_short() -> None:
    assert shown(f"holds/{'ab' * 32}") == "holds/ababababab"
    assert shown("tags/" + "a" * 64) == "tags/" + "a" * 64
