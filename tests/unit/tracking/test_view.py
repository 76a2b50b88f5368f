"""A run that is opened tells everything it was told, and reads only what is asked for."""

import sys
from pathlib import Path

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError, NotFoundError
from cas.ids import Buffer, ObjectId
from cas.objects.kind import Kind
from cas.repo.collect import gc
from cas.repo.transaction import transact
from cas.tracking.ends.recovery import recover_lost
from cas.tracking.shown.logged import Logged, Tracks
from tests.support.runs import cas as command
from tests.support.runs import eventually, killed, opened, python, script, started


def test_a_run_tells_what_it_was_told(here: Path) -> None:
    (here / "plots").mkdir()
    (here / "plots" / "a.txt").write_text("plot")
    with cas.track("a", name="x", params={"lr": 0.1, "opt": {"name": "sgd"}}) as run:
        run.log({"loss": 0.5, "acc": 0.1}, step=1)
        run.log({"loss": 0.25}, step=2)
        run.log_artifact("plots")
        run.log_artifact(b"raw", "b.bin")
        run.log_artifact({"w": np.arange(100)}, "deep/arrays")
        run.add_metadata({"cluster": "north", "n": 1})
        run.add_metadata({"n": 2})
        assert run.summary["loss"]["last"] == 0.25
    view = cas.open_run("a/x")
    assert (view.name, view.status) == ("a/x", "finished")
    assert view.params == {"lr": 0.1, "opt": {"name": "sgd"}}
    assert view.summary["loss"]["min"] == 0.25
    assert view.metadata == {"cluster": "north", "n": 2}
    assert list(view.metrics) == ["acc", "loss"]
    points = view.metrics["loss"]
    assert (points.steps.tolist(), points.values.tolist()) == ([1, 2], [0.5, 0.25])
    assert len(points) == len(points.times) == 2
    assert points.times[0] > 1.6e9
    assert sorted(view.artifacts) == ["b.bin", "deep/arrays", "plots/a.txt"]
    assert view.artifact("plots/a.txt") == b"plot"
    assert view.artifact("b.bin") == b"raw"
    assert np.array_equal(view.artifact("deep/arrays")["w"], np.arange(100))
    assert view.document("nothing.json") == {}
    with pytest.raises(InvalidInputError, match="folder"):
        view.artifact("plots")
    with pytest.raises(NotFoundError):
        view.artifact("nowhere")
    with pytest.raises(KeyError):
        view.metrics["nothing"]


def test_a_run_without_anything_tells_nothing(here: Path) -> None:
    with cas.track("a", name="x"):
        pass
    view = cas.open_run("a/x")
    assert (view.params, view.metadata, view.artifacts, view.keys()) == ({}, {}, [], {})
    assert dict(view.metrics) == {}


def test_only_a_run_is_opened(here: Path) -> None:
    (here / "data.csv").write_text("1")
    with cas.track("a", name="x") as run:
        run.track_dataset("data.csv")
    with pytest.raises(InvalidInputError, match="no run: it is a commit of kind input"):
        cas.open_run("datasets/data.csv")


def test_a_run_that_lives_is_read_from_its_journal(here: Path) -> None:
    run = cas.track("a", name="x", params={"lr": 1})
    run.log({"loss": 1.0, "said": "hello"}, step=3)
    run.log_image("i", np.zeros((4, 4), np.uint8), step=3)
    run.save_checkpoint(model={"w": 1}, step=3)
    run.log_params({"late": True})
    eventually(lambda: len(cas.open_run("a/x").keys()) == 2, "both are in the journal")
    view = cas.open_run("a/x")
    assert view.status == "running"
    assert view.params == {"lr": 1, "late": True}
    assert view.metrics["loss"].values.tolist() == [1.0]
    assert view.summary["loss"]["count"] == 1
    assert view.logged("said")[0].value() == "hello"
    assert view.logged("i")[0].value().shape == (4, 4)
    run.finish()
    assert cas.open_run("a/x").status == "finished"


