"""`cas metrics`."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cas.errors import InvalidInputError

from . import render
from .exits import printable
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.tracking.numbers.curve import Curve

NAME: Final = 24  # so much of a metric's name is shown, however narrow the terminal is


@click.command()
@click.argument("rev")
@click.argument("names", metavar="[METRIC]...", nargs=-1)
@click.option("--points", is_flag=True, help="Print every point, as CSV.")
@click.option(
    "--to",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the points into a new file: .csv, .json or .parquet.",
)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Make a finished run, named REV, of the metrics in a file.",
)
@click.option("--epochs", is_flag=True, help="Print what is known of each epoch.")
@click.option("--average", metavar="N", type=int, help="Moving averages of N points, not values.")
@click.option("--system", is_flag=True, help="The system metrics, by microseconds, not steps.")
@json_option
@pass_session
def metrics(
    session: Session,
    *,
    rev: str,
    names: tuple[str, ...],
    points: bool,
    target: Path | None,
    source: Path | None,
    epochs: bool,
    average: int | None,
    system: bool,
) -> None:
    """Show the metrics of a run, write them to a file, or make a run of one.

    Without options the last, smallest and largest value of each metric with its step, and the
    mean, of all points that were logged. METRIC leaves out all others. Of a run that still goes on,
    as they are now.
    """
    _agree(points=points, to=target, **{"from": source}, epochs=epochs)
    if source is not None:
        if names or average is not None or system:
            raise InvalidInputError("--from takes all that is in the file: give it alone")
        _take(session, rev, source)
        return
    if epochs and average is not None:
        raise InvalidInputError("epochs have means: --average is of points")
    curves = _curves(session, rev, names, average, system=system)
    if target is not None:
        _export(session, curves, target)
    elif points and not session.json:
        from cas.tracking.numbers.exchange import write_csv

        write_csv(curves, sys.stdout)
    elif points or epochs:
        from cas.tracking.numbers.exchange import as_json

        session.emit(as_json(curves), lambda: _epochs(session, curves))
    else:
        told = {name: _told(curve) for name, curve in curves.items()}
        session.emit(told, lambda: _table(session, curves))


def _agree(**options: object) -> None:
    """Refuse options of which only one can be followed."""
    given = [f"--{name}" for name, value in options.items() if value not in {None, False}]
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(given)} do not go together")


def _curves(
    session: Session, rev: str, names: tuple[str, ...], average: int | None, *, system: bool
) -> "Mapping[str, Curve]":
    from dataclasses import replace

    from cas.tracking.view import view_of

    found = view_of(session.repo, rev).curves(*names, system=system)
    if average is None:
        return found
    return {
        name: replace(curve, values=curve.moving_average(average), summary=None)
        for name, curve in found.items()
    }


def _export(session: Session, curves: "Mapping[str, Curve]", target: Path) -> None:
    from cas.tracking.numbers.exchange import write

    if target.exists():
        raise InvalidInputError(f"{target} is there already: name a new file")
    write(curves, target)
    count = sum(map(len, curves.values()))
    session.show(written=str(target), metrics=len(curves), points=count)


def _take(session: Session, name: str, source: Path) -> None:
    from cas.tracking.importing import import_run
    from cas.tracking.numbers.exchange import frames, read

    parts = read(source, session.now / 1e6)
    run, id = import_run(session.writing_or_new(), name, list(frames(parts)))
    session.show(run=run, commit=str(id))


def _told(curve: "Curve") -> dict[str, Any]:
    low, high = curve.best("min"), curve.best("max")
    return {
        "last": curve.last,
        "min": low[1] if low else None,
        "min_step": low[0] if low else None,
        "max": high[1] if high else None,
        "max_step": high[0] if high else None,
        "mean": curve.mean,
        "points": len(curve),
        "logged": curve.summary["count"] if curve.summary is not None else len(curve),
        "epochs": len(curve.epochs.numbers) if curve.epochs is not None else 0,
    }


def _table(session: Session, curves: "Mapping[str, Curve]") -> Iterator[str]:
    if not curves:
        yield "no metrics"
        return
    head = ("metric", "last", "min", "at", "max", "at", "mean", "points")
    rows: list[tuple[str, ...]] = [head]
    for name, curve in curves.items():
        told = _told(curve)
        cells = [
            f"{told[key]}" if "step" in key and told[key] is not None else render.number(told[key])
            for key in ("last", "min", "min_step", "max", "max_step", "mean")
        ]
        thinned = f" of {told['logged']:,}" if told["logged"] != told["points"] else ""
        rows.append((printable(name), *cells, f"{told['points']:,}{thinned}"))
    yield from _fitted(session, rows, ((), (7,), (6, 7), (4, 5, 6, 7), (3, 4, 5, 6, 7)))


def _epochs(session: Session, curves: "Mapping[str, Curve]") -> Iterator[str]:
    head = ("metric", "epoch", "last", "min", "max", "mean", "points")
    rows: list[tuple[str, ...]] = [head]
    for name, curve in curves.items():
        epochs = curve.epochs
        if epochs is None:
            continue
        columns = (epochs.last, epochs.min, epochs.max, epochs.mean)
        for place, number in enumerate(epochs.numbers.tolist()):
            told = (render.number(float(column[place])) for column in columns)
            rows.append((printable(name), f"{number}", *told, f"{epochs.count[place]:,.0f}"))
    if len(rows) == 1:
        raise InvalidInputError("no epochs are known: metrics have them when logged with epoch=")
    yield from _fitted(session, rows, ((), (6,), (2, 6), (2, 3, 4, 6)))


def _fitted(
    session: Session, rows: Sequence[Sequence[str]], spare: Sequence[Collection[int]]
) -> list[str]:
    """Return a table that fits the terminal: the first columns to spare with which it does.

    Long names are cut there, as far as they stay telling.
    """
    lines: list[str] = []
    for without in spare:
        kept = [[cell for at, cell in enumerate(row) if at not in without] for row in rows]
        lines = render.table(kept, right=range(1, len(kept[0])))
        over = max(map(render.shown, lines)) - (session.width or 10**9)
        named = max(render.shown(row[0]) for row in kept)
        if over <= 0:
            return lines
        if named - over >= NAME:
            cut = [[render.cut(row[0], named - over), *row[1:]] for row in kept]
            return render.table(cut, right=range(1, len(kept[0])))
    return lines
