"""Tables: frames as Parquet where that can be written, all else as JSON by columns."""

import copy
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from importlib.util import find_spec
from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.tracking.media.content import Content, Prepared, clean, library
from cas.tracking.privacy.secrets import find, scrub_text, valid_text

FRAMES: Final = frozenset({"pandas", "polars", "pyarrow"})
FRAME: Final = frozenset({"DataFrame", "Table", "RecordBatch"})  # what they call theirs
SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
FIXED: Final = str | int | float | None  # cells that nobody can change
BETWEEN: Final = "\n"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length by name; their items are numbers, text, truth values, dates, None."""

    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as dicts."""
        columns = self.columns.values()
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*columns, strict=True)]

    def frame(self) -> Any:
        """Return a DataFrame of pandas."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns))


def is_frame(value: object) -> bool:
    """Say whether a value is a table of a library that is known here, or of a class made of one."""
    return library(value) in FRAMES and any(one.__name__ in FRAME for one in type(value).__mro__)


def prepare(given: object, columns: Sequence[str] | None = None) -> Prepared:
    """Copy a table: a frame, columns by name, dicts, or rows with `columns`; InvalidInputError."""
    value: Any = given
    _check_names(_names(value) if is_frame(value) else columns)
    if is_frame(value) and find_spec("pyarrow") is not None:
        held = _held(value)
        if held is not None:
            return Prepared(_size(held), lambda: _of_frame(held))
    table = Table(_columns(value, columns))
    lengths = {len(column) for column in table.columns.values()}
    if len(lengths) > 1:
        raise InvalidInputError(f"the columns of a table differ in length: {sorted(lengths)}")
    cells = len(table) * len(table.columns)
    return Prepared(cells * 32, lambda: Content("json", _json(table)))


def decode(format: str, data: bytes, options: dict[str, Any]) -> Table:
    """Return a table; raise CorruptionError."""
    if format == "parquet":
        arrow = _arrow()
        try:
            return Table(arrow.parquet.read_table(io.BytesIO(data)).to_pydict())
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise CorruptionError(f"not a Parquet file: {error}") from error
    try:
        told = json.loads(data)
        typed = zip(told["columns"], told["types"], told["data"], strict=True)
        return Table({name: [_back(kind, item) for item in items] for name, kind, items in typed})
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptionError(f"not a table: {error!r}") from error


def _columns(value: Any, names: Sequence[str] | None) -> dict[str, list[Any]]:
    value = _by_name(value)
    if isinstance(value, Mapping):
        return {str(name): _items(column) for name, column in value.items()}
    rows = _items(value)
    if names is None:
        if not all(isinstance(row, Mapping) for row in rows):
            raise InvalidInputError("rows that are no dicts need the names of their columns")
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {str(name): [_plain(row.get(name)) for row in rows] for name in names}
    wrong = next((len(row) for row in rows if len(row) != len(names)), None)
    if wrong is not None:
        raise InvalidInputError(f"a row has {wrong} items, and the table {len(names)} columns")
    return {str(name): [_plain(row[at]) for row in rows] for at, name in enumerate(names)}


def _names(frame: Any) -> list[str]:
    if library(frame) == "pyarrow":
        return list(frame.schema.names)
    return [str(name) for name in frame.columns]


def _check_names(names: Sequence[str] | None) -> None:
    twice = [name for name, count in Counter(names or ()).items() if count > 1]
    if twice:
        raise InvalidInputError(f"the table has more than one column {twice[0]!r}")


def _by_name(value: Any) -> Any:
    """Return the columns of a table by name; all else as it is."""
    if isinstance(value, Table):
        return value.columns
    if not is_frame(value):
        return value
    if library(value) == "pandas":
        framed = _with_index(value)
        return {str(name): framed[name].tolist() for name in framed.columns}
    return value.to_pydict() if library(value) == "pyarrow" else value.to_dict(as_series=False)


def _items(column: Any) -> list[Any]:
    if callable(getattr(column, "detach", None)):
        column = column.detach().cpu()
    items = column.tolist() if hasattr(column, "tolist") else column
    if isinstance(items, str) or not hasattr(items, "__iter__"):
        raise InvalidInputError(f"a {type(column).__name__} is no table, and no column of one")
    return [_plain(item) for item in items]


def _plain(item: Any) -> Any:
    """Return a cell as plain data that nobody else can change."""
    if item is None or isinstance(item, bool | int | float | str):
        return item
    if isinstance(item, Mapping):
        return {str(name): _plain(one) for name, one in item.items()}
    if getattr(item, "ndim", 0):  # an array or tensor in a cell
        item = (item.detach().cpu() if hasattr(item, "detach") else item).tolist()
    if isinstance(item, list | tuple):
        return [_plain(one) for one in item]
    if isinstance(item, datetime | date):
        return None if item != item else item  # noqa: PLR0124 - what pandas calls NaT
    unwrapped = item.item() if callable(getattr(item, "item", None)) else item
    return unwrapped if isinstance(unwrapped, bool | int | float) else str(item)


def _json(table: Table) -> bytes:
    columns = {clean(name): column for name, column in table.columns.items()}
    typed = [_typed(column) for column in columns.values()]
    told = {
        "columns": list(columns),
        "types": [kind for kind, _ in typed],
        "data": [items for _, items in typed],
    }
    return json.dumps(told, ensure_ascii=False, allow_nan=False).encode()


def _typed(column: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return what the texts of a column stand for, and the column as JSON has it."""
    kinds = {type(item) for item in column if item is not None}
    if kinds <= {int, float, bool}:
        return "number", [_finite(item) for item in column]
    if kinds and all(issubclass(kind, datetime) for kind in kinds):
        return "datetime", [None if item is None else item.isoformat() for item in column]
    if kinds and all(issubclass(kind, date) for kind in kinds):
        return "date", [None if item is None else item.isoformat() for item in column]
    if kinds == {str}:
        return "text", _scrubbed(column)
    return "any", [_any(item) for item in column]


