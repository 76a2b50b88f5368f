"""Points are kept in columns, summed up as they come, and told apart from their times."""

import math
import subprocess
import sys
from array import array

import numpy as np
import pytest

from cas.errors import CorruptionError, InvalidInputError
from cas.ids import BlobId, blob_id
from cas.objects.manifest import Column, Series
from cas.tracking.metrics import MetricLog, monitor


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
    code = "import cas.tracking.metrics, sys; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
