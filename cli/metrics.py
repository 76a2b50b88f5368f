"""`cas metrics`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cas.errors import InvalidInputError

from . import render
from .exits import printable
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.tracking.numbers.curve import Curve


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
    mean. METRIC leaves out all others.
    """
    if source is not None:
        _take(session, rev, source)
        return
    curves = _curves(session, rev, names, average, system=system)
    if target is not None:
        _export(session, curves, target)
    elif points and not session.json:
        from cas.tracking.numbers.exchange import write_csv

        write_csv(curves, sys.stdout)
    elif points or epochs:
        from cas.tracking.numbers.exchange import as_json

        session.emit(as_json(curves), lambda: _epochs(curves))
    else:
        session.emit({name: _told(curve) for name, curve in curves.items()}, lambda: _table(curves))


def _curves(
    session: Session, rev: str, names: tuple[str, ...], average: int | None, *, system: bool
) -> "Mapping[str, Curve]":
    from dataclasses import replace

    from cas.errors import NotFoundError
    from cas.repo.revision import resolve
    from cas.tracking.numbers.curve import read_curves, read_system

    id = resolve(session.repo, rev)
    if system:
        found: dict[str, Curve] = read_system(session.repo, id)
        for name in names:
            if name not in found:
                raise NotFoundError("system metric", name)
        found = {name: curve for name, curve in found.items() if not names or name in names}
    else:
        found = read_curves(session.repo, id, names or None)
    if average is None:
        return found
    return {
        name: replace(curve, values=curve.moving_average(average)) for name, curve in found.items()
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
        "epochs": len(curve.epochs.numbers) if curve.epochs is not None else 0,
    }


def _table(curves: "Mapping[str, Curve]") -> Iterator[str]:
    head = ("metric", "last", "min", "at", "max", "at", "mean", "points")
    rows: list[tuple[str, ...]] = [head]
    for name, curve in curves.items():
        told = _told(curve)
        cells = [
            f"{told[key]}" if "step" in key and told[key] is not None else render.number(told[key])
            for key in ("last", "min", "min_step", "max", "max_step", "mean")
        ]
        rows.append((printable(name), *cells, f"{told['points']:,}"))
    yield from render.table(rows, right=range(1, len(head)))


def _epochs(curves: "Mapping[str, Curve]") -> Iterator[str]:
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
    yield from render.table(rows, right=range(1, len(head)))
