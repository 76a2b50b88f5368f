"""`cas commit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cas.errors import InvalidInputError, RefusedError
from cas.plain import few
from cas.repo.trees.names import shown

from . import render
from .params import pairs
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.objects.commit import Parent
    from cas.repo.person import Told
    from cas.repo.repo import Repo

MOST = 3  # files that are named in a message


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-m", "--message", default="", help="What this is.")
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="A param.")
@click.option("--metric", "metrics", multiple=True, metavar="K=V", help="A result, a number.")
@click.option(
    "--parent", "parents", multiple=True, metavar="ROLE=REV", help="What it was made from."
)
@click.option("-e", "--experiment", help="Experiment that it belongs to.")
@click.option("--move", is_flag=True, help="Delete the files once they were read back.")
@click.option("--dry-run", is_flag=True, help="With --move: show the plan and stop.")
@json_option
@pass_session
def commit(
    session: Session,
    *,
    paths: tuple[str, ...],
    message: str,
    params: tuple[str, ...],
    metrics: tuple[str, ...],
    parents: tuple[str, ...],
    experiment: str | None,
    move: bool,
    dry_run: bool,
) -> None:
    """Commit files and directories.

    HEAD moves to the new commit, whose `previous` is what HEAD was. The id goes to standard output,
    what was stored of what was given to standard error.

    With --move each file is deleted after its bytes were read back from the commit and compared;
    one that changes meanwhile stays. Links and what lies outside of this directory are refused.
    `cas checkout REV` gets the files back.
    """
    from cas.repo.config import get
    from cas.repo.person import Told, commit_paths
    from cas.tracking.names import check_name

    if "" in paths:
        raise InvalidInputError("an empty path: say `.` for this directory")
    if dry_run and not move:
        raise InvalidInputError("--dry-run is for --move: a commit alone deletes nothing")
    repo = session.repo if dry_run else session.writing()
    told = Told(
        author=get(repo, "author") or session.who,
        message=message,
        experiment=None if experiment is None else check_name(experiment, "experiment"),
        params=_params(params),
        metrics={name: _number(name, text) for name, text in pairs(metrics, "--metric")},
        parents=tuple(_parent(repo, *pair) for pair in pairs(parents, "--parent")),
    )
    places = [Path(path) for path in paths]
    if move:
        _move(session, repo, places, told, dry_run=dry_run)
        return
    done = commit_paths(repo, places, Path.cwd(), told, progress=session.progress)
    session.emit(done, [str(done.id)])
    session.say(f"cas: stored {render.human_share(done.stored_bytes, done.given_bytes)}")
    _upkeep(repo)


def _move(
    session: Session, repo: "Repo", places: list[Path], told: "Told", *, dry_run: bool
) -> None:
    from cas.repo.trees import move

    plan = move.plan(repo, places, Path.cwd())
    planned = {"files": plan.files, "bytes": plan.size_bytes}
    amount = render.count(len(plan.files), "file")
    if dry_run:
        lines = [shown(path) for path in plan.files]
        total = f"would commit and delete {amount}, {render.human_bytes(plan.size_bytes)}"
        session.emit(planned | {"done": False}, [*lines, total])
        return
    done = move.execute(repo, plan, told, progress=session.progress)
    result = {"commit": done.commit, "removed": done.removed, "removed_bytes": done.removed_bytes}
    kept = [{"path": path, "reason": reason} for path, reason in done.kept]
    session.emit(planned | result | {"kept": kept, "done": True}, [str(done.commit.id)])
    stored = render.human_share(done.commit.stored_bytes, done.commit.given_bytes)
    session.say(f"cas: stored {stored}; {done.removed:,} of {amount} deleted")
    _upkeep(repo)
    if kept:
        reasons = [f"{shown(path)}: {reason}" for path, reason in done.kept]
        raise RefusedError(f"{few(reasons, MOST)}: left as they are; commit them again")


def _upkeep(repo: "Repo") -> None:
    from cas.repo.collect import gcauto

    if gcauto.wanted(repo):
        from cas.tracking.upkeep import after_commit  # slow to import

        after_commit(repo)


def _params(given: tuple[str, ...]) -> dict[str, Any]:
    if not given:
        return {}  # what reads them is slow to import
    from cas.tracking.privacy.secrets import scrub_params
    from cas.tracking.program import scalar

    return scrub_params({name: scalar(text) for name, text in pairs(given, "-p")})


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"--metric {name} is a number, not {text!r}") from None


def _parent(repo: "Repo", role: str, rev: str) -> "Parent":
    from cas.objects.commit import Parent
    from cas.repo.revision import resolve_path

    id, path = resolve_path(repo, rev)
    return Parent(role, id, path.decode("utf-8", "surrogateescape"))
