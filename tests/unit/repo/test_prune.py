"""Prune drops the holds that a policy does not keep and nobody needs, and says what that frees."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from cas.errors import InvalidInputError, NotFoundError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import EVALUATES, REPRODUCES, RESUMED_FROM, VARIANT_OF, Parent
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, REPRODUCTIONS
from cas.repo.repo import Repo
from cas.repo.retain import prune
from cas.repo.retain.prune import PrunePlan
from cas.repo.retain.retention import Keep
from tests.support.builders import (
    START,
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    repository,
    set_ref,
)

LAST = Keep(last=1)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def run_of(repo: Repo, name: str, count: int, *, finish: bool = True) -> RunBuilder:
    run = RunBuilder(repo, name)
    for step in range(count):
        weights = noise(hash_of(name) + step, 2000)
        run.checkpoint(step, {"w": weights}, value=float(count - step))
    if finish:
        run.finish()
    return run


def hash_of(name: str) -> int:
    return sum(name.encode()) * 1000


def reasons(plan: PrunePlan) -> dict[CommitId, tuple[str, ...]]:
    return {d.checkpoint.commit: d.reasons for run in plan.runs for d in run.decisions}


def held(repo: Repo) -> set[str]:
    return {name for name in repo.refresh().refs if name.startswith(HOLDS)}


def test_drops_what_the_policy_does_not_keep(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 4)
    plan = prune.plan(repo, LAST)
    assert plan.dropped == tuple(run.ids[:3])
    before = repo.root.seq
    assert prune.execute(repo, plan) == tuple(run.ids[:3])
    assert held(repo) == {f"{HOLDS}{run.ids[3]}"}
    assert repo.root.seq == before + 1


def test_a_plan_changes_nothing(repo: Repo) -> None:
    run_of(repo, "exp/one", 3)
    before = repo.refresh()
    prune.plan(repo, LAST)
    assert repo.refresh() == before


def test_states_exactly_what_gc_then_frees(repo: Repo) -> None:
    run_of(repo, "exp/one", 5)
    plan = prune.plan(repo, Keep(best=2))
    prune.execute(repo, plan)
    size = sum(pack_files(repo).values())
    done = gc.execute(repo, gc.plan(repo))
    assert plan.freed_bytes is not None
    assert plan.freed_bytes > 3 * 2000
    assert plan.freed_bytes == done.freed_bytes == size - sum(pack_files(repo).values())


def test_only_the_named_runs_are_pruned(repo: Repo) -> None:
    one, two = run_of(repo, "exp/one", 2), run_of(repo, "other/two", 2)
    assert prune.plan(repo, LAST, ["exp"]).dropped == (one.ids[0],)
    assert prune.plan(repo, LAST, ["other/two"]).dropped == (two.ids[0],)
    assert len(prune.plan(repo, LAST, ["exp/one", "exp"]).dropped) == 1
    with pytest.raises(NotFoundError, match="oth"):
        prune.plan(repo, LAST, ["oth"])


def test_a_policy_that_says_nothing_is_refused(repo: Repo) -> None:
    with pytest.raises(InvalidInputError):
        prune.plan(repo, Keep())


def test_spares_what_a_name_points_at(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 4)
    set_ref(repo, "tags/v1", run.ids[0])
    set_ref(repo, "models/best", run.ids[1])
    plan = prune.plan(repo, LAST)
    assert plan.dropped == (run.ids[2],)
    assert reasons(plan)[run.ids[0]] == ("tag v1",)
    assert reasons(plan)[run.ids[1]] == ("model best",)


def test_spares_the_newest_that_was_said_to_be_the_best(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    for step, best in enumerate([False, True, True, False, False]):
        run.checkpoint(step, {"w": noise(step, 2000)}, value=float(step), best=best)
    run.finish()
    plan = prune.plan(repo, LAST)
    assert plan.dropped == (run.ids[0], run.ids[1], run.ids[3])
    assert reasons(plan)[run.ids[2]] == ("said to be the best",)
    by_rule = prune.plan(repo, Keep(best=2))
    assert by_rule.dropped == (run.ids[0], run.ids[3])
    assert reasons(by_rule)[run.ids[1]] == ("best 2, as was said",)
    why = {one.checkpoint.commit: one.reasons for one in prune.explain(repo, run.ids[4], None, 0)}
    assert why[run.ids[2]] == ("said to be the best",)
    assert prune.plan(repo, Keep(budget="6kB")).dropped == (run.ids[0], run.ids[1], run.ids[3])


def test_what_was_said_of_a_reproduction_that_has_ended_keeps_nothing(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    run.checkpoint(0, {"w": noise(1, 2000)}, best=True)
    run.finish()
    set_ref(repo, f"{REPRODUCTIONS}abc/1", run.ids[-1])
    set_ref(repo, run.ref, None)
    assert prune.plan(repo, Keep(tagged=True)).dropped == (run.ids[0],)


def test_only_what_is_tagged_can_be_kept(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 3)
    set_ref(repo, "tags/v1", run.ids[1])
    assert prune.plan(repo, Keep(tagged=True)).dropped == (run.ids[0],)


def test_spares_the_newest_of_an_unfinished_run(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 3, finish=False)
    plan = prune.plan(repo, Keep(tagged=True))
    assert plan.dropped == tuple(run.ids[:2])
    assert reasons(plan)[run.ids[2]] == ("newest of an unfinished run",)


@pytest.mark.parametrize("status", ["finished", "failed", "crashed", "interrupted"])
def test_spares_the_newest_of_a_run_that_has_ended(repo: Repo, status: str) -> None:
    run = run_of(repo, "exp/one", 3, finish=False)
    run.finish(status=status)
    plan = prune.plan(repo, Keep(tagged=True))
    assert plan.dropped == tuple(run.ids[:2])
    finished = "newest of the run" if status == "finished" else "newest of an unfinished run"
    assert reasons(plan)[run.ids[2]] == (finished,)


def test_a_draft_says_that_a_run_is_unfinished(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 2)
    set_ref(repo, "open/exp/one", run.ids[-1])
    assert prune.plan(repo, Keep(tagged=True)).dropped == (run.ids[0],)


def test_spares_the_direct_inputs_of_every_run(repo: Repo) -> None:
    base = run_of(repo, "exp/base", 3)
    fork = RunBuilder(repo, "exp/fork", parents=(Parent(RESUMED_FROM, base.ids[0]),))
    fork.checkpoint(1, {"w": noise(77, 1000)})
    fork.finish()
    plan = prune.plan(repo, LAST, ["exp/base"])
    assert plan.dropped == (base.ids[1],)
    assert reasons(plan)[base.ids[0]] == ("resumed-from of exp/fork",)


@pytest.mark.parametrize(
    ("role", "spares"),
    [(EVALUATES, True), ("teacher", True), (VARIANT_OF, False), (REPRODUCES, False)],
)
def test_spares_what_a_commit_was_made_from(repo: Repo, role: str, spares: bool) -> None:
    run = run_of(repo, "exp/one", 2)
    commit_files(repo, {"a": b"1"}, parents=(Parent(role, run.ids[0]),))
    plan = prune.plan(repo, LAST)
    assert (run.ids[0] not in plan.dropped) is spares
    assert not spares or reasons(plan)[run.ids[0]] == (f"{role} of commit",)


def test_what_a_removed_run_was_made_from_is_not_spared(repo: Repo) -> None:
    base = run_of(repo, "exp/base", 3)
    fork = RunBuilder(repo, "exp/fork", parents=(Parent(RESUMED_FROM, base.ids[0]),))
    fork.checkpoint(1, {"w": noise(77, 1000)})
    set_ref(repo, fork.ref, None)
    assert prune.plan(repo, LAST).dropped == tuple(base.ids[:2])


@dataclass
class Reproduction(RunBuilder):
    """A run under the name of another, at a ref of its own."""

    original: CommitId | None = None

    @property
    def ref(self) -> str:
        assert self.original is not None
        return f"{REPRODUCTIONS}{self.original.hex()[:10]}/1/run-0"


class TestReproductions:
    """What a reproduction saved can be let go of as what a run saved."""

    @pytest.fixture
    def again(self, repo: Repo) -> Reproduction:
        run = run_of(repo, "exp/one", 2)
        found = Reproduction(repo, "exp/one", original=run.ids[-1])
        for step in range(2):
            found.checkpoint(step, {"w": noise(900 + step, 2000)})
        return found

    def test_they_are_chosen_by_name(self, repo: Repo, again: Reproduction) -> None:
        again.finish()
        for word in ("reproductions", again.ref, again.ref.rpartition("/")[0]):
            plan = prune.plan(repo, LAST, [word])
            assert plan.dropped == (again.ids[0],)
            assert [run.run for run in plan.runs] == [again.ref]

    def test_without_a_name_they_are_among_the_others(
        self, repo: Repo, again: Reproduction
    ) -> None:
        again.finish()
        assert again.ids[0] in prune.plan(repo, LAST).dropped

    def test_nothing_of_one_that_has_ended_must_stay(self, repo: Repo, again: Reproduction) -> None:
        assert prune.plan(repo, Keep(tagged=True), ["reproductions"]).dropped == (again.ids[0],)
        again.finish()
        plan = prune.plan(repo, Keep(tagged=True), ["reproductions"])
        assert plan.dropped == tuple(again.ids[:2])
        prune.execute(repo, plan)
        assert not {f"{HOLDS}{id}" for id in again.ids} & held(repo)


class TestBudget:
    """A budget drops the worst of what the rules keep, until what is left fits."""

    def test_the_worst_go_first_whatever_run_they_are_of(self, repo: Repo) -> None:
        one, two = RunBuilder(repo, "exp/one"), RunBuilder(repo, "exp/two")
        for step, (a, b) in enumerate(((5.0, 1.0), (2.0, 4.0), (3.0, 6.0), (9.0, 9.0))):
            one.checkpoint(step, {"w": noise(step, 100_000)}, value=a)
            two.checkpoint(step, {"w": noise(50 + step, 100_000)}, value=b)
        plan = prune.plan(repo, Keep(budget="450kB"))
        # The newest of both stay, and of the others the best.
        kept = {one.ids[3], two.ids[3], two.ids[0], one.ids[1]}
        assert set(plan.dropped) == {*one.ids, *two.ids} - kept
        assert plan.budget_bytes is not None
        assert 400_000 < plan.budget_bytes <= 450_000

    def test_what_is_shared_is_counted_once(self, repo: Repo) -> None:
        run = RunBuilder(repo, "exp/one")
        frozen = noise(1, 200_000)
        for step in range(5):
            run.checkpoint(step, {"frozen": frozen, "head": noise(10 + step, 10_000)})
        assert prune.plan(repo, Keep(budget="300kB")).dropped == ()
        assert prune.plan(repo, Keep(budget="235kB")).dropped == tuple(run.ids[:2])

    def test_what_costs_nothing_is_not_dropped(self, repo: Repo) -> None:
        run = RunBuilder(repo, "exp/one")
        for step, seed in enumerate((1, 2, 2)):
            run.checkpoint(step, {"w": noise(seed, 100_000)}, value=(1.0, 9.0, 5.0)[step])
        assert prune.plan(repo, Keep(budget="150kB")).dropped == (run.ids[0],)

    def test_it_cuts_what_the_rules_keep(self, repo: Repo) -> None:
        run = run_of(repo, "exp/one", 6)
        plan = prune.plan(repo, Keep(last=4, budget=6000))
        assert plan.dropped == tuple(run.ids[:4])
        assert reasons(plan)[run.ids[0]] == ()
        assert reasons(plan)[run.ids[2]] == ("over the budget of 6.0 kB",)

    def test_what_is_protected_is_never_dropped(self, repo: Repo) -> None:
        run = run_of(repo, "exp/one", 4)
        set_ref(repo, "tags/v1", run.ids[0])
        assert set(prune.plan(repo, Keep(budget=6000)).dropped) == set(run.ids[1:3])
        with pytest.raises(RefusedError, match=r"alone, over the budget of 3.0 kB"):
            prune.plan(repo, Keep(budget=3000))

    def test_what_gc_leaves_is_what_the_plan_said(self, repo: Repo) -> None:
        run = RunBuilder(repo, "exp/one")
        for step in range(6):
            run.checkpoint(step, {"w": noise(step, 500_000)}, value=float(step))
        plan = prune.plan(repo, Keep(budget="1.6MB"))
        prune.execute(repo, plan)
        gc.execute(repo, gc.plan(repo))
        left = sum(pack_files(repo).values())
        assert plan.budget_bytes is not None
        # What is not counted: the records of the history, and the footers of the packs.
        assert 0 < left - plan.budget_bytes < 20_000


def test_now_is_an_argument(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 3)
    day = 86_400_000_000
    assert prune.plan(repo, Keep(within="1d"), now=START + day - 1).dropped == ()
    assert prune.plan(repo, Keep(within="1d"), now=START + day + 1).dropped == (run.ids[0],)


def test_what_is_pruned_already_is_not_looked_at(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 3)
    set_ref(repo, f"{HOLDS}{run.ids[2]}", None)
    plan = prune.plan(repo, LAST)
    assert plan.dropped == (run.ids[0],)
    assert set(reasons(plan)) == set(run.ids[:2])


def test_metrics_come_from_the_summary_of_each_checkpoint(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    for step, accuracy in enumerate((0.1, 0.9, 0.5)):
        run.checkpoint(step, {"w": noise(step, 100)}, metrics={"acc": accuracy})
    run.checkpoint(3, {"w": noise(3, 100)}, metrics={"acc": 0.7})
    assert prune.plan(repo, Keep(max={"acc": 1})).dropped == (run.ids[0], run.ids[2])
    assert prune.plan(repo, Keep(min={"acc": 2})).dropped == (run.ids[1],)


def test_a_tag_that_comes_after_the_plan_still_spares(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 3)
    plan = prune.plan(repo, LAST)
    set_ref(repo, "tags/late", run.ids[0])
    assert prune.execute(repo, plan) == (run.ids[1],)
    assert f"{HOLDS}{run.ids[0]}" in held(repo)


def test_a_checkpoint_that_comes_after_the_plan_is_not_touched(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 2, finish=False)
    plan = prune.plan(repo, LAST)
    newer = run.checkpoint(9, {"w": noise(9, 100)})
    assert prune.execute(repo, plan) == (run.ids[0],)
    assert held(repo) == {f"{HOLDS}{run.ids[1]}", f"{HOLDS}{newer}"}
