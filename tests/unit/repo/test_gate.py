"""The gate makes writers wait for a moment, and never stops anybody."""

import os
from pathlib import Path

import pytest

from cas.backend.files import FileOps
from cas.backend.local import LocalBackend
from cas.ids import Buffer
from cas.repo import gate
from cas.repo.gate import Gate, pass_gate
from cas.repo.layout import ROOTS
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from tests.support.builders import commit_files, reopened, repository, set_ref


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long writers waited."""
    slept: list[float] = []
    monkeypatch.setattr("cas.repo.gate.time.sleep", slept.append)
    return slept


def test_nobody_waits_at_an_open_gate(repo: Repo, waits: list[float]) -> None:
    pass_gate(repo)
    with Gate(repo):
        pass_gate(repo)
    commit_files(repo, {"a": b"a"})
    assert waits == []


def test_a_writer_waits_until_it_is_open_again(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Gate(reopened(repo))
    closed.close()
    looks = 0

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            closed.open()

    monkeypatch.setattr("cas.repo.gate.time.sleep", sleep)
    pass_gate(repo)
    assert looks == 3


def test_a_gate_that_stays_closed_stops_nobody(repo: Repo, waits: list[float]) -> None:
    with Gate(reopened(repo)) as closed:
        closed.close()
        closed.close()
        commit_files(repo, {"a": b"a"})
    assert gate.PATIENCE_S <= sum(waits) < 1
    waits.clear()
    commit_files(repo, {"a": b"b"})
    assert waits == []


def racing(repo: Repo, races: int, *, closed: list[bool]) -> Repo:
    """Return a handle that loses so many races for the next root, and notes when it waits."""

    head = commit_files(repo, {"a": b"a"})

    class Beaten(LocalBackend):
        lost = 0

        def put_new(self, key: str, data: Buffer) -> None:
            if key.startswith(ROOTS):
                closed.append(not gate.is_open(repo))
                if self.lost < races:
                    self.lost += 1
                    set_ref(reopened(repo), f"tags/other-{self.lost}", head)
            super().put_new(key, data)

    again = reopened(repo)
    again.backend = Beaten(repo.path)
    return again


def test_a_writer_that_lost_three_races_closes_it_until_it_has_published(
    repo: Repo, waits: list[float]
) -> None:
    closed: list[bool] = []
    commit_files(racing(repo, 5, closed=closed), {"b": b"b"}, ref="tags/b")
    assert closed == [False, False, False, True, True, True]
    assert gate.is_open(repo)
    assert len(repo.refresh().refs.keys() & {f"tags/other-{n}" for n in range(9)}) == 5
    assert "tags/b" in repo.refresh().refs


def test_what_has_to_be_decided_anew_closes_it_too(repo: Repo, waits: list[float]) -> None:
    closed: list[bool] = []
    again = racing(repo, 5, closed=closed)

    def build(transaction: Transaction) -> None:
        transaction.on_this_root = True
        transaction.set_ref("tags/b", transaction.root.refs["heads/main"])

    transact(again, "decided", build)
    assert closed == [False, False, False, True, True, True]
    assert gate.is_open(repo)


def test_writers_that_always_lose_take_turns(repo: Repo, waits: list[float]) -> None:
    with Gate(reopened(repo)) as first, Gate(reopened(repo)) as second:
        first.take_turn()
        assert (first.closed, waits) == (True, [])
        second.take_turn()
        assert not second.closed
        assert gate.PATIENCE_S <= sum(waits) < 1
        waits.clear()
        first.open()
        second.take_turn()
        assert (second.closed, waits) == (True, [])


def test_who_has_waited_longer_looks_more_often(repo: Repo, waits: list[float]) -> None:
    with Gate(reopened(repo)) as closed:
        closed.close()
        pass_gate(repo)
    assert waits == sorted(waits, reverse=True)
    assert waits[0] > 5 * waits[-1]


def test_a_second_collection_finds_it_closed_and_goes_on(repo: Repo, waits: list[float]) -> None:
    with Gate(reopened(repo)) as first, Gate(reopened(repo)) as second:
        first.close()
        second.close()
        first.open()
        pass_gate(repo)
    assert waits == []


def test_a_child_that_was_forked_does_not_keep_it_closed(repo: Repo, waits: list[float]) -> None:
    closed = Gate(repo)
    closed.close()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    closed.open()
    pass_gate(reopened(repo))
    assert waits == []
    os.close(write)
    os.waitpid(child, 0)


def test_where_there_are_no_locks_nobody_waits(repo: Repo, waits: list[float]) -> None:
    class Lockless(FileOps):
        def lock(self, fd: int, how: int) -> None:
            raise OSError(38, "no locks here")

    again = reopened(repo, Lockless())
    again.ops = Lockless()
    with Gate(again) as closed:
        closed.close()
        pass_gate(again)
        closed.take_turn()
        assert not closed.closed
    assert waits == []
