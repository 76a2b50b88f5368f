"""What refs and holds keep reads back equal, also while others are stopped in the middle of work.

The machines are those of the other tests of this folder, with processes that stop and go on.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import precondition, rule

from cas.ids import CommitId
from cas.objects.commit import COMMIT, Commit
from cas.repo.collect import gcplan
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.store import writer
from tests.stateful.pausing import MOST, Pausing
from tests.stateful.test_deltas import DeltaMachine
from tests.stateful.test_repository import RepositoryMachine, Shape, files, filled, handles
from tests.support.builders import Files, noise, read_tree, write_files
from tests.support.paused import Drawn, Paused
from tests.support.schedule import at_once
from tests.support.torture import amount

pytestmark = pytest.mark.torture
SMALLER = [noise(1, 100), noise(2, 1500), noise(3, 2500), noise(4, 4000), noise(5, 540_000)]
DRAWN = Drawn()
LARGER = [noise(6, 100), noise(7, 1500), noise(8, 2500), noise(9, 4000), noise(10, 540_000)]


@pytest.fixture(autouse=True)
def _as_if_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Data has packs of its own, which stay for as long as little in them is dead."""
    monkeypatch.setattr(writer, "SMALL", 1000)
    monkeypatch.setattr(gcplan, "SMALL_DATA", 0)
    monkeypatch.setattr(os, "urandom", DRAWN)
    with at_once():
        yield


class PausedRepositoryMachine(Pausing, RepositoryMachine):
    """Commits, tags, prunes and collections beside paused writers, collectors and repacks."""

    light = SMALLER
    heavy = LARGER

    def __init__(self) -> None:
        DRAWN.again()
        super().__init__()
        self.coming: dict[str, tuple[Files, Files]] = {}
        self.begun = 0

    def teardown(self) -> None:
        self.finish_all()
        super().teardown()

    @precondition(lambda self: len(self.paused) < MOST)
    @rule(record=files, payload=files)
    def begin_to_commit(self, record: Shape, payload: Shape) -> None:
        self.begun += 1
        tag = f"tags/paused-{self.begun}"
        parts = filled(record, self.light), filled(payload, self.heavy)
        self.coming[tag] = parts

        def make(transaction: Transaction) -> CommitId:
            tree, heavy = (write_files(transaction, part) for part in parts)
            message = f"paused {tag}"
            id = transaction.record(Commit(kind=COMMIT, tree=tree, payload=heavy, message=message))
            transaction.set_ref(tag, id)
            return id

        self.start(lambda repo: transact(repo, "paused", make))

    @rule(handle=handles)
    def read_without_looking_for_a_newer_root(self, handle: int) -> None:
        """What is reachable now is found from any older state of the caches."""
        self.notice()
        repo = self.handles[handle]
        for id in self.reachable():
            assert read_tree(repo, repo.commit(id).tree) == self.records[id]

    def look(self, repo: Repo) -> None:
        self.notice()
        super().look(repo)

    def notice(self) -> None:
        """Take what paused processes have published for acknowledged: nothing may undo it."""
        refs = self.handles[0].refresh().refs
        for tag in self.coming.keys() & refs.keys():
            self.remember(0, tag, refs[tag], *self.coming.pop(tag))

    def ended(self, process: Paused[object]) -> None:
        super().ended(process)
        self.notice()


class PausedDeltaMachine(Pausing, DeltaMachine):
    """Runs whose states are deltas, repacked and collected beside the same that are paused."""

    def __init__(self) -> None:
        DRAWN.again()
        super().__init__()

    def teardown(self) -> None:
        self.finish_all()
        super().teardown()


TestPausedRepository = PausedRepositoryMachine.TestCase
TestPausedRepository.settings = settings(
    max_examples=amount(5, 10_000), stateful_step_count=30, deadline=None
)
TestPausedDeltas = PausedDeltaMachine.TestCase
TestPausedDeltas.settings = settings(
    max_examples=amount(3, 2_000), stateful_step_count=25, deadline=None
)
