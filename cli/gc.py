"""`cas gc`."""

import time
from typing import TYPE_CHECKING, Any

import click

from cas.errors import InvalidInputError

from .render import count, human_bytes
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.collect.gcplan import GcPlan


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would go and stop.")
@click.option("--auto", is_flag=True, help="Only when it is due, and for no longer than a minute.")
@json_option
@pass_session
def gc(session: Session, dry_run: bool, auto: bool) -> None:
    """Delete what nothing keeps any more.

    Records stay for as long as a name leads to them; the weights of a checkpoint go when `prune`
    has let go of it. Others may write meanwhile. It may be stopped at any time, and works on a full
    disk. With `cas config gc.auto auto` it starts by itself, in the background, after commits.
    """
    from cas.repo.collect import gc as collector

    if auto and dry_run:
        raise InvalidInputError("--auto and --dry-run do not go together")
    if auto:
        _auto(session)
        return
    repo = session.repo if dry_run else session.writing()
    plan = collector.plan(repo)
    if not dry_run:
        plan = collector.execute(repo, plan, progress=session.progress)
    session.emit(told(plan) | {"dry_run": dry_run}, lambda: [_line(plan, dry_run=dry_run)])


def _auto(session: Session) -> None:
    from cas.repo.collect import gcauto

    if not gcauto.is_due(session.repo):
        session.emit({"due": False}, ["nothing is due"])
        return
    done = gcauto.collect(session.writing(), gcauto.SECONDS, time.monotonic)
    value = {"due": True, "done": done is not None}
    if done is None:
        session.emit(value, ["there was not enough time: the rest is left for later"])
    else:
        session.emit(value | told(done), [_line(done, dry_run=False)])


def _line(plan: "GcPlan", *, dry_run: bool) -> str:
    freed = f"{human_bytes(plan.freed_bytes)} in {count(plan.freed_objects, 'object')}"
    kept = f"{human_bytes(plan.kept_bytes)} in {count(plan.live_objects, 'object')}"
    return (
        f"{'would free' if dry_run else 'freed'} {freed}; {'keeps' if dry_run else 'kept'} {kept}"
    )


def collected(session: Session) -> dict[str, Any]:
    """Collect now, behind a command that has let go of something; return what `told` says of it."""
    from cas.repo.collect import gc as collector

    repo = session.repo
    return told(collector.execute(repo, collector.plan(repo), progress=session.progress))


def told(plan: "GcPlan") -> dict[str, Any]:
    """Return what people want to know of a collection."""
    return {
        "freed_bytes": plan.freed_bytes,
        "kept_bytes": plan.kept_bytes,
        "freed_objects": plan.freed_objects,
        "kept_objects": plan.live_objects,
        "deleted_packs": len(plan.leaving) + len(plan.leftovers),
        "rewritten_packs": len(plan.rewrites),
    }
