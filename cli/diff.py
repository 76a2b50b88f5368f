"""`cas diff`."""

from typing import TYPE_CHECKING

import click

from cas.errors import InvalidInputError

from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.ids import CommitId


@click.command()
@click.argument("rev1")
@click.argument("rev2", required=False)
@click.option("--stat", is_flag=True, help="One line for each kind of difference.")
@click.option("--code", is_flag=True, help="The whole patch of the code, and nothing else.")
@json_option
@pass_session
def diff(session: Session, rev1: str, rev2: str | None, *, stat: bool, code: bool) -> None:
    """Compare two revisions by meaning.

    Params, metrics and the step where they part, images, texts and whatever else was logged, code
    as a patch, packages, environment, seeds, inputs, artifacts, and weights tensor by tensor. With
    one revision: what it changed over the commit before it.
    """
    from . import differences

    if stat and code:
        raise InvalidInputError("--stat and --code each want the whole output: say one")
    old, new = _pair(session, rev1, rev2)
    if code:
        _code(session, old, new)
        return
    from cas.lineage.compare import compare
    from cas.plain import plain

    found = compare(session.repo, old, new, measure=not stat, progress=session.progress)
    draw = differences.stat if stat else differences.lines
    session.emit({"same": found.same} | plain(found), lambda: draw(session, found), paged=True)


def _pair(session: Session, rev1: str, rev2: str | None) -> "tuple[CommitId, CommitId]":
    from cas.repo.retain.choice import previous
    from cas.repo.revision import resolve

    first = resolve(session.repo, rev1)
    if rev2 is not None:
        return first, resolve(session.repo, rev2)
    before = previous(session.repo.commit(first))
    if before is None:
        raise InvalidInputError(f"{rev1} has no commit before it: name two revisions")
    return before, first


def _code(session: Session, old: "CommitId", new: "CommitId") -> None:
    from cas.lineage.patch import code_patch

    from .differences import patch

    found = code_patch(session.repo, old, new)
    session.emit(found, lambda: patch(session, found, raw=not session.terminal), paged=True)
