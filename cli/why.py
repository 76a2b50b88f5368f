"""`cas why`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cas.errors import InvalidInputError, NotFoundError
from cas.plain import few

from . import render
from .exits import printable
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.ids import ObjectId
    from cas.repo.report.why import Reason

SHOWN: Final = 5
PART: Final = 4 * 1024 * 1024


@click.command()
@click.argument("what", metavar="OBJECT|REV|REV:PATH|FILE")
@json_option
@pass_session
def why(session: Session, what: str) -> None:
    """Say what keeps something, or that nothing does.

    Told is the shortest way from a name to it, and how many other names keep it too. It is named by
    its id, by what holds it, or by a file on disk with the same content. What nothing keeps is
    taken by the next `gc`.
    """
    from cas.repo.report.why import why as ask

    if not what:
        raise InvalidInputError("name an object, a revision, REV:PATH or a file")
    found = ask(session.repo, _id(session, what), progress=session.progress)
    session.emit(_told(found), lambda: _lines(session, found))


def _id(session: Session, what: str) -> "ObjectId":
    """Return the id of what is meant: something in a revision, a revision, an id, or a file."""
    from cas.repo.report.why import starting
    from cas.repo.revision import resolve, resolve_path

    repo = session.repo
    if ":" in what and not Path(what).is_file():
        from cas.repo.trees.contents import at

        id, path = resolve_path(repo, what)
        entry = at(repo, id, path)[0].entry if path else None
        if entry is not None and not entry.stored:
            raise NotFoundError("content of", what, "it was only named, not stored")
        return id if entry is None else entry.id
    if Path(what).is_file():
        return _of_file(Path(what))
    try:
        return resolve(repo, what)
    except (InvalidInputError, NotFoundError) as error:
        try:
            return starting(repo, what)
        except InvalidInputError:
            raise error from None


def _of_file(path: Path) -> "ObjectId":
    from cas.ids import BlobHasher

    hasher = BlobHasher()
    try:
        with path.open("rb") as file:
            while part := file.read(PART):
                hasher.update(part)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    return hasher.id()


def _told(found: "Reason") -> dict[str, Any]:
    return {
        "id": found.id,
        "kind": found.kind.name.lower(),
        "stored_bytes": found.stored_bytes,
        "kept": found.ref is not None,
        "ref": found.ref,
        "steps": [
            {"kind": step.kind.name.lower(), "id": step.id, "to": step.to} for step in found.steps
        ],
        "other_refs": list(found.others),
    }


def _lines(session: Session, found: "Reason") -> Iterator[str]:
    what = f"{found.kind.name.lower()} {session.paint(found.id.short, fg='yellow')}"
    size = render.human_bytes(found.stored_bytes)
    if found.ref is None:
        yield f"{what}, {size}: nothing keeps it, and `cas gc` takes it"
        return
    yield f"{what}, {size}, is kept by {session.paint(printable(found.ref), bold=True)}"
    rows = []
    for step in found.steps:
        kind = step.kind.name.lower()
        rows.append((f"  {kind}", session.paint(step.id.short, fg="yellow"), _to(step.to)))
    yield from render.table(rows)
    if found.others:
        names = few([printable(name) for name in found.others], SHOWN)
        yield f"{render.count(len(found.others), 'other name')} would keep it too: {names}"


def _to(how: str) -> str:
    match how:
        case "":
            return ""
        case "piece":
            return "is stored in pieces:"
        case "delta":
            return "is stored as what changed since:"
    return f"{printable(how)}:"
