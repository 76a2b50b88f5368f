"""`cas rm`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import render
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.retain.remove import RemovePlan


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN|EXP...")
@click.option("--keep-record", is_flag=True, help="Let go of the payloads alone.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--gc", "collect", is_flag=True, help="Free the space at once.")
@json_option
@pass_session
def rm(
    session: Session,
    runs: tuple[str, ...],
    *,
    keep_record: bool,
    yes: bool,
    dry_run: bool,
    collect: bool,
) -> None:
    """Remove runs, with their checkpoints.

    Of an experiment all of them. `cas undo` brings them back until `gc` has run. A run that another
    one was made from, or that a tag points into, is not removed; with --keep-record its weights go
    and its record stays, as after `prune`, and what a tag points at stays whole.
    """
    from cas.errors import RefusedError
    from cas.repo.retain import remove

    from .gc import collected

    repo = session.repo if dry_run else session.writing()
    plan = remove.plan(repo, runs, keep_record=keep_record)
    if plan.refused:
        raise remove.refusal(plan.uses)
    if dry_run or not plan.gone:
        session.emit(_told(plan, done=False), lambda: _lines(session, plan))
        return
    if not session.json:
        session.emit(None, _lines(session, plan))
    what = "Let go of the payloads of" if keep_record else "Remove"
    if not (yes or session.confirm(f"{what} {render.count(len(plan.runs), 'run')}?")):
        raise RefusedError("nothing was removed: look at the plan, then say --yes")
    remove.execute(repo, plan)
    freed = collected(session) if collect else None
    session.emit(_told(plan, done=True) | {"gc": freed}, lambda: [_ended(plan, freed)])


def _told(plan: "RemovePlan", *, done: bool) -> dict[str, Any]:
    rows = [
        {
            "run": run.run,
            "commit": run.tip,
            "status": run.status,
            "checkpoints": run.checkpoints,
            "let_go": run.held,
            "given_bytes": run.given_bytes,
        }
        for run in plan.runs
    ]
    return {
        "runs": rows,
        "keep_record": plan.keep_record,
        "uses": plan.uses,
        "freed_bytes": plan.freed_bytes,
        "done": done,
    }


def _lines(session: Session, plan: "RemovePlan") -> Iterator[str]:
    yield from render.table(
        [
            session.paint(run.run, bold=True),
            run.status,
            f"{render.count(run.checkpoints, 'checkpoint')}, {len(run.held)} kept",
            f"{render.human_bytes(run.given_bytes)} given",
            session.paint(run.tip.short, fg="yellow"),
        ]
        for run in plan.runs
    )
    for use in plan.uses:
        yield f"still in use: {use}"
    freed = render.freed(plan.freed_bytes)
    what = "whose payloads go" if plan.keep_record else "to remove"
    yield f"{render.count(len(plan.runs), 'run')} {what}; gc then frees {freed}"


def _ended(plan: "RemovePlan", freed: dict[str, Any] | None) -> str:
    runs = render.count(len(plan.runs), "run")
    line = f"let go of the payloads of {runs}" if plan.keep_record else f"removed {runs}"
    if freed is None:
        return f"{line}; `cas undo` brings them back until `cas gc` frees the space"
    return f"{line}; gc freed {render.human_bytes(freed['freed_bytes'])}"
