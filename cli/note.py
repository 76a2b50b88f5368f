"""`cas note`."""

from typing import TYPE_CHECKING

import click

from cas.errors import InvalidInputError

from . import render
from .exits import printable
from .session import Session, json_option, pass_session, printable_lines

if TYPE_CHECKING:
    from cas.ids import CommitId


@click.command()
@click.argument("rev")
@click.argument("text", required=False)
@click.option("-a", "--append", is_flag=True, help="Below what was noted before.")
@click.option("--history", is_flag=True, help="All that was noted and labelled, newest first.")
@json_option
@pass_session
def note(session: Session, rev: str, text: str | None, *, append: bool, history: bool) -> None:
    """Note something about a run, or show its notes.

    TEXT replaces what was noted before, which stays in the history; no commit changes by it. An
    empty TEXT leaves no notes.
    """
    if history and (append or text is not None):
        raise InvalidInputError("--history shows notes and takes no text")
    if append and text is None:
        raise InvalidInputError("say what to note: `cas note -a REV TEXT`")
    from cas.repo import annotations
    from cas.repo.revision import resolve

    repo = session.writing() if text is not None else session.repo
    id = resolve(repo, rev)
    if history:
        _history(session, id)
        return
    if text is not None:
        from cas.tracking.labels import note as change

        said = change(repo, id, text, append=append)
    else:
        annotations.uid_of(repo.commit(id))
        said = annotations.of_run(repo, repo.commit(id))
    shown = printable_lines(said.notes).split("\n") if said.notes and text is None else []
    session.emit({"notes": said.notes}, shown)


def _history(session: Session, id: "CommitId") -> None:
    from cas.repo.annotations import history

    told = list(history(session.repo, session.repo.commit(id)))
    rows = [
        (
            render.moment(session.now, one.time or 0, terminal=session.terminal),
            printable(one.author or ""),
            printable(", ".join(one.annotation.labels)),
            printable(render.first_line(one.annotation.notes)),
        )
        for one in told
    ]
    data = [
        {"time": render.iso(one.time) or None, "author": one.author, **one.annotation.to_words()}
        for one in told
    ]
    session.emit(data, lambda: render.table(rows))
