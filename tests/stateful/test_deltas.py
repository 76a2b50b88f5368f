"""Whatever is committed, pruned, repacked and collected in whatever order reads back equal."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cas.ids import CommitId
from cas.objects.commit import BASE_MODEL, RESUMED_FROM, Parent
from cas.repo.check import fsck
from cas.repo.collect import gc, gcplan
from cas.repo.layout import HOLDS
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.store import writer
from cas.store.packed import PackedStore
from tests.support.builders import RunBuilder, read_tree, reopened, set_ref
from tests.support.crashing import Stopped, Stopping, two_handles
from tests.support.drift import drifting

SIZE = 6000
NAMES = ["exp/one", "exp/two", "tune/three"]
# A little and much: with some a key frame is soon left behind.
BY = {"exp/one": 1, "exp/two": 20, "tune/three": 3}
LIGHT = settings(max_examples=40, stateful_step_count=25, deadline=None)
handles = st.integers(0, 1)


@pytest.fixture(autouse=True)
def _as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data has packs of its own, which stay for as long as little in them is dead."""
    monkeypatch.setattr(writer, "SMALL", 1000)
    monkeypatch.setattr(gcplan, "SMALL_DATA", 0)


which = st.integers(0, 30)


class DeltaMachine(RuleBasedStateMachine):
    """Runs that drift and lean on each other, in a repository with two handles."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cas-"))
        self.handles = two_handles(self.folder)
        self.runs: dict[str, RunBuilder] = {}
        self.held: dict[CommitId, dict[str, bytes]] = {}

    def teardown(self) -> None:
        try:
            for repo in self.handles:
                repack.execute(repo, repack.plan(repo))
                gc.execute(repo, gc.plan(repo))
            assert gc.plan(self.handles[0]).empty
            self.read_everything(1)
        finally:
            for repo in self.handles:
                repo.backend.close()
            shutil.rmtree(self.folder)

    @initialize(name=st.sampled_from(NAMES), count=st.integers(2, 6))
    def begin(self, name: str, count: int) -> None:
        self.train(0, name, count, frozen=False, on=0)

    @rule(
        handle=handles,
        name=st.sampled_from(NAMES),
        count=st.integers(1, 4),
        frozen=st.booleans(),
        on=which,
    )
    def train(self, handle: int, name: str, count: int, frozen: bool, on: int) -> None:
        for _ in range(count):
            self.checkpoint(handle, name, frozen=frozen, on=on)

    def checkpoint(self, handle: int, name: str, *, frozen: bool, on: int) -> None:
        if name not in self.runs:
            parents: tuple[Parent, ...] = ()
            if self.held:
                role = BASE_MODEL if name.startswith("tune") else RESUMED_FROM
                parents = (Parent(role, self.some(on)),)
            self.runs[name] = RunBuilder(self.handles[handle], name, parents, points=20)
        run = self.runs[name]
        run.repo = self.handles[handle]
        step = len(run.ids)
        tensors = {
            "w": drifting(1, step, SIZE, BY[name]),
            "v": drifting(2, 0 if frozen else step, SIZE, BY[name]),
        }
        self.held[run.checkpoint(step, tensors)] = tensors

    @precondition(lambda self: self.held)
    @rule(handle=handles, one=which)
    def let_go(self, handle: int, one: int) -> None:
        id = self.some(one)
        del self.held[id]
        set_ref(self.handles[handle], f"{HOLDS}{id}", None)

    @rule(handle=handles, smallest=st.booleans())
    def repack(self, handle: int, smallest: bool) -> None:
        repo = self.handles[handle]
        done = repack.execute(repo, repack.plan(repo, smallest=smallest))
        assert done.new_bytes == self.on_disk(repo, listed=True) <= done.old_bytes
        assert repack.plan(repo, smallest=smallest).empty
        self.look(self.handles[1 - handle])

    @rule(handle=handles)
    def collect(self, handle: int) -> None:
        repo = self.handles[handle]
        before = self.on_disk(repo)
        planned = gc.plan(repo)
        gc.execute(repo, planned)
        assert planned.freed_bytes == before - self.on_disk(repo)
        assert gc.plan(repo).empty
        self.look(self.handles[1 - handle])

    @rule(left=st.integers(0, 12), collects=st.booleans())
    def stop_halfway(self, left: int, collects: bool) -> None:
        repo = reopened(self.handles[0])
        repo.backend = Stopping(repo.path, left)
        repo.store = PackedStore(repo.backend, lambda: repo.refresh().packs)
        with suppress(Stopped):
            if collects:
                gc.execute(repo, gc.plan(repo))
            else:
                repack.execute(repo, repack.plan(repo))
        repo.backend.close()
        self.read_everything(0)

    @rule(handle=handles)
    def read_everything(self, handle: int) -> None:
        self.look(self.handles[handle])
        repo = reopened(self.handles[handle])
        found = [item for item in fsck.check(repo, full=True) if item.severity != fsck.INFO]
        repo.backend.close()
        assert not found, found

    def some(self, one: int) -> CommitId:
        ids = list(self.held)
        return ids[one % len(ids)]

    def on_disk(self, repo: Repo, *, listed: bool = False) -> int:
        if listed:
            return sum(pack.length for pack in repo.refresh().packs)
        return sum(info.size_bytes for info in repo.backend.scan("packs/"))

    def look(self, repo: Repo) -> None:
        repo.refresh()
        for id, tensors in self.held.items():
            payload = repo.commit(id).payload
            assert payload is not None
            assert read_tree(repo, payload) == {"state": tensors}


TestDeltas = DeltaMachine.TestCase
TestDeltas.settings = LIGHT
