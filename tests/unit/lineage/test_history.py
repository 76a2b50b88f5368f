"""Runs, histories and the graph, from commit records alone."""

from pathlib import Path

import pytest

from cas.ids import CommitId
from cas.lineage.history import graph, runs, walk
from cas.objects.commit import Commit, Parent
from cas.objects.kind import Kind
from cas.repo.repo import Repo
from tests.support.builders import RunBuilder, commit_files, noise, repository, set_ref


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def train(repo: Repo, name: str, values: list[float], *parents: Parent) -> RunBuilder:
    """Return a finished run with one checkpoint for each value of its monitor."""
    run = RunBuilder(repo, name, parents)
    for step, value in enumerate(values):
        run.checkpoint(step, {"w": noise(step, 1000)}, value=value)
    run.finish()
    return run


def test_a_run_is_one_line(repo: Repo) -> None:
    run = train(repo, "digits/one", [0.5, 0.2, 0.3])
    (line,) = runs(repo)
    assert (line.run, line.ref, line.id) == ("digits/one", "runs/digits/one", run.ids[-1])
    assert (line.status, line.metric, line.last, line.best) == ("finished", "loss", 0.3, 0.2)
    assert (line.checkpoints, line.kept) == (3, 3)
    assert line.given_bytes == 3000


def test_what_was_pruned_is_not_counted_as_kept_or_stored(repo: Repo) -> None:
    run = train(repo, "digits/one", [0.5, 0.2, 0.3])
    before = runs(repo)[0]
    for id in run.ids[:2]:
        set_ref(repo, f"holds/{id}", None)
    (line,) = runs(repo)
    assert (line.checkpoints, line.kept) == (3, 1)
    assert line.given_bytes == 1000
    assert line.stored_bytes < before.stored_bytes
    assert line.best == 0.2


def test_the_newest_comes_first_and_a_limit_spares_reading(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        train(repo, f"e/run{number}", [0.1] * (number + 1))
    assert [line.run for line in runs(repo, 2)] == ["e/run3", "e/run2"]
    read: list[CommitId] = []

    def counted(id: CommitId) -> Commit:
        read.append(id)
        return Repo.commit(repo, id)

    monkeypatch.setattr(repo, "commit", counted)
    runs(repo, 1)
    assert len(read) == 4 + 4  # each tip, and the checkpoints of the one that is shown


def test_listing_reads_commits_only(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    train(repo, "e/run", [0.1, 0.2])
    kinds: set[Kind] = set()
    read = repo.store.read

    def watched(kind: Kind, id: CommitId) -> bytes:
        kinds.add(kind)
        return read(kind, id)

    monkeypatch.setattr(repo.store, "read", watched)
    runs(repo)
    graph(repo)
    assert kinds == {Kind.COMMIT}


def test_a_live_run_shows_what_is_known_of_it(repo: Repo) -> None:
    RunBuilder(repo, "e/run").checkpoint(0, {}, value=0.1)
    (line,) = runs(repo, live={"runs/e/run": "running"})
    assert line.status == "running"


def test_a_run_without_a_checkpoint_is_listed_by_its_draft(repo: Repo) -> None:
    draft = commit_files(repo, {"a": b"1"}, ref="open/e/run", kind="draft")
    (line,) = runs(repo, live={"runs/e/run": "lost"})
    assert (line.id, line.ref, line.status) == (draft, "runs/e/run", "lost")


def test_walking_follows_previous_alone(repo: Repo) -> None:
    data = commit_files(repo, {"d": b""}, ref="datasets/d", kind="input")
    ids = [
        commit_files(repo, {"a": bytes([n])}, parents=(Parent("dataset", data),)) for n in range(3)
    ]
    assert [id for id, _ in walk(repo, ids[-1])] == ids[::-1]


def test_the_graph_folds_each_run_and_keeps_every_role(repo: Repo) -> None:
    data = commit_files(repo, {"d": b""}, ref="datasets/d", kind="input")
    one = train(repo, "e/one", [0.5, 0.2, 0.3], Parent("dataset", data))
    two = train(repo, "e/two", [0.1], Parent("resumed-from", one.ids[1]), Parent("dataset", data))
    nodes = {node.id: node for node in graph(repo)}
    assert set(nodes) == {data, one.ids[-1], two.ids[-1]}
    assert [id for id, _ in nodes[one.ids[-1]].commits] == one.ids[::-1]
    edges = {(edge.role, edge.node, edge.commit) for edge in nodes[two.ids[-1]].edges}
    assert edges == {
        ("resumed-from", one.ids[-1], one.ids[1]),
        ("dataset", data, data),
    }


def test_the_graph_has_children_before_parents_and_inputs_last(repo: Repo) -> None:
    data = commit_files(repo, {"d": b""}, ref="datasets/d", kind="input")
    one = train(repo, "e/one", [0.5, 0.2], Parent("dataset", data))
    train(repo, "e/two", [0.1], Parent("resumed-from", one.ids[0]))
    for unfold in (False, True):
        order = [node.id for node in graph(repo, checkpoints=unfold)]
        assert order[-1] == data
        for number, node in enumerate(graph(repo, checkpoints=unfold)):
            assert all(order.index(edge.node) > number for edge in node.edges)


def test_the_unfolded_graph_tells_a_runs_own_edges_once(repo: Repo) -> None:
    data = commit_files(repo, {"d": b""}, ref="datasets/d", kind="input")
    run = RunBuilder(repo, "e/one", (Parent("dataset", data),))
    for step in range(3):
        run.checkpoint(step, {})
    edges = [edge for node in graph(repo, checkpoints=True) for edge in node.edges]
    assert [edge.role for edge in edges].count("dataset") == 1
    assert [edge.role for edge in edges].count("previous") == 2


def test_runs_that_came_from_each_other_in_turn_still_have_an_order(repo: Repo) -> None:
    one = RunBuilder(repo, "e/one")
    one.checkpoint(0, {})
    two = train(repo, "e/two", [0.1], Parent("resumed-from", one.ids[0]))
    again = RunBuilder(
        repo, "e/one", (Parent("previous", one.ids[0]), Parent("evaluates", two.ids[0]))
    )
    again.finish()
    assert len(graph(repo)) == 2


def test_the_graph_of_a_revision_is_what_it_came_from(repo: Repo) -> None:
    one = train(repo, "e/one", [0.1])
    train(repo, "e/two", [0.1])
    assert [node.id for node in graph(repo, tips=[one.ids[0]])] == [one.ids[0]]


def test_a_live_run_is_one_node_whether_it_has_checkpoints_or_only_its_draft(repo: Repo) -> None:
    commit_files(repo, {"a": b"1"}, ref="open/e/young", kind="draft")
    commit_files(repo, {"a": b"2"}, ref="open/e/run", kind="draft")
    RunBuilder(repo, "e/run").checkpoint(0, {"w": noise(0, 100)}, value=0.5)
    assert sorted(node.refs for node in graph(repo)) == [("open/e/young",), ("runs/e/run",)]
