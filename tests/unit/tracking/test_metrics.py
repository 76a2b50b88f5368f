"""Points are kept in columns, summed up as they come, and told apart from their times."""

import math
import subprocess
import sys
import threading
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptionError, InvalidInputError
from cas.ids import BlobId, blob_id
from cas.objects.manifest import Column, Series
from cas.tracking.numbers.metrics import MetricLog
from cas.tracking.numbers.monitor import monitor
from cas.tracking.numbers.tap import Tap, in_order


class Blobs(dict[BlobId, bytes]):
    """Blobs by id, as a store would keep them."""

    def write(self, data: bytes) -> BlobId:
        id = blob_id(data)
        self[id] = data
        return id

    def column(self, code: str, column: Column) -> list[float]:
        return list(array(code, self[column.id] if column.data is None else column.data))

    def points(self, series: Series) -> dict[str, list[tuple[float, float]]]:
        return {
            row.name: list(
                zip(self.column("q", row.steps), self.column("d", row.values), strict=True)
            )
            for row in series.rows
        }


def test_a_call_without_a_step_is_one_further_than_the_furthest() -> None:
    log = MetricLog()
    assert log.add({"a": 1, "b": 2}, None, 0.0) == 0
    assert log.add({"a": 1}, 10, 0.0) == 10
    assert log.add({"b": 1}, 3, 0.0) == 3
    assert log.add({"b": 1}, None, 0.0) == 11
    blobs = Blobs()
    assert blobs.points(log.series(None, blobs.write)) == {
        "a": [(0, 1.0), (10, 1.0)],
        "b": [(0, 2.0), (3, 1.0), (11, 1.0)],
    }


def test_numbers_of_every_kind_are_taken() -> None:
    torch = pytest.importorskip("torch")
    log = MetricLog()
    numbers = {
        "bool": True, "int": 3, "float": 0.1, "float32": np.float32(0.5), "0-d": np.array(2),
        "tensor": torch.tensor(1.5, requires_grad=True), "nan": math.nan, "inf": -math.inf,
        "bfloat16": torch.tensor(1.0, dtype=torch.bfloat16),
    }  # fmt: skip
    log.add(numbers, torch.tensor(4), 1.0)
    last = {name: row["last"] for name, row in log.summary().items()}
    assert math.isnan(last.pop("nan"))
    assert last == {
        "bool": 1.0, "int": 3.0, "float": 0.1, "float32": 0.5, "0-d": 2.0, "tensor": 1.5,
        "inf": -math.inf, "bfloat16": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", ["1", None, 1j, [1.0], np.zeros(2), np.array("x"), 10**400, {"a": 1}], ids=repr
)
def test_what_is_no_number_is_refused_by_name_and_nothing_is_taken(value: object) -> None:
    log = MetricLog()
    with pytest.raises(InvalidInputError, match="'bad'"):
        log.add({"good": 1.0, "bad": value}, None, 0.0)
    assert log.summary() == {}
    assert log.add({"good": 1.0}, None, 0.0) == 0


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257, "\udcff", 3])
def test_a_metric_has_a_name_that_can_be_printed(name: str) -> None:
    log = MetricLog()
    with pytest.raises(InvalidInputError):
        log.add({name: 1.0}, None, 0.0)
    assert log.drain() is None


@pytest.mark.parametrize("step", [1.5, "3", 2**63, -(2**63) - 1])
def test_a_step_is_a_whole_number_of_64_bits(step: object) -> None:
    with pytest.raises(InvalidInputError):
        MetricLog().add({"a": 1.0}, step, 0.0)


def test_the_summary_only_counts_nan() -> None:
    log = MetricLog()
    for step, value in enumerate([math.nan, 3.0, 1.0, 1.0, 3.0, math.nan]):
        log.add({"a": value}, step, 0.0)
    log.add({"never": math.nan}, 0, 0.0)
    summary = log.summary()
    assert math.isnan(summary["a"].pop("last"))
    assert summary["a"] == {
        "last_step": 5, "min": 1.0, "min_step": 2, "max": 3.0, "max_step": 1, "mean": 2.0,
        "count": 6,
    }  # fmt: skip
    assert summary["never"]["min"] is summary["never"]["mean"] is None
    assert summary["never"]["count"] == 1


