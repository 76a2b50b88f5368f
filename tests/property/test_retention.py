"""What a policy keeps, against plain words for each rule; and when it is asked is no matter.

A run may apply its policy after each checkpoint, or somebody to the whole run at its end.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import RefusedError
from cas.ids import CommitId, ObjectId, commit_id
from cas.objects.commit import Monitor
from cas.repo.retain import budget
from cas.repo.retain.retention import DAY, HOUR, Checkpoint, Decision, Keep, plan
from cas.repo.retain.spared import best

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = 1_900_000_000_000_000
WORDS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda at: (at.year, at.month, at.day, at.hour),
    "daily": lambda at: (at.year, at.month, at.day),
    "weekly": lambda at: tuple(at.isocalendar())[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: (at.year,),
}
counts = st.none() | st.integers(1, 4)
# Around hours, days, months and years, before the epoch too; mostly in order, as clocks are.
times = st.integers(-3 * DAY, 800 * DAY) | st.sampled_from(
    [n * HOUR + d for n in (0, 1, 24, 24 * 7, 24 * 31, 24 * 365) for d in (-1, 0, 1)]
)
values = st.none() | st.floats(allow_infinity=True)
policies = st.builds(
    Keep,
    last=counts,
    best=counts,
    every=st.none() | st.integers(1, 40),
    hourly=counts,
    daily=counts,
    weekly=counts,
    monthly=counts,
    yearly=counts,
    within=st.none() | st.sampled_from(["1h", "3d", "400d"]),
)


def cid(seq: int) -> CommitId:
    return commit_id(bytes([seq]))


@st.composite
def runs(draw: st.DrawFn) -> list[Checkpoint]:
    rows = st.tuples(times, values, st.integers(0, 90), st.booleans())
    told = draw(st.lists(rows, max_size=14))
    return [
        Checkpoint(
            cid(seq),
            seq,
            step=step,
            monitor=None if value is None else Monitor("loss", "min", value),
            time=time,
            best=said,
        )
        for seq, (time, value, step, said) in enumerate(told)
    ]


def kept(decisions: Sequence[Decision]) -> list[int]:
    return [item.checkpoint.seq for item in decisions if item.keep]


@given(items=runs(), word=st.sampled_from(sorted(WORDS)), count=st.integers(1, 5))
def test_of_each_period_the_newest_and_of_periods_the_last(
    items: list[Checkpoint], word: str, count: int
) -> None:
    periods: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for item in items:
        periods[WORDS[word](EPOCH + timedelta(microseconds=item.time or 0))].append(item.seq)
    wanted = [max(periods[period]) for period in sorted(periods)[-count:]]
    keep = Keep(**{word: count})  # type: ignore[arg-type]
    assert kept(plan(items, keep, {}, now=NOW)) == sorted(wanted)


@given(items=runs(), span=st.sampled_from(["1s", "2h", "7d", "1w2d", "2y"]))
def test_within_a_span_of_now_the_edge_included(items: list[Checkpoint], span: str) -> None:
    keep = Keep(within=span)
    seconds = keep.within_seconds
    assert seconds is not None
    now = max((item.time or 0 for item in items), default=0) + DAY
    wanted = [item.seq for item in items if now - (item.time or 0) <= seconds * 1_000_000]
    assert kept(plan(items, keep, {}, now=now)) == wanted


@given(items=runs(), every=st.integers(1, 50))
def test_of_each_so_many_steps_the_first(items: list[Checkpoint], every: int) -> None:
    found = kept(plan(items, Keep(every=every), {}, now=NOW))
    blocks = [(items[seq].step or 0) // every for seq in found]
    assert sorted(blocks) == sorted({(item.step or 0) // every for item in items})
    for seq in found:
        block = (items[seq].step or 0) // every
        assert not any((item.step or 0) // every == block for item in items[:seq])


@given(items=runs(), keep=policies)
def test_as_it_goes_or_at_the_end_the_same_stays(items: list[Checkpoint], keep: Keep) -> None:
    """Pruning after each checkpoint keeps what pruning once at the end keeps, and the newest."""
    left: list[Checkpoint] = []
    for item in items:
        left.append(item)
        spares = {item.commit: ("newest",)} | best(left)
        decisions = plan(left, keep, spares, now=NOW)
        left = [decision.checkpoint for decision in decisions if decision.keep]
    spares = {items[-1].commit: ("newest",)} | best(items) if items else {}
    assert [item.seq for item in left] == kept(plan(items, keep, spares, now=NOW))


@given(items=runs(), keep=policies)
def test_pruning_twice_lets_go_of_nothing_more(items: list[Checkpoint], keep: Keep) -> None:
    once = [d.checkpoint for d in plan(items, keep, {}, now=NOW) if d.keep]
    assert [d.checkpoint for d in plan(once, keep, {}, now=NOW) if d.keep] == once


records = st.dictionaries(st.integers(0, 9), st.just(0), max_size=5)


@given(
    items=runs(),
    needed=st.lists(records, min_size=14, max_size=14),
    sizes=st.lists(st.integers(0, 50), min_size=10, max_size=10),
    limit=st.integers(1, 300),
    spared=st.sets(st.integers(0, 13), max_size=4),
)
def test_a_budget_is_kept_to_by_dropping_from_the_worst(
    items: list[Checkpoint],
    needed: list[dict[int, int]],
    sizes: list[int],
    limit: int,
    spared: set[int],
) -> None:
    needs = {
        item.commit: {ObjectId(bytes([n]) * 32): sizes[n] for n in needed[item.seq]}
        for item in items
    }

    def bytes_of(seqs: Sequence[int]) -> int:
        return sum({id: n for seq in seqs for id, n in needs[cid(seq)].items()}.values())

    decisions = plan(items, Keep(budget=limit), {}, now=NOW)
    protected = [seq for seq in range(len(items)) if seq in spared]
    if bytes_of(protected) > limit:
        with pytest.raises(RefusedError, match="budget"):
            budget.fit(decisions, limit, needs.__getitem__, {cid(seq) for seq in spared})
        return
    fitted, total = budget.fit(decisions, limit, needs.__getitem__, {cid(seq) for seq in spared})
    left = kept(fitted)
    assert set(protected) <= set(left)
    assert total == bytes_of(left) <= limit
    # The best of those that went did not fit beside all that are better than it.
    free = [item for item in items if item.seq not in spared]
    order = [item.seq for item in budget.worst_first(free)]
    gone = [seq for seq in order if seq not in left]
    if gone:
        better = order[order.index(gone[-1]) :]
        assert bytes_of([*better, *protected]) > limit


@given(items=runs())
def test_the_worst_goes_first_then_the_oldest(items: list[Checkpoint]) -> None:
    order = [item for item in budget.worst_first(items) if item.monitor is not None]
    said = [item.best for item in order]
    assert said == sorted(said)
    order = [item for item in order if not item.best]
    numbers = [item for item in order if item.monitor and item.monitor.value == item.monitor.value]
    assert order[len(order) - len(numbers) :] == numbers  # what is no number goes before all
    for worse, better in pairwise(numbers):
        assert worse.monitor is not None
        assert better.monitor is not None
        assert (-worse.monitor.value, worse.time or 0) <= (-better.monitor.value, better.time or 0)
