"""Metrics in the forms of others: CSV, JSON and Parquet, written and read.

A table has one line for each point, with the columns `metric`, `step`, `value` and `time` (seconds
since the epoch). What is read may leave `time` out, or have one column for each metric beside
`step`, as other tools write it. Numbers come back equal, NaN and infinities too; JSON has the
epochs and the summary besides.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from cas.errors import InvalidInputError, NotFoundError, UnsupportedError
from cas.tracking.numbers.aggregate import Aggregate, to_rows
from cas.tracking.numbers.columns import Part, as_frame, checked
from cas.tracking.userfile import replacing

if TYPE_CHECKING:
    from cas.tracking.numbers.curve import Curve, Epochs

HEAD: Final = ("metric", "step", "value", "time")
SUFFIXES: Final = (".csv", ".json", ".parquet")
STEPS: Final = frozenset({"step", "_step", "global_step"})
TIMES: Final = frozenset({"time", "timestamp", "_timestamp", "wall_time", "wall time"})
ODD: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

AT_ONCE: Final = 500_000  # points in a frame of a journal, far from the most that it takes

Row = tuple[str, int, float, float]  # metric, step, value, time


class Table(dict[str, Part]):
    """The points of a file by metric; `sums` is what it says beyond them, as a frame has it."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: list[list[Any]] = []


def write(curves: Mapping[str, "Curve"], path: Path) -> None:
    """Write metrics into a file, in the form that its suffix says; an older one is replaced."""
    kind = _kind(path)
    with replacing(path) as part:
        if kind == ".parquet":
            _write_parquet(curves, part)
            return
        with part.open("w", encoding="utf-8", newline="") as file:
            if kind == ".csv":
                write_csv(curves, file)
            else:
                json.dump(as_json(curves), file, indent=1)


