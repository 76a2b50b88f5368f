"""Whatever happens in whatever order, what refs and holds keep reads back equal."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cas.errors import NotFoundError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import COMMIT, DATASET, Commit, Parent
from cas.repo import undo
from cas.repo.check import fsck
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, MAIN, RUNS
from cas.repo.repo import Repo
from cas.repo.retain import prune
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction, transact
from cas.store.packed import PackedStore
from tests.support.builders import (
    Files,
    RunBuilder,
    commit_files,
    noise,
    read_tree,
    reopened,
    set_ref,
    write_files,
)
from tests.support.crashing import Stopped, Stopping, two_handles
from tests.support.torture import amount

# Few contents, so that what is written now was often stored, dropped or collected before.
# Those of payloads are others than those of records, which history keeps alive for ever.
BLOBS = [noise(0, 100), noise(1, 2000), noise(2, 90_000), noise(3, 300_000), noise(4, 700_000)]
HEAVY = [noise(5, 100), noise(6, 2000), noise(7, 280_000), noise(8, 300_000), noise(9, 700_000)]
# As numbers, so that a failing example can be read.
numbers = st.integers(0, len(BLOBS) - 1)
contents = st.dictionaries(st.sampled_from("abc"), numbers, min_size=1, max_size=2)
files = contents | st.fixed_dictionaries({"sub": contents, "a": numbers})
handles = st.integers(0, 1)
NAMES = ["exp/one", "exp/two", "other/three"]
POINTS = 20  # of a history, which then is no part of what names it
runs = st.sampled_from(NAMES)
tags = st.sampled_from(["tags/a", "tags/b", "tags/c"])
MEDIUM = settings(max_examples=amount(20, 2000), stateful_step_count=30, deadline=None)


Shape: TypeAlias = Mapping[str, "int | Shape"]


def filled(shape: Shape, blobs: Sequence[bytes]) -> Files:
    """Return files with the blobs that the numbers mean."""
    return {
        name: blobs[item] if isinstance(item, int) else filled(item, blobs)
        for name, item in shape.items()
    }


class RepositoryMachine(RuleBasedStateMachine):
    """Two handles with caches of their own on one repository, beside a plain model of it."""

    light: Sequence[bytes] = BLOBS
    heavy: Sequence[bytes] = HEAVY

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cas-"))
        self.handles = two_handles(self.folder)
        self.refs: dict[str, CommitId] = {}
        self.held: set[CommitId] = set()
        self.records: dict[CommitId, object] = {}
        self.payloads: dict[CommitId, object] = {}
        self.runs: dict[str, RunBuilder] = {}

    def teardown(self) -> None:
        try:
            gc.execute(self.handles[0], gc.plan(self.handles[0]))
            self.look(self.handles[1])
            assert not self.findings(fsck.INFO, fsck.WARNING, fsck.ERROR)
            assert gc.plan(self.handles[1]).empty
        finally:
            for repo in self.handles:
                repo.backend.close()
            shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        self.commit(0, {"a": 0}, {"w": 1})

    @rule(handle=handles, record=files, payload=st.none() | files, source=st.integers(-1, 30))
    def commit(self, handle: int, record: Shape, payload: Shape | None, source: int = -1) -> None:
        """Commit after what is there, and from some other commit if `source` says so."""
        light = filled(record, self.light)
        heavy = None if payload is None else filled(payload, self.heavy)
        others = sorted(self.reachable()) if source >= 0 else []
        parents = (Parent(DATASET, others[source % len(others)]),) if others else ()
        id = commit_files(self.handles[handle], light, payload=heavy, parents=parents)
        self.remember(handle, MAIN, id, light, heavy)

    @rule(handle=handles, tag=tags, record=files, payload=files)
    def commit_while_another_collects(
        self, handle: int, tag: str, record: Shape, payload: Shape
    ) -> None:
        repo, other = self.handles[handle], self.handles[1 - handle]
        parts = filled(record, self.light), filled(payload, self.heavy)
        attempts = iter([True])

        def make(transaction: Transaction) -> CommitId:
            tree, heavy = (write_files(transaction, part) for part in parts)
            commit = Commit(kind=COMMIT, tree=tree, payload=heavy, message="raced")
            id = transaction.record(commit)
            transaction.set_ref(tag, id)
            if next(attempts, False):
                gc.execute(other, gc.plan(other))
            return id

        self.remember(handle, tag, transact(repo, "race", make), *parts)

    @rule(handle=handles, run=runs, data=contents, value=st.integers(0, 3))
    def checkpoint(self, handle: int, run: str, data: dict[str, int], value: int) -> None:
        fresh = RunBuilder(self.handles[handle], run, points=POINTS)
        builder = self.runs.setdefault(run, fresh)
        builder.repo = self.handles[handle]
        tensors = {name: self.heavy[number] for name, number in data.items()}
        id = builder.checkpoint(len(builder.ids), tensors, value=float(value))
        self.remember(handle, builder.ref, id, None, {"state": tensors})

    @precondition(lambda self: self.runs)
    @rule(handle=handles, run=runs)
    def finish(self, handle: int, run: str) -> None:
        if run in self.runs:
            builder = self.runs[run]
            builder.repo = self.handles[handle]
            self.remember(handle, builder.ref, builder.finish(), None, None)

    @rule(handle=handles, tag=tags, which=st.integers(0, 30))
    def tag(self, handle: int, tag: str, which: int) -> None:
        if reachable := sorted(self.reachable()):
            id = reachable[which % len(reachable)]
            set_ref(self.handles[handle], tag, id)
            self.refs[tag] = id

    @rule(handle=handles, tag=tags)
    def untag(self, handle: int, tag: str) -> None:
        set_ref(self.handles[handle], tag, None)
        self.refs.pop(tag, None)

    @rule(handle=handles, which=st.integers(0, 30))
    def let_go_of_a_payload(self, handle: int, which: int) -> None:
        if self.held:
            id = sorted(self.held)[which % len(self.held)]
            set_ref(self.handles[handle], f"{HOLDS}{id}", None)
            self.held.discard(id)

    @rule(handle=handles, back=st.integers(0, 4))
    def undo(self, handle: int, back: int) -> None:
        self.notice()
        repo = self.handles[handle]
        before = dict(repo.refresh().refs)
        word = str(repo.root.seq + 1 - back) if back else None
        try:
            planned = undo.plan(repo, word)
            # A run would go on after a commit that may be collected now.
            if any(change.name.startswith(RUNS) for change in planned.moved):
                return
            done = undo.execute(repo, planned, partly=True).moved
        except (NotFoundError, RefusedError):
            done = ()
        for change in done:
            assert before.get(change.name) == change.old
            self.move(change.name, change.new)
        self.look(repo)

    def move(self, name: str, new: CommitId | None) -> None:
        """Note that a ref or hold has moved."""
        id = next((id for id in self.payloads if name == f"{HOLDS}{id}"), None)
        if id is not None:
            self.held = self.held | {id} if new else self.held - {id}
        elif new is not None:
            self.refs[name] = new
        else:
            del self.refs[name]

    def notice(self) -> None:
        """Take notice of what others have done meanwhile: here there is nobody."""

    @rule(handle=handles, last=st.integers(1, 2), collect=st.booleans())
    def prune(self, handle: int, last: int, collect: bool) -> None:
        repo = self.handles[handle]
        planned = prune.plan(repo, Keep(last=last))
        gone = prune.execute(repo, planned)
        assert set(gone) == set(planned.dropped)
        self.held -= set(gone)
        if collect:
            assert gc.execute(repo, gc.plan(repo)).freed_bytes == planned.freed_bytes

    @rule(handle=handles)
    def collect(self, handle: int) -> None:
        repo = self.handles[handle]
        before = sum(info.size_bytes for info in repo.backend.scan("packs/"))
        planned = gc.plan(repo)
        gc.execute(repo, planned)
        after = sum(info.size_bytes for info in repo.backend.scan("packs/"))
        assert planned.freed_bytes == before - after
        assert gc.plan(repo).empty
        self.look(self.handles[1 - handle])

    @rule(left=st.integers(0, 12))
    def collect_and_stop_halfway(self, left: int) -> None:
        repo = reopened(self.handles[0])
        repo.backend = Stopping(repo.path, left)
        repo.store = PackedStore(repo.backend, lambda: repo.refresh().packs)
        with suppress(Stopped):
            gc.execute(repo, gc.plan(repo))
        repo.backend.close()
        assert not self.findings(fsck.WARNING, fsck.ERROR)

    @rule(handle=handles)
    def read_everything(self, handle: int) -> None:
        self.look(self.handles[handle])

    def findings(self, *severities: str) -> list[fsck.Finding]:
        """Return what fsck finds through a handle without any caches."""
        repo = reopened(self.handles[0])
        found = [item for item in fsck.check(repo, full=True) if item.severity in severities]
        repo.backend.close()
        return found

    def remember(
        self, handle: int, ref: str, id: CommitId, record: Files | None, payload: object
    ) -> None:
        repo = self.handles[handle]
        self.refs[ref] = id
        read = read_tree(repo, repo.commit(id).tree)
        assert record is None or read == record
        self.records[id] = read
        if payload is not None:
            self.payloads[id] = payload
            self.held.add(id)

    def reachable(self) -> set[CommitId]:
        """The commits that refs, holds included, lead to along every role."""
        repo = self.handles[0]
        pending = [*self.refs.values(), *self.held]
        found: set[CommitId] = set()
        while pending:
            id = pending.pop()
            if id not in found:
                found.add(id)
                pending.extend(parent.commit for parent in repo.commit(id).parents)
        return found

    def look(self, repo: Repo) -> None:
        """Compare what this handle reads, whatever it has cached, with the model."""
        refs = dict(repo.refresh().refs)
        assert refs == self.refs | {f"{HOLDS}{id}": id for id in self.held}
        for id in self.reachable():
            assert read_tree(repo, repo.commit(id).tree) == self.records[id]
        for id in self.held:
            payload = repo.commit(id).payload
            assert payload is not None
            assert read_tree(repo, payload) == self.payloads[id]


pytestmark = pytest.mark.torture
TestRepository = RepositoryMachine.TestCase
TestRepository.settings = MEDIUM
