"""Prune drops the holds that a policy does not keep and nobody needs, and says what that frees."""

from pathlib import Path

import pytest

from cas.errors import InvalidInputError, NotFoundError
from cas.ids import CommitId
from cas.objects.commit import RESUMED_FROM, Parent
from cas.repo import gc, prune
from cas.repo.layout import HOLDS
from cas.repo.prune import PrunePlan
from cas.repo.repo import Repo
from cas.repo.retention import Keep
from tests.support.builders import RunBuilder, noise, pack_files, repository, set_ref

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


def test_only_what_is_tagged_can_be_kept(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 3)
    set_ref(repo, "tags/v1", run.ids[1])
    assert prune.plan(repo, Keep(tagged=True)).dropped == (run.ids[0], run.ids[2])


def test_spares_the_newest_of_an_unfinished_run(repo: Repo) -> None:
    run = run_of(repo, "exp/one", 3, finish=False)
    plan = prune.plan(repo, Keep(tagged=True))
    assert plan.dropped == tuple(run.ids[:2])
    assert reasons(plan)[run.ids[2]] == ("newest of an unfinished run",)


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
    run.finish()
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
