"""`cas reproduce`."""

import sys
from collections.abc import Iterator

import click

from cas.errors import InvalidInputError
from cas.lineage.verdict import DIVERGED, FAILED, Verdict

from . import exits
from .render import count, number
from .session import Session, json_option, pass_session

COLOURS = {"identical": "green", "equivalent": "green", "diverged": "red", "failed": "red"}


@click.command()
@click.argument("rev")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="R",
    help="Relative difference of metrics that still counts as equivalent.",
)
@click.option(
    "--python",
    default=sys.executable,
    metavar="PATH",
    help="Interpreter to run with; this one by default.",
)
@click.option("--keep", is_flag=True, help="Leave the folder that it ran in.")
@click.option("--dry-run", is_flag=True, help="Show what would run and stop.")
@json_option
@pass_session
def reproduce(
    session: Session, *, rev: str, tolerance: float, python: str, keep: bool, dry_run: bool
) -> int:
    """Run REV again from its hash alone and say whether it came out the same.

    This executes the code that is recorded in the commit. The verdict is identical, equivalent,
    diverged (exit code 20) or failed (21), and is committed.
    """
    from cas.repo.revision import resolve
    from cas.tracking import reproduce as again

    _insist(tolerance, python)
    repo = session.repo if dry_run else session.writing()
    planned = again.plan(repo, resolve(repo, rev))
    session.say(f"cas: this runs recorded code: {planned.shown}")
    if dry_run:
        session.show(
            original=planned.original,
            run=planned.run,
            command=planned.shown,
            inputs=[one.at for one in planned.inputs],
        )
        return 0
    verdict, commit = again.execute(
        repo,
        planned,
        python=python,
        tolerance=tolerance,
        keep=keep,
        tell=lambda text: session.say(f"cas: {text}"),
    )
    session.emit(
        {"original": planned.original, "commit": commit, "result": verdict},
        lambda: _lines(session, planned.run, verdict),
    )
    return {DIVERGED: exits.DIVERGED, FAILED: exits.REPRODUCTION_FAILED}.get(verdict.verdict, 0)


def _insist(tolerance: float, python: str) -> None:
    """Raise InvalidInputError for a call that would only make a verdict about itself."""
    from math import isfinite
    from shutil import which

    if not isfinite(tolerance):
        raise InvalidInputError(f"--tolerance is a number such as 1e-6, not {tolerance}")
    if which(python) is None:
        raise InvalidInputError(f"--python {python!r} is no program that may run")


def _lines(session: Session, run: str, verdict: Verdict) -> Iterator[str]:
    head = f"{session.paint(verdict.verdict, fg=COLOURS[verdict.verdict], bold=True)}: {run}"
    compared = [
        count(verdict.metrics, "metric"),
        count(verdict.checkpoints, "checkpoint"),
        count(verdict.artifacts, "artifact"),
    ]
    if verdict.logged:
        compared.append(count(verdict.logged, "logged key"))
    yield head if verdict.verdict == FAILED else f"{head}, {', '.join(compared)} compared"
    if verdict.stage:
        yield f"  it failed at: {verdict.stage}"
    if verdict.first is not None:
        one = verdict.first
        yield (
            f"  first at step {one.step}: {one.metric} was {number(one.original)}, "
            f"is {number(one.again)}"
        )
    yield from (f"  {line}" for line in verdict.differences)
    if verdict.explanations:
        yield "what may explain it:"
        yield from (f"  {line}" for line in verdict.explanations)
