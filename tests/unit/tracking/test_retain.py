"""A run with a policy keeps its own use of the disk flat, and harms nobody by it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cas
from cas.errors import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
)
from cas.ids import CommitId
from cas.objects.commit import RESUMED_FROM, Parent
from cas.repo import config
from cas.repo.check import fsck
from cas.repo.collect import gc
from cas.repo.repo import Repo
from cas.tracking.checkpoints import retain
from cas.tracking.checkpoints.retain import Pace, Retention
from cas.tracking.run import Run
from tests.support.builders import RunBuilder, commit_files, noise, repository, set_ref, whole
from tests.support.runs import cas as command
from tests.support.runs import checkpoints, only_run, opened, script

Capture = pytest.CaptureFixture[str]
SIZE = 100_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No collection is put off because the machine is busy."""
    monkeypatch.setattr(retain, "AT_ONCE", 1e9)


def save(run: Run, number: int, **metrics: float) -> CommitId:
    weights = np.frombuffer(noise(number, SIZE), dtype=np.uint8)
    id = run.save_checkpoint(model={"w": weights}, step=number, metrics=metrics).commit
    assert id is not None
    return id


def held(repo: Repo) -> set[CommitId]:
    return {id for ref, id in repo.refresh().refs.items() if ref.startswith("holds/")}


def packed(repo: Repo) -> int:
    return sum(path.stat().st_size for path in (repo.path / "packs").rglob("*") if path.is_file())


def test_fifty_checkpoints_take_the_room_of_two(here: Path) -> None:
    sizes = []
    with cas.track("a", name="x", retention=cas.Keep(last=2)) as run:
        for number in range(50):
            save(run, number)
            sizes.append(packed(run.repo))
    # Two are kept, and all fifty stay in the history.
    assert max(sizes) < 3 * SIZE + 150_000
    assert sizes[-1] - sizes[10] < 100_000
    repo = opened(here)
    tip, _ = only_run(repo)
    saved = [id for id, _ in checkpoints(repo, tip)]
    assert len(saved) == 50
    assert held(repo) == set(saved[-2:])
    assert whole(repo)


def test_without_a_policy_everything_stays(here: Path) -> None:
    with cas.track("a") as run:
        for number in range(4):
            save(run, number)
        assert packed(run.repo) > 4 * SIZE
    assert len(held(opened(here))) == 4


def test_where_nothing_goes_nothing_is_published(here: Path) -> None:
    with cas.track("a", retention=cas.Keep(every=1)) as run:
        save(run, 0)
        before = run.repo.refresh().seq
        for number in range(1, 4):
            save(run, number)
        assert run.repo.refresh().seq == before + 3


def test_rules_see_metrics_and_monitor(here: Path) -> None:
    run = cas.track("a", retention={"best": 1, "max": {"acc": 1}})
    saved = [
        save(run, number, val_loss=loss, acc=acc)
        for number, (loss, acc) in enumerate(((3.0, 0.1), (1.0, 0.2), (2.0, 0.9), (4.0, 0.3)))
    ]
    assert held(run.repo) == {saved[1], saved[2], saved[3]}
    run.finish()


def test_what_it_was_told_stands_in_its_record(here: Path) -> None:
    with cas.track("a", retention=cas.Keep(last=2, within="7d", budget="1GB")) as run:
        save(run, 1)
    repo = opened(here)
    tip, commit = only_run(repo)
    expected = {"last": 2, "within": "7d", "budget": "1GB"}
    assert repo.document(commit.tree, "retention.json") == expected
    for _, saved in checkpoints(repo, tip):
        assert repo.document(saved.tree, "retention.json") == expected


@pytest.mark.parametrize("wrong", [{"last": 0}, {"nope": 1}, 3, "last", {"within": "7m"}])
def test_a_policy_that_makes_no_sense_is_refused_at_once(here: Path, wrong: object) -> None:
    with pytest.raises(InvalidInputError):
        cas.track("a", retention=wrong)  # type: ignore[arg-type]
    assert not (here / ".cas").exists()


