"""Runs in a notebook: which cell began one, and the cells that have run; `card` shows a run there.

IPython is asked for what it has; where it runs nothing, there is no notebook, and none of this is.
"""

from collections.abc import Callable
from typing import Any, Final

from cas.objects.tree import Entry
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured.command import notebook_file, shell
from cas.tracking.privacy.secrets import scrub_bytes, valid_text

CELLS: Final = "cells.py"
NOTEBOOK: Final = "notebook.ipynb"
MAX_BYTES: Final = 10 * 1024 * 1024

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
