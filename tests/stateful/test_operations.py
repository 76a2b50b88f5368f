"""Any operations, collections and undos, against refs as a plain dict.

Commits here have no parents and nothing in common, so a plain model knows what gc may take: what no
ref names, and the payload of what no hold names.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cas.errors import CasError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import COMMIT, Commit
from cas.repo import transaction, undo
from cas.repo.check import fsck
from cas.repo.collect import gc
from cas.repo.layout import HOLDS
from cas.repo.reflog import history
from cas.repo.repo import Repo
from cas.repo.root import RefChange
from cas.repo.transaction import Transaction, transact
from tests.support.builders import noise, read_tree, reopened, write_files
from tests.support.crashing import two_handles
from tests.support.torture import amount

Refs = dict[str, CommitId]
NAMES = [f"{room}/{letter}" for room in ("tags", "runs", "models") for letter in "ab"]
handles = st.integers(0, 1)
names = st.sampled_from(NAMES)
which = st.integers(0, 40)


@dataclass(frozen=True)
class Made:
    """One operation as the model has it."""

    number: int
    run: bool
    changes: tuple[tuple[str, CommitId | None, CommitId | None], ...]


class OperationsMachine(RuleBasedStateMachine):
    """Two handles with caches of their own on one repository, beside a plain model of its refs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cas-"))
        self.handles = two_handles(self.folder)
        self.refs: Refs = {}
        self.done: list[Made] = []
        self.commits: list[CommitId] = []
        self.gone: set[CommitId] = set()  # records that gc has taken
        self.bare: set[CommitId] = set()  # payloads likewise
        self.number = 0

    def teardown(self) -> None:
        try:
            self.replay()
            found = list(fsck.check(reopened(self.handles[0]), full=True))
            assert not [item for item in found if item.severity != fsck.INFO]
        finally:
            for repo in self.handles:
                repo.backend.close()
            shutil.rmtree(self.folder)

    @rule(handle=handles, name=names, run=st.booleans())
    def commit(self, handle: int, name: str, run: bool) -> None:
        self.number += 1
        number = self.number

        def make(tx: Transaction) -> CommitId:
            record = write_files(tx, {"r": noise(2 * number, 60)})
            payload = write_files(tx, {"p": noise(2 * number + 1, 2000)})
            id = tx.record(Commit(kind=COMMIT, tree=record, payload=payload, message=f"{number}"))
            tx.set_ref(name, id)
            return id

        before = dict(self.refs)
        id = transact(self.handles[handle], "commit", make, run="a/run" if run else "")
        self.commits.append(id)
        self.moved(handle, before, before | {name: id, f"{HOLDS}{id}": id}, run=run)

    @precondition(lambda self: self.commits)
    @rule(handle=handles, moves=st.dictionaries(names, which | st.none(), min_size=1, max_size=4))
    def name(self, handle: int, moves: dict[str, int | None]) -> None:
        """Move several refs at once, to commits that are still there."""
        there = [id for id in self.commits if id not in self.gone]
        if not there:
            return
        wanted = {n: None if at is None else there[at % len(there)] for n, at in moves.items()}

        def point(tx: Transaction) -> None:
            for name, id in wanted.items():
                tx.set_ref(name, id)

        before = dict(self.refs)
        transact(self.handles[handle], "name", point)
        after = {n: id for n, id in (before | wanted).items() if id is not None}
        self.moved(handle, before, after)

    @rule(handle=handles, at=which, many=st.integers(1, 3))
    def let_go(self, handle: int, at: int, many: int) -> None:
        held = sorted(name for name in self.refs if name.startswith(HOLDS))
        going = {held[(at + n) % len(held)] for n in range(many)} if held else set()

        def drop(tx: Transaction) -> None:
            for name in going:
                tx.set_ref(name, None)

        if going:
            before = dict(self.refs)
            transact(self.handles[handle], "prune", drop)
            self.moved(handle, before, {n: i for n, i in before.items() if n not in going})

    @rule(handle=handles)
    def collect(self, handle: int) -> None:
        repo = self.handles[handle]
        gc.execute(repo, gc.plan(repo))
        named = set(self.refs.values())
        self.gone |= {id for id in self.commits if id not in named}
        self.bare |= {id for id in self.commits if f"{HOLDS}{id}" not in self.refs}

    @precondition(lambda self: self.done)
    @rule(handle=handles, at=which, partly=st.booleans(), by_id=st.booleans())
    def undo(self, handle: int, at: int, partly: bool, by_id: bool) -> None:
        made = self.done[-1 - at % len(self.done)]
        repo = self.handles[handle]
        word = str(made.number)
        if by_id:
            word = next(past.id for past in history(repo) if past.number == made.number)[:20]
        self.take_back(handle, made, word, partly=partly)

    @precondition(lambda self: any(not made.run for made in self.done))
    @rule(handle=handles)
    def undo_the_last(self, handle: int) -> None:
        made = next(made for made in reversed(self.done) if not made.run)
        self.take_back(handle, made, None, partly=False)

    def take_back(self, handle: int, made: Made, word: str | None, *, partly: bool) -> None:
        repo, before = self.handles[handle], dict(self.refs)
        if made.run:
            with pytest.raises(RefusedError, match="was made by the run"):
                undo.plan(repo, word)
            return
        planned = undo.plan(repo, word)
        assert planned.past.number == made.number
        after, problems = self.expected(made)
        assert {step.change.name for step in planned.problems} == problems
        if after == before or (problems and not partly):
            with pytest.raises(RefusedError):
                undo.execute(repo, planned, partly=partly)
            assert dict(repo.refresh().refs) == before
            return
        undo.execute(repo, planned, partly=partly)
        self.moved(handle, before, after)

    def expected(self, made: Made) -> tuple[Refs, set[str]]:
        """Return the refs after as much of an undo as can be, and those that cannot go back."""
        after, problems = dict(self.refs), set()
        for name, old, new in made.changes:
            now = self.refs.get(name)
            if now == old:
                continue
            lost = old in self.gone or (name.startswith(HOLDS) and old in self.bare)
            if now != new or (old is not None and lost):
                problems.add(name)
                continue
            after.pop(name, None)
            if old is not None:
                after[name] = old
        chosen = {id for name, id in after.items() if name.startswith(("tags/", "models/"))}
        for name, old, new in made.changes:
            if name.startswith(HOLDS) and old is None and self.refs.get(name) == new in chosen:
                assert new is not None
                after[name] = new
        return after, problems

    def moved(self, handle: int, before: Refs, after: Refs, *, run: bool = False) -> None:
        """Take over what an operation did, if it did anything."""
        self.refs = after
        names = before.keys() | after.keys()
        changes = [(name, before.get(name), after.get(name)) for name in sorted(names)]
        changes = [(name, old, new) for name, old, new in changes if old != new]
        if changes:
            number = self.handles[handle].refresh().seq
            self.done.append(Made(number, run, tuple(changes)))

    @invariant()
    def every_handle_sees_the_refs(self) -> None:
        for repo in self.handles:
            assert dict(repo.refresh().refs) == self.refs

    @rule(handle=handles)
    def look(self, handle: int) -> None:
        """Read all that refs and holds keep."""
        repo = self.handles[handle]
        for name, id in self.refs.items():
            commit = repo.commit(id)
            number = int(commit.message)
            assert read_tree(repo, commit.tree) == {"r": noise(2 * number, 60)}
            if name.startswith(HOLDS):
                assert commit.payload is not None
                assert read_tree(repo, commit.payload) == {"p": noise(2 * number + 1, 2000)}

    def replay(self) -> None:
        """Insist that the reflog, from its beginning, leads to the refs, and tells who did what."""
        pasts = list(history(reopened(self.handles[0])))
        refs: Refs = {}
        for past in reversed(pasts):
            for change in past.changes:
                assert refs.pop(change.name, None) == change.old
                if change.new is not None:
                    refs[change.name] = change.new
        assert refs == self.refs
        told = {past.number: past for past in pasts}
        for made in self.done:
            changes = {(c.name, c.old, c.new) for c in told[made.number].changes}
            assert changes == set(made.changes)
            assert bool(told[made.number].operation.run) == made.run


