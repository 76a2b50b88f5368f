"""`cas repack`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .params import size
from .render import count, human_bytes
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.repacking.repack import Repacked
    from cas.repo.repacking.repackplan import RepackPlan


@click.command()
@click.option("--smallest", is_flag=True, help="As small as can be, slower to read.")
@click.option("--max-extra", metavar="BYTES", help="Room that may be taken meanwhile, as 2GB.")
@click.option("--dry-run", is_flag=True, help="Show what would be saved and stop.")
@json_option
@pass_session
def repack(session: Session, smallest: bool, max_extra: str | None, dry_run: bool) -> None:
    """Store weights by what changed in them.

    A tensor is stored against the same one of the commit before, of the one that was resumed from
    or of the base model, where that is smaller and reading it takes at most twice as much. Nothing
    that is kept changes. Packs are replaced a few at a time, so that little room is taken
    meanwhile; it may be stopped at any time.
    """
    from cas.repo.repacking import repack as packer

    most = None if max_extra is None else size(max_extra, "--max-extra")
    repo = session.repo if dry_run else session.writing()
    plan = packer.plan(repo, smallest=smallest, progress=session.progress)
    if dry_run:
        session.emit(_told(plan), lambda: _lines(plan))
        return
    done = packer.execute(repo, plan, max_extra=most, progress=session.progress)
    session.emit(_done(done), lambda: _ended(done))


def _told(plan: "RepackPlan") -> dict[str, Any]:
    return {
        "dry_run": True,
        "old_bytes": plan.old_bytes,
        "saved_bytes": plan.saved_bytes,
        "pieces": plan.pieces,
        "packs": len(plan.works),
    }


def _lines(plan: "RepackPlan") -> Iterator[str]:
    if plan.empty:
        yield f"nothing to do: {human_bytes(plan.old_bytes)} are stored as they should be"
        return
    saved, old = human_bytes(plan.saved_bytes), human_bytes(plan.old_bytes)
    tensors, packs = count(plan.pieces, "piece"), count(len(plan.works), "pack")
    yield f"would save about {saved} of {old}, with {tensors} in {packs}"


def _done(done: "Repacked") -> dict[str, Any]:
    return {
        "dry_run": False,
        "old_bytes": done.old_bytes,
        "new_bytes": done.new_bytes,
        "saved_bytes": done.old_bytes - done.new_bytes,
        "most_bytes": done.most_bytes,
        "deltas": done.deltas,
        "replaced_packs": done.replaced_packs,
        "skipped_packs": done.skipped_packs,
    }


def _ended(done: "Repacked") -> Iterator[str]:
    saved, new = done.old_bytes - done.new_bytes, human_bytes(done.new_bytes)
    pieces = f"stored {count(done.deltas, 'piece')} by what changed"
    if done.steps and saved >= 0:
        yield f"saved {human_bytes(saved)}: {new} are left; {pieces}"
    elif done.steps:
        yield f"{pieces}; others stored more meanwhile than this saved: {new} in all"
    else:
        yield f"nothing was saved: {new} are stored as they should be"
    if done.skipped_packs:
        packs = count(done.skipped_packs, "pack")
        yield f"left {packs} as before: replacing one takes more room than --max-extra allows"
