"""Aggregates say of many points what the points themselves say."""

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.tracking.numbers.aggregate import Aggregate, from_rows, to_rows

POINTS = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from([-1.0, 0.0, 0.1, 1e16, math.nan, math.inf]))
)


def of(points: list[tuple[int, float]], base: float = 0.0) -> Aggregate:
    found = Aggregate(base)
    for step, value in points:
        found.observe(step, value)
    return found


@given(points=POINTS, cut=st.integers(0, 20))
def test_parts_merge_to_the_whole(points: list[tuple[int, float]], cut: int) -> None:
    ordered = sorted(points, key=lambda point: point[0])
    one, whole = of(ordered[:cut]), of(ordered)
    one.merge(of(ordered[cut:], one.total))
    assert repr(one.summary()) == repr(whole.summary())
    assert one.first_step == whole.first_step


@given(points=POINTS)
def test_many_at_once_are_as_one_by_one(points: list[tuple[int, float]]) -> None:
    found = Aggregate()
    for part in (points[:3], points[3:]):
        steps, values = array("q", [step for step, _ in part]), array("d", [v for _, v in part])
        found.observe_all(steps, values)
    assert repr(found.summary()) == repr(of(points).summary())
    assert found.to_bytes() == of(points).to_bytes()


def test_parts_of_two_programs_add_up() -> None:
    one, other = of([(0, 1.0), (1, 2.0)]), of([(0, 5.0)])
    one.merge(other)
    assert (one.mean, one.count) == (8 / 3, 3)


def test_of_equal_extremes_the_smaller_step_counts() -> None:
    later = of([(5, 1.0), (6, 2.0)])
    merged = of([(9, 1.0), (10, 2.0)])
    merged.merge(later)
    assert (merged.min_step, merged.max_step) == (5, 6)


def test_what_was_never_a_number_is_counted() -> None:
    found = of([(3, math.nan)])
    assert found.summary()["count"] == 1
    assert found.mean is None
    assert math.isnan(found.summary_of("mean"))
    assert math.isnan(found.summary_of("min"))
    assert found.summary_of("first_step") == 3


def test_rows_come_back() -> None:
    sums = {("a", None): of([(1, 2.0), (4, math.nan)]), ("b", -3): of([(1, math.inf)])}
    again = from_rows(to_rows(sums))
    assert {key: one.to_bytes() for key, one in again.items()} == {
        key: one.to_bytes() for key, one in sums.items()
    }


@pytest.mark.parametrize(
    "rows",
    [
        3,
        [["a", None]],
        [["a", None, b"short"]],
        [["a", 1.5, of([(0, 0.0)]).to_bytes()]],
        [[3, 1, of([(0, 0.0)]).to_bytes()]],
        [["a", 1, Aggregate().to_bytes()]],
        [["a", 1, "text"]],
    ],
    ids=repr,
)
def test_damaged_rows_are_refused(rows: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_rows(rows)
