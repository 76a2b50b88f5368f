"""A rule speaks when something begins to hold, once, and again after it has held no more."""

import math
from collections.abc import Iterable
from statistics import fmean, pstdev

import pytest

from cas.errors import InvalidInputError
from cas.tracking.watching.hush import Hush
from cas.tracking.watching.rules import (
    DiskFull,
    Gap,
    Jump,
    NotFinite,
    Patience,
    PointRule,
    Stalled,
    column_rules,
    point_rules,
)
from cas.tracking.watching.watch import NOTHING, Watch, as_watch


def told(rule: PointRule, metric: str, values: Iterable[float], start: int = 0) -> list[int]:
    """Return the steps at which a rule speaks."""
    return [
        step
        for step, value in enumerate(values, start)
        if rule.see(metric, step, value) is not None
    ]


def test_a_metric_that_is_not_finite_is_told_once_each_time() -> None:
    rule = NotFinite()
    assert told(rule, "loss", [1.0, math.nan, math.inf, 2.0, -math.inf, 1.0]) == [1, 4]
    assert told(rule, "other", [math.nan]) == [0]


def test_a_column_is_looked_at_as_its_points_are() -> None:
    rule = NotFinite()
    columns = [[1.0, 2.0], [1e308, 1e308, 1.0], [0.0, math.nan, math.nan], [math.nan], [1.0, 2.0],
               [math.inf, -math.inf, 0.0, math.nan]]  # fmt: skip
    found = [
        [one.step for one in rule.see_all("a", range(len(values)), values)] for values in columns
    ]
    assert found == [[], [], [1], [], [], [0, 3]]


def test_a_loss_that_jumps_is_told_a_noisy_or_falling_one_is_not() -> None:
    noisy = [1.0 + 0.1 * math.sin(7 * step) for step in range(200)]
    assert told(Jump(6), "loss", noisy) == []
    assert told(Jump(6), "loss", [100 * 0.97**step for step in range(300)]) == []
    assert told(Jump(6), "loss", [*noisy, 3.0, 3.1, 1.0, 1.0, 9.0]) == [200, 204]
    assert told(Jump(6), "accuracy", [*noisy, 30.0]) == []
    assert told(Jump(6), "loss", [0.5] * 50 + [0.501]) == []  # flat, and hardly moved
    assert told(Jump(6), "loss", [1.0, 1.1, 99.0]) == []  # too few to know what is usual


def test_no_improvement_is_told_after_so_many_steps() -> None:
    values = [5.0, 4.0, 3.0, *[3.0] * 10, 2.0, *[2.5] * 6]
    assert told(Patience(5, None, None), "loss", values) == [7, 18]
    assert told(Patience(5, "acc", "max"), "acc", [0.1, 0.9, *[0.5] * 8]) == [6]
    assert told(Patience(5, "acc", None), "loss", values) == []


def test_what_is_monitored_may_come_late() -> None:
    rule = Patience(3, None, None)
    for step in range(3):
        assert rule.see("loss", step, 1.0) is None
    assert [rule.see("val_loss", step, 2.0) is not None for step in range(3, 8)] == [
        False, False, False, True, False,
    ]  # fmt: skip
    assert rule.see("loss", 9, 1.0) is None


def test_validation_that_falls_behind_further_and_further_is_told() -> None:
    def apart(gaps: Iterable[float], training: str, validation: str, sign: float) -> list[int]:
        rule, spoke = Gap(3), []
        for number, gap in enumerate(gaps):
            for _ in range(2):
                assert rule.see(training, number, 1.0) is None
            if rule.see(validation, number, 1.0 + sign * gap) is not None:
                spoke.append(number)
        return spoke

    assert apart([0.1, 0.2, 0.3, 0.4, 0.5, 0.1, 0.2, 0.3, 0.4], "train_loss", "val_loss", 1) == [
        3, 8,
    ]  # fmt: skip
    assert apart([0.1, 0.2, 0.3, 0.4], "train/acc", "val/acc", -1) == [3]
    assert apart([0.1, 0.2, 0.15, 0.3, 0.2], "loss", "val_loss", 1) == []
    assert apart([-4.0, -3.0, -2.0, -1.0], "loss", "val_loss", 1) == []  # it does better
    assert apart([0.1, 0.2, 0.3, 0.4], "lr", "val_loss", 1) == []


