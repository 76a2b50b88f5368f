"""Removing runs: what goes, what stands against it, and that it comes back."""

from pathlib import Path

import pytest

from cas.errors import NotFoundError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import RESUMED_FROM, VERDICT, Commit, Parent
from cas.repo import undo
from cas.repo.collect import gc
from cas.repo.layout import ARCHIVED, HOLDS
from cas.repo.repo import Repo
from cas.repo.retain import archive, remove
from cas.repo.transaction import Transaction, transact
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    pack_files,
    repository,
    set_ref,
    whole,
    write_files,
)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def made(repo: Repo, name: str, *parents: Parent, seed: int = 0, end: bool = True) -> RunBuilder:
    run = RunBuilder(repo, name, parents)
    for step in range(3):
        run.checkpoint(step, {"w": noise(seed + step, 300_000)}, value=1 / (step + 1))
    if end:
        run.finish()
    return run


@pytest.fixture
def runs(repo: Repo) -> list[RunBuilder]:
    names = ("exp/one", "exp/two", "other/three")
    return [made(repo, name, seed=10 * number) for number, name in enumerate(names)]


def refs(repo: Repo) -> dict[str, object]:
    return dict(repo.refresh().refs)


def removed(repo: Repo, *words: str, keep_record: bool = False) -> tuple[str, ...]:
    return remove.execute(repo, remove.plan(repo, words, keep_record=keep_record))


class TestWhatGoes:
    def test_the_ref_and_the_holds_of_a_run(self, repo: Repo, runs: list[RunBuilder]) -> None:
        before = refs(repo)
        gone = removed(repo, "exp/one")
        held = {f"{HOLDS}{id}" for id in runs[0].ids[:3]}
        assert set(gone) == before.keys() - refs(repo).keys() == {"runs/exp/one"} | held
        assert whole(repo)

    def test_an_experiment_is_all_of_its_runs(self, repo: Repo, runs: list[RunBuilder]) -> None:
        plan = remove.plan(repo, ["refs/runs/exp/", "exp/one"])
        assert [run.run for run in plan.runs] == ["exp/one", "exp/two"]
        assert [run.checkpoints for run in plan.runs] == [3, 3]
        assert [run.given_bytes for run in plan.runs] == [900_000, 900_000]
        remove.execute(repo, plan)
        assert [ref for ref in refs(repo) if ref.startswith("runs/")] == ["runs/other/three"]

    def test_gc_then_frees_what_the_plan_says(self, repo: Repo, runs: list[RunBuilder]) -> None:
        before = sum(pack_files(repo).values())
        plan = remove.plan(repo, ["exp"])
        remove.execute(repo, plan)
        gc.execute(repo, gc.plan(repo))
        freed = before - sum(pack_files(repo).values())
        assert plan.freed_bytes == pytest.approx(freed, rel=0.001)
        assert freed > 1_800_000
        with pytest.raises(NotFoundError):
            repo.commit(runs[0].ids[0])
        assert whole(repo)

    def test_it_comes_back_until_then(self, repo: Repo, runs: list[RunBuilder]) -> None:
        archive.archive(repo, ["exp/one"])
        before = refs(repo)
        removed(repo, "exp")
        assert not [ref for ref in refs(repo) if ref.startswith(ARCHIVED)]
        undo.execute(repo, undo.plan(repo))
        assert refs(repo) == before
        removed(repo, "exp")
        gc.execute(repo, gc.plan(repo))
        with pytest.raises(NotFoundError):
            remove.plan(repo, ["exp"])
        plan = undo.plan(repo)
        assert len(plan.problems) == len(plan.steps)

    def test_what_is_shared_stays(self, repo: Repo, runs: list[RunBuilder]) -> None:
        twin = made(repo, "exp/twin")  # the same weights as exp/one
        assert remove.plan(repo, ["exp/twin"]).freed_bytes is not None
        freed = remove.plan(repo, ["exp/twin"]).freed_bytes or 0
        assert freed < 100_000
        removed(repo, "exp/one")
        gc.execute(repo, gc.plan(repo))
        assert repo.commit(twin.ids[0]).payload
        assert whole(repo)

    @pytest.mark.parametrize("word", ["nope", "exp/on", "tags/v1", "", "one"])
    def test_what_there_is_not(self, repo: Repo, runs: list[RunBuilder], word: str) -> None:
        set_ref(repo, "tags/v1", runs[0].ids[0])
        with pytest.raises(NotFoundError):
            remove.plan(repo, [word])


