"""Metrics in the forms of others: CSV, JSON and Parquet, written and read.

A table has one line for each point, with the columns `metric`, `step`, `value` and `time` (seconds
since the epoch). What is read may leave `time` out, or have one column for each metric beside
`step`, as other tools write it. Numbers come back equal, NaN and infinities too.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from cas.errors import InvalidInputError, NotFoundError, UnsupportedError
from cas.tracking.numbers.columns import Part, as_frame, checked
from cas.tracking.userfile import replacing

if TYPE_CHECKING:
    from cas.tracking.numbers.curve import Curve, Epochs

HEAD: Final = ("metric", "step", "value", "time")
SUFFIXES: Final = (".csv", ".json", ".parquet")
STEPS: Final = frozenset({"step", "_step", "global_step"})
TIMES: Final = frozenset({"time", "timestamp", "_timestamp", "wall_time", "wall time"})
ODD: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Row = tuple[str, int, float, float]  # metric, step, value, time


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
    """Return metrics as JSON data: lists of steps, values and times by name, and the epochs.

    What JSON has no number for stands as the text NaN, Infinity or -Infinity.
    """
    return {
        name: {
            "steps": curve.steps.tolist(),
            "values": _plain(curve.values.tolist()),
            "times": curve.times.tolist(),
        }
        | ({"epochs": _of_epochs(curve.epochs)} if curve.epochs is not None else {})
        for name, curve in curves.items()
    }


def read(path: Path, now: float) -> dict[str, Part]:
    """Return the points of a file by metric; those without a time have `now`.

    Raises NotFoundError for no file, InvalidInputError for what holds no metrics.
    """
    kind = _kind(path)
    found: dict[str, Part] = {}
    with _explained(path):
        if kind == ".json":
            rows = _json_rows(json.loads(path.read_text("utf-8")), now)
        elif kind == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = iter(list(_table_rows(csv.DictReader(file), now)))
        else:
            rows = _table_rows(_parquet().read_table(path).to_pylist(), now)
        for name, step, value, time in rows:
            part = found.get(name) or found.setdefault(checked(name), _empty())
            part["steps"].append(step)
            part["values"].append(value)
            part["times"].append(time)
    if not found:
        raise InvalidInputError(f"{path} holds no metrics: it has columns {', '.join(HEAD)}")
    return found


def frames(parts: Mapping[str, Part]) -> Iterator[dict[str, Any]]:
    """Yield points as the frames of a journal, one for each metric."""
    for name, part in parts.items():
        frame = as_frame("points", {name: part}, [])
        if frame is not None:
            yield frame


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
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise InvalidInputError(f"{path} holds no metrics: {error}") from error