def test_a_list_of_ten_thousand_images_is_a_few_reads(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cas.track("a", name="x") as run:
        image = np.zeros((2, 2), np.uint8)
        run.log_image("first", image)
        run._outbox.flush()  # type: ignore[union-attr]
        (row,) = run._live.state.logged.rows()
        many = [
            Logged("image", f"k{step % 3}", step, 1.0, "png", row.size, id=row.id)
            for step in range(10_000)
        ]
        run._live.state.logged = Tracks([row, *many])
    view = cas.open_run("a/x")
    reads: list[Kind] = []
    read = view.repo.store.read

    def counted(kind: Kind, id: ObjectId) -> Buffer:
        reads.append(kind)
        return read(kind, id)

    monkeypatch.setattr(view.repo.store, "read", counted)
    assert view.keys() == {"image": {"first": 1, "k0": 3334, "k1": 3333, "k2": 3333}}
    items = view.logged("k1")
    assert [item.step for item in items] == list(range(1, 10_000, 3))
    assert reads.count(Kind.BLOB) <= 6
    assert np.array_equal(items[-1].value(), image)


def test_what_was_let_go_of_is_told_and_still_listed(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.log_image("i", np.zeros((4, 4), np.uint8))
        run.log_embedding("e", np.zeros((40, 4)))
        run.log_text("t", "small")
    repo = opened(here)
    view = cas.open_run("a/x")
    item, vectors = view.logged("i")[0], view.logged("e")[0]
    with_hold = f"holds/{view.commit}"
    assert with_hold in repo.root.refs
    transact(repo, "let go", lambda tx: tx.set_ref(with_hold, None))
    gc.execute(repo, gc.plan(repo))
    view = cas.open_run("a/x")
    assert view.keys() == {"embedding": {"e": 1}, "image": {"i": 1}, "text": {"t": 1}}
    assert view.logged("t")[0].value() == "small"
    for gone in (item, vectors):
        with pytest.raises(NotFoundError, match="let go of"):
            view.logged(gone.key)[0].value()


LOOP = """
import numpy as np
run = cas.track("a", name="x")
for step in range(10**6):
    run.log({"loss": step, "said": f"step {step}"}, step=step)
    run.log_image("i", np.full((4, 4), step % 256, np.uint8), step=step)
    run.log_histogram("h", np.arange(step % 7 + 1), step=step)
    time.sleep(0.01)
    if step == 300: print("there", flush=True)
"""


def test_a_run_that_is_killed_keeps_what_it_was_shown(here: Path) -> None:
    child = started(here, sys.executable, script(here, LOOP))
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    killed(child)
    repo = opened(here)
    assert recover_lost(repo) == ["a/x"]
    view = cas.open_run("a/x")
    assert view.status == "crashed"
    texts, images, histograms = (view.logged(key) for key in ("said", "i", "h"))
    assert len(texts) > 150
    assert len(histograms) > 150
    assert len(images) > 50
    assert [item.step for item in images] == list(range(len(images)))
    assert [item.value() for item in texts] == [f"step {step}" for step in range(len(texts))]
    for item in images:
        assert item.value()[0, 0] == item.step % 256
    assert command(here, "fsck", "--full").returncode == 0


def test_a_run_whose_journal_is_lost_too_keeps_its_files(here: Path) -> None:
    child = started(here, sys.executable, script(here, LOOP))
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    killed(child)
    for journal in (here / ".cas" / "journals").iterdir():
        journal.unlink()
    command(here, "recover", "a/x")
    images = cas.open_run("a/x").logged("i")
    assert len(images) > 50
    assert [item.value()[0, 0] for item in images] == [item.step % 256 for item in images]


def test_a_program_in_a_run_shows_things_to_the_run(here: Path) -> None:
    text = """
import numpy as np
with cas.track() as run:
    run.log({"said": "hello", "loss": 1.0}, step=2)
    run.log_image("i", np.full((4, 4), 7, np.uint8), step=2)
    run.add_metadata({"k": "v"})
"""
    path = script(here, text)
    command(here, "run", "--", sys.executable, str(path))
    view = cas.open_run(next(ref for ref in opened(here).root.refs if ref.startswith("runs/")))
    assert view.keys() == {"image": {"i": 1}, "text": {"said": 1}}
    assert view.logged("i")[0].value()[0, 0] == 7
    assert view.metadata == {"k": "v"}
    assert command(here, "fsck", "--full").returncode == 0


def test_what_is_shown_as_the_interpreter_ends_is_stored(here: Path) -> None:
    text = (
        "import numpy as np\nrun = cas.track('a', name='x')\nrun.log_image('i', np.zeros((2, 2)))\n"
    )
    python(here, script(here, text))
    assert len(cas.open_run("a/x").logged("i")) == 1