TestOperations = pytest.mark.torture(OperationsMachine.TestCase)
TestOperations.settings = settings(
    max_examples=amount(20, 2000), stateful_step_count=30, deadline=None
)


def forget_that_it_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    step = undo._step

    def back(repo: Repo, change: RefChange, refs: Refs, has: undo.Has) -> undo.Step:
        return step(repo, change, {**refs, change.name: change.new}, has)  # type: ignore[dict-item]

    monkeypatch.setattr(undo, "_step", back)


def trust_every_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "_missing", lambda *_: "")
    monkeypatch.setattr(
        Transaction, "hold", lambda tx, id, payload: Transaction.set_ref(tx, f"{HOLDS}{id}", id)
    )


def ask_no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo._Decision, "_look", lambda *_: None)


def take_back_what_runs_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "_check_own", lambda *_: None)


def lose_who_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = transaction.begun
    monkeypatch.setattr(transaction, "begun", lambda repo, what, run="": made(repo, what))


@pytest.mark.parametrize(
    "plant",
    [
        forget_that_it_moved,
        trust_every_hold,
        ask_no_tag,
        take_back_what_runs_did,
        lose_who_made_it,
    ],
)
def test_it_finds_what_is_planted(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    quick = settings(
        max_examples=200,
        stateful_step_count=30,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        report_multiple_bugs=False,
        print_blob=False,
    )
    with pytest.raises((AssertionError, CasError, pytest.fail.Exception)):
        run_state_machine_as_test(OperationsMachine, settings=quick)
