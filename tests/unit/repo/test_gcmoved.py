"""A collection that is outrun again and again ends, and takes nothing that came alive."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cas.backend.local import LocalBackend
from cas.ids import Buffer, CommitId, blob_id
from cas.repo import gate
from cas.repo.check import fsck
from cas.repo.collect import gc, gcstages
from cas.repo.collect.gcmoved import moved
from cas.repo.layout import HOLDS
from cas.repo.marking import mark
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.store.packed import PackedStore
from tests.support.builders import (
    Files,
    commit_files,
    noise,
    read_tree,
    reopened,
    repository,
    set_ref,
)
from tests.support.crashing import Quick

DEAD: Files = {"a": noise(1, 300_000), "sub": {"b": noise(2, 5000)}, "cut": noise(3, 1_500_000)}
OUTRUN = 10
LATE = 3
Act = Callable[[Repo], object]


class Outrun(LocalBackend):
    """A backend that lets somebody else commit before each new root, and act before one."""

    def __init__(self, repo: Repo, act: Act) -> None:
        super().__init__(repo.path, ops=Quick())
        self.other = reopened(repo, Quick())
        self.act = act
        self.number = 0

    def put_new(self, key: str, data: Buffer) -> None:
        if key.startswith("roots/") and self.number < OUTRUN:
            self.number += 1
            commit_files(self.other, {"n": b"%d" % self.number}, ref=f"tags/n{self.number}")
            if self.number == LATE:
                self.act(self.other)
        super().put_new(key, data)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here waits at the gate: collector and writer are one process."""
    monkeypatch.setattr(gate, "PATIENCE_S", 0.0)


@pytest.fixture(params=["at once", "in steps"], autouse=True)
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in steps":
        monkeypatch.setattr(gcstages, "SMALL", 0)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = reopened(repository(tmp_path), Quick())
    commit_files(made, DEAD, ref="tags/dead")
    commit_files(made, {"kept": b"kept", "a": noise(1, 300_000)})
    set_ref(made, "tags/dead", None)
    return made


def marks(repo: Repo, act: Act, monkeypatch: pytest.MonkeyPatch) -> int:
    """Collect while others act; return how often everything was marked."""
    count = 0

    def counted(*args: object, **options: object) -> object:
        nonlocal count
        count += 1
        return mark(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gc, "mark", counted)
    slow = reopened(repo)
    slow.backend = Outrun(repo, act)
    slow.store = PackedStore(slow.backend, lambda: slow.refresh().packs)
    gc.execute(slow, gc.plan(slow))
    monkeypatch.undo()
    assert slow.backend.number >= LATE
    return count


def whole(repo: Repo) -> bool:
    findings = fsck.check(reopened(repo, Quick()), full=True)
    return not [found for found in findings if found.severity != fsck.INFO]


def test_it_ends_without_marking_for_ever(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sum(info.length for info in repo.root.packs)
    assert marks(repo, lambda _: None, monkeypatch) == 1
    assert whole(repo)
    assert sum(info.length for info in repo.refresh().packs) < before - 1_400_000
    assert len(repo.root.refs) == 1 + OUTRUN
    assert gc.plan(repo).dead == ()


@pytest.mark.parametrize(
    "files", [DEAD, {"cut": DEAD["cut"]}, {"s": DEAD["sub"]}], ids=["tree", "recipe", "part"]
)
def test_what_came_alive_stays(repo: Repo, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def revive(other: Repo) -> None:
        commit_files(other, files, ref="tags/back")

    assert marks(repo, revive, monkeypatch) == 1
    assert whole(repo)
    assert read_tree(repo, repo.commit(repo.refresh().refs["tags/back"]).tree) == files


def test_what_was_found_and_let_go_of_again_is_not_left_half(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(other: Repo) -> None:
        commit_files(other, {**DEAD, "new": b"new"}, ref="tags/back")
        set_ref(other, "tags/back", None)

    assert marks(repo, touch, monkeypatch) == 1
    assert whole(repo)


@pytest.mark.parametrize("held", [True, False])
def test_a_payload_that_is_held_again_stays(
    repo: Repo, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = commit_files(repo, {"r": b"r"}, payload={"w": noise(7, 5000)}, ref="tags/p")
    set_ref(repo, f"{HOLDS}{id}", None)
    payload = repo.commit(id).payload
    assert payload

    def hold(other: Repo) -> None:
        if held:
            transact(other, "hold", lambda tx: tx.hold(id, payload))

    assert marks(repo, hold, monkeypatch) == 1
    assert whole(repo)
    assert not held or read_tree(repo, payload) == {"w": noise(7, 5000)}


def test_a_commit_that_is_named_again_stays(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    id = commit_files(repo, {"r": b"r"}, ref="tags/p")
    set_ref(repo, "tags/p", None)
    assert marks(repo, lambda other: set_ref(other, "tags/q", id), monkeypatch) == 1
    assert whole(repo)
    assert read_tree(repo, repo.commit(id).tree) == {"r": b"r"}


def test_another_collection_in_between_does_no_harm(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[CommitId] = []

    def collect(other: Repo) -> None:
        gc.execute(other, gc.plan(other))
        ids.append(commit_files(other, DEAD, ref="tags/back"))

    marks(repo, collect, monkeypatch)
    assert whole(repo)
    assert read_tree(repo, repo.commit(ids[0]).tree) == DEAD


def test_what_dies_meanwhile_is_taken_as_well_while_there_is_time(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_files(repo, {"b": noise(8, 400_000)}, ref="tags/dies")
    before = sum(info.length for info in repo.root.packs)
    assert marks(repo, lambda other: set_ref(other, "tags/dies", None), monkeypatch) == 2
    assert whole(repo)
    assert sum(info.length for info in repo.refresh().packs) < before - 1_800_000


def test_what_only_a_base_was_needed_for_stays_when_a_newcomer_needs_it(repo: Repo) -> None:
    """The copy that is dead in one step must not be forgotten in the next."""
    planned = gc.plan(repo)
    assert planned.dead or planned.rewrites
    commit_files(repo, {"n": DEAD["a"]}, ref="tags/n")
    once = moved(repo, planned, repo.refresh())
    assert once is not None
    commit_files(repo, {"m": noise(2, 5000)}, ref="tags/m")
    again = moved(repo, once, repo.refresh())
    assert again is not None
    for data in (DEAD["a"], noise(2, 5000)):
        assert isinstance(data, bytes)
        assert again.marked.needs(blob_id(data))
    assert gc.execute(repo, again).freed_bytes > 0
    assert whole(repo)
