"""Marking fast finds exactly what the slow walk finds, and leaves to that what is odd."""

import random
from pathlib import Path

import pytest

from cas.errors import CorruptionError
from cas.ids import CommitId, ObjectId, blob_id
from cas.objects.commit import BASE_MODEL, DATASET, Commit, Parent
from cas.objects.edges import Edge, parse, references
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind, build
from cas.repo import bulkread, marking
from cas.repo.layout import HOLDS, MAIN
from cas.repo.marking import _slowly, mark, reach
from cas.repo.marks import BASE, Live
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.store import writer
from cas.store.pinned import PinnedStore
from tests.support.builders import RunBuilder, commit_files, noise, repository, set_ref
from tests.support.drift import drift_run


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def both(repo: Repo) -> tuple[Live, Live]:
    root = repo.refresh()
    fast = mark(PinnedStore(repo.backend, root.packs), root.refs, root.tombstones)
    slow = _slowly(PinnedStore(repo.backend, root.packs), root.refs, root.tombstones)
    return fast, slow


def same(repo: Repo) -> Live:
    fast, slow = both(repo)
    assert fast.marks == slow.marks
    assert (fast.commits, fast.deltas) == (slow.commits, slow.deltas)
    assert fast.only_bases == slow.only_bases
    assert fast.objects == len(set(fast.ids()))
    return fast


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is small, so that all that joins them is at work."""
    monkeypatch.setattr(marking, "SOME", 2)
    monkeypatch.setattr(marking, "MANY", 3)
    monkeypatch.setattr(bulkread, "GAP", 100)
    monkeypatch.setattr(bulkread, "SPAN", 4000)
    monkeypatch.setattr(bulkread, "AT_ONCE", 2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("hasty")
def test_it_finds_what_the_slow_walk_finds(repo: Repo, seed: int) -> None:
    rng = random.Random(seed)
    ids: list[CommitId] = []
    for number in range(12):
        files = {f"f{n}": noise(rng.randrange(40), rng.choice([10, 900, 5000])) for n in range(5)}
        files["big"] = noise(rng.randrange(3), 1_500_000)
        parents = (Parent(DATASET, rng.choice(ids)),) if ids else ()
        payload = {"sub": {"w": noise(number, 4000)}} if rng.random() < 0.5 else None
        tag = f"tags/{rng.randrange(6)}"
        ids.append(commit_files(repo, files, parents=parents, payload=payload, ref=tag))
    for id in rng.sample(ids, 4):
        if f"{HOLDS}{id}" in repo.refresh().refs:
            set_ref(repo, f"{HOLDS}{id}", None)
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(1, {"w": noise(1, 5000), "small": b"few"}, value=1.0)
    live = same(repo)
    assert live.objects < len(live.marks)


def test_every_kind_of_edge_is_followed(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """What names an object is walked here by `references` alone, and nothing of it has no mark."""
    monkeypatch.setattr(writer, "GROUP_FROM", 1_000_000)
    monkeypatch.setattr(writer, "GROUP", 4)
    first = commit_files(repo, {"d": noise(1, 3000)}, ref="tags/d")
    second = commit_files(repo, {"e": noise(2, 3000)}, payload={"p": noise(3, 900)}, ref="tags/e")
    set_ref(repo, "tags/d", None)
    set_ref(repo, f"{HOLDS}{second}", None)
    set_ref(repo, "tags/e", None)
    sources = (Parent(DATASET, first), Parent(BASE_MODEL, second))
    names = {f"name {number}": b"%d" % number for number in range(5000)}  # a tree of two levels
    commit_files(repo, {"many": names, "big": noise(4, 3_000_000)}, parents=sources)
    run = RunBuilder(repo, "exp/one", sources, points=20)
    run.checkpoint(1, {"w": noise(5, 4000), "v": noise(6, 4000)}, value=0.5)
    run.finish({"loss": 0.25})
    drift_run(repo, "exp/drift", steps=3, size=20_000, by=1)
    repack.execute(repo, repack.plan(repo, smallest=True))
    live = same(repo)
    assert live.deltas
    kinds = {kind for kind, _ in needed(repo, live)}
    assert kinds == {*Kind}
    missed = {(kind, id) for kind, id in needed(repo, live) if id not in live}
    assert missed == set()
    assert repo.commit(second).payload not in {id for _, id in needed(repo, live)}


def needed(repo: Repo, live: Live) -> set[Edge]:
    refs = repo.refresh().refs
    held = {id for name, id in refs.items() if name.startswith(HOLDS)}
    pending: list[Edge] = [(Kind.COMMIT, id) for id in refs.values()]
    found: set[Edge] = set()
    while pending:
        kind, id = edge = pending.pop()
        if edge in found:
            continue
        found.add(edge)
        obj = parse(kind, repo.store.read(kind, id))
        let_go = obj.payload if isinstance(obj, Commit) and id not in held else None
        pending += [one for one in references(obj) if one[1] != let_go]
        (place, *_) = live.store.places(id)
        if kind is Kind.BLOB:
            recipe, base = live.store.recipe(place), live.store.base(place)
            pending += [(Kind.BLOB, piece) for piece, _ in recipe.pieces()] if recipe else []
            pending += [(Kind.BLOB, base)] if base else []
    return found


@pytest.mark.usefixtures("hasty")
def test_bases_of_deltas_are_told_apart(repo: Repo) -> None:
    ids = drift_run(repo, steps=4, size=20_000, by=1)
    repack.execute(repo, repack.plan(repo, smallest=True))
    assert same(repo).deltas
    for id in ids[:3]:
        set_ref(repo, f"{HOLDS}{id}", None)
    live = same(repo)
    assert live.only_bases
    assert live.marks.count(BASE) == len(live.only_bases)


def test_a_container_that_is_read_only_once_costs_no_look_up_of_its_own(repo: Repo) -> None:
    """The fast way was taken, not the slow one that would find the same."""
    commit_files(repo, {f"f{n}": b"%d" % n for n in range(50)})
    root = repo.refresh()
    store = PinnedStore(repo.backend, root.packs)
    store.read = None  # type: ignore[method-assign, assignment]
    assert mark(store, root.refs).objects > 50


def odd(repo: Repo, kind: EntryKind, id: ObjectId) -> None:
    def make(tx) -> None:  # type: ignore[no-untyped-def]
        entry = Entry(b"odd", kind, id, 4, 0o644 if kind is EntryKind.FILE else 0)
        commit = Commit(kind="commit", tree=build([entry], tx.writer.tree).id)
        tx.set_ref("tags/odd", tx.record(commit))

    transact(repo, "odd", make)


def test_what_is_missing_is_told_by_ref_and_path(repo: Repo) -> None:
    odd(repo, EntryKind.FILE, blob_id(b"never written"))
    with pytest.raises(CorruptionError, match=r"tags/odd.*odd"):
        reach(repo, repo.refresh())


def test_a_file_in_the_place_of_a_state_is_told(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 1000)})
    odd(repo, EntryKind.STATE, blob_id(noise(1, 1000)))
    set_ref(repo, MAIN, None)
    with pytest.raises(CorruptionError, match="tags/odd"):
        reach(repo, repo.refresh())


def test_marks_go_with_packs_that_stay(repo: Repo) -> None:
    commit_files(repo, {"a": noise(1, 1000)})
    commit_files(repo, {"b": noise(2, 1000)}, ref="tags/x")
    set_ref(repo, "tags/x", None)
    live = reach(repo, repo.refresh())
    kept = set(live.ids())
    commit_files(repo, {"c": noise(3, 1000)}, ref="tags/c")
    packs = repo.refresh().packs
    onto = live.onto(PinnedStore(repo.backend, (packs[-1], *packs[:-1])))
    came = set(onto.ids()) - kept
    assert blob_id(noise(3, 1000)) in came
    assert blob_id(noise(2, 1000)) not in onto
    assert kept <= set(onto.ids())
    assert onto.place(blob_id(noise(1, 1000))) is not None
