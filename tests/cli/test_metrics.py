"""`cas metrics` shows what was measured, writes it for other tools and takes it from them."""

import math
from pathlib import Path

import pytest

from cas.cli.session import Session
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.tracking import record
from cas.tracking.captured.capture import Start
from cas.tracking.journals.state import RunState
from cas.tracking.numbers.exchange import read
from cas.tracking.start import begin
from tests.cli.conftest import Cas


@pytest.fixture
def run(repo: Repo) -> str:
    """A run that ended, with epochs and system metrics."""
    state = RunState("mnist/x", "runs/mnist/x", b"u" * 16)
    for step in range(6):
        state.metrics.add({"loss": 6.0 - step, "lr": 0.1}, step, 100.0 + step, step // 3)
    state.metrics.add({"odd": math.nan}, 6, 106.0)
    state.system.add({"cpu_percent": 50.0}, 100_000_000, 100.0)
    end = record.Moment(1, "ada", "finished")
    transact(repo, "end", lambda tx: record.finish(tx, state, {}, end))
    return "mnist/x"


def test_the_table(cas: Cas, run: str) -> None:
    lines = [line.split() for line in cas("metrics", run).lines]
    assert lines == [
        ["metric", "last", "min", "at", "max", "at", "mean", "points"],
        ["loss", "1", "1", "5", "6", "0", "3.5", "6"],
        ["lr", "0.1", "0.1", "0", "0.1", "0", "0.1", "6"],
        ["odd", "nan", "-", "-", "-", "-", "-", "1"],
    ]
    told = cas("metrics", run, "loss", "--json").json
    assert told == {
        "loss": {
            "last": 1.0, "min": 1.0, "min_step": 5, "max": 6.0, "max_step": 0, "mean": 3.5,
            "points": 6, "logged": 6, "epochs": 2,
        }
    }  # fmt: skip


@pytest.fixture
def thinned(repo: Repo) -> str:
    """A run of which every tenth point was kept."""
    state = RunState("mnist/thin", "runs/mnist/thin", b"t" * 16)
    state.metrics.every = 10
    for step in range(95):
        state.metrics.add({"train/loss of a long name": abs(step - 57.0)}, step, 1.0, step // 20)
    end = record.Moment(1, "ada", "finished")
    transact(repo, "end", lambda tx: record.finish(tx, state, {}, end))
    return "mnist/thin"


def test_the_table_is_of_all_points_not_of_the_kept_ones(cas: Cas, thinned: str) -> None:
    _, line = cas("metrics", thinned).lines
    assert line.split()[-9:] == ["37", "0", "57", "57", "0", "24.8", "10", "of", "95"]
    told = cas("metrics", thinned, "--json").json["train/loss of a long name"]
    assert (told["last"], told["min_step"], told["points"], told["logged"]) == (37.0, 57, 10, 95)
    # What is computed of the kept points is of them.
    told = cas("metrics", thinned, "--average", "1", "--json").json["train/loss of a long name"]
    assert (told["last"], told["min_step"], told["points"], told["logged"]) == (33.0, 60, 10, 10)


def test_json_takes_all_that_is_known_to_another_run(cas: Cas, thinned: str) -> None:
    cas("metrics", thinned, "--to", "m.json")
    cas("metrics", "other/y", "--from", "m.json")
    for options in ((), ("--epochs",)):
        assert cas("metrics", "other/y", *options).out == cas("metrics", thinned, *options).out


def test_a_narrow_terminal_sees_the_start_of_names_and_fewer_columns(
    cas: Cas, thinned: str
) -> None:
    whole = cas("metrics", thinned).lines
    widths = {}
    for width in (len(whole[0]), len(whole[0]) - 2, 60, 20):
        session = Session()
        session.width = width
        lines = widths[width] = cas("metrics", thinned, session=session).lines
        assert width == 20 or max(map(len, lines)) <= width
    assert widths[len(whole[0])] == whole
    assert widths[len(whole[0]) - 2][1].startswith("train/loss of a long n")
    assert widths[60][0].split() == ["metric", "last", "min", "at", "max", "at", "mean"]
    assert widths[20][0].split() == ["metric", "last", "min"]


def test_options_that_say_different_things_are_refused(cas: Cas, run: str) -> None:
    for options, said in (
        (("--to", "m.csv", "--from", "m.csv"), "--to and --from do not go together"),
        (("--points", "--epochs"), "--points and --epochs do not go together"),
        (("--from", "m.csv", "--average", "3"), "give it alone"),
        (("--epochs", "--average", "3"), "--average is of points"),
    ):
        failed = cas("metrics", run, *options)
        assert failed.code != 0
        assert said in failed.err


def test_a_run_without_metrics_says_so(cas: Cas, repo: Repo) -> None:
    end = record.Moment(1, "ada", "finished")
    state = RunState("a/none", "runs/a/none", b"n" * 16)
    transact(repo, "end", lambda tx: record.finish(tx, state, {}, end))
    assert cas("metrics", "a/none").lines == ["no metrics"]
    assert cas("metrics", "a/none", "--json").json == {}


def test_a_run_that_goes_on_is_as_it_is_now(cas: Cas, repo: Repo) -> None:
    live = begin(repo, Start("a", "going"))
    try:
        live.add_points({"loss": 2.0}, 0, 1.0, 0)
        live.add_points({"loss": 1.0}, 1, 2.0, 0)
        live.state.system.add({"cpu_percent": 50.0}, 3, 1.0)
        live.flush()
        assert cas("metrics", "a/going", "--json").json["loss"]["min_step"] == 1
        assert cas("metrics", "a/going", "--epochs").lines[1].split()[-1] == "2"
        assert cas("metrics", "a/going", "--system", "--points").lines[1:] == [
            "cpu_percent,3,50.0,1.0"
        ]
        assert "there are: loss" in cas("metrics", "a/going", "los").err
    finally:
        live.abandon()


def test_points_and_moving_averages(cas: Cas, run: str) -> None:
    lines = cas("metrics", run, "loss", "--points").lines
    assert lines[:2] == ["metric,step,value,time", "loss,0,6.0,100.0"]
    assert len(lines) == 7
    lines = cas("metrics", run, "loss", "--points", "--average", "2").lines
    assert [line.split(",")[2] for line in lines[1:4]] == ["6.0", "5.5", "4.5"]
    told = cas("metrics", run, "loss", "--points", "--json").json
    assert told["loss"]["steps"] == list(range(6))


def test_epochs(cas: Cas, run: str) -> None:
    lines = [line.split() for line in cas("metrics", run, "loss", "--epochs").lines]
    assert lines == [
        ["metric", "epoch", "last", "min", "max", "mean", "points"],
        ["loss", "0", "4", "4", "6", "5", "3"],
        ["loss", "1", "1", "1", "3", "2", "3"],
    ]
    failed = cas("metrics", run, "odd", "--epochs")
    assert failed.code != 0
    assert "epoch=" in failed.err


def test_system_metrics(cas: Cas, run: str) -> None:
    lines = cas("metrics", run, "--system", "--points").lines
    assert lines == ["metric,step,value,time", "cpu_percent,100000000,50.0,100.0"]
    assert cas("metrics", run, "--system", "gpu").code != 0


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_file_goes_out_and_comes_in_as_a_run(
    cas: Cas, repo: Repo, run: str, place: Path, suffix: str
) -> None:
    file = place / f"m{suffix}"
    told = cas("metrics", run, "--to", str(file), "--json").json
    assert (told["metrics"], told["points"]) == (3, 13)
    assert sorted(read(file, 0.0)) == ["loss", "lr", "odd"]
    again = cas("metrics", run, "--to", str(file))
    assert again.code != 0
    assert "new file" in again.err
    made = cas("metrics", "other/y", "--from", str(file), "--json").json
    assert made["run"] == "other/y"
    assert cas("metrics", "other/y").out == cas("metrics", run).out
    one, other = (
        repo.lookup(repo.commit(repo.refresh().refs[f"runs/{name}"]).tree, b"metrics")
        for name in (run, "other/y")
    )
    assert one is not None
    assert other is not None
    assert one.id == other.id


def test_an_import_without_a_name_or_a_file(cas: Cas, repo: Repo, place: Path) -> None:
    assert cas("metrics", "other/y", "--from", "none.csv").code != 0
    (place / "m.csv").write_text("metric,step,value\na,0,1\n")
    assert cas("metrics", "/", "--from", "m.csv").code != 0
    assert not [ref for ref in repo.refresh().refs if ref.startswith(("runs/", "open/"))]


def test_a_metric_that_is_not_there(cas: Cas, run: str) -> None:
    failed = cas("metrics", run, "los")
    assert failed.code != 0
    assert "loss, lr, odd" in failed.err
