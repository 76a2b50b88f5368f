"""`cas checkout`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import render
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.ids import TreeId
    from cas.objects.tree import Entry
    from cas.repo.repo import Repo
    from cas.repo.trees.checkout import CheckoutPlan


@click.command()
@click.argument("rev", metavar="REV[:PATH]")
@click.option("--to", "target", metavar="DIR", default=".", help="Directory to write into.")
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
@json_option
@pass_session
def checkout(session: Session, rev: str, target: str, *, force: bool) -> None:
    """Write a revision's files into a directory.

    Of a person's commit or an input: the paths that were committed. Of a run or a checkpoint: all
    that it holds. With PATH: that file, or what is in that directory. A file that differs is never
    overwritten without --force; nothing is written before that is known.
    """
    from cas.errors import InvalidInputError, RefusedError
    from cas.repo.trees.checkout import execute, plan

    if not target:
        raise InvalidInputError("--to is empty: name a directory, `.` for this one")
    repo = session.repo
    plans = [plan(repo, what, Path(target)) for what in _wanted(repo, rev)]
    differing = [path for one in plans for path in one.conflicts]
    if differing and not force and len(plans) > 1:
        raise RefusedError(
            f"{len(differing)} files differ, {differing[0]!r} for one: --force overwrites them"
        )
    for one in plans:
        execute(repo, one, force=force, progress=session.progress)
    _tell(session, plans, target)


def _wanted(repo: "Repo", rev: str) -> "list[Entry | TreeId]":
    """Return what to write: one thing, or payload and record into the same place."""
    from cas.objects.commit import COMMIT, INPUT
    from cas.repo.revision import resolve_path
    from cas.repo.trees.contents import PAYLOAD, at, parts

    id, path = resolve_path(repo, rev)
    if path:
        return [held.entry for held in at(repo, id, path)]
    trees = parts(repo, id)
    commit = repo.commit(id)
    if commit.kind in {COMMIT, INPUT} and commit.payload is not None:
        if trees[0][0] != PAYLOAD:
            from cas.errors import NotFoundError

            raise NotFoundError("payload of", id.short, "it was pruned")
        return [trees[0][1]]
    return [tree for _, tree in trees]


def _tell(session: Session, plans: "list[CheckoutPlan]", target: str) -> None:
    written = sum(len(one.write) + len(one.conflicts) for one in plans)
    equal = sum(len(one.equal) for one in plans)
    states = sum(one.states for one in plans)
    named = sum(len(one.named) for one in plans)
    if states:
        session.say(f"cas: {render.count(states, 'state')} or series left out: they are no files")
    if named:
        session.say(f"cas: {render.count(named, 'file')} left out: only their ids were stored")
    session.emit(
        {
            "target": Path(target),
            "written": written,
            "equal": equal,
            "size_bytes": sum(one.size_bytes for one in plans),
            "states": states,
            "named": named,
        },
        [f"{render.count(written, 'path')} written to {target}, {equal:,} there already"],
    )
