"""`cas prune`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import render
from .policy import from_flags, keep_options
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.retain.prune import PrunePlan
    from cas.repo.retain.retention import Decision, Keep


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN|EXP|REV]...")
@keep_options
@click.option("--drop", is_flag=True, help="Let go of exactly the checkpoints REV...")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--gc", "collect", is_flag=True, help="Free the space at once.")
@json_option
@pass_session
def prune(session: Session, /, names: tuple[str, ...], yes: bool, **options: Any) -> None:
    """Let go of checkpoints by a policy.

    Of every run and reproduction, or of those that are named (`reproductions/HASH` names those of a
    commit). The policy is what the options say, or else what the config says (`cas config
    retention.last 3`). A checkpoint stays when one of the rules keeps it, when a tag or another
    fixed name points at it, when another commit was made from it, or when it is the newest of its
    run, or the newest that was saved as the best of it. Its record always stays, with its metrics;
    `gc` frees the space.

    With --drop the checkpoints that REV names go, whatever a policy says; the plan shows what would
    have kept them. What a tag points at goes only when the tag is gone (`cas tag -d NAME`).
    """
    from cas.errors import RefusedError
    from cas.repo.retain import letgo
    from cas.repo.retain import prune as pruning

    from .gc import collected

    drop = options["drop"]
    keep = _no_policy(options) if drop else _policy(session, options)
    repo = session.repo if options["dry_run"] else session.writing()
    plan = letgo.plan(repo, names) if drop else pruning.plan(repo, keep, names, now=session.now)
    if options["dry_run"] or not plan.dropped:
        session.emit(_told(plan, done=False), lambda: _lines(session, plan))
        return
    if not session.json:
        session.emit(None, _lines(session, plan))
    question = f"Let go of {render.count(len(plan.dropped), 'checkpoint')}?"
    if not (yes or session.confirm(question)):
        raise RefusedError("nothing was let go: look at the plan, then say --yes")
    gone = letgo.execute(repo, plan) if drop else pruning.execute(repo, plan)
    freed = collected(session) if options["collect"] else None
    session.emit(_told(plan, done=True) | {"gc": freed}, lambda: _ended(plan, len(gone), freed))


def _no_policy(options: dict[str, Any]) -> "Keep":
    """Insist that the options say nothing of what to keep; raise InvalidInputError."""
    from cas.errors import InvalidInputError
    from cas.repo.retain.retention import Keep

    if from_flags(options) is not None:
        raise InvalidInputError("--drop says by name what goes: give no rule of what to keep")
    return Keep()


def _policy(session: Session, options: dict[str, Any]) -> "Keep":
    """Return what the options say, or the config; raise InvalidInputError when neither does."""
    from cas.errors import InvalidInputError
    from cas.repo import config
    from cas.repo.retain.vocabulary import PREFIX, as_flags

    from .policy import vocabulary

    keep = from_flags(options)
    if keep is not None:
        return keep
    keep = config.policy(session.repo)
    if keep is None:
        if not session.json:
            session.emit(None, vocabulary())
        raise InvalidInputError(
            "nothing says what to keep: give a rule such as --keep-last 3, "
            f"or set one with `cas config {PREFIX}last 3`"
        )
    session.say(f"cas: the config says {as_flags(keep)}")
    return keep


def _told(plan: "PrunePlan", *, done: bool) -> dict[str, Any]:
    from cas.repo.retain.vocabulary import as_words

    rows = [
        {
            "run": run.run,
            "commit": decision.checkpoint.commit,
            "step": decision.checkpoint.step,
            "monitor": decision.checkpoint.monitor,
            "given_bytes": decision.checkpoint.given_bytes,
            "stored_bytes": decision.checkpoint.stored_bytes,
            "keep": decision.keep,
            "reasons": decision.reasons,
        }
        for run in plan.runs
        for decision in run.decisions
    ]
    return {
        "policy": as_words(plan.keep),
        "decisions": rows,
        "dropped_checkpoints": len(plan.dropped),
        "kept_checkpoints": len(rows) - len(plan.dropped),
        "budget_bytes": plan.keep.budget_bytes,
        "budget_used_bytes": plan.budget_bytes,
        "freed_bytes": plan.freed_bytes,
        "done": done,
    }


def _lines(session: Session, plan: "PrunePlan") -> Iterator[str]:
    rows = [_cells(session, run.run, decision) for run in plan.runs for decision in run.decisions]
    if rows:
        yield from render.table(rows, right={1, 3, 4})
    if plan.budget_bytes is not None:
        limit = render.human_bytes(plan.keep.budget_bytes or 0)
        yield f"what stays takes {render.human_bytes(plan.budget_bytes)} of the budget of {limit}"
    dropped = len(plan.dropped)
    kept = sum(len(run.decisions) for run in plan.runs) - dropped
    freed = render.freed(plan.freed_bytes)
    yield f"{render.count(dropped, 'checkpoint')} to let go, {kept} kept; gc then frees {freed}"


def _cells(session: Session, run: str, decision: "Decision") -> list[str]:
    item = decision.checkpoint
    value = "-" if item.monitor is None else render.number(item.monitor.value)
    metric = "" if item.monitor is None else f"{item.monitor.metric} "
    why = f": {', '.join(decision.reasons)}" if decision.reasons else ""
    told = f"{'kept' if decision.keep else 'dropped'}{why}"
    return [
        session.paint(run, bold=True),
        "-" if item.step is None else f"step {item.step}",
        f"{metric}{value}",
        f"{render.human_bytes(item.given_bytes)} given",
        f"{render.human_bytes(item.stored_bytes)} stored",
        session.paint(item.commit.short, fg="yellow"),
        session.paint(told, fg=None if decision.keep else "red"),
    ]


def _ended(plan: "PrunePlan", gone: int, freed: dict[str, Any] | None) -> list[str]:
    line = f"let go of {render.count(gone, 'checkpoint')}"
    if freed is None:
        # What somebody has named since was not let go of, and is not freed.
        amount = render.freed(plan.freed_bytes) if gone == len(plan.dropped) else "the space"
        return [f"{line}; `cas gc` frees {amount}"]
    return [f"{line}; gc freed {render.human_bytes(freed['freed_bytes'])}"]
