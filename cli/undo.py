"""`cas undo`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import render
from .reflog import data, line, moves
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.undo import UndoPlan


@click.command()
@click.argument("operation", required=False)
@click.option("--partly", is_flag=True, help="Take back what still can be.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@json_option
@pass_session
def undo(
    session: Session, operation: str | None, *, partly: bool, yes: bool, dry_run: bool
) -> None:
    """Take back an operation.

    The refs that it moved go back where they were. By default your last one that moved a ref;
    OPERATION is a number or an id of `cas reflog`. It is refused when one of the refs has moved
    since, and for what a run did by itself. A prune can be taken back until `gc` has run. To undo
    an undo is to do it again.
    """
    from cas.errors import RefusedError
    from cas.repo import undo as undoing

    repo = session.repo if dry_run else session.writing()
    plan = undoing.plan(repo, operation)
    if dry_run or not plan.moved or (plan.problems and not partly):
        session.emit(_told(plan, done=False), lambda: _lines(session, plan))
        if not dry_run:
            raise undoing.refusal(plan)
        return
    if not session.json:
        session.emit(None, _lines(session, plan))
    question = f"Take back operation {plan.past.number}?"
    if not (yes or session.confirm(question)):
        raise RefusedError("nothing was taken back: look at the plan, then say --yes")
    plan = undoing.execute(repo, plan, partly=partly)
    said = f"took back operation {plan.past.number}; `cas undo` now does it again"
    session.emit(_told(plan, done=True), [said])


def _told(plan: "UndoPlan", *, done: bool) -> dict[str, Any]:
    return {
        "operation": data(plan.past),
        "refs": [
            {
                "ref": step.change.name,
                "from": step.change.new,
                "to": step.change.old,
                "moves": step.moves,
                "why_not": step.problem or step.stays or None,
            }
            for step in plan.steps
        ],
        "done": done,
    }


def _lines(session: Session, plan: "UndoPlan") -> Iterator[str]:
    from cas.repo.reflog import shown

    yield line(session, plan.past)
    yield from (f"    {text}" for text in moves(session, plan.moved))
    for step in plan.steps:
        if not step.moves:
            why = f"{render.first_line(shown(step.change.name))} {step.problem or step.stays}"
            yield f"    {session.paint(why, fg='red' if step.problem else None)}"