def write_csv(curves: Mapping[str, "Curve"], file: TextIO) -> None:
    """Write metrics as CSV; `time` is empty where it is not known."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEAD)
    for name, curve in curves.items():
        times = map(repr, curve.times.tolist()) if len(curve.times) else [""] * len(curve)
        rows = zip(curve.steps.tolist(), map(repr, curve.values.tolist()), times, strict=True)
        writer.writerows([name, *row] for row in rows)


def as_json(curves: Mapping[str, "Curve"]) -> dict[str, Any]:
    """Return metrics as JSON data: lists of steps, values and times by name, epochs and summary.

    What JSON has no number for stands as the text NaN, Infinity or -Infinity.
    """
    return {
        name: {
            "steps": curve.steps.tolist(),
            "values": _plain(curve.values.tolist()),
            "times": curve.times.tolist(),
        }
        | ({"epochs": _of_epochs(curve.epochs)} if curve.epochs is not None else {})
        | ({"summary": _finite(curve.summary)} if curve.summary is not None else {})
        for name, curve in curves.items()
    }


def read(path: Path, now: float) -> Table:
    """Return the points of a file by metric; those without a time have `now`.

    Raises NotFoundError for no file, InvalidInputError for what holds no metrics.
    """
    kind = _kind(path)
    found = Table()
    with _explained(path):
        told = json.loads(path.read_text("utf-8")) if kind == ".json" else None
        for name, step, value, time in _rows(path, kind, told, now):
            part = found.get(name) or found.setdefault(checked(name), _empty())
            part["steps"].append(step)
            part["values"].append(value)
            part["times"].append(time)
        if isinstance(told, dict):
            found.sums = [row for name in found for row in _sums(name, told[name], found[name])]
    if not found:
        columns = ", ".join(HEAD)
        raise InvalidInputError(f"{path} holds no points: a table of metrics has columns {columns}")
    return found


def frames(table: Table) -> Iterator[dict[str, Any]]:
    """Yield points as the frames of a journal, each of one metric and of bounded size."""
    for name, part in table.items():
        sums = [row for row in table.sums if row[0] == name]
        count = len(part["steps"])
        for at in range(0, count, AT_ONCE):
            piece = {key: column[at : at + AT_ONCE] for key, column in part.items()}
            # What is said of all points stands with the last of them, and is of those and the rest.
            last = [_behind(row, part, at) for row in sums] if at + AT_ONCE >= count else []
            frame = as_frame("points", {name: piece}, last)
            if frame is not None:
                yield frame


def _behind(row: list[Any], part: Part, at: int) -> list[Any]:
    """Return what is known of points without those of other frames, which count by themselves."""
    name, epoch, raw = row
    if epoch is not None or not at:
        return row
    before = Aggregate()
    before.observe_all(part["steps"][:at], part["values"][:at])
    return [name, None, Aggregate.from_bytes(raw).rest(before).to_bytes()]


def _rows(path: Path, kind: str, told: Any, now: float) -> Iterator[Row]:
    if kind == ".json":
        yield from _json_rows(told, now)
    elif kind == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _table_rows(csv.DictReader(file), now)
    else:
        for batch in _parquet().ParquetFile(path).iter_batches():
            yield from _table_rows(batch.to_pylist(), now)


def _sums(name: str, curve: Mapping[str, Any], part: Part) -> Iterator[list[Any]]:
    """Yield what is known of the epochs of a metric, and of all points where some were left out."""
    epochs, summary = curve.get("epochs"), curve.get("summary")
    if epochs is not None:
        for place, number in enumerate(epochs["numbers"]):
            told = {which: column[place] for which, column in epochs.items()}
            yield from to_rows({(name, _whole(number)): _aggregate(told)})
    if summary is not None and summary["count"] > len(part["steps"]):
        first = {"first_step": part["steps"][0]}
        yield from to_rows({(name, None): _aggregate({**first, **summary})})


def _aggregate(told: Mapping[str, Any]) -> Aggregate:
    """Return what is known of points, from what a file tells of them."""
    found = Aggregate()
    found.count = found.known = _whole(told["count"])
    if found.count < 1:
        raise ValueError("no points of which something is known")
    found.first_step, found.last_step = _whole(told["first_step"]), _whole(told["last_step"])
    found.last = _number(told["last"])
    mean = math.nan if told["mean"] is None else _number(told["mean"])
    if math.isnan(mean):
        found.known = 0
        return found
    found.min, found.max = _number(told["min"]), _number(told["max"])
    found.min_step = _whole(told.get("min_step", found.first_step))
    found.max_step = _whole(told.get("max_step", found.first_step))
    found.total = mean * found.known
    return found


def _table_rows(table: Iterable[Mapping[Any, Any]], now: float) -> Iterator[Row]:
    for line in table:
        named = {str(key).strip().lower(): value for key, value in line.items() if key is not None}
        step = next((named[key] for key in named if key in STEPS and _is_given(named[key])), None)
        if step is None:
            raise InvalidInputError("a line without a step")
        at = next((named[key] for key in named if key in TIMES and _is_given(named[key])), now)
        if "metric" in named and "value" in named:
            yield str(named["metric"]), _whole(step), _number(named["value"]), float(at)
            continue
        for key, value in line.items():
            if key is not None and str(key).strip().lower() not in STEPS | TIMES:
                yield from _cell(str(key).strip(), _whole(step), value, float(at))


def _cell(name: str, step: int, value: Any, time: float) -> Iterator[Row]:
    """Yield the point in a cell of a table with a column for each metric, if it holds one."""
    if not _is_given(value):
        return
    try:
        number = _number(value)
    except (TypeError, ValueError):  # a column of text, such as a run's name
        return
    yield name, step, number, time


def _json_rows(told: Any, now: float) -> Iterator[Row]:
    if isinstance(told, list):
        yield from _table_rows(told, now)
        return
    for name, curve in told.items():
        times = curve.get("times") or [now] * len(curve["steps"])
        for step, value, time in zip(curve["steps"], curve["values"], times, strict=True):
            yield name, _whole(step), _number(value), float(time)


def _is_given(value: Any) -> bool:
    return value is not None and value != ""


def _whole(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        number = float(value)
        if number != int(number):
            raise
        return int(number)


def _number(value: Any) -> float:
    return ODD[value] if isinstance(value, str) and value in ODD else float(value)


def _finite(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _plain([value])[0] if isinstance(value, float) else value
        for name, value in told.items()
    }


def _plain(values: Sequence[float]) -> list[Any]:
    odd = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return [value if math.isfinite(value) else odd[str(value)] for value in values]


def _of_epochs(epochs: "Epochs") -> dict[str, list[Any]]:
    from dataclasses import fields

    return {field.name: _plain(getattr(epochs, field.name).tolist()) for field in fields(epochs)}


def _write_parquet(curves: Mapping[str, "Curve"], path: Path) -> None:
    import numpy as np

    arrow, parquet = _parquet("pyarrow"), _parquet()
    names = [name for name, curve in curves.items() for _ in range(len(curve))]
    none = np.empty(0)
    columns = {
        "metric": arrow.array(names, arrow.string()).dictionary_encode(),
        "step": np.concatenate([none.astype("<i8"), *(one.steps for one in curves.values())]),
        "value": np.concatenate([none, *(one.values for one in curves.values())]),
        "time": np.concatenate(
            [none]
            + [
                one.times if len(one.times) else np.full(len(one), math.nan)
                for one in curves.values()
            ]
        ),
    }
    parquet.write_table(arrow.table(columns), path)


def _parquet(name: str = "pyarrow.parquet") -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UnsupportedError("Parquet needs pyarrow: pip install pyarrow") from error


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise InvalidInputError(f"metrics are {', '.join(SUFFIXES)}, not {path.name}")
    return kind


def _empty() -> Part:
    from array import array

    return {"steps": array("q"), "values": array("d"), "times": array("d")}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError("file", str(path)) from error
    except (UnsupportedError, NotFoundError):
        raise
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise InvalidInputError(f"{path} holds no metrics: it is nested too deeply") from error
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise InvalidInputError(f"{path} holds no metrics: {error}") from error
