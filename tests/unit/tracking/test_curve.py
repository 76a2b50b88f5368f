"""A curve says what its points say, however it is smoothed, cut or read."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidInputError, NotFoundError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees.ingest import file_entry
from cas.tracking import record
from cas.tracking.journals.state import RunState
from cas.tracking.numbers.curve import Curve, listed, of_log, read_curves, read_system
from cas.tracking.numbers.metrics import Mark, MetricLog
from tests.support.builders import repository

VALUES = st.lists(
    st.floats(-1e6, 1e6, allow_nan=False) | st.just(math.nan), min_size=1, max_size=40
)


def curve(values: list[float], steps: list[int] | None = None) -> Curve:
    given = np.array(values, float)
    at = np.array(steps if steps is not None else range(len(values)), np.int64)
    return Curve("loss", at, given, np.array([100.0 + place for place in range(len(values))]))


@given(values=VALUES, window=st.integers(1, 50))
def test_a_moving_average_is_the_mean_of_the_last_values(values: list[float], window: int) -> None:
    found = curve(values).moving_average(window)
    for place in range(len(values)):
        known = [
            one for one in values[max(0, place + 1 - window) : place + 1] if not math.isnan(one)
        ]
        mean = math.fsum(known) / len(known) if known else math.nan
        assert found[place] == pytest.approx(mean, rel=1e-9, abs=1e-6, nan_ok=True)


def test_what_is_infinite_leaves_a_moving_average_with_its_window() -> None:
    inf = math.inf
    found = curve([1.0, inf, 2.0, 4.0, -inf, inf, math.nan, 6.0]).moving_average(2).tolist()
    assert found[:5] == [1.0, inf, inf, 3.0, -inf]
    assert math.isnan(found[5])  # both
    assert found[6:] == [inf, 6.0]
    assert curve([inf]).moving_average(3).tolist() == [inf]
    assert curve([1.0, inf, 1.0]).smoothed(0.5).tolist() == [1.0, inf, 1.0]


def test_what_is_one_number_is_of_all_points_and_of_a_part_those_there() -> None:
    log = MetricLog(every=10)
    for step in range(25):
        log.add({"loss": float(abs(step - 17)), "nan": math.nan}, step, 0.0)
    one = of_log(log, "loss")
    assert one.values.tolist() == [17.0, 7.0, 3.0]
    assert (one.last, one.min, one.max, one.mean) == (7.0, 0.0, 17.0, 181 / 25)
    assert (one.best("min"), one.best("max")) == ((17, 0.0), (0, 17.0))
    part = one.between(0, 12)
    assert (part.last, part.min, part.best("min"), part.mean) == (7.0, 7.0, (10, 7.0), 12.0)
    bad = of_log(log, "nan")
    assert (bad.mean, bad.min, bad.best()) == (None, None, None)


def test_a_missing_metric_is_told_with_some_of_those_there() -> None:
    assert listed([f"m{number}" for number in range(5000)]).endswith("m18, m19 and 4,980 more")
    assert (listed(["a", "b"]), listed([])) == ("a, b", "none")


@given(values=VALUES, mode=st.sampled_from(["min", "max"]))
def test_the_best_so_far_is_the_best_of_what_came(values: list[float], mode: str) -> None:
    found = curve(values).best_so_far(mode)
    pick = min if mode == "min" else max
    for place in range(len(values)):
        known = [one for one in values[: place + 1] if not math.isnan(one)]
        assert found[place] == (pick(known) if known else pytest.approx(math.nan, nan_ok=True))
    best = curve(values).best(mode)
    known = [one for one in values if not math.isnan(one)]
    assert best == ((values.index(pick(known)), pick(known)) if known else None)


def test_the_bare_numbers() -> None:
    one = curve([3.0, math.nan, 1.0, 2.0])
    assert (one.last, one.mean, one.min, one.max, len(one)) == (2.0, 2.0, 1.0, 3.0, 4)
    none = curve([math.nan])
    assert (none.mean, none.min, none.max, none.best()) == (None, None, None, None)
    assert curve([]).last is None


def test_smoothing_has_no_bias_towards_zero() -> None:
    assert curve([5.0] * 10).smoothed(0.9).tolist() == pytest.approx([5.0] * 10)
    assert curve([1.0, 3.0]).smoothed(0.5).tolist() == pytest.approx([1.0, 7 / 3])
    assert curve([math.nan, 2.0, math.nan]).smoothed().tolist()[1:] == pytest.approx([2.0, 2.0])


def test_windows_of_steps_and_cuts() -> None:
    one = curve([1.0, 3.0, 5.0, math.nan, 7.0], [0, 1, 10, 11, 25])
    starts, means = one.windows(10)
    assert starts.tolist() == [0, 10, 20]
    assert means.tolist() == [2.0, 5.0, 7.0]
    assert one.between(1, 10).steps.tolist() == [1, 10]
    assert one.between(1, 10).times.tolist() == [101.0, 102.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.moving_average(0),
        lambda one: one.windows(0),
        lambda one: one.smoothed(1.0),
        lambda one: one.best("least"),
        lambda one: one.along("day"),
    ],
)
def test_what_makes_no_sense_is_refused(call: object) -> None:
    with pytest.raises(InvalidInputError):
        call(curve([1.0]))  # type: ignore[operator]


def logged(steps: range, log: MetricLog) -> MetricLog:
    for step in steps:
        log.add({"loss": 10.0 - step, "shared": 1.0}, step, 1000.0 + step, step // 4)
    return log


def test_axes_of_an_open_run() -> None:
    one = of_log(logged(range(10), MetricLog(every=3)), "loss")
    assert one.along("step")[0].tolist() == [0, 3, 6, 9]
    assert one.along("time")[0].tolist() == [0.0, 3.0, 6.0, 9.0]
    epochs, means = one.along("epoch")
    assert epochs.tolist() == [0, 1, 2]
    assert means.tolist() == [8.5, 4.5, 1.5]
    with pytest.raises(NotFoundError):
        of_log(MetricLog(), "loss")
    with pytest.raises(NotFoundError, match="epoch="):
        curve([1.0]).along("epoch")


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Repo, CommitId, CommitId]:
    """A run that saved a checkpoint within an epoch, and its end."""
    repo = repository(tmp_path)
    state = RunState("a/x", "runs/a/x", b"u" * 16)
    moment = record.Moment(1, "ada", "running")
    marks: list[Mark | None] = [None]

    def save(tx: Transaction) -> CommitId:
        points = marks[-2], marks[-1]
        assert points[1] is not None
        entry = file_entry(tx.writer, b"state", b"")
        return record.checkpoint(
            tx, state, {}, entry, points=(points[0], points[1]), moment=moment, details={}
        )

    for steps in (range(6), range(6, 10)):
        logged(steps, state.metrics)
        marks.append(state.metrics.mark())
        saved = transact(repo, "save", save)
    state.system.add({"cpu_percent": 50.0}, 1_000_000_000, 1000.0)
    state.events = [{"time": 1.0, "kind": "alert"}]
    end = record.Moment(2, "ada", "finished")
    return repo, saved, transact(repo, "end", lambda tx: record.finish(tx, state, {}, end))


def test_a_run_is_read_from_its_end_and_from_its_pieces(
    stored: tuple[Repo, CommitId, CommitId],
) -> None:
    repo, checkpoint, end = stored
    assert repo.commit(checkpoint).kind == CHECKPOINT
    for id in (checkpoint, end):
        found = read_curves(repo, id)
        assert list(found) == ["loss", "shared"]
        assert found["loss"].steps.tolist() == list(range(10))
        assert found["loss"].values.tolist() == [10.0 - step for step in range(10)]
        assert found["loss"].times.tolist() == [1000.0 + step for step in range(10)]
        epochs = found["loss"].epochs
        assert epochs is not None
        # The second epoch began before the first checkpoint and ended after it.
        assert epochs.numbers.tolist() == [0, 1, 2]
        assert epochs.count.tolist() == [4, 4, 2]
        assert epochs.mean.tolist() == [8.5, 4.5, 1.5]
        assert epochs.first_step.tolist() == [0, 4, 8]


def test_some_metrics_without_times(stored: tuple[Repo, CommitId, CommitId]) -> None:
    repo, _, end = stored
    found = read_curves(repo, end, ["shared"], times=False)
    assert list(found) == ["shared"]
    assert len(found["shared"].times) == 0
    with pytest.raises(NotFoundError, match="there are: loss, shared"):
        read_curves(repo, end, ["los"])


def test_system_metrics_and_events_stand_apart(stored: tuple[Repo, CommitId, CommitId]) -> None:
    repo, checkpoint, end = stored
    found = read_system(repo, end)
    assert found["cpu_percent"].values.tolist() == [50.0]
    assert found["cpu_percent"].times.tolist() == [1000.0]
    assert read_system(repo, checkpoint) == {}
    assert "cpu_percent" not in read_curves(repo, end)
    assert repo.document(repo.commit(end).tree, "events.json") == [{"kind": "alert", "time": 1.0}]
