"""A policy keeps what one of its rules names, says why, and never drops what it cannot judge."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidInputError
from cas.ids import CommitId, commit_id
from cas.objects.commit import Monitor
from cas.repo.retain.retention import Checkpoint, Decision, Keep, plan

NOW = 1_900_000_000_000_000


def cid(seq: int) -> CommitId:
    return commit_id(bytes([seq]))


def checkpoint(seq: int, value: float | None = None, **metrics: float) -> Checkpoint:
    monitor = None if value is None else Monitor("loss", "min", value)
    return Checkpoint(cid(seq), seq, step=seq * 10, monitor=monitor, metrics=metrics)


def said(seq: int, value: float | None = None) -> Checkpoint:
    return replace(checkpoint(seq, value), best=True)


def kept(decisions: tuple[Decision, ...]) -> dict[int, tuple[str, ...]]:
    return {d.checkpoint.seq: d.reasons for d in decisions if d.keep}


def test_keeps_the_last_by_seq_whatever_the_order_given() -> None:
    items = [checkpoint(seq) for seq in (3, 1, 2)]
    assert kept(plan(items, Keep(last=2), {}, now=NOW)) == {2: ("last 2",), 3: ("last 2",)}


def test_keeps_the_best_by_the_monitor_and_the_earlier_of_equals() -> None:
    items = [checkpoint(1, 0.5), checkpoint(2, 0.2), checkpoint(3, 0.2), checkpoint(4, 0.9)]
    assert kept(plan(items, Keep(best=1), {}, now=NOW)) == {2: ("best 1 by loss",)}


def test_best_is_the_highest_where_the_monitor_says_so() -> None:
    items = [Checkpoint(cid(n), n, monitor=Monitor("acc", "max", n / 10)) for n in range(4)]
    assert list(kept(plan(items, Keep(best=2), {}, now=NOW))) == [2, 3]


def test_a_value_that_is_no_number_is_never_best() -> None:
    items = [checkpoint(1, math.nan), checkpoint(2, 7.0), checkpoint(3, math.nan)]
    assert list(kept(plan(items, Keep(best=1), {}, now=NOW))) == [2]


def test_values_of_another_monitor_are_not_compared() -> None:
    other = Checkpoint(cid(1), 1, monitor=Monitor("acc", "min", 0.0))
    assert list(kept(plan([other, checkpoint(2, 5.0)], Keep(best=1), {}, now=NOW))) == [2]


def test_what_was_said_to_be_the_best_comes_before_what_the_monitor_says() -> None:
    items = [checkpoint(1, 0.1), said(2, 9.0), checkpoint(3, 0.2), said(4), checkpoint(5, 0.3)]
    one = kept(plan(items, Keep(best=1), {}, now=NOW))
    assert one == {4: ("best 1, as was said",)}
    assert list(kept(plan(items, Keep(best=2), {}, now=NOW))) == [2, 4]
    four = kept(plan(items, Keep(best=4), {}, now=NOW))
    assert four[1] == four[3] == ("best 4 by loss",)
    assert list(four) == [1, 2, 3, 4]


def test_where_nothing_tells_what_comes_after_it_all_is_kept() -> None:
    items = [checkpoint(1), said(2), checkpoint(3)]
    assert list(kept(plan(items, Keep(best=1), {}, now=NOW))) == [2]
    assert list(kept(plan(items, Keep(best=2), {}, now=NOW))) == [1, 2, 3]


def test_keeps_extremes_of_any_metric() -> None:
    items = [checkpoint(1, a=1.0, b=9.0), checkpoint(2, a=2.0), checkpoint(3, a=3.0, b=8.0)]
    decisions = plan(items, Keep(min={"a": 1}, max={"b": 1}), {}, now=NOW)
    assert kept(decisions) == {1: ("lowest 1 by a", "highest 1 by b")}


def test_keeps_every_so_many_steps() -> None:
    items = [checkpoint(seq) for seq in range(6)]
    assert list(kept(plan(items, Keep(every=20), {}, now=NOW))) == [0, 2, 4]


@pytest.mark.parametrize("keep", [Keep(best=1), Keep(min={"loss": 1}), Keep(max={"none": 2})])
def test_a_rule_with_nothing_to_compare_keeps_everything_and_says_so(keep: Keep) -> None:
    decisions = plan([checkpoint(1), checkpoint(2)], keep, {}, now=NOW)
    assert all(decision.keep for decision in decisions)
    assert decisions[0].reasons[0].startswith("no value to tell the")


def test_what_is_protected_stays_with_its_reason() -> None:
    items = [checkpoint(1), checkpoint(2), checkpoint(3)]
    decisions = plan(items, Keep(last=1), {cid(1): ("tag v1",), cid(3): ("tag v3",)}, now=NOW)
    assert kept(decisions) == {1: ("tag v1",), 3: ("tag v3", "last 1")}


@pytest.mark.parametrize("wrong", [{"last": 0}, {"best": -1}, {"every": 0}, {"min": {"a": 0}}])
def test_a_policy_of_less_than_one_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError):
        Keep(**wrong)  # type: ignore[arg-type]


def test_says_whether_a_policy_says_anything() -> None:
    assert Keep().empty
    assert not Keep(tagged=True).empty
    assert not Keep(max={"acc": 1}).empty


values = st.one_of(st.none(), st.floats(allow_infinity=True))


@given(
    told=st.lists(values, max_size=12),
    last=st.none() | st.integers(1, 5),
    best=st.none() | st.integers(1, 5),
    named=st.sets(st.integers(0, 11)),
)
def test_keeps_the_union_of_its_rules_and_nothing_else(
    told: list[float | None], last: int | None, best: int | None, named: set[int]
) -> None:
    items = [checkpoint(seq, value) for seq, value in enumerate(told)]
    decisions = plan(
        items, Keep(last=last, best=best), {cid(seq): ("tag",) for seq in named}, now=NOW
    )
    assert [decision.checkpoint for decision in decisions] == items
    numbers = {seq: v for seq, v in enumerate(told) if v is not None and not math.isnan(v)}
    expected = named & set(range(len(told)))
    expected |= set(range(len(told))[-last:]) if last else set()
    if best:
        ranked = sorted(numbers, key=lambda seq: (numbers[seq], seq))
        expected |= set(ranked[:best] or range(len(told)))
    assert set(kept(decisions)) == expected
    assert all(decision.keep == bool(decision.reasons) for decision in decisions)