def _scrubbed(texts: Sequence[str | None]) -> list[str | None]:
    # One look at all of them costs little where there is nothing to find.
    valid = [None if text is None else valid_text(text) for text in texts]
    if not find(BETWEEN.join(text for text in valid if text is not None)):
        return valid
    return [None if text is None else scrub_text(text)[0] for text in valid]


def _cleaned(items: Sequence[Any]) -> Sequence[Any]:
    texts = all(item is None or isinstance(item, str) for item in items)
    return _scrubbed(items) if texts else [clean(item) for item in items]


def _finite(item: Any) -> Any:
    if isinstance(item, float) and not math.isfinite(item):
        return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    return item


def _any(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {str(clean(str(key))): _any(one) for key, one in item.items()}
    if isinstance(item, list | tuple):
        return [_any(one) for one in item]
    if isinstance(item, float) and not math.isfinite(item):
        return None
    plain = item is None or isinstance(item, bool | int | float | str)
    return clean(item if plain else str(item))


def _back(kind: str, item: Any) -> Any:
    if not isinstance(item, str):
        return item
    if kind == "number":
        return SPECIAL[item]
    if kind == "datetime":
        return datetime.fromisoformat(item)
    return date.fromisoformat(item) if kind == "date" else item


def _with_index(frame: Any) -> Any:
    """Return a frame of pandas whose index is a column, unless it only counts the rows."""
    return frame if type(frame.index).__name__ == "RangeIndex" else frame.reset_index()


def _size(frame: Any) -> int:
    if library(frame) == "pandas":
        return int(frame.memory_usage(index=False).sum())
    return int(frame.nbytes)


def _held(frame: Any) -> Any:
    """Return a copy of a frame that shares no memory with it, None where Arrow has no such types.

    Frames of polars and pyarrow may lie in the memory of an array that goes on changing.
    """
    if library(frame) == "pandas":
        return _copied(_with_index(frame))
    arrow: Any = _arrow()
    try:
        if library(frame) == "polars":
            frame = frame.to_arrow()
        elif not isinstance(frame, arrow.Table):
            frame = arrow.Table.from_batches([frame])
        target = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(target, frame.schema) as stream:
            stream.write_table(frame)
        return arrow.ipc.open_stream(target.getvalue()).read_all()
    except Exception:  # polars raises what Rust makes of it
        return None


def _copied(frame: Any) -> Any:
    """Return a copy of a frame of pandas, with copies of what can be changed in its cells."""
    copied = frame.copy()
    for at, kind in enumerate(frame.dtypes):
        cells = copied.iloc[:, at]
        if getattr(kind, "hasobject", False) and not all(isinstance(cell, FIXED) for cell in cells):
            copied.isetitem(at, cells.map(copy.deepcopy))
    return copied


def _of_frame(frame: Any) -> Content:
    """Return a frame as Parquet, as JSON where Arrow does not take what is in it."""
    arrow = _arrow()
    try:
        return Content("parquet", _parquet(frame))
    except (arrow.ArrowException, TypeError, ValueError):
        return Content("json", _json(Table(_columns(frame, None))))


def _parquet(frame: Any) -> bytes:
    arrow: Any = _arrow()
    if library(frame) == "pandas":
        frame = arrow.Table.from_pandas(frame, preserve_index=False)
    # What pandas says of its frame names the columns once more.
    frame = frame.replace_schema_metadata(None)
    for at, field in enumerate(frame.schema):
        if not arrow.types.is_primitive(field.type):
            items = frame.column(at).to_pylist()
            if (cleaned := _cleaned(items)) != items:
                frame = frame.set_column(at, field.name, arrow.array(cleaned))
    frame = frame.rename_columns([clean(name) for name in frame.column_names])
    target = io.BytesIO()
    arrow.parquet.write_table(frame, target, compression="zstd")
    return target.getvalue()


def _arrow() -> Any:
    try:
        import pyarrow as arrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        hint = "pip install 'cas-lineage[parquet]'"
        raise UnsupportedError(f"Parquet needs pyarrow: {hint}") from error
    return arrow
