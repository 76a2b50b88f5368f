"""The pace of a run is that of its last minute."""

import pytest

from cas.tracking.numbers.pace import WINDOW, Pace


def test_a_steady_run() -> None:
    pace = Pace()
    for second in range(11):
        told = pace.look(float(second), 4 * second, 32 * second, 101)
    assert told.step_seconds == pytest.approx(0.25)
    assert told.samples_per_second == pytest.approx(32)
    assert told.share == pytest.approx(41 / 101)
    assert told.seconds_left == pytest.approx(60 * 0.25)
    assert set(told.numbers()) == {
        "step_seconds", "samples_per_second", "progress", "seconds_left",
    }  # fmt: skip


def test_what_is_not_known_is_none() -> None:
    pace = Pace()
    assert pace.look(0.0, -1, 0).step_seconds is None
    told = pace.look(1.0, 5, 0)
    assert (told.step_seconds, told.samples_per_second, told.share, told.seconds_left) == (
        None, None, None, None,
    )  # fmt: skip
    assert told.numbers() == {}
    assert pace.look(2.0, 5, 0).step_seconds is None


def test_what_was_long_ago_does_not_count() -> None:
    pace = Pace()
    for second in range(100):
        pace.look(float(second), second, 0)
    for second in range(100, 100 + int(WINDOW) + 1):
        told = pace.look(float(second), 100 + 10 * (second - 100), 0)
    assert told.step_seconds == pytest.approx(0.1)


def test_a_step_that_goes_back_starts_anew_and_the_end_is_the_end() -> None:
    pace = Pace()
    pace.look(0.0, 50, 0, 60)
    pace.look(1.0, 100, 0, 60)
    told = pace.look(2.0, 10, 0, 60)
    assert told.step_seconds is None
    assert pace.look(3.0, 99, 0, 60).share == 1.0
    assert pace.look(4.0, 99, 0, 60).seconds_left == 0


def test_looking_at_every_step_keeps_few_looks() -> None:
    pace = Pace()
    for step in range(10_000):
        told = pace.look(step / 1000, step, 8 * step)
    assert told.step_seconds == pytest.approx(0.001)
    assert told.samples_per_second == pytest.approx(8000)
    assert len(pace._looks) < 100