def test_a_series_holds_what_came_since_the_mark_and_small_columns_inline() -> None:
    log, blobs = MetricLog(), Blobs()
    for step in range(9):
        log.add({"a": step / 2, "b": 0.0}, step, 100.0 + step)
    mark = log.mark()
    whole = log.series(None, blobs.write)
    assert [(row.name, row.count) for row in whole.rows] == [("a", 9), ("b", 9)]
    assert whole.rows[0].steps == whole.rows[1].steps
    assert whole.rows[0].steps.id in blobs
    assert log.series(mark, blobs.write).rows == ()
    log.add({"c": 1.0}, 9, 109.0)
    log.add({"a": 7.0}, 10, 110.0)
    blobs.clear()
    since = log.series(mark, blobs.write)
    assert blobs.points(since) == {"a": [(10, 7.0)], "c": [(9, 1.0)]}
    assert blobs.points(log.times(mark, blobs.write)) == {"a": [(10, 110.0)], "c": [(9, 109.0)]}
    assert not blobs
    assert Series.from_bytes(since.to_bytes()) == since


def test_times_do_not_change_a_series() -> None:
    ids = set()
    for offset in (0.0, 1e9):
        log = MetricLog()
        for step in range(20):
            log.add({"a": step * 0.1}, step, offset + step)
        ids.add(log.series(None, Blobs().write).id)
    assert len(ids) == 1


def test_drained_points_replay_to_the_same_log() -> None:
    log, again = MetricLog(), MetricLog()
    frames = []
    for step in range(5):
        log.add({"b": 0.5 * step, "a": math.nan}, None, float(step))
        if step % 2:
            frames.append(log.drain())
    frames.append(log.drain())
    assert log.drain() is None
    again.replay([frame for frame in frames if frame] + [{"t": "params", "params": {}}])
    assert repr(again.summary()) == repr(log.summary())
    write = Blobs().write
    assert again.series(None, write).id == log.series(None, write).id
    assert again.times(None, write).id == log.times(None, write).id
    assert again.drain() is None
    assert again.add({"a": 1.0}, None, 0.0) == 5


@pytest.mark.parametrize(
    "harm",
    [
        {"steps": [b"short"]},
        {"steps": [bytes(16)]},
        {"steps": []},
        {"names": [""]},
        {"names": 3},
        {"times": None},
        {"values": [""]},
    ],
    ids=repr,
)
def test_damaged_points_are_corruption_and_nothing_is_taken(harm: dict[str, object]) -> None:
    frame = {"t": "points", "names": ["a"], "steps": [bytes(8)], "values": [bytes(8)]}
    log = MetricLog()
    with pytest.raises(CorruptionError):
        log.replay([frame | {"times": [bytes(8)]} | harm])
    assert log.summary() == {}


def test_a_thinned_log_counts_what_it_does_not_keep() -> None:
    log, whole, blobs = MetricLog(every=10), MetricLog(), Blobs()
    for step in range(0, 95, 3):
        for each in (log, whole):
            each.add({"loss": 100.0 - step}, step, float(step))
        if step % 2:
            log.add({"rare": 1.0}, step * 10, 0.0)
    assert log.summary()["loss"] == whole.summary()["loss"]
    kept = blobs.points(log.series(None, blobs.write))
    assert [step for step, _ in kept["loss"]] == [0, 12, 24, 36, 48, 60, 72, 84]
    assert len(kept["rare"]) == log.summary()["rare"]["count"]


def test_thinning_can_be_by_metric_and_starts_anew_when_steps_go_back() -> None:
    log, blobs = MetricLog(every={"a": 5}), Blobs()
    for step in [0, 1, 5, 2, 3, 7]:
        log.add({"a": 0.0, "b": 0.0}, step, 0.0)
    kept = blobs.points(log.series(None, blobs.write))
    assert [step for step, _ in kept["a"]] == [0, 5, 2, 7]
    assert len(kept["b"]) == 6


def test_epochs_add_up_all_points_of_theirs() -> None:
    log, blobs = MetricLog(every=100), Blobs()
    for step in range(6):
        log.add({"loss": float(step)}, step, 0.0, step / 2)
    log.add({"loss": math.nan}, 6, 0.0, 3)
    log.add({"plain": 1.0}, 7, 0.0)
    told = {
        name: dict(points) for name, points in blobs.points(log.epochs(None, blobs.write)).items()
    }
    assert sorted(told) == [
        f"loss/{which}"
        for which in ("count", "first_step", "last", "last_step", "max", "mean", "min")
    ]
    assert told["loss/mean"] == pytest.approx({0: 0.5, 1: 2.5, 2: 4.5, 3: math.nan}, nan_ok=True)
    assert told["loss/first_step"] == {0: 0, 1: 2, 2: 4, 3: 6}
    assert told["loss/last_step"] == {0: 1, 1: 3, 2: 5, 3: 6}
    assert told["loss/count"] == {0: 2, 1: 2, 2: 2, 3: 1}


