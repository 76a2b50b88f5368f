"""`cas reflog`."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from . import render
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.reflog import Past
    from cas.repo.root import RefChange

SHOWN: Final = 8  # of the refs that one operation moved
ID: Final = 8  # digits of an operation's id


@click.command()
@click.argument("ref", required=False)
@click.option("-n", "limit", type=click.IntRange(min=0), metavar="N", help="The newest N only.")
@json_option
@pass_session
def reflog(session: Session, ref: str | None, limit: int | None) -> None:
    """List the operations: who did what when, and which refs moved.

    The newest first, each with its number; with REF those that moved it. `cas undo` takes an
    operation back. `gc` forgets the oldest; `fsck` checks that none was changed.
    """
    found = islice(_found(session, ref), limit)
    if session.json:
        session.emit([data(past) for past in found], [])
    else:
        session.emit(None, _lines(session, found), paged=True)


def _found(session: Session, ref: str | None) -> "Iterator[Past]":
    from cas.repo.reflog import history, names

    if ref is None:
        yield from history(session.repo)
        return
    from dataclasses import replace

    from cas.errors import NotFoundError

    meant, some = names(ref), False
    for past in history(session.repo):
        changes = tuple(change for change in past.changes if change.name in meant)
        if changes:
            some = True
            yield replace(past, changes=changes)
    if not some:
        raise NotFoundError("operation", f"on {ref}", "`cas reflog` lists all that is on record")


def data(past: "Past") -> dict[str, Any]:
    """Return an operation as JSON data."""
    return {
        "number": past.number,
        "id": past.id,
        "time": render.iso(past.operation.time),
        "who": past.operation.who,
        "run": past.operation.run or None,
        "what": past.operation.what,
        "vouched": past.vouched,
        "refs": [{"ref": c.name, "old": c.old, "new": c.new} for c in past.changes],
    }


def _lines(session: Session, found: "Iterator[Past]") -> Iterator[str]:
    """Yield the lines as they are read: there may be very many."""
    width = doubtful = 0
    for past in found:
        width = max(width, len(str(past.number)))
        doubtful += not past.vouched
        yield line(session, past, width)
        yield from (f"{' ' * width}  {text}" for text in moves(session, past.changes))
    if doubtful:
        session.say(
            f"cas: {render.count(doubtful, 'operation')} marked with ? are not what the newer ones "
            "follow: look with `cas fsck`"
        )


def line(session: Session, past: "Past", width: int = 0) -> str:
    """Return an operation in one line."""
    operation = past.operation
    what = render.first_line(operation.what)
    if operation.run and operation.run not in what:
        what += f" ({render.first_line(operation.run)})"
    when = render.moment(session.now, operation.time, terminal=session.terminal)
    cells = [
        session.paint(f"{past.number:>{width}}", bold=True),
        session.paint(past.id[:ID], fg="yellow"),
        f"{when:<10}",
        render.first_line(operation.who),
        what if past.vouched else session.paint(f"? {what}", fg="red"),
    ]
    return "  ".join(cells)


def moves(session: Session, changes: "tuple[RefChange, ...]") -> Iterator[str]:
    """Yield a line for each ref that moved, the first few of many."""
    from cas.repo.reflog import shown

    for change in changes[:SHOWN]:
        name = render.first_line(shown(change.name))
        old, new = (id.short if id else "-" for id in (change.old, change.new))
        yield session.paint(f"{name}  {old} → {new}", fg="cyan")
    if len(changes) > SHOWN:
        yield session.paint(f"and {render.count(len(changes) - SHOWN, 'ref')} more", fg="cyan")
