"""When a checkpoint is due."""

import math
from typing import Any

import pytest

from cas.errors import InvalidInputError
from cas.repo.retain.retention import Keep
from cas.tracking.checkpoints.strategy import Schedule, Strategy, as_strategy


def due(strategy: Strategy, steps: range, **options: Any) -> list[int]:
    """The steps at which a checkpoint is due."""
    schedule = Schedule(strategy, 0.0)
    return [step for step in steps if schedule.due(step, None, {}, 0.0)]


def test_without_an_interval_nothing_is_due_by_itself() -> None:
    assert due(Strategy(), range(1000)) == []


def test_every_so_many_steps() -> None:
    assert due(Strategy(save_steps=10), range(35)) == [10, 20, 30]


def test_a_loop_that_asks_rarely_misses_none() -> None:
    assert due(Strategy(save_steps=10), range(0, 60, 7)) == [14, 21, 35, 42, 56]


def test_what_was_saved_by_hand_counts() -> None:
    schedule = Schedule(Strategy(save_steps=10), 0.0)
    schedule.saved(10, None, {}, 0.0)
    assert not schedule.due(10, None, {}, 0.0)
    assert schedule.due(20, None, {}, 0.0)


def test_a_run_that_goes_back_saves_again() -> None:
    schedule = Schedule(Strategy(save_steps=10), 0.0)
    schedule.saved(95, None, {}, 0.0)
    assert schedule.due(20, None, {}, 0.0)


def test_every_so_many_epochs_at_their_end() -> None:
    schedule = Schedule(Strategy(save_epochs=2), 0.0)
    assert [n for n in range(7) if schedule.due(None, n, {}, 0.0)] == [1, 3, 5]


def test_every_so_many_seconds() -> None:
    schedule = Schedule(Strategy(save_seconds=30), 0.0)
    assert [n for n in range(100) if schedule.due(n, None, {}, float(n))] == [30, 60, 90]


def test_the_first_of_several_intervals_counts() -> None:
    schedule = Schedule(Strategy(save_steps=100, save_seconds=10), 0.0)
    assert schedule.due(1, None, {}, 10.0)
    assert schedule.due(100, None, {}, 10.1)
    assert not schedule.due(101, None, {}, 10.2)


@pytest.mark.parametrize(
    ("monitor", "mode", "expected"),
    [("loss", None, [0, 2]), ("accuracy", None, [0, 3]), ("loss", "max", [0, 3])],
)
def test_only_what_is_better_than_all_before(
    monitor: str, mode: str | None, expected: list[int]
) -> None:
    schedule = Schedule(Strategy(save_best_only=True, monitor=monitor, mode=mode), 0.0)
    values = [2.0, 2.0, 1.0, 3.0, math.nan]
    found = [n for n, it in enumerate(values) if schedule.due(n, None, {monitor: it}, 0.0)]
    assert found == expected


def test_the_best_of_those_that_an_interval_would_save() -> None:
    schedule = Schedule(Strategy(save_best_only=True, monitor="loss", save_steps=2), 0.0)
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    found = [n for n, it in enumerate(values) if schedule.due(n, None, {"loss": it}, 0.0)]
    assert found == [2]


def test_without_the_metric_nothing_is_best() -> None:
    schedule = Schedule(Strategy(save_best_only=True, monitor="loss"), 0.0)
    assert not schedule.due(1, None, {"other": 1.0}, 0.0)
    assert not schedule.due(1, None, {"loss": "?"}, 0.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"save_steps": 0}, "save_steps is a whole number from 1, not 0"),
        ({"save_steps": True}, "save_steps is a whole number"),
        ({"save_seconds": math.nan}, "save_seconds is a number of seconds"),
        ({"busy": "queue"}, "busy is 'wait' or 'skip', not 'queue'"),
        ({"mode": "best"}, "mode is 'min' or 'max'"),
        ({"staging": "lots"}, "staging is bytes, or a size such as '2GB', not 'lots'"),
        ({"min_free": -1}, "min_free is bytes"),
        ({"on_signal": 1}, "on_signal is True or False"),
        ({"save_best_only": True}, "needs monitor="),
        ({"every": 5}, "no 'every'; there are save_steps, "),
    ],
)
def test_what_makes_no_sense_is_named(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        as_strategy(words)


def test_words_and_strategies_are_one() -> None:
    words = {"save_steps": 5, "staging": "2GB", "save_total_limit": 3}
    strategy = as_strategy(words)
    assert strategy == Strategy(save_steps=5, staging="2GB", save_total_limit=3)
    assert as_strategy(strategy) is strategy
    assert strategy.as_words == words
    assert as_strategy(None) == Strategy()
    assert strategy.staging_bytes == 2 * 10**9
    assert strategy.keep == Keep(last=3, best=1)
    assert Strategy().keep is None
    with pytest.raises(InvalidInputError, match=r"a cas\.Strategy or a map"):
        as_strategy(5)  # type: ignore[arg-type]