class TestConfig:
    """Runs follow the policy of the config only where it says so."""

    @pytest.mark.parametrize(("auto", "left"), [("auto", 1), ("never", 4), (None, 4)])
    def test_runs_follow_it_where_it_is_set(self, here: Path, auto: str | None, left: int) -> None:
        repo = repository(here)
        config.change(repo, "retention.last", "1")
        config.change(repo, "retention.budget", "1kB")  # of all runs together: not theirs
        if auto is not None:
            config.change(repo, "retention.runs", auto)
        with cas.track("a") as run:
            for number in range(4):
                save(run, number)
        assert len(held(opened(here))) == left

    def test_their_own_comes_first(self, here: Path) -> None:
        repo = repository(here)
        config.change(repo, "retention.last", "1")
        config.change(repo, "retention.runs", "auto")
        with cas.track("a", retention=cas.Keep(last=3)) as run:
            for number in range(4):
                save(run, number)
        assert len(held(opened(here))) == 3

    def test_one_that_makes_no_sense_is_told_and_keeps_everything(
        self, here: Path, capsys: Capture
    ) -> None:
        repo = repository(here)
        (repo.path / "config.json").write_text('{"retention.last": 0, "retention.runs": "auto"}')
        with cas.track("a") as run:
            for number in range(3):
                save(run, number)
        assert "this run keeps every checkpoint" in capsys.readouterr().err
        assert len(held(opened(here))) == 3


