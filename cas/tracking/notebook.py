"""Runs in a notebook: how one shows itself, which cell began it, and the cells that have run.

IPython is asked for what it has; where it runs nothing, there is no notebook, and none of this is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from cas.objects.tree import Entry
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured.command import notebook_file, shell
from cas.tracking.privacy.secrets import scrub_bytes, valid_text

WIDTH: Final = 160
HEIGHT: Final = 36
DRAWN: Final = 200  # points of a curve at most
CURVES: Final = 6
ROWS: Final = 20  # params that are shown at most
LONG: Final = 60
CELLS: Final = "cells.py"
NOTEBOOK: Final = "notebook.ipynb"
MAX_BYTES: Final = 10 * 1024 * 1024
STYLE: Final = "border-collapse:collapse;font-family:sans-serif;font-size:90%"

End = Callable[[], object]
_open: dict[str, tuple[object, End]] = {}  # by cell: the run that it began last, and how it ends


def cells() -> str | None:
    """Return what has been executed so far, cell by cell as it was typed; None outside IPython."""
    running = shell()
    if running is None:
        return None
    typed = getattr(getattr(running, "history_manager", None), "input_hist_raw", None)
    if typed is None:
        typed = getattr(running, "user_ns", {}).get("In", [])
    told = "\n\n".join(
        f"# In [{number}]\n{str(text).rstrip()}"
        for number, text in enumerate(typed)
        if number and str(text).strip()
    )
    return told[-MAX_BYTES:] + "\n" if told else ""


def files() -> dict[str, str]:
    """Return the code of a run in a notebook: the cells so far, and the notebook's file.

    Nothing outside IPython; the notebook is as it was last saved, and missing where nobody says
    which it is.
    """
    typed = cells()
    if typed is None:
        return {}
    found = {CELLS: typed}
    path = notebook_file()
    try:
        if path is not None and path.stat().st_size <= MAX_BYTES:
            found[NOTEBOOK] = path.read_text("utf-8", "replace")
    except OSError:
        pass  # capture never fails a run
    return found


def entries(tx: Transaction) -> dict[str, Entry]:
    """Store what `files` returns, free of secrets."""
    told = {name: scrub_bytes(valid_text(it).encode())[0] for name, it in files().items()}
    return {name: ingest.file_entry(tx.writer, name.encode(), data) for name, data in told.items()}


def cell() -> str | None:
    """Return which cell is executed now; None outside IPython.

    By its id where the front end tells it, so that an edited cell is the same one; else by what
    stands in it.
    """
    running: Any = shell()
    if running is None:
        return None
    try:
        id = running.get_parent()["metadata"]["cellId"]
    except Exception:  # only newer kernels have it, and each in its own way
        id = None
    if id:
        return str(id)
    text = getattr(getattr(running, "history_manager", None), "input_hist_raw", None)
    return str(text[-1]) if text else ""


def begin_again() -> None:
    """End the run that the cell that is executed now has begun before, if that is open."""
    where = cell()
    if where is not None and where in _open:
        _, end = _open.pop(where)
        end()


def begun(run: object, end: End) -> None:
    """Remember that the cell that is executed now has begun a run."""
    where = cell()
    if where is not None:
        _open[where] = run, end


def ended(run: object) -> None:
    """Forget a run: it has ended."""
    for where in [where for where, (known, _) in _open.items() if known is run]:
        del _open[where]


def html(
    name: str,
    status: str,
    params: Mapping[str, Any],
    summary: Mapping[str, Mapping[str, Any]],
    curve: Callable[[str], Sequence[float]],
) -> str:
    """Return a run as HTML that stands by itself: status, params, last values and small curves."""
    rows = [(key, _short(value)) for key, value in list(_flat(params))[:ROWS]]
    metrics = [
        (key, _number(told.get("last")), sparkline(curve(key)) if number < CURVES else "")
        for number, (key, told) in enumerate(sorted(summary.items())[:ROWS])
    ]
    body = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td><td></td></tr>" for k, v in rows)
    body += "".join(
        f"<tr><td>{escape(key)}</td><td>{escape(last)}</td><td>{drawn}</td></tr>"
        for key, last, drawn in metrics
    )
    head = f"<b>{escape(name)}</b> &mdash; {escape(status)}"
    return f'<div>{head}<table style="{STYLE}">{body}</table></div>'


def sparkline(values: Sequence[float]) -> str:
    """Return values as a small curve in SVG; what is no number leaves a gap, of none nothing."""
    step = max(1, math.ceil(len(values) / DRAWN))
    kept = list(values[::step])
    known = [value for value in kept if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    across = WIDTH / max(1, len(kept) - 1)
    parts: list[list[str]] = [[]]
    for number, value in enumerate(kept):
        if math.isfinite(value):
            up = (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
            parts[-1].append(f"{number * across:.1f},{(1 - up) * (HEIGHT - 2) + 1:.1f}")
        elif parts[-1]:
            parts.append([])
    lines = "".join(
        f'<polyline fill="none" stroke="#1f77b4" points="{" ".join(points)}"/>'
        for points in parts
        if points
    )
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">{lines}</svg>'


def _flat(params: Mapping[str, Any], front: str = "") -> Any:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{front}{key}.")
        else:
            yield f"{front}{key}", value


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else "-"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"
