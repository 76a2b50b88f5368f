"""A commit says what it may say, and nothing is read that it may not."""

import subprocess
import sys
from typing import Any

import pytest

from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.ids import CommitId, ObjectId, TreeId
from cas.objects import canonical
from cas.objects.commit import (
    BASE_MODEL,
    CHECKPOINT,
    DATASET,
    EVALUATES,
    INPUT,
    PREVIOUS,
    REPRODUCES,
    RESUMED_FROM,
    RUN,
    VARIANT_OF,
    Commit,
    JournalPosition,
    Monitor,
    Parent,
    Volume,
)

TREE = TreeId(ObjectId(bytes(32)))
OTHER = CommitId(ObjectId(b"\1" * 32))
FULL = Commit(
    kind=CHECKPOINT,
    tree=TREE,
    payload=TREE,
    parents=(Parent(PREVIOUS, OTHER), Parent(DATASET, OTHER, "train", {"split": "train"})),
    experiment="digits",
    run="calm-owl",
    seq=3,
    step=1000,
    status="running",
    time=1_800_000_000_000_000,
    author="ada",
    message="after warm-up",
    monitor=Monitor("val/loss", "min", 0.25),
    volume=Volume(1000, 10),
    journal=JournalPosition(bytes(16), 42),
    extra={"note": [1, None]},
)


def edited(**changes: Any) -> bytes:
    fields = canonical.decode(FULL.to_bytes())
    assert isinstance(fields, dict)
    return canonical.encode({**fields, **changes})


DAMAGE: dict[str, dict[str, Any]] = {
    "no tree": {"tree": None},
    "a tree id cut short": {"tree": bytes(31)},
    "a payload that is text": {"payload": "a" * 32},
    "a payload id too long": {"payload": bytes(33)},
    "parents that are a map": {"parents": {}},
    "a parent that is a map": {"parents": [{}]},
    "a parent cut short": {"parents": [["previous", bytes(32), ""]]},
    "a parent without id": {"parents": [["previous", None, "", {}]]},
    "a parent with a short id": {"parents": [["previous", bytes(3), "", {}]]},
    "a role that is a sentence": {"parents": [["Made From", bytes(32), "", {}]]},
    "a run that is a number": {"run": 1},
    "a negative seq": {"seq": -1},
    "a seq that is a bool": {"seq": True},
    "a step that is a float": {"step": 1.0},
    "a time that is a float": {"time": 1.0},
    "no message": {"message": None},
    "a monitor without mode": {"monitor": {"metric": "a", "value": 1.0}},
    "a monitor of another mode": {"monitor": {"metric": "a", "mode": "last", "value": 1.0}},
    "a monitor that is an int": {"monitor": {"metric": "a", "mode": "min", "value": 1}},
    "a monitor with more": {"monitor": {"metric": "a", "mode": "min", "value": 1.0, "x": 1}},
    "negative bytes": {"bytes": [1, -1]},
    "one count of bytes": {"bytes": [1]},
    "a journal of a short uid": {"journal": [bytes(15), 1]},
    "a journal before its start": {"journal": [bytes(16), -1]},
    "a journal that is text": {"journal": "journal"},
    "extra that is a list": {"extra": []},
    "an unknown field": {"mood": "good"},
    "an input that has a time": {"kind": "input"},
    "version 0": {"v": 0},
    "a kind that is no text": {"kind": b"run"},
}


def test_all_fields_come_back() -> None:
    assert Commit.from_bytes(edited()) == FULL


@pytest.mark.parametrize("changes", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_commit_is_corruption(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptionError):
        Commit.from_bytes(edited(**changes))


def test_a_missing_field_is_corruption() -> None:
    fields = canonical.decode(FULL.to_bytes())
    assert isinstance(fields, dict)
    assert fields.keys() == Commit.FIELDS
    for name in fields:
        kept = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(CorruptionError):
            Commit.from_bytes(canonical.encode(kept))


@pytest.mark.parametrize("changes", [{"v": 2}, {"v": 2, "mood": "good"}, {"kind": "ensemble"}])
def test_what_a_newer_cas_wrote_is_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        Commit.from_bytes(edited(**changes))


@pytest.mark.parametrize(
    "told",
    [
        {"time": 0},
        {"author": "ada"},
        {"run": "r"},
        {"experiment": "e"},
        {"status": "finished"},
        {"step": 0},
        {"seq": 1},
        {"volume": Volume(0, 0)},
        {"monitor": Monitor("a", "min", 0.0)},
        {"journal": JournalPosition(bytes(16), 0)},
    ],
    ids=str,
)
def test_an_input_says_nothing_of_when_where_or_by_whom(told: dict[str, Any]) -> None:
    Commit(kind=INPUT, tree=TREE, payload=TREE, message="MNIST", extra={"schema": {}})
    with pytest.raises(InvalidInputError, match="timeless"):
        Commit(kind=INPUT, tree=TREE, **told)


@pytest.mark.parametrize(
    "role",
    [PREVIOUS, RESUMED_FROM, BASE_MODEL, DATASET, EVALUATES, REPRODUCES, VARIANT_OF, "teacher"],
)
def test_a_role_is_lower_case_words(role: str) -> None:
    assert Parent(role, OTHER).role == role


@pytest.mark.parametrize("role", ["", "A", "a_b", "a--b", "-a", "a-", "1a", "a b", "ä", "a" * 65])
def test_other_roles_are_refused(role: str) -> None:
    with pytest.raises(InvalidInputError):
        Parent(role, OTHER)


def test_an_unknown_kind_is_refused_at_once() -> None:
    with pytest.raises(InvalidInputError):
        Commit(kind="Run", tree=TREE)


def test_a_monitor_has_a_float() -> None:
    whole: Any = 1
    with pytest.raises(InvalidInputError):
        Monitor("a", "min", whole)


def test_parents_are_found_by_role() -> None:
    assert [parent.path for parent in FULL.parents_of(DATASET)] == ["train"]
    assert FULL.parents_of(REPRODUCES) == ()


def test_the_order_of_parents_is_kept_and_is_meaning() -> None:
    one, two = Parent(DATASET, OTHER, "a"), Parent(DATASET, OTHER, "b")
    first = Commit(kind=RUN, tree=TREE, parents=(one, two))
    second = Commit(kind=RUN, tree=TREE, parents=(two, one))
    assert Commit.from_bytes(first.to_bytes()).parents == (one, two)
    assert first.id != second.id


def test_reading_commits_loads_no_other_kind() -> None:
    """`log` reads commits and nothing else, and has to start quickly."""
    code = (
        "import sys; import cas.objects.commit; "
        "print([m for m in ('cas.objects.manifest', 'cas.objects.node', 'cas.objects.tree', "
        "'json', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
