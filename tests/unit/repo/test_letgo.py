"""Any checkpoint can be let go of by name, but for what a fixed name or a live run needs."""

from pathlib import Path

import pytest

from cas.errors import InvalidInputError, NotFoundError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import BASE_MODEL, Parent
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, OPEN
from cas.repo.repo import Repo
from cas.repo.retain import letgo, prune
from cas.repo.retain.prune import PrunePlan
from cas.repo.retain.retention import Keep
from tests.support.builders import RunBuilder, noise, pack_files, repository, set_ref


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def run_of(repo: Repo, name: str = "exp/one", *, finish: bool = True) -> RunBuilder:
    run = RunBuilder(repo, name)
    for step in range(4):
        run.checkpoint(step, {"w": noise(step, 5000)}, value=float(step))
    if finish:
        run.finish()
    return run


def held(repo: Repo) -> set[CommitId]:
    return {id for name, id in repo.refresh().refs.items() if name.startswith(HOLDS)}


def reasons(planned: PrunePlan) -> list[tuple[str, ...]]:
    return [decision.reasons for run in planned.runs for decision in run.decisions]


def test_lets_go_of_what_is_named_and_of_nothing_else(repo: Repo) -> None:
    run = run_of(repo)
    planned = letgo.plan(repo, [str(run.ids[1]), f"{run.ids[3]}~1"])
    assert planned.dropped == (run.ids[1], run.ids[2])
    assert held(repo) == set(run.ids[:4])
    assert letgo.execute(repo, planned) == (run.ids[1], run.ids[2])
    assert held(repo) == {run.ids[0], run.ids[3]}
    assert repo.commit(run.ids[1]).step == 1  # its record stays


def test_states_exactly_what_gc_then_frees(repo: Repo) -> None:
    run = run_of(repo)
    planned = letgo.plan(repo, [str(run.ids[1])])
    letgo.execute(repo, planned)
    before = sum(pack_files(repo).values())
    gc.execute(repo, gc.plan(repo))
    assert planned.freed_bytes == before - sum(pack_files(repo).values()) > 5000


def test_what_a_policy_keeps_goes_and_the_plan_says_why_it_was_kept(repo: Repo) -> None:
    base = run_of(repo, "exp/base")
    fork = RunBuilder(repo, "exp/fork", parents=(Parent(BASE_MODEL, base.ids[0]),))
    fork.checkpoint(1, {"w": noise(77, 1000)})
    fork.finish()
    words = [str(base.ids[0]), str(base.ids[3])]
    assert prune.plan(repo, Keep(best=1)).dropped == tuple(base.ids[1:3])
    planned = letgo.plan(repo, words)
    assert reasons(planned) == [("base-model of exp/fork",), ("newest of the run",)]
    letgo.execute(repo, planned)
    assert held(repo) == {*base.ids[1:3], fork.ids[0]}


def test_what_was_said_to_be_the_best_goes_when_it_is_named(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/base")
    for step, best in enumerate([True, True, False]):
        run.checkpoint(step, {"w": noise(step, 1000)}, best=best)
    run.finish()
    planned = letgo.plan(repo, [str(run.ids[0]), str(run.ids[1])])
    assert reasons(planned) == [(), ("said to be the best",)]
    letgo.execute(repo, planned)
    assert held(repo) == {run.ids[2]}


@pytest.mark.parametrize("name", ["tags/v1", "models/best", "datasets/d", "heads/main"])
def test_what_a_fixed_name_points_at_stays_until_that_is_gone(repo: Repo, name: str) -> None:
    run = run_of(repo)
    set_ref(repo, name, run.ids[1])
    with pytest.raises(RefusedError, match=rf"exp/one, step 1 .* {name.partition('/')[2]} is at"):
        letgo.plan(repo, [str(run.ids[0]), str(run.ids[1])])
    set_ref(repo, name, None)
    letgo.execute(repo, letgo.plan(repo, [str(run.ids[1])]))
    assert run.ids[1] not in held(repo)


def test_a_tag_that_comes_after_the_plan_stops_it(repo: Repo) -> None:
    run = run_of(repo)
    planned = letgo.plan(repo, [str(run.ids[0]), str(run.ids[1])])
    set_ref(repo, "tags/v1", run.ids[1])
    with pytest.raises(RefusedError, match="v1"):
        letgo.execute(repo, planned)
    assert held(repo) == set(run.ids[:4])


def test_the_newest_of_a_run_that_has_not_ended_stays(repo: Repo) -> None:
    run = run_of(repo, finish=False)
    set_ref(repo, f"{OPEN}exp/one", run.ids[3])
    with pytest.raises(RefusedError, match="newest of exp/one, which has not ended"):
        letgo.plan(repo, [str(run.ids[3])])
    assert letgo.plan(repo, [str(run.ids[2])]).dropped == (run.ids[2],)
    set_ref(repo, f"{OPEN}exp/one", None)
    assert reasons(letgo.plan(repo, [str(run.ids[3])])) == [("newest of an unfinished run",)]


def test_what_was_let_go_of_meanwhile_is_passed_over(repo: Repo) -> None:
    run = run_of(repo)
    planned = letgo.plan(repo, [str(run.ids[0]), str(run.ids[1])])
    prune.execute(repo, prune.plan(repo, Keep(last=3)))
    assert letgo.execute(repo, planned) == (run.ids[1],)


def test_what_has_no_payload_is_told(repo: Repo) -> None:
    run = run_of(repo)
    letgo.execute(repo, letgo.plan(repo, [str(run.ids[0])]))
    with pytest.raises(InvalidInputError, match="exp/one, step 0 has nothing to let go of"):
        letgo.plan(repo, [str(run.ids[0])])
    with pytest.raises(InvalidInputError, match="nothing to let go of"):
        letgo.plan(repo, ["exp/one"])
    with pytest.raises(NotFoundError):
        letgo.plan(repo, ["exp/none"])
    with pytest.raises(InvalidInputError, match="say which"):
        letgo.plan(repo, [])


def test_a_name_given_twice_counts_once(repo: Repo) -> None:
    run = run_of(repo)
    assert letgo.plan(repo, [str(run.ids[0]), run.ids[0].short]).dropped == (run.ids[0],)
