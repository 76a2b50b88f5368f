"""A run as a notebook shows it: HTML that stands by itself, on light ground and on dark.

Styles stand in the elements: what a front end takes out of them leaves tables that can be read.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Final

WIDTH: Final = 160
HEIGHT: Final = 24
DRAWN: Final = 120  # points of a curve at most
ROWS: Final = 20  # of params and of metrics that are shown at most
LONG: Final = 60  # characters of a value
LONG_NAME: Final = 40
STRIP: Final = 40 * LONG  # characters of a value that are looked at
COLORS: Final = {"running": "#2f80ed", "finished": "#2da44e", "failed": "#d1242f"}
OTHER: Final = "#bf8700"
LINE: Final = "#4c8bf5"
TABLE: Final = (
    "border-collapse:collapse;font-size:90%;margin:4px 24px 4px 0;display:inline-table;"
    "vertical-align:top;color:inherit"
)
CELL: Final = "padding:1px 10px 1px 0;border:0;white-space:nowrap;vertical-align:middle"
RULE: Final = "border-bottom:1px solid rgba(128,128,128,.4);font-weight:normal;opacity:.7"

Curve = Callable[[str], Sequence[float]]


def html(
    name: str,
    status: str,
    params: Mapping[str, Any],
    summary: Mapping[str, Mapping[str, Any]],
    curve: Curve,
) -> str:
    """Return a run as HTML: status, params, last values and small curves."""
    step = max((told.get("last_step", -1) for told in summary.values()), default=-1)
    color = COLORS.get(status, OTHER)
    head = (
        f'<span style="color:{color}">&#9679;</span> <b>{escape(_cut(name, 2 * LONG))}</b> '
        f"&#8211; {escape(status)}{f', step {step}' if step >= 0 else ''}"
    )
    tables = [_table(*table) for table in (_params(params), _metrics(summary, curve)) if table[1]]
    return f'<div style="font-family:sans-serif;overflow-x:auto">{head}<br/>{"".join(tables)}</div>'


def sparkline(values: Sequence[float]) -> str:
    """Return values as a small curve in SVG; what is no number leaves a gap, of none nothing."""
    points = list(_thinned(values))
    known = [value for _, value in points if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    across = (WIDTH - 4) / max(1, len(values) - 1)
    parts: list[list[str]] = [[]]
    for at, value in points:
        if math.isfinite(value):
            up = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
            parts[-1].append(f"{at * across + 2:.1f},{(1 - up) * (HEIGHT - 4) + 2:.1f}")
        elif parts[-1]:
            parts.append([])
    lines = "".join(_line(part) for part in parts if part)
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" fill="none" stroke="{LINE}" '
        f'stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round">{lines}</svg>'
    )


def _line(points: list[str]) -> str:
    if len(points) > 1:
        return f'<polyline points="{" ".join(points)}"/>'
    # A line to where it begins is a dot, as its ends are round.
    return f'<polyline stroke-width="4" points="{points[0]} {points[0]}"/>'


def _thinned(values: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Yield places and values that a curve is drawn of: of many, least and greatest of each part.

    So no spike is lost, and a part without a number is a gap.
    """
    import numpy as np

    array = np.asarray(values, np.float64)
    if len(array) <= DRAWN:
        yield from enumerate(array.tolist())
        return
    ends = np.linspace(0, len(array), DRAWN // 2 + 1).astype(int).tolist()
    for start, end in pairwise(ends):
        part = array[start:end]
        finite = np.isfinite(part)
        if not finite.any():
            yield start, math.nan
            continue
        least = int(np.where(finite, part, np.inf).argmin())
        greatest = int(np.where(finite, part, -np.inf).argmax())
        for at in sorted({least, greatest}):
            yield start + at, float(part[at])


Rows = tuple[Sequence[str], Sequence[Sequence[str]], str]  # heads, rows, and what is left out


def _params(params: Mapping[str, Any]) -> Rows:
    flat = list(_flat(params))
    rows = [(_text(_cut(key, LONG_NAME)), _text(_short(value))) for key, value in flat[:ROWS]]
    return ("param", ""), rows, _more(len(flat), "params")


def _metrics(summary: Mapping[str, Mapping[str, Any]], curve: Curve) -> Rows:
    rows = [
        (
            _text(_cut(key, LONG_NAME)),
            *(_number(told.get(which)) for which in ("last", "min", "max")),
            sparkline(curve(key)),
        )
        for key, told in sorted(summary.items())[:ROWS]
    ]
    return ("metric", "last", "min", "max", ""), rows, _more(len(summary), "metrics")


def _more(count: int, what: str) -> str:
    return f"… and {count - ROWS} more {what}" if count > ROWS else ""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], more: str) -> str:
    right = ["left", *["right"] * (len(names) - 2), "left"] if len(names) > 2 else ["left"] * 2
    head = "".join(
        f'<th style="{CELL};{RULE};text-align:{side}">{name}</th>'
        for name, side in zip(names, right, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{CELL};text-align:{side}">{cell}</td>'
            for cell, side in zip(row, right, strict=False)
        )
        + "</tr>"
        for row in rows
    )
    if more:
        body += f'<tr><td colspan="{len(names)}" style="{CELL};text-align:left">{more}</td></tr>'
    return f'<table style="{TABLE}"><tr>{head}</tr>{body}</table>'


def _flat(params: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{front}{key}.")
        else:
            yield f"{front}{key}", value


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _short(value: object) -> str:
    text = str(value)[:STRIP]
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def _cut(name: str, most: int) -> str:
    """Return a name that is too long without its middle: its end may be what tells it apart."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"


def _text(text: str) -> str:
    """Return text for a cell; what cannot be printed, also what turns text around, as an escape."""
    shown = (one if one.isprintable() else _escaped(one) for one in " ".join(text.split()))
    return escape("".join(shown))


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode()
