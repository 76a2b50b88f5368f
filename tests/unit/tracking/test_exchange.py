"""What is written for others reads back equal, and what others wrote is understood."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cas.errors import InvalidInputError, NotFoundError
from cas.tracking.numbers.curve import Curve, of_log
from cas.tracking.numbers.exchange import frames, read, write
from cas.tracking.numbers.metrics import MetricLog

ODD = [0.1, -math.inf, math.nan, 1e300, 5e-324]


def curves() -> dict[str, Curve]:
    steps = np.array([0, 1, 1, 7, 2**60], np.int64)
    return {
        "loss": Curve("loss", steps, np.array(ODD), 0.25 + np.arange(5.0)),
        'a "b", c': Curve('a "b", c', np.array([3], np.int64), np.array([1.0]), np.array([9.0])),
    }


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_what_is_written_reads_back_equal(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"metrics{suffix}"
    write(curves(), path)
    found = read(path, 0.0)
    assert list(found) == list(curves())
    for name, curve in curves().items():
        assert found[name]["steps"].tolist() == curve.steps.tolist()
        assert found[name]["times"].tolist() == curve.times.tolist()
        assert repr(found[name]["values"].tolist()) == repr(curve.values.tolist())


def test_json_is_json_and_has_the_epochs(tmp_path: Path) -> None:
    log = MetricLog()
    log.add({"loss": math.nan}, 0, 1.0, 0)
    write({"loss": of_log(log, "loss")}, tmp_path / "m.json")

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    told = json.loads((tmp_path / "m.json").read_text(), parse_constant=refuse)
    assert told["loss"]["values"] == ["NaN"]
    assert told["loss"]["epochs"]["mean"] == ["NaN"]
    assert told["loss"]["epochs"]["numbers"] == [0]


def test_times_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    one = Curve("a", np.array([1], np.int64), np.array([2.0]), np.empty(0))
    for name in ("m.csv", "m.json"):
        write({"a": one}, tmp_path / name)
        assert read(tmp_path / name, 77.0)["a"]["times"].tolist() == [77.0]


def test_a_table_with_a_column_for_each_metric(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(
        "\ufeffStep,run,train/loss,acc,_timestamp\n0,x,1.5,,10\n1.0,x,NaN,0.5,11\n2,x,,,12\n"
    )
    found = read(path, 0.0)
    assert sorted(found) == ["acc", "train/loss"]
    assert found["acc"]["steps"].tolist() == [1]
    assert found["acc"]["times"].tolist() == [11.0]
    assert repr(found["train/loss"]["values"].tolist()) == "[1.5, nan]"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", ""),
        ("m.csv", "metric,value\na,1\n"),
        ("m.csv", "metric,step,value\na,1.5,1\n"),
        ("m.csv", "metric,step,value\na,1,high\n"),
        ("m.csv", f"metric,step,value\na,{2**70},1\n"),
        ("m.csv", "metric,step,value\n" + "x" * 300 + ",1,1\n"),
        ("m.json", "[3]"),
        ("m.json", "{"),
        ("m.json", "[" * 100_000),
        ("m.json", '{"a": {"steps": [1], "values": [1], "epochs": {"numbers": [0]}}}'),
        (
            "m.json",
            '{"a": {"steps": [1], "values": [1], "epochs": {"numbers": [0], "count": [0]}}}',
        ),
        ("m.json", '{"a": {"steps": [1], "values": []}}'),
        ("m.txt", ""),
    ],
)
def test_what_holds_no_metrics_is_refused(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidInputError):
        read(path, 0.0)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read(tmp_path / "m.csv", 0.0)


def test_points_become_frames_of_a_journal(tmp_path: Path) -> None:
    write(curves(), tmp_path / "m.csv")
    log = MetricLog()
    log.replay(frames(read(tmp_path / "m.csv", 0.0)))
    assert log.summary()["loss"]["count"] == 5


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "m.csv").mkdir()
    with pytest.raises(InvalidInputError, match=r"cannot read .*directory"):
        read(tmp_path / "m.csv", 0.0)


@pytest.mark.parametrize("at_once", [4, 500_000])
def test_json_brings_back_epochs_and_what_was_thinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("cas.tracking.numbers.exchange.AT_ONCE", at_once)
    log, again = MetricLog(every=10), MetricLog()
    for step in range(95):
        log.add({"loss": abs(step - 57) / 7, "all": 1.0, "nan": math.nan}, step, 1.0, step // 20)
    names = ("loss", "all", "nan")
    write({name: of_log(log, name) for name in names}, tmp_path / "m.json")
    again.replay(frames(read(tmp_path / "m.json", 0.0)))
    for name in names:
        one, other = of_log(log, name), of_log(again, name)
        assert other.steps.tolist() == one.steps.tolist()
        assert one.summary is not None
        assert other.summary == pytest.approx(dict(one.summary), nan_ok=True)
        assert one.epochs is not None
        assert other.epochs is not None
        for which in ("numbers", "count", "first_step", "last", "last_step", "max", "mean", "min"):
            expected = getattr(one.epochs, which)
            np.testing.assert_allclose(getattr(other.epochs, which), expected, rtol=1e-15)


def test_points_of_a_large_file_are_frames_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cas.tracking.numbers.exchange.AT_ONCE", 2)
    write(curves(), tmp_path / "m.csv")
    found = list(frames(read(tmp_path / "m.csv", 0.0)))
    assert [len(frame["steps"][0]) for frame in found] == [16, 16, 8, 8]
    log = MetricLog()
    log.replay(found)
    assert log.points("loss")["steps"].tolist() == [0, 1, 1, 7, 2**60]