CALLS = st.lists(
    st.tuples(st.sets(st.sampled_from("abc")), st.integers(0, 9), st.none() | st.integers(0, 2)),
    max_size=30,
)


@given(calls=CALLS, takes=st.sets(st.integers(0, 30)), every=st.sampled_from([1, 3]))
def test_calls_of_any_metrics_keep_their_order(
    calls: list[tuple[set[str], int, int | None]], takes: set[int], every: int
) -> None:
    log, blobs = MetricLog(every=every), Blobs()
    told: dict[str, list[tuple[float, float]]] = {}
    epochs: dict[tuple[str, int], int] = {}
    for number, (names, step, epoch) in enumerate(calls):
        log.add(dict.fromkeys(sorted(names), number), step, 0.0, epoch)
        for name in names:
            points = told.setdefault(name, [])
            if not points or every == 1 or not 0 <= step - points[-1][0] < every:
                points.append((step, float(number)))
            if epoch is not None:
                epochs[name, epoch] = epochs.get((name, epoch), 0) + 1
        if number in takes:
            log.mark()
    assert blobs.points(log.series(None, blobs.write)) == told
    for name in told:
        for epoch, one in log.by_epoch(name):
            assert one.count == epochs.pop((name, epoch))
    assert not epochs


@given(
    values=st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60),
    drains=st.lists(st.booleans(), min_size=60, max_size=60),
    every=st.sampled_from([1, 4]),
)
def test_when_a_log_was_drained_changes_no_digit(
    values: list[float], drains: list[bool], every: int
) -> None:
    one, other, again = MetricLog(every=every), MetricLog(every=every), MetricLog()
    for step, (value, drain) in enumerate(zip(values, drains, strict=False)):
        for log in (one, other):
            log.add({"a": value * 0.1}, step, 0.0, step // 10)
        if drain:
            again.replay(filter(None, [one.drain()]))
    again.replay(filter(None, [one.drain()]))
    write = Blobs().write
    for log in (one, again):
        assert repr(log.summary()) == repr(other.summary())
        assert log.epochs(None, write).id == other.epochs(None, write).id
        assert log.series(None, write).id == other.series(None, write).id


def test_a_mark_parts_the_epochs_that_went_on_from_those_that_did_not() -> None:
    log, blobs = MetricLog(), Blobs()
    log.add({"a": 1.0}, 0, 0.0, 0)
    log.add({"a": 2.0}, 1, 0.0, 1)
    mark = log.mark()
    log.add({"a": 4.0}, 2, 0.0, 1)
    log.add({"a": 5.0}, 3, 0.0, 2)
    since = dict(blobs.points(log.epochs(mark, blobs.write))["a/mean"])
    assert since == {1: 3.0, 2: 5.0}


@pytest.mark.parametrize("epoch", ["x", math.nan, math.inf, [1], 2.0**70])
def test_an_epoch_is_a_finite_number(epoch: object) -> None:
    log = MetricLog()
    with pytest.raises(InvalidInputError, match="epoch"):
        log.add({"a": 1.0}, None, 0.0, epoch)
    assert log.summary() == {}


def test_thinned_points_and_epochs_replay_to_the_same_log() -> None:
    log, again, anew = MetricLog(every=4), MetricLog(), MetricLog()
    frames = []
    for step in range(20):
        log.add({"a": math.sin(step), "b": 0.0}, step, float(step), step // 7)
        if step % 3 == 0:
            frames.append(log.drain())
    frames.append(log.drain())
    again.replay([frame for frame in frames if frame])
    whole = log.drained()
    assert whole is not None
    anew.replay([whole])
    for other in (again, anew):
        write = Blobs().write
        for name in ("a", "b"):
            assert other.summary()[name] == log.summary()[name]
        assert other.series(None, write).id == log.series(None, write).id
        ours, theirs = (
            [(epoch, one.count, one.last, one.min_step) for epoch, one in each.by_epoch("a")]
            for each in (log, other)
        )
        assert ours == theirs


@pytest.mark.parametrize("sums", [3, [["a", 0, b""]], [["", None, bytes(88)]]], ids=repr)
def test_damaged_sums_are_corruption(sums: object) -> None:
    frame = {"t": "points", "names": [], "steps": [], "values": [], "times": [], "sums": sums}
    with pytest.raises(CorruptionError):
        MetricLog().replay([frame])


def test_a_log_of_another_kind_passes_over_points() -> None:
    points, system = MetricLog(), MetricLog("system")
    points.add({"a": 1.0}, 0, 0.0)
    frame = points.drain()
    assert frame is not None
    system.replay([frame])
    assert system.summary() == {}
    system.add({"cpu": 1.0}, 10**15, 0.0)
    told = system.drain()
    assert told is not None
    assert told["t"] == "system"


def test_more_calls_than_may_wait_lose_nothing() -> None:
    log = MetricLog()
    for _ in range(10_000):
        log.add({"a": 1.0}, None, 0.0)
    assert log.summary()["a"]["count"] == 10_000
    assert log.summary()["a"]["last_step"] == 9_999


def test_many_threads_lose_nothing_and_share_no_step() -> None:
    log = MetricLog()
    steps: list[int] = []

    def work() -> None:
        steps.extend([log.add({"a": 1.0}, None, 0.0) for _ in range(3000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    frames = []
    while any(thread.is_alive() for thread in threads):
        frames.append(log.drain())
    for thread in threads:
        thread.join()
    frames.append(log.drain())
    assert sorted(steps) == list(range(12_000))
    again = MetricLog()
    again.replay([frame for frame in frames if frame])
    assert again.summary()["a"]["count"] == log.summary()["a"]["count"] == 12_000


def test_the_tap_gets_what_thinning_does_not_keep_in_order() -> None:
    log = MetricLog(every=100)
    log.tap = Tap()
    for step in range(5):
        log.add({"a": float(step)}, step, step + 0.0)
        log.add({"b": float(step)}, step, step + 0.5)
    log.take_in()
    chunks = log.tap.take()
    assert sum(chunk.size for chunk in chunks) == 30
    assert list(in_order(chunks, 3)) == [("b", 3, 3.0), ("a", 4, 4.0), ("b", 4, 4.0)]
    assert list(log.tap.take()) == []


def test_a_tap_that_nobody_looks_at_stays_small() -> None:
    log = MetricLog()
    log.tap = Tap(30)
    for step in range(40):
        log.add({"a": 0.0}, step, 0.0)
        log.take_in()
    chunks = log.tap.take()
    assert [chunk.steps[0] for chunk in chunks] == list(range(30, 40))


def test_a_step_that_is_a_whole_float_is_taken() -> None:
    log = MetricLog()
    assert log.add({"a": 1.0}, 10.0, 0.0) == 10
    assert log.add({"a": 1.0}, np.float32(11), 0.0) == 11
    with pytest.raises(
        InvalidInputError, match=r"not 10\.5; a fraction of an epoch goes into epoch="
    ):
        log.add({"a": 1.0}, 10.5, 0.0)


def test_after_the_last_step_of_all_a_call_names_its_own() -> None:
    log = MetricLog()
    log.add({"a": 1.0}, 2**63 - 1, 0.0)
    with pytest.raises(InvalidInputError, match="name the step"):
        log.add({"a": 2.0}, None, 0.0)
    log.add({"a": 3.0}, 5, 0.0)
    assert list(log.points("a")["values"]) == [1.0, 3.0]


def test_a_name_that_is_too_long_is_told_by_its_beginning() -> None:
    with pytest.raises(InvalidInputError) as caught:
        MetricLog().add({"a" * 10_000: 1.0}, None, 0.0)
    assert "256 characters" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_metrics_are_given_by_name() -> None:
    with pytest.raises(InvalidInputError, match="numbers by name, not a list"):
        MetricLog().add([("a", 1.0)], None, 0.0)  # type: ignore[arg-type]


class Growing(dict[str, float]):
    """A mapping that another thread changes while it is logged."""

    def values(self) -> Any:
        found = list(super().values())
        self["late"] = 1.0
        return found


def test_metrics_that_change_meanwhile_harm_no_others() -> None:
    log = MetricLog()
    log.add({"a": 1.0}, 0, 0.0)
    with pytest.raises(InvalidInputError, match="changed while"):
        log.add(Growing(a=2.0), 1, 0.0)
    log.add({"a": 3.0}, 2, 0.0)
    assert list(log.points("a")["values"]) == [1.0, 3.0]


def test_more_kinds_of_calls_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cas.tracking.numbers.intake.KEYS", 3)
    log = MetricLog()
    for step in range(40):
        log.add({f"m{step % 7}": 1.0, "all": float(step)}, step, 0.0, step // 3)
    assert list(log.points("all")["values"]) == [float(step) for step in range(40)]
    assert len(log._keys) <= 3


class Interrupted(array):  # type: ignore[type-arg]
    """A column of times at which Ctrl-C arrives."""

    def extend(self, more: object) -> None:
        raise KeyboardInterrupt


def test_an_interruption_while_points_are_taken_in_leaves_whole_points() -> None:
    log = MetricLog()
    log.add({"a": 1.0, "b": 1.0}, 0, 0.0)
    log.take_in()
    whole = log._histories["b"].times
    log._histories["b"].times = Interrupted("d", whole)
    log.add({"a": 2.0, "b": 2.0}, 1, 0.0)
    log.add({"c": 2.0}, 1, 0.0)
    with pytest.raises(KeyboardInterrupt):
        log.take_in()
    log._histories["b"].times = whole
    log.add({"a": 3.0, "b": 3.0}, 2, 0.0)
    again = MetricLog()
    again.replay(filter(None, [log.drain()]))
    assert list(again.points("a")["values"]) == [1.0, 2.0, 3.0]
    assert list(again.points("b")["steps"]) == [0, 2]
    assert list(again.points("b")["values"]) == [1.0, 3.0]
    assert list(again.points("c")["values"]) == [2.0]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["loss", "val_loss", "val/accuracy"], ("val_loss", "min")),
        (["loss", "Validation Loss"], ("Validation Loss", "min")),
        (["train_loss", "loss", "valLoss2"], ("loss", "min")),
        (["train_loss", "accuracy"], ("train_loss", "min")),
        (["train/acc", "val/acc", "val/mse"], ("val/acc", "max")),
        (["mse", "valAUC"], ("valAUC", "max")),
        (["rmse", "lr"], ("rmse", "min")),
        (["lr", "grad_norm"], ("grad_norm", "min")),
        ([], None),
    ],
)
def test_a_monitor_is_chosen_by_name(names: list[str], chosen: tuple[str, str] | None) -> None:
    assert monitor(names) == chosen


def test_what_the_user_monitors_counts() -> None:
    assert monitor(["loss", "acc"], "acc") == ("acc", "max")
    assert monitor(["loss", "speed"], "speed", "max") == ("speed", "max")
    assert monitor(["loss"], None, "max") == ("loss", "max")
    assert monitor(["loss"], "not yet") is None
    with pytest.raises(InvalidInputError):
        monitor(["loss"], "loss", "best")


def test_metrics_load_without_numpy() -> None:
    code = "import cas.tracking.numbers.metrics, sys; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_points_are_left_out_from_when_it_is_said() -> None:
    log = MetricLog()
    for step in range(6):
        log.add({"m": step / 3}, step, 0.0)
        if step == 3:
            log.drain()
    log.every = 4
    for step in range(6, 16):
        log.add({"m": step / 3}, step, 0.0)
    assert list(log.points("m")["steps"]) == [0, 1, 2, 3, 4, 5, 9, 13]
    whole = log.summary()
    again = MetricLog()
    again.replay([frame for frame in [log.drained(), log.drain()] if frame])
    assert again.summary() == whole
    log.every = 1  # and all of them again
    log.add({"m": 7.0}, 16, 0.0)
    assert list(log.points("m")["steps"])[-2:] == [13, 16]
    log.drain()
    again = MetricLog()
    again.replay([frame for frame in [log.drained()] if frame])
    assert again.summary() == log.summary()
    assert again.summary()["m"]["count"] == 17


def test_sums_tell_a_new_log_what_the_old_one_knew() -> None:
    log = MetricLog(every={"thin": 3})
    for step in range(10):
        log.add({"thin": step / 7, "all": step / 3}, step, 0.0, step // 4)
    frame = log.drain()
    assert frame is not None
    again = MetricLog()
    again.replay([{**frame, "sums": log.sums(None)}])
    assert again.summary() == log.summary()
    for name in ("thin", "all"):
        known = [(epoch, one.to_bytes()) for epoch, one in log.by_epoch(name)]
        assert [(epoch, one.to_bytes()) for epoch, one in again.by_epoch(name)] == known
    mark = log.mark()
    log.add({"all": 1.0}, 10, 0.0, 2)
    assert [row[:2] for row in log.sums(mark)] == [["all", 2], ["thin", None]]
