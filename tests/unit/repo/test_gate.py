"""The gate makes writers wait for a moment, and never stops anybody."""

import os
from pathlib import Path

import pytest

from cas.backend.files import FileOps
from cas.repo import gate
from cas.repo.gate import Gate, pass_gate
from cas.repo.repo import Repo
from tests.support.builders import commit_files, reopened, repository


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
    assert len(waits) == gate.PATIENCE
    assert sum(waits) < 1
    waits.clear()
    commit_files(repo, {"a": b"b"})
    assert waits == []


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
    assert waits == []
