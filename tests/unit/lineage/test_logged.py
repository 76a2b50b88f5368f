"""What two runs logged beside numbers, compared: which keys differ, and at which steps."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import cas
from cas.errors import CorruptionError
from cas.ids import CommitId, blob_id
from cas.lineage import logged
from cas.lineage.logged import LoggedChange, logged_changes
from cas.lineage.verdict import judge
from cas.objects.canonical import Value
from cas.objects.commit import Commit
from cas.objects.manifest import State, TensorRow
from cas.repo.repo import Repo
from cas.tracking.run import Run
from tests.support.lineage import prune

Log = Callable[[Run], object]
NUMBER = count()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAS_DIR", str(tmp_path / ".cas"))
    return tmp_path


def ran(name: str, log: Log) -> CommitId:
    with cas.track("a", name=name, capture="none") as run:
        run.log({"loss": 0.5}, step=0)
        log(run)
    return opened().root.refs[f"runs/a/{name}"]


def opened() -> Repo:
    return Repo.open(Path(".cas").absolute())


def commits(repo: Repo, *ids: CommitId) -> list[Commit]:
    return [repo.commit(id) for id in ids]


def compared(one: Log, other: Log) -> tuple[LoggedChange, ...]:
    names = (f"{which}{next(NUMBER)}" for which in ("one", "other"))
    ids = [ran(name, log) for name, log in zip(names, (one, other), strict=True)]
    repo = opened()
    old, new = commits(repo, *ids)
    return logged_changes(repo, old, new)


def everything(run: Run) -> None:
    for step in range(5):
        run.log_text("note", f"at {step}", step=step)
        run.log({"weights": np.arange(50.0)}, step=step)
    run.log_text("long", "x" * 5000, step=1)
    run.log_image("photo", np.zeros((4, 4, 3), np.uint8), step=2, caption="black")


def test_equal_runs_share_ids_and_nothing_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (ran(name, everything) for name in ("one", "other"))
    repo = opened()
    monkeypatch.setattr(logged, "_columns", lambda state: pytest.fail("a key was looked at"))
    assert logged_changes(repo, *commits(repo, old, new)) == ()
    assert judge(repo, old, new).verdict == "identical"
    assert judge(repo, old, new).logged == 4


def test_a_key_is_named_with_the_steps_at_which_it_differs(here: Path) -> None:
    def differently(run: Run) -> None:
        for step in range(5):
            run.log_text("note", f"at {step if step < 3 else 'the end'}", step=step)
            run.log({"weights": np.arange(50.0) + (step == 4)}, step=step)
        run.log_text("long", "y" * 5000, step=1)
        run.log_image("photo", np.zeros((4, 4, 3), np.uint8), step=2, caption="dark")

    assert compared(everything, differently) == (
        LoggedChange("histogram", "weights", "changed", 5, 5, (4,), 1),
        LoggedChange("image", "photo", "changed", 1, 1, (2,), 1),
        LoggedChange("text", "long", "changed", 1, 1, (1,), 1),
        LoggedChange("text", "note", "changed", 5, 5, (3, 4), 2),
    )


def test_keys_and_steps_that_only_one_has(here: Path) -> None:
    def less(run: Run) -> None:
        run.log_text("both", "x", step=0)
        run.log_text("old", "x", step=0)

    def more(run: Run) -> None:
        for step in range(30):
            run.log_text("both", "x", step=step)
        run.log_text("new", "x", step=0)

    changed, new, old = compared(less, more)
    assert (changed.old, changed.new, changed.differing) == (1, 30, 29)
    assert changed.steps == tuple(range(1, 21))
    assert new == LoggedChange("text", "new", "added", 0, 1)
    assert old == LoggedChange("text", "old", "removed", 1, 0)


def test_in_which_order_things_of_one_step_came_is_no_difference(here: Path) -> None:
    def log(*texts: str) -> Log:
        return lambda run: [run.log_text("a", text, step=1) for text in texts]

    assert compared(log("x", "y"), log("y", "x")) == ()
    assert compared(log("x", "y"), log("y", "y")) != ()


def test_the_verdict_counts_them(here: Path) -> None:
    old, new = ran("one", everything), ran("other", lambda run: run.log_text("note", "x", step=3))
    verdict = judge(opened(), old, new, tolerance=0.1)
    assert (verdict.verdict, verdict.logged, verdict.first) == ("equivalent", 4, None)
    assert judge(opened(), old, new).verdict == "diverged"
    assert verdict.differences == (
        "logged histogram weights is missing",
        "logged image photo is missing",
        "logged text long is missing",
        "logged text note differs at step 0 and 4 more",
    )


def test_figures_that_are_equal_have_equal_ids(here: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure")

    def log(run: Run) -> None:
        drawn = figure.Figure(figsize=(1, 1))
        drawn.add_subplot().plot([1, 2])
        for format in ("png", "svg"):
            run.log_figure(format, drawn, format=format)

    assert compared(log, log) == ()


def test_what_went_with_a_payload_is_not_compared_by_content(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cas.tracking.shown.loggedrecord.LIGHT", 10)

    def log(text: str, size: int) -> Log:
        def told(run: Run) -> None:
            run.log_text("same size", text, step=0)
            run.log_text("size", "x" * size, step=0)
            run.log_text("a file", text * 5000, step=0)

        return told

    ids = ran("one", log("x", 50)), ran("other", log("y", 60))
    repo = opened()
    assert len(logged_changes(repo, *commits(repo, *ids))) == 3
    prune(repo, *ids)
    found = logged_changes(opened(), *commits(repo, *ids))
    assert [(one.key, one.steps) for one in found] == [("a file", (0,)), ("size", ())]
    assert "pruned" in found[1].note
    assert judge(opened(), *ids).differences[-1] == "logged text size differs"


def test_only_the_ends_of_runs_say_what_was_logged(here: Path) -> None:
    with cas.track("a", name="x", capture="none") as run:
        run.log_text("t", "x", step=0)
        run.save_checkpoint(model={"w": 1}, step=1, wait=True)
    repo = opened()
    end = repo.commit(repo.root.refs["runs/a/x"])
    checkpoint = repo.commit(end.parents_of("previous")[0].commit)
    assert logged_changes(repo, checkpoint, end) == ()


def test_columns_that_make_no_sense_are_corruption() -> None:
    short = TensorRow(("steps",), "int64", (3,), blob_id(b"1" * 24), b"1" * 24)
    state = State(["dict", "steps", ["ndarray", 0]], (short,))
    assert logged._count(state) == 3
    values: list[Value] = [["dict"], ["dict", "steps", ["ndarray", 1]], ["list"], ["dict", 1, 2]]
    for value in values:
        with pytest.raises(CorruptionError):
            logged._count(State(value, (short,)))
    with pytest.raises(CorruptionError, match="torn"):
        logged._whole(b"123")
