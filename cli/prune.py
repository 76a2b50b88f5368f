"""`cas prune`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from . import render
from .params import pairs
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.prune import PrunePlan
    from cas.repo.retention import Decision

COUNT = click.IntRange(min=1)


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN|EXP]...")
@click.option("--keep-last", type=COUNT, metavar="N", help="The last N of each run.")
@click.option("--keep-best", type=COUNT, metavar="N", help="The best N by the run's monitor.")
@click.option("--keep-min", multiple=True, metavar="METRIC=N", help="The N lowest by a metric.")
@click.option("--keep-max", multiple=True, metavar="METRIC=N", help="The N highest by a metric.")
@click.option("--keep-tagged", is_flag=True, help="What has a tag: of itself, only that.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--gc", "collect", is_flag=True, help="Free the space at once.")
@json_option
@pass_session
def prune(session: Session, /, runs: tuple[str, ...], yes: bool, **options: Any) -> None:
    """Let go of checkpoints by a policy.

    Of every run, or of those that are named. A checkpoint stays when one of the options keeps it,
    when a tag or another fixed name points at it, when it is the newest of an unfinished run, or
    when another run was made from it. Its record always stays; `gc` frees the space.
    """
    from cas.errors import RefusedError
    from cas.repo import prune as pruning
    from cas.repo.retention import Keep

    keep = Keep(
        last=options["keep_last"],
        best=options["keep_best"],
        min=_counts(options["keep_min"], "--keep-min"),
        max=_counts(options["keep_max"], "--keep-max"),
        tagged=options["keep_tagged"],
    )
    repo = session.repo if options["dry_run"] else session.writing()
    plan = pruning.plan(repo, keep, runs)
    if options["dry_run"] or not plan.dropped:
        session.emit(_told(plan, done=False), lambda: _lines(session, plan))
        return
    if not session.json:
        session.emit(None, _lines(session, plan))
    question = f"Let go of {render.count(len(plan.dropped), 'checkpoint')}?"
    if not (yes or session.confirm(question)):
        raise RefusedError("nothing was let go: look at the plan, then say --yes")
    gone = pruning.execute(repo, plan)
    freed = _collect(session) if options["collect"] else None
    session.emit(_told(plan, done=True) | {"gc": freed}, lambda: _ended(len(gone), freed))


def _counts(texts: Iterable[str], option: str) -> dict[str, int]:
    from cas.errors import InvalidInputError

    found = {}
    for metric, count in pairs(texts, option):
        if not (count.isascii() and count.isdigit() and int(count[:9]) > 0):
            raise InvalidInputError(f"{option} takes METRIC=N with N from 1, not {metric}={count}")
        found[metric] = int(count)
    return found


def _collect(session: Session) -> dict[str, Any]:
    from cas.repo import gc as collector

    from .gc import told

    repo = session.repo
    return told(collector.execute(repo, collector.plan(repo), progress=session.progress))


def _told(plan: "PrunePlan", *, done: bool) -> dict[str, Any]:
    rows = [
        {
            "run": run.run,
            "commit": decision.checkpoint.commit,
            "step": decision.checkpoint.step,
            "monitor": decision.checkpoint.monitor,
            "given_bytes": decision.checkpoint.given_bytes,
            "keep": decision.keep,
            "reasons": decision.reasons,
        }
        for run in plan.runs
        for decision in run.decisions
    ]
    return {
        "decisions": rows,
        "dropped_checkpoints": len(plan.dropped),
        "kept_checkpoints": len(rows) - len(plan.dropped),
        "freed_bytes": plan.freed_bytes,
        "done": done,
    }


def _lines(session: Session, plan: "PrunePlan") -> Iterator[str]:
    rows = [_cells(session, run.run, decision) for run in plan.runs for decision in run.decisions]
    if rows:
        yield from render.table(rows, right={1, 3})
    freed = (
        "an unknown amount" if plan.freed_bytes is None else render.human_bytes(plan.freed_bytes)
    )
    dropped = len(plan.dropped)
    kept = sum(len(run.decisions) for run in plan.runs) - dropped
    yield f"{render.count(dropped, 'checkpoint')} to let go, {kept} kept; gc then frees {freed}"


def _cells(session: Session, run: str, decision: "Decision") -> list[str]:
    item = decision.checkpoint
    value = "-" if item.monitor is None else render.number(item.monitor.value)
    metric = "" if item.monitor is None else f"{item.monitor.metric} "
    told = f"kept: {', '.join(decision.reasons)}" if decision.keep else "dropped"
    return [
        session.paint(run, bold=True),
        "-" if item.step is None else f"step {item.step}",
        f"{metric}{value}",
        f"{render.human_bytes(item.given_bytes)} given",
        session.paint(item.commit.short, fg="yellow"),
        session.paint(told, fg=None if decision.keep else "red"),
    ]


def _ended(gone: int, freed: dict[str, Any] | None) -> list[str]:
    line = f"let go of {render.count(gone, 'checkpoint')}"
    if freed is None:
        return [f"{line}; `cas gc` frees the space"]
    return [f"{line}; gc freed {render.human_bytes(freed['freed_bytes'])}"]
