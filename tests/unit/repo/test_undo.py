"""Undo puts back exactly the refs that an operation moved, or says which one cannot go back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cas.backend.local import LocalBackend
from cas.errors import NotFoundError, RefusedError
from cas.ids import Buffer, CommitId
from cas.objects.commit import DATASET, PREVIOUS, Parent
from cas.repo import undo
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, MAIN, ROOTS
from cas.repo.reflog import history
from cas.repo.repo import Repo
from cas.repo.retain import prune
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction, transact
from cas.store.packed import PackedStore
from tests.support.builders import (
    Clock,
    RunBuilder,
    commit_files,
    noise,
    read_tree,
    reopened,
    repository,
    set_ref,
    whole,
)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def taken_back(repo: Repo, word: str | None = None, *, partly: bool = False) -> undo.UndoPlan:
    return undo.execute(repo, undo.plan(repo, word), partly=partly)


def last(repo: Repo) -> str:
    """The number of the newest operation."""
    return str(repo.refresh().seq)


def refs(repo: Repo) -> dict[str, CommitId]:
    return dict(repo.refresh().refs)


def collected(repo: Repo) -> None:
    gc.execute(repo, gc.plan(repo))


@pytest.fixture
def run(repo: Repo) -> RunBuilder:
    made = RunBuilder(repo, "exp/one")
    for step in range(3):
        made.checkpoint(step, {"w": noise(step, 300_000)}, value=1 / (step + 1))
    made.finish()
    return made


class TestWhatGoesBack:
    def test_the_refs_that_moved_and_no_others(self, repo: Repo) -> None:
        first = commit_files(repo, {"a": b"1"}, payload={"w": b"1"})
        set_ref(repo, "tags/v1", first)
        before = refs(repo)
        second = commit_files(repo, {"a": b"2"}, payload={"w": b"2"})
        set_ref(repo, "tags/v2", first)
        done = taken_back(repo, "4")
        assert refs(repo) == before | {"tags/v2": first}
        assert {(c.name, c.old, c.new) for c in done.moved} == {
            (MAIN, second, first),
            (f"{HOLDS}{second}", second, None),
        }
        assert whole(repo)

    def test_a_tag_that_was_deleted(self, repo: Repo) -> None:
        set_ref(repo, "tags/v1", commit_files(repo, {"a": b"1"}))
        before = refs(repo)
        set_ref(repo, "tags/v1", None)
        taken_back(repo)
        assert refs(repo) == before

    def test_undo_of_an_undo_is_redo(self, repo: Repo) -> None:
        commit_files(repo, {"a": b"1"})
        before = refs(repo)
        commit_files(repo, {"a": b"2"}, payload={"w": b"2"})
        after = refs(repo)
        for wanted in (before, after, before, after):
            taken_back(repo)
            assert refs(repo) == wanted
        whats = [past.operation.what for past in history(repo)][:4]
        assert whats == ["undo 6", "undo 5", "undo 4", "undo 3: commit"]
        assert whole(repo)

    def test_the_packs_stay_as_they_are(self, repo: Repo) -> None:
        commit_files(repo, {"a": b"1"})
        commit_files(repo, {"a": b"2"})
        before = repo.root
        taken_back(repo)
        assert (repo.root.packs, repo.root.condemned) == (before.packs, before.condemned)

    def test_many_refs_at_once(self, repo: Repo) -> None:
        ids = [commit_files(repo, {"a": b"%d" % n}, ref=f"tags/{n}") for n in range(3)]
        before = refs(repo)

        def shuffle(tx: Transaction) -> None:
            for number in range(500):
                tx.set_ref(f"tags/{number}", ids[number % 2])

        transact(repo, "shuffle", shuffle)
        assert len(refs(repo)) == 500
        taken_back(repo)
        assert refs(repo) == before


class TestWhich:
    def test_by_default_the_last_one_of_this_user_that_no_run_made(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"})
        set_ref(repo, "tags/mine", id)
        other = Repo.open(repo.path, who="bob@host", clock=Clock())
        set_ref(other, "tags/his", id)
        transact(repo, "checkpoint", lambda tx: tx.set_ref("runs/a/x", id), run="a/x")
        collected(repo)
        transact(repo, "nothing at all", lambda tx: tx.writer.blob(b"only an object"))
        assert undo.plan(repo).past.operation.what == "ref"
        assert [c.name for c in taken_back(repo).moved] == ["tags/mine"]
        assert {"tags/his", "runs/a/x"} <= refs(repo).keys()
        assert [c.name for c in taken_back(other).moved] == ["tags/his"]

    def test_a_user_is_the_same_on_every_host(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"})
        set_ref(Repo.open(repo.path, who="ada@node7", clock=Clock()), "tags/there", id)
        assert [c.name for c in taken_back(repo).moved] == ["tags/there"]

    def test_nothing_to_take_back(self, repo: Repo) -> None:
        with pytest.raises(NotFoundError, match="cas reflog"):
            undo.plan(repo)

    def test_what_is_not_ones_own_is_refused(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"})
        set_ref(Repo.open(repo.path, who="bob@host", clock=Clock()), "tags/his", id)
        with pytest.raises(RefusedError, match="bob@host"):
            undo.plan(repo, last(repo))
        transact(repo, "checkpoint", lambda tx: tx.set_ref("runs/a/x", id), run="a/x")
        with pytest.raises(RefusedError, match="run a/x"):
            undo.plan(repo, last(repo))
        with pytest.raises(RefusedError, match="moved no ref"):
            undo.plan(repo, "1")

    def test_what_never_came_to_be_here_is_refused(self, repo: Repo) -> None:
        from dataclasses import replace

        from cas.repo import root as roots
        from cas.repo.root import Operation

        id = commit_files(repo, {"a": b"1"})
        trunk = repo.root
        set_ref(repo, "tags/lost", id)
        after = trunk.follow(Operation(b"n" * 16, "ada@host", "goes on", 1))
        roots.publish(repo.backend, replace(after, seq=4), b"w" * 16)
        fresh = reopened(repo)
        with pytest.raises(RefusedError, match="no part of"):
            undo.plan(fresh, "3")
        assert undo.plan(fresh).past.number == 2


class TestWhatHasMoved:
    def test_refuses_and_names_it(self, repo: Repo) -> None:
        commit_files(repo, {"a": b"1"})
        commit_files(repo, {"a": b"2"})
        newest = commit_files(repo, {"a": b"3"})
        before = refs(repo)
        plan = undo.plan(repo, "3")
        assert [step.change.name for step in plan.problems] == [MAIN]
        with pytest.raises(RefusedError, match=f"{MAIN} has moved since, to {newest.short}"):
            undo.execute(repo, plan)
        assert refs(repo) == before

    def test_partly_takes_back_the_rest(self, repo: Repo) -> None:
        one, two = (commit_files(repo, {"a": b"%d" % n}, ref=f"tags/{n}") for n in range(2))

        def swap(tx: Transaction) -> None:
            tx.set_ref("tags/0", two)
            tx.set_ref("tags/1", one)

        transact(repo, "swap", swap)
        swapped = last(repo)
        set_ref(repo, "tags/0", None)
        with pytest.raises(RefusedError, match="tags/0 has moved since, to nothing; --partly"):
            taken_back(repo, swapped)
        taken_back(repo, swapped, partly=True)
        assert refs(repo) == {"tags/1": two}
        with pytest.raises(RefusedError, match="nothing is left"):
            taken_back(repo, swapped, partly=True)

    def test_what_is_so_already_is_no_problem(self, repo: Repo) -> None:
        one, two = (commit_files(repo, {"a": b"%d" % n}, ref=f"tags/{n}") for n in range(2))

        def swap(tx: Transaction) -> None:
            tx.set_ref("tags/0", two)
            tx.set_ref("tags/1", one)

        transact(repo, "swap", swap)
        swapped = last(repo)
        set_ref(repo, "tags/0", one)
        taken_back(repo, swapped)
        assert refs(repo) == {"tags/0": one, "tags/1": two}


class TestPrune:
    def test_it_comes_back_until_gc_has_swept(self, repo: Repo, run: RunBuilder) -> None:
        before = refs(repo)
        prune.execute(repo, prune.plan(repo, Keep(last=1)))
        assert len(refs(repo)) == len(before) - 2
        taken_back(repo)
        assert refs(repo) == before
        payload = repo.commit(run.ids[0]).payload
        assert payload is not None
        collected(repo)
        assert read_tree(repo, payload) == {"state": {"w": noise(0, 300_000)}}
        assert whole(repo)

    def test_it_is_refused_when_the_payload_is_gone(self, repo: Repo, run: RunBuilder) -> None:
        prune.execute(repo, prune.plan(repo, Keep(last=1)))
        pruned = last(repo)
        plan = undo.plan(repo)
        collected(repo)
        before = refs(repo)
        with pytest.raises(RefusedError, match="kept a payload that gc has taken"):
            undo.execute(repo, plan)
        with pytest.raises(RefusedError, match="kept a payload that gc has taken"):
            taken_back(repo, pruned)
        with pytest.raises(RefusedError, match="nothing is left"):
            taken_back(repo, pruned, partly=True)
        assert refs(repo) == before
        assert whole(repo)

    def test_what_others_kept_comes_back_partly(self, repo: Repo, run: RunBuilder) -> None:
        # The payload of another run is the same one: it is there as long as that is.
        twin = RunBuilder(repo, "exp/twin")
        twin.checkpoint(0, {"w": noise(0, 300_000)}, value=1.0)
        prune.execute(repo, prune.plan(repo, Keep(last=1)))
        pruned = last(repo)
        collected(repo)
        assert len(undo.plan(repo, pruned).problems) == 1
        taken_back(repo, pruned, partly=True)
        assert f"{HOLDS}{run.ids[0]}" in refs(repo)
        assert f"{HOLDS}{run.ids[1]}" not in refs(repo)
        assert whole(repo)

    def test_to_do_it_again_spares_what_came_to_be_needed(
        self, repo: Repo, run: RunBuilder
    ) -> None:
        prune.execute(repo, prune.plan(repo, Keep(last=1)))
        taken_back(repo)
        set_ref(repo, "tags/good", run.ids[0])
        RunBuilder(repo, "exp/next", (Parent("resumed-from", run.ids[1]),)).finish()
        plan = undo.plan(repo, "7")
        assert sorted(step.stays for step in plan.steps) == [
            "stays for resumed-from of exp/next",
            "stays for tag good",
        ]
        with pytest.raises(RefusedError, match="nothing is left"):
            undo.execute(repo, plan)


class TestACommitThatIsNeeded:
    def test_its_payload_stays_for_a_tag(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"}, payload={"w": noise(1, 9000)})
        number = last(repo)
        set_ref(repo, "tags/v1", id)
        taken_back(repo, number)
        assert refs(repo) == {"tags/v1": id, f"{HOLDS}{id}": id}
        collected(repo)
        assert whole(repo)
        taken_back(repo)  # the commit is on main again
        assert refs(repo)[MAIN] == id

    def test_and_for_what_was_made_from_it(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"}, payload={"w": noise(1, 9000)})
        number = last(repo)
        for name in ("one", "two"):
            RunBuilder(repo, f"exp/{name}", (Parent(DATASET, id),)).finish()
        taken_back(repo, number)
        assert refs(repo)[f"{HOLDS}{id}"] == id
        collected(repo)
        assert whole(repo)

    def test_but_not_for_what_merely_came_after(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"}, payload={"w": noise(1, 9000)})
        number = last(repo)
        commit_files(repo, {"a": b"2"}, ref="models/next", parents=(Parent(PREVIOUS, id),))
        taken_back(repo, number)
        assert refs(repo).keys() == {"models/next"}
        assert whole(repo)


def test_a_name_does_not_come_back_while_a_run_of_it_is_open(repo: Repo, run: RunBuilder) -> None:
    set_ref(repo, run.ref, None)
    removed = last(repo)
    set_ref(repo, "open/exp/one", run.ids[0])
    with pytest.raises(RefusedError, match="a run that is open now"):
        taken_back(repo, removed)
    set_ref(repo, "open/exp/one", None)
    taken_back(repo, removed)
    assert refs(repo)[run.ref] == run.ids[-1]


class Meanwhile(LocalBackend):
    """A backend that lets something else happen right before a root is created."""

    def __init__(self, root: Path, acts: list[Callable[[], object]]) -> None:
        super().__init__(root)
        self.acts = acts

    def put_new(self, key: str, data: Buffer) -> None:
        if key.startswith(ROOTS) and self.acts:
            self.acts.pop(0)()
        super().put_new(key, data)


def raced(repo: Repo, *acts: Callable[[], object]) -> Repo:
    """Return a handle that is always a little late."""
    late = reopened(repo)
    late.backend = Meanwhile(repo.path, list(acts))
    late.store = PackedStore(late.backend, lambda: late.refresh().packs)
    return late


class TestBesideOthers:
    def test_it_comes_through_when_other_refs_move(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"})
        set_ref(repo, "tags/v1", id)
        acts = [lambda n=n: set_ref(repo, f"tags/other-{n}", id) for n in range(3)]
        taken_back(raced(repo, *acts))
        assert refs(repo).keys() == {MAIN, "tags/other-0", "tags/other-1", "tags/other-2"}

    def test_it_is_refused_when_a_ref_moves_at_the_last_moment(self, repo: Repo) -> None:
        first = commit_files(repo, {"a": b"1"}, ref="tags/a")
        second = commit_files(repo, {"a": b"2"}, ref="tags/b")
        set_ref(repo, "tags/v1", first)
        late = raced(repo, lambda: set_ref(repo, "tags/v1", second))
        with pytest.raises(RefusedError, match="tags/v1 has moved since"):
            taken_back(late)
        assert refs(repo)["tags/v1"] == second

    def test_a_tag_at_the_last_moment_keeps_the_payload(self, repo: Repo) -> None:
        id = commit_files(repo, {"a": b"1"}, payload={"w": noise(1, 9000)})
        late = raced(repo, lambda: set_ref(repo, "tags/v1", id))
        taken_back(late)
        assert refs(repo) == {"tags/v1": id, f"{HOLDS}{id}": id}
        assert whole(repo)

    def test_gc_at_the_last_moment_is_seen(self, repo: Repo, run: RunBuilder) -> None:
        prune.execute(repo, prune.plan(repo, Keep(last=1)))
        before = refs(repo)
        with pytest.raises(RefusedError, match="kept a payload that gc has taken"):
            taken_back(raced(repo, lambda: collected(repo)))
        assert refs(repo) == before
        assert whole(repo)

    def test_two_that_take_back_the_same(self, repo: Repo) -> None:
        set_ref(repo, "tags/v1", commit_files(repo, {"a": b"1"}))
        number = last(repo)
        late = raced(repo, lambda: taken_back(repo, number))
        with pytest.raises(RefusedError, match="nothing is left"):
            taken_back(late, number)
        assert "tags/v1" not in refs(repo)