class TestWhatStandsAgainstIt:
    def test_a_run_that_was_made_from_it(self, repo: Repo, runs: list[RunBuilder]) -> None:
        made(repo, "later/fork", Parent(RESUMED_FROM, runs[0].ids[1]))
        plan = remove.plan(repo, ["exp/one"])
        assert plan.refused
        assert plan.uses == ("later/fork has exp/one, step 1 as resumed-from",)
        before = refs(repo)
        with pytest.raises(RefusedError, match=r"later/fork.*--keep-record"):
            remove.execute(repo, plan)
        assert refs(repo) == before

    def test_but_not_one_that_goes_too(self, repo: Repo, runs: list[RunBuilder]) -> None:
        made(repo, "later/fork", Parent(RESUMED_FROM, runs[0].ids[1]))
        assert not remove.plan(repo, ["later"]).uses
        removed(repo, "exp/one", "later")
        assert [ref for ref in refs(repo) if ref.startswith("runs/")] == [
            "runs/exp/two",
            "runs/other/three",
        ]
        gc.execute(repo, gc.plan(repo))
        assert whole(repo)

    def test_what_came_from_a_run_that_came_from_it(
        self, repo: Repo, runs: list[RunBuilder]
    ) -> None:
        fork = made(repo, "later/fork", Parent(RESUMED_FROM, runs[0].ids[1]))
        made(repo, "last/fork", Parent(RESUMED_FROM, fork.ids[1]))
        set_ref(repo, fork.ref, None)  # its record stays: somebody came from it
        assert remove.plan(repo, ["exp/one"]).uses == (
            "later/fork has exp/one, step 1 as resumed-from",
        )

    def test_a_tag(self, repo: Repo, runs: list[RunBuilder]) -> None:
        set_ref(repo, "tags/v1", runs[0].ids[2])
        assert remove.plan(repo, ["exp/one"]).uses == ("tag v1 is at exp/one, step 2",)

    def test_a_reproduction_which_can_go_with_it(self, repo: Repo, runs: list[RunBuilder]) -> None:
        def verdict(tx: Transaction) -> None:
            tree = write_files(tx, {"verdict.json": b"{}"})
            parents = (Parent("reproduces", runs[0].ids[-1]),)
            tx.set_ref(
                "reproductions/abc/1/verdict",
                tx.record(Commit(kind=VERDICT, tree=tree, parents=parents)),
            )

        transact(repo, "reproduce", verdict)
        assert remove.plan(repo, ["exp/one"]).uses == (
            "reproductions/abc/1/verdict has exp/one as reproduces",
        )
        removed(repo, "exp/one", "reproductions/abc")
        assert not {"runs/exp/one", "reproductions/abc/1/verdict"} & refs(repo).keys()

    def test_a_run_that_is_open(self, repo: Repo, runs: list[RunBuilder]) -> None:
        set_ref(repo, "open/exp/two", runs[1].ids[0])
        for words in (["exp"], ["exp/two"]):
            with pytest.raises(RefusedError, match="exp/two has not ended"):
                remove.plan(repo, words)
        set_ref(repo, "open/exp/new", runs[1].ids[0])
        with pytest.raises(RefusedError, match="exp/new has not ended"):
            remove.plan(repo, ["exp/new"])


class TestWithTheRecord:
    def test_the_payloads_alone_go(self, repo: Repo, runs: list[RunBuilder]) -> None:
        made(repo, "later/fork", Parent(RESUMED_FROM, runs[0].ids[1]))
        plan = remove.plan(repo, ["exp/one"], keep_record=True)
        assert plan.uses == ("later/fork has exp/one, step 1 as resumed-from",)
        assert not plan.refused
        before = refs(repo)
        remove.execute(repo, plan)
        assert before.keys() - refs(repo).keys() == {f"{HOLDS}{id}" for id in runs[0].ids[:3]}
        gc.execute(repo, gc.plan(repo))
        assert repo.commit(runs[0].ids[1]).step == 1
        assert whole(repo)

    def test_what_a_tag_points_at_stays_whole(self, repo: Repo, runs: list[RunBuilder]) -> None:
        set_ref(repo, "tags/v1", runs[0].ids[2])
        plan = remove.plan(repo, ["exp/one"], keep_record=True)
        assert set(plan.runs[0].held) == set(runs[0].ids[:2])
        set_ref(repo, "tags/v2", runs[0].ids[1])  # and also what is tagged meanwhile
        remove.execute(repo, plan)
        left = {f"{HOLDS}{id}" for id in runs[0].ids} & refs(repo).keys()
        assert left == {f"{HOLDS}{id}" for id in runs[0].ids[1:3]}


class TestMeanwhile:
    def test_a_fork_is_seen(self, repo: Repo, runs: list[RunBuilder]) -> None:
        plan = remove.plan(repo, ["exp/one"])
        made(repo, "later/fork", Parent(RESUMED_FROM, runs[0].ids[1]))
        with pytest.raises(RefusedError, match="later/fork"):
            remove.execute(repo, plan)
        assert runs[0].ref in refs(repo)

    def test_a_run_that_went_on_is_not_removed(self, repo: Repo, runs: list[RunBuilder]) -> None:
        plan = remove.plan(repo, ["exp/one"])
        runs[0].checkpoint(9, {"w": noise(99, 1000)})
        with pytest.raises(RefusedError, match="exp/one has changed since"):
            remove.execute(repo, plan)

    def test_other_work_is_no_reason(self, repo: Repo, runs: list[RunBuilder]) -> None:
        plan = remove.plan(repo, ["exp/one"])
        made(repo, "exp/new", seed=70)
        commit_files(repo, {"a": b"1"})
        set_ref(repo, f"{HOLDS}{runs[0].ids[0]}", None)  # somebody pruned
        remove.execute(repo, plan)
        assert "runs/exp/new" in refs(repo)
        assert runs[0].ref not in refs(repo)
        assert not {f"{HOLDS}{id}" for id in runs[0].ids} & refs(repo).keys()


def test_each_commit_is_read_once(
    repo: Repo, runs: list[RunBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    commit = Repo.commit

    def counted(repo: Repo, id: CommitId) -> Commit:
        read.append(id)
        return commit(repo, id)

    monkeypatch.setattr(Repo, "commit", counted)
    plan = remove.plan(repo, ["exp/one"])
    assert len(read) == len(set(read)) == 12
    for number in range(5):
        set_ref(repo, f"tags/t{number}", runs[1].ids[0])
    read.clear()
    remove.execute(repo, plan)
    assert len(read) == len(set(read)) == 12
