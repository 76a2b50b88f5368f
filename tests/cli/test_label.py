"""`cas label` and `cas note`: what people say of runs, which no commit changes by."""

import pytest

from cas.repo.annotations import Annotation, current
from cas.repo.repo import Repo
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files


@pytest.fixture
def runs(repo: Repo) -> Repo:
    for name in ("one", "two"):
        run = RunBuilder(repo, f"exp/{name}", uid=name.encode().ljust(16))
        run.checkpoint(1, {}, value=0.5)
        run.finish()
    return repo


def test_labels_are_given_listed_and_taken_away(cas: Cas, runs: Repo) -> None:
    before = dict(runs.refresh().refs)
    assert cas("label", "exp/one", "good", "baseline").lines == ["baseline", "good"]
    assert cas("label", "exp/two", "good").code == 0
    assert cas("label", "--json").json == [
        {"label": "baseline", "runs": 1},
        {"label": "good", "runs": 2},
    ]
    assert cas("label", "-d", "exp/one", "good", "nothing").lines == ["baseline"]
    assert cas("label", "exp/one", "--json").json == {"labels": ["baseline"]}
    after = runs.refresh().refs
    assert {ref: after[ref] for ref in before} == before


def test_a_label_is_of_the_whole_run(cas: Cas, runs: Repo) -> None:
    cas("label", "exp/one~1", "good")
    assert cas("label", "exp/one").lines == ["good"]
    assert cas("show", "exp/one~1", "--json").json["notes"]["labels"] == ["good"]


def test_log_shows_labels_and_finds_runs_by_them(cas: Cas, runs: Repo) -> None:
    cas("label", "exp/one", "good")
    lines = cas("log").lines
    assert sum("[good]" in line for line in lines) == 1
    found = cas("log", "--label", "good", "--json").json
    assert [(one["run"], one["labels"]) for one in found] == [("exp/one", ["good"])]
    assert cas("log", "--label", "nope").err == "no run has the label nope\n"
    assert cas("log", "exp", "--label", "good", "-n", "1").lines
    assert cas("log", "exp/one", "--label", "good").code == 2
    assert cas("log", "--graph", "--label", "good").code == 2


def test_notes_are_replaced_and_their_history_stays(cas: Cas, runs: Repo) -> None:
    cas("note", "exp/one", "first try")
    cas("note", "-a", "exp/one", "ran out of memory")
    cas("label", "exp/one", "bad")
    assert cas("note", "exp/one").lines == ["first try", "ran out of memory"]
    cas("note", "exp/one", "forget it")
    assert cas("note", "exp/one", "--json").json == {"notes": "forget it"}
    told = cas("note", "exp/one", "--history", "--json").json
    assert [(one["notes"], one["labels"]) for one in told] == [
        ("forget it", ["bad"]),
        ("first try\nran out of memory", ["bad"]),
        ("first try\nran out of memory", []),
        ("first try", []),
    ]
    shown = cas("show", "exp/one").out
    assert "labels  bad" in shown
    assert "forget it" in shown


def test_what_was_said_can_be_undone(cas: Cas, runs: Repo) -> None:
    cas("label", "exp/one", "good")
    cas("note", "exp/one", "oops")
    assert cas("undo", "--yes").code == 0
    assert cas("note", "exp/one", "--json").json == {"notes": ""}
    assert cas("label", "exp/one").lines == ["good"]
    assert cas("undo", "--yes").code == 0
    assert cas("note", "exp/one").lines == ["oops"]


def test_what_was_said_survives_gc_and_is_no_lineage(cas: Cas, runs: Repo) -> None:
    cas("label", "exp/one", "good")
    cas("note", "exp/one", "kept")
    cas("gc")
    assert cas("fsck", "--full").code == 0
    assert cas("note", "exp/one", "--history").lines[0].endswith("kept")
    assert "annotation" not in cas("log", "--graph").out


def test_a_secret_in_notes_is_not_stored(cas: Cas, runs: Repo) -> None:
    cas("note", "exp/one", "token ghp_" + "a1B2c3D4e5F6" * 3)
    assert "a1B2c3" not in cas("note", "exp/one").out


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["label", "main", "x"], 2),
        (["label", "main"], 2),
        (["label", "exp/one", ""], 2),
        (["label", "exp/one", "a\nb"], 2),
        (["label", "exp/one", "x" * 101], 2),
        (["label", "nope", "x"], 3),
        (["label", "-d", "exp/one"], 2),
        (["note", "main", "x"], 2),
        (["note", "-a", "exp/one"], 2),
        (["note", "--history", "exp/one", "x"], 2),
        (["note", "exp/one", "x" * 65_537], 2),
    ],
)
def test_wrong_calls(cas: Cas, runs: Repo, args: list[str], code: int) -> None:
    commit_files(runs, {"a": b"1"})
    seq = runs.refresh().seq
    assert cas(*args).code == code
    assert runs.refresh().seq == seq


def test_two_who_say_something_at_once_both_count(cas: Cas, runs: Repo) -> None:
    from cas.repo import annotations, transaction
    from cas.repo.transaction import Transaction

    tries: list[Annotation] = []

    uid = b"one".ljust(16)

    def build(tx: Transaction) -> None:
        if not tries:
            cas("label", "exp/one", "theirs")
        tries.append(
            annotations.change(
                tx, uid, Annotation(), lambda said: said.labelled(("ours",)), "label"
            )
        )

    transaction.transact(runs, "label", build)
    assert len(tries) == 2
    found = current(runs, uid)
    assert found is not None
    assert found.labels == ("ours", "theirs")


def test_what_was_said_goes_with_the_run(cas: Cas, runs: Repo) -> None:
    cas("label", "exp/one", "good")
    cas("label", "exp/two", "good")
    assert cas("rm", "exp/one", "--keep-record", "--yes").code == 0
    assert cas("label", "exp/one").lines == ["good"]
    assert cas("rm", "exp/one", "--yes").code == 0
    left = [ref for ref in runs.refresh().refs if ref.startswith("annotations/")]
    assert left == [f"annotations/{b'two'.ljust(16).hex()}"]
    assert cas("undo", "--yes").code == 0
    assert cas("label", "exp/one").lines == ["good"]


def test_a_run_that_went_on_under_another_name_keeps_what_was_said(cas: Cas, runs: Repo) -> None:
    RunBuilder(runs, "exp/one-2", uid=b"one".ljust(16)).finish()
    cas("label", "exp/one", "good")
    assert cas("label", "exp/one-2").lines == ["good"]
    assert cas("rm", "exp/one", "--yes").code == 0
    assert cas("label", "exp/one-2").lines == ["good"]
    assert cas("undo", "--yes").code == 0
    assert cas("rm", "exp/one", "exp/one-2", "--yes").code == 0
    assert not [ref for ref in runs.refresh().refs if ref.startswith("annotations/")]