def test_silence_is_told_once() -> None:
    rule = Stalled(60)
    assert [rule.tick(silent, 3) is not None for silent in (10, 59, 60, 90, 1, 61)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


def test_a_disk_that_fills_up_is_told_before_it_is_full() -> None:
    rule = DiskFull(3600)
    free = [100e9 - 10e6 * second for second in range(0, 1200, 10)]
    assert not any(rule.tick(10.0 * n, left) for n, left in enumerate(free))  # 10,000 s are left
    fast = DiskFull(3600)
    spoke = [fast.tick(10.0 * n, 30e9 - 100e6 * n) is not None for n in range(200)]
    assert spoke.index(True) == 75  # a quarter is gone
    assert spoke.count(True) == 1
    steady = DiskFull(3600)
    assert not any(steady.tick(10.0 * n, 65e6) for n in range(100))


def test_a_burst_is_no_trend() -> None:
    rule = DiskFull(3600)
    free = [400e9] * 6 + [400e9 - 14e9 * n for n in range(6)] + [330e9] * 200  # one checkpoint
    assert not any(rule.tick(10.0 * n, left) for n, left in enumerate(free))


def test_a_disk_that_is_full_is_told_though_it_fills_no_more() -> None:
    rule = DiskFull(3600)
    found = [rule.tick(10.0 * n, left) for n, left in enumerate([0.0, 0.0, 1e9, 1e9, 5e6])]
    assert [one is not None for one in found] == [True, False, False, False, True]
    assert found[0] is not None
    assert found[0].text == "the disk is full: 0 MB are free"


def test_the_usual_is_that_of_the_window_after_any_outlier() -> None:
    rule = Jump(6)
    values = [1e6 + 0.001 * math.sin(step) for step in range(250)]
    values[60], values[170] = 1e200, 1e9
    for step, value in enumerate(values):
        rule.see("loss", step, value)
    mean, deviation = rule._recent["loss"].usual()
    last = values[-100:]
    assert mean == pytest.approx(fmean(last), rel=1e-9)
    assert deviation == pytest.approx(pstdev(last), rel=1e-6)


def test_metrics_without_validation_take_no_memory() -> None:
    rule = Gap(3)
    for step in range(100):
        rule.see("grad_norm", step, 1.0)
    assert list(rule._training.values()) == [(100.0, 100)]


def test_silence_before_the_first_point_has_no_step() -> None:
    found = Stalled(60).tick(61, -1)
    assert found is not None
    assert found.step is None


def test_what_is_told_again_and_again_is_told_less_and_less() -> None:
    hush = Hush()
    told = [(now, hush.held("a", now)) for now in range(100)]
    assert [one for one in told if one[1] is not None] == [(0, 0), (10, 9), (30, 19), (70, 39)]
    assert hush.held("b", 0.0) == 0
    assert hush.held("a", 1000.0) == 29  # it was over for long: the pauses begin anew
    assert hush.held("a", 1009.0) is None
    assert hush.held("a", 1010.0) == 1


def test_a_watch_names_its_rules() -> None:
    assert point_rules(NOTHING) == []
    assert column_rules(NOTHING) == []
    watch = Watch(jump=5, patience=10, gap=3)
    assert [type(rule) for rule in column_rules(watch)] == [NotFinite]
    assert [type(rule) for rule in point_rules(watch)] == [Jump, Patience, Gap]


def test_a_watch_is_read_from_plain_data() -> None:
    given = {"jump": 6, "stalled": False, "stop": "not_finite", "command": "notify 'a b'"}
    assert as_watch(given) == Watch(
        jump=6, stalled=None, stop=("not_finite",), command=("notify", "a b")
    )
    assert as_watch(None) == as_watch(True) == Watch()
    assert as_watch(False) == NOTHING
    assert as_watch({"not_finite": False, "disk_full": False}) == NOTHING


def test_a_watch_takes_one_word_for_a_list() -> None:
    watch = Watch(stop="not_finite", command="notify 'a b'")  # type: ignore[arg-type]
    assert (watch.stop, watch.command) == (("not_finite",), ("notify", "a b"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jmp": 3}, "no rule 'jmp'; there are not_finite, jump"),
        ({"jump": -1}, "jump is a number above 0"),
        ({"patience": True}, "patience is a number above 0"),
        ({"patience": 0.5}, "patience is a whole number, not 0.5"),
        ({"not_finite": "yes"}, "not_finite is True or False, not 'yes'"),
        ({"webhook": 5}, "webhook is text, not a int"),
        ({"command": "notify 'a"}, "command cannot be read: No closing quotation"),
        ({"stop": ["loss"]}, "stop takes not_finite, jump"),
        ({"mode": "best"}, "'min' or 'max'"),
        ({"webhook": "file:///etc/passwd"}, "http"),
        ({"command": [1]}, "command is a list of words"),
        ("all", "a mapping"),
    ],
)
def test_what_makes_no_sense_is_named(given: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        as_watch(given)  # type: ignore[arg-type]
