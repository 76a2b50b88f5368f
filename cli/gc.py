"""`cas gc`."""

from typing import TYPE_CHECKING, Any

import click

from .render import count, human_bytes
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.gcplan import GcPlan


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would go and stop.")
@json_option
@pass_session
def gc(session: Session, dry_run: bool) -> None:
    """Delete what nothing keeps any more.

    Records stay for as long as a name leads to them; the weights of a checkpoint go when `prune`
    has let go of it.
    """
    from cas.repo import gc as collector

    repo = session.repo if dry_run else session.writing()
    plan = collector.plan(repo)
    if not dry_run:
        plan = collector.execute(repo, plan, progress=session.progress)
    session.emit(told(plan) | {"dry_run": dry_run}, lambda: [_line(plan, dry_run=dry_run)])


def _line(plan: "GcPlan", *, dry_run: bool) -> str:
    freed = f"{human_bytes(plan.freed_bytes)} in {count(plan.freed_objects, 'object')}"
    kept = f"{human_bytes(plan.kept_bytes)} in {count(plan.live_objects, 'object')}"
    return (
        f"{'would free' if dry_run else 'freed'} {freed}; {'keeps' if dry_run else 'kept'} {kept}"
    )


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