class TestWhoNeedsIt:
    """What came meanwhile protects, as it does from `cas prune`."""

    @pytest.fixture
    def run(self, here: Path) -> Iterator[Run]:
        run = cas.track("a", name="x", retention=cas.Keep(last=1))
        yield run
        run.finish()

    def test_a_tag(self, run: Run, here: Path) -> None:
        first = save(run, 1)
        set_ref(opened(here), "tags/good", first)
        later = [save(run, number) for number in range(2, 5)]
        assert held(run.repo) == {first, later[-1]}

    def test_a_tag_that_is_gone_no_more(self, run: Run, here: Path) -> None:
        first = save(run, 1)
        set_ref(opened(here), "tags/good", first)
        save(run, 2)
        set_ref(opened(here), "tags/good", None)
        last = save(run, 3)
        assert held(run.repo) == {last}

    def test_a_fork_also_when_it_has_gone_on(self, run: Run, here: Path) -> None:
        first = save(run, 1)
        fork = RunBuilder(opened(here), "a/fork", parents=(Parent(RESUMED_FROM, first),))
        # Only its first commit has the edge; the newest is what its ref is at.
        theirs = [fork.checkpoint(n, {"w": noise(50 + n, 1000)}) for n in range(3)]
        later = [save(run, number) for number in range(2, 5)]
        assert held(run.repo) == {first, later[-1], *theirs}

    def test_a_commit_of_files(self, run: Run, here: Path) -> None:
        first = save(run, 1)
        repo = opened(here)
        commit_files(repo, {"a": b"1"}, parents=(Parent("teacher", first),))
        commit_files(repo, {"a": b"2"})
        later = [save(run, number) for number in range(2, 4)]
        assert held(run.repo) == {first, later[-1]}

    def test_one_that_comes_while_it_decides(
        self, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = save(run, 1)
        other = opened(here)
        real = Retention._going
        calls: list[int] = []

        def late(self: Retention, refs: dict[str, CommitId]) -> tuple[CommitId, ...]:
            going = real(self, refs)
            calls.append(1)
            if len(calls) == 2:  # in the transaction: decided, and not published yet
                set_ref(other, "tags/late", first)
            return going

        monkeypatch.setattr(Retention, "_going", late)
        second = save(run, 2)
        assert held(run.repo) == {first, second}
        assert len(calls) == 3

    def test_other_runs_keep_theirs(self, run: Run, here: Path) -> None:
        other = RunBuilder(opened(here), "a/other")
        theirs = {other.checkpoint(n, {"w": noise(70 + n, 1000)}) for n in range(3)}
        save(run, 1)
        last = save(run, 2)
        assert held(run.repo) == theirs | {last}


def test_what_several_processes_of_a_run_saved_is_one_history(here: Path) -> None:
    path = script(
        here,
        "import numpy as np\n"
        "run = cas.track('a', retention=cas.Keep(last=2))\n"
        "for n in range(3):\n"
        "    run.save_checkpoint(model={'w': np.arange(n + int(sys.argv[1]))}, step=n)\n"
        "run.finish()\n",
    )
    both = f"{sys.executable} {path} 10 && {sys.executable} {path} 20"
    command(here, "run", "--", "sh", "-c", both)
    repo = opened(here)
    tip, _ = only_run(repo)
    saved = [id for id, _ in checkpoints(repo, tip)]
    assert len(saved) == 6
    assert {id for id in held(repo) if id in saved} == set(saved[-2:])


class TestBudget:
    """A run may have a budget of its own."""

    def test_it_is_kept_to(self, here: Path) -> None:
        with cas.track("a", retention=cas.Keep(budget="350kB")) as run:
            saved = [
                save(run, number, loss=loss)
                for number, loss in enumerate((1.0, 5.0, 2.0, 3.0, 9.0))
            ]
            assert held(run.repo) == {saved[0], saved[2], saved[4]}
            assert packed(run.repo) < 450_000

    def test_one_that_cannot_be_kept_is_told_once(self, here: Path, capsys: Capture) -> None:
        with cas.track("a", retention=cas.Keep(budget="50kB")) as run:
            for number in range(3):
                save(run, number)
        assert capsys.readouterr().err.count("over the budget of 50kB") == 1


class TestFailures:
    """The checkpoint is saved, the loop goes on, and it is told once."""

    @pytest.mark.parametrize(
        "error",
        [CorruptionError("broken"), StorageFullError("full"), OSError("odd"), KeyError("x")],
    )
    @pytest.mark.parametrize("at", ["plan", "execute"])
    def test_of_gc(
        self,
        here: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: Capture,
        error: Exception,
        at: str,
    ) -> None:
        def fails(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(gc, at, fails)
        with cas.track("a", retention=cas.Keep(last=1)) as run:
            saved = [save(run, number) for number in range(4)]
        assert capsys.readouterr().err.count("warning: retention") == 1
        assert held(opened(here)) == {saved[-1]}

    def test_others_that_are_faster_are_no_failure(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        def beaten(*_: object, **__: object) -> None:
            raise ConflictError("the repository")

        monkeypatch.setattr(retain, "transact", beaten)
        run = cas.track("a", retention=cas.Keep(last=1))
        saved = [save(run, number) for number in range(3)]
        assert held(run.repo) == set(saved)
        monkeypatch.undo()
        assert held(run.repo) - {save(run, 4)} == set(saved)
        run.finish()
        assert "warning" not in capsys.readouterr().err

    @pytest.mark.parametrize("moved", [True, False])
    def test_of_gc_beside_another_one_is_none(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, moved: bool
    ) -> None:
        run = cas.track("a", retention=cas.Keep(last=1))
        first = save(run, 0)

        def beaten(repo: Repo, *_: object, **__: object) -> None:
            if moved:
                set_ref(repo, "tags/moves-the-root", first)
            raise NotFoundError("key", "packs/x")

        monkeypatch.setattr(gc, "execute", beaten)
        save(run, 1)
        monkeypatch.undo()
        run.finish()
        assert ("warning" in capsys.readouterr().err) is not moved

    def test_much_to_copy_is_left_to_a_person(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        monkeypatch.setattr(retain, "COPIES", -10 * SIZE)
        with cas.track("a", retention=cas.Keep(last=1)) as run:
            for number in range(3):
                save(run, number)
            assert packed(run.repo) > 3 * SIZE
        assert "run `cas gc`" in capsys.readouterr().err


class TestPace:
    """How often a run collects."""

    def test_at_once_where_it_costs_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retain, "AT_ONCE", 0.2)
        assert Pace().due(0.0, dead=1, kept=10**9)
        assert Pace(0.1, 50.0).due(50.0, dead=1, kept=10**9)
        assert not Pace(0.1, 50.0).due(50.0, dead=0, kept=0)

    def test_never_more_than_a_part_of_the_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retain, "AT_ONCE", 0.2)
        pace = Pace(took=2.0, ended=100.0)
        assert not pace.due(139.0, dead=1, kept=10)
        assert pace.due(140.0, dead=1, kept=10)
        assert not pace.due(107.0, dead=10, kept=10)
        assert pace.due(108.0, dead=10, kept=10)

    def test_but_a_heap_is_not_let_grow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retain, "AT_ONCE", 0.2)
        pace = Pace(took=2.0, ended=100.0)
        assert not pace.due(100.0, dead=39, kept=10)
        assert pace.due(100.0, dead=40, kept=10)


def test_what_waits_is_freed_at_the_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "due", lambda *_, **__: False)
    with cas.track("a", retention=cas.Keep(last=1)) as run:
        for number in range(4):
            save(run, number)
        assert packed(run.repo) > 4 * SIZE
    assert packed(opened(here)) < 2 * SIZE
    assert not list(fsck.check(opened(here), full=True))
