"""`cas log` lists runs, histories and the graph."""

from pathlib import Path

import pytest

from cas.cli.session import Session
from cas.objects.commit import Parent
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, set_ref


@pytest.fixture
def runs(repo: Repo) -> dict[str, RunBuilder]:
    """Two runs on one dataset, the second forked from the first, whose first checkpoint is gone."""
    data = Parent("dataset", commit_files(repo, {"d": b""}, ref="datasets/digits", kind="input"))
    one = RunBuilder(repo, "digits/brave-otter", (data,))
    for step, loss in enumerate([0.5, 0.2, 0.3]):
        one.checkpoint(step, {"w": noise(step, 1000)}, value=loss)
    one.finish()
    two = RunBuilder(repo, "digits/calm-fox", (Parent("resumed-from", one.ids[1]), data))
    for step in range(4):
        two.checkpoint(step, {"w": noise(9, 1000)}, value=0.1)
    two.finish(status="failed")
    set_ref(repo, f"holds/{one.ids[0]}", None)
    return {"one": one, "two": two}


def test_one_line_for_each_run_newest_first(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    first, second = cas("log").lines
    assert first.split()[:4] == ["digits/calm-fox", "failed", "loss", "0.1"]
    assert second.split()[:2] == ["digits/brave-otter", "finished"]
    assert "loss 0.3 (best 0.2)" in second
    assert "3 checkpoints, 2 kept" in second
    assert second.endswith(runs["one"].ids[-1].short)


def test_a_limit(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    assert len(cas("log", "-n", "1").lines) == 1
    assert cas("log", "-n", "0").lines == []


def test_nothing_to_list_is_no_error(cas: Cas, repo: Repo) -> None:
    assert cas("log").out == ""
    assert cas("log", "--json").json == []
    assert cas("log", "--graph").out == ""
    assert cas("log", "HEAD").code == 3


def test_checkpoints_unfold(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    lines = cas("log", "--checkpoints").lines
    assert len(lines) == 2 + 5 + 4
    assert [line for line in lines if "pruned" in line] == [lines[-1]]
    (two, one) = cas("log", "--checkpoints", "--json").json
    assert [commit["id"] for commit in one["commits"]] == [
        str(id) for id in reversed(runs["one"].ids)
    ]
    assert [commit["kept"] for commit in one["commits"]] == [None, True, True, False]
    assert two["status"] == "failed"


def test_json_says_the_same(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    two, one = cas("log", "--json").json
    assert one["id"] == str(runs["one"].ids[-1])
    assert (one["run"], one["last"], one["best"]) == ("digits/brave-otter", 0.3, 0.2)
    assert (two["checkpoints"], two["kept_checkpoints"]) == (4, 4)


def test_a_revision_is_followed_back(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    lines = cas("log", "digits/brave-otter~1").lines
    assert [line.split()[0] for line in lines] == [id.short for id in reversed(runs["one"].ids[:3])]
    assert cas("log", "digits/brave-otter", "-n", "1", "--json").json[0]["kind"] == "run"


def test_the_graph_names_roles_and_folds_checkpoints(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    assert [line.rstrip() for line in cas("log", "--graph").lines] == [
        "*  digits/calm-fox  failed  loss 0.1  4 checkpoints, 4 kept",
        "|  resumed-from digits/brave-otter, step 1",
        "|\\  dataset digits",
        "* |  digits/brave-otter  finished  loss 0.3 (best 0.2)  3 checkpoints, 2 kept",
        "|/  dataset digits",
        f"*  {runs['one'].parents[0].commit.short}  (datasets/digits)  input",
    ]


def test_the_graph_unfolds(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    lines = cas("log", "--graph", "--checkpoints").lines
    assert sum("*" in line for line in lines) == 4 + 5 + 1


def test_the_graph_as_json(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    nodes = cas("log", "--graph", "--json").json
    assert [node["kind"] for node in nodes] == ["run", "run", "input"]
    assert {edge["role"] for edge in nodes[0]["edges"]} == {"resumed-from", "dataset"}


def test_the_graph_of_one_revision(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    assert not any("calm-fox" in line for line in cas("log", "--graph", "digits/brave-otter").lines)


def test_a_message_cannot_write_to_the_terminal(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "x").write_bytes(b"1")
    cas("commit", "x", "-m", "evil \x1b[31m\nsecond line")
    (line,) = cas("log", "HEAD").lines
    assert line.endswith("evil \\x1b[31m")
    assert "\x1b" not in cas("show").out


def test_metrics_that_json_has_no_numbers_for(cas: Cas, repo: Repo) -> None:
    RunBuilder(repo, "e/run").checkpoint(0, {}, value=float("nan"))
    assert cas("log", "--json").json[0]["last"] == "NaN"
    assert "nan" in cas("log").out


def test_a_graph_of_an_experiment_and_of_a_run_without_checkpoints(cas: Cas, repo: Repo) -> None:
    data = Parent("dataset", commit_files(repo, {"d": b""}, ref="datasets/d", kind="input"))
    RunBuilder(repo, "a/one", (data,)).finish()
    RunBuilder(repo, "b/two", (data,)).finish()
    lines = cas("log", "--graph", "a").lines
    assert lines[0].split() == ["*", "a/one", "finished", "-", "0", "checkpoints,", "0", "kept"]
    assert lines[1:] == ["|  dataset d", lines[2]]
    assert "b/two" not in "".join(lines)
    assert cas("log", "--graph", "c").code == 3


def test_a_graph_says_how_a_run_ended_that_it_shows_in_part(
    cas: Cas, runs: dict[str, RunBuilder]
) -> None:
    lines = cas("log", "--graph", "digits/calm-fox").lines
    (partial,) = [line for line in lines if "digits/brave-otter  " in line]
    assert "finished" in partial
    assert "2 checkpoints" in partial


def test_none_of_the_runs_is_not_no_runs(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    assert cas("log", "-n", "0").err == ""
    assert cas("log", "--graph", "-n", "0").err == ""


def test_a_narrow_terminal(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    session = Session()
    session.width, session.terminal, session.colour = 80, True, False
    first, second = cas("log", session=session).lines
    assert max(len(first), len(second)) <= 80
    assert "loss 0.3  2/3 kept" in second
    assert second.endswith(runs["one"].ids[-1].short)
    session = Session()
    session.width, session.terminal, session.colour = 55, True, False
    first, second = cas("log", session=session).lines
    assert max(len(first), len(second)) <= 55
    assert first.endswith(runs["two"].ids[-1].short)
    assert "loss 0.3" in second
    assert "kept" not in second
    session = Session()
    session.width = 20
    lines = cas("log", "--graph", session=session).lines
    assert {len(line) for line in lines} <= set(range(21))
    assert lines[0] == "*  digits/calm-fox …"


def test_times_in_json_are_text(cas: Cas, runs: dict[str, RunBuilder]) -> None:
    nodes = cas("log", "--graph", "--json").json
    assert [node["line"] and node["line"]["time"] for node in nodes] == [
        None if node["run"] is None else node["time"] for node in nodes
    ]
    assert [node["run"] for node in nodes] == ["digits/calm-fox", "digits/brave-otter", None]


class TestCheckpointsOfOneRun:
    """`cas log RUN --checkpoints` says of each what it is and why it is still there."""

    @pytest.fixture
    def pruned(self, repo: Repo) -> RunBuilder:
        run = RunBuilder(repo, "exp/one")
        for step, loss in enumerate((3.0, 1.0, 2.0, 4.0)):
            metrics = {"acc": loss / 10}
            run.checkpoint(step, {"w": noise(step, 5000)}, value=loss, metrics=metrics)
        run.finish()
        set_ref(repo, "tags/v1", run.ids[1])
        set_ref(repo, f"holds/{run.ids[0]}", None)
        return run

    def test_each_with_its_fate(self, cas: Cas, pruned: RunBuilder) -> None:
        newest, third, second, first = cas("log", "exp/one", "--checkpoints").lines
        assert "step 3" in newest
        assert newest.endswith("kept: newest of the run")
        assert third.endswith("kept")
        assert second.endswith("kept: tag v1")
        assert first.endswith("pruned")
        assert "loss 3, acc 0.3" in first
        assert "5.0 kB given" in first
        assert "stored" in first

    def test_by_the_rules_of_the_config(self, cas: Cas, pruned: RunBuilder) -> None:
        cas("config", "retention.min", "acc=1")
        _, third, second, _ = cas("log", "exp/one", "--checkpoints").lines
        assert third.endswith("kept, though no rule keeps it")
        assert second.endswith("kept: tag v1, lowest 1 by acc")

    def test_as_data(self, cas: Cas, pruned: RunBuilder) -> None:
        rows = cas("log", "exp/one", "--checkpoints", "--json").json
        assert [row["commit"] for row in rows] == [str(id) for id in pruned.ids[3::-1]]
        assert [row["kept"] for row in rows] == [True, True, True, False]
        assert [row["reasons"] for row in rows] == [["newest of the run"], [], ["tag v1"], []]
        assert rows[3]["metrics"] == {"loss": 3.0, "acc": pytest.approx(0.3)}
        assert rows[3]["step"] == 0
        assert rows[3]["given_bytes"] == 5000

    def test_the_newest_only(self, cas: Cas, pruned: RunBuilder) -> None:
        assert len(cas("log", "exp/one", "--checkpoints", "-n", "2").lines) == 2

    def test_up_to_a_checkpoint(self, cas: Cas, pruned: RunBuilder) -> None:
        assert len(cas("log", str(pruned.ids[1]), "--checkpoints").lines) == 2

    def test_a_commit_of_files_has_its_history(self, cas: Cas, repo: Repo) -> None:
        commit_files(repo, {"a": b"1"})
        assert len(cas("log", "HEAD", "--checkpoints").lines) == 1
