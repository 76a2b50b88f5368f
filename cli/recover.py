"""`cas recover`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cas.errors import AmbiguousError, NotFoundError

from . import render
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.repo import Repo
    from cas.tracking.ends.recovery import OpenRun


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--force", is_flag=True, help="Also a run whose journal is locked.")
@json_option
@pass_session
def recover(session: Session, runs: Sequence[str], *, force: bool) -> None:
    """Commit runs whose process is gone, as crashed.

    Every command that writes does so by itself for runs of this host, and for runs of other hosts
    that have given no sign of life for ten minutes. Name a RUN to say that it is gone. Should it
    live after all, it goes on under another name, and nothing is lost.

    Without RUN: what can be told by itself; then the runs that are still open.
    """
    repo = session.writing()
    done = [name for name in runs if _recovered(session, repo, name, force=force)]
    left = _open(repo)
    session.emit(
        {"recovered": done, "open": [_plain(run) for run in left]},
        lambda: _lines(session, left) if not runs else [],
    )


def _recovered(session: Session, repo: "Repo", name: str, *, force: bool) -> bool:
    from cas.tracking.ends.recovery import recover, said

    found = [run for run in _open(repo) if name in {run.run, run.ref, run.run.rpartition("/")[2]}]
    exact = [run for run in found if name in {run.run, run.ref}]
    if not found:
        raise NotFoundError("open run", name, "`cas recover` lists those there are")
    if len(exact or found) > 1:
        raise AmbiguousError(name, [run.run for run in exact or found])
    committed = recover(repo, (exact or found)[0], force=force)
    session.say(
        f"cas: {name} was committed by somebody else"
        if committed is None
        else f"cas: {said(repo, committed)}"
    )
    return committed is not None


def _open(repo: "Repo") -> "list[OpenRun]":
    from cas.tracking.ends.recovery import open_runs

    repo.refresh()
    return open_runs(repo, orphans=True)


def _lines(session: Session, left: "Sequence[OpenRun]") -> Iterator[str]:
    if not left:
        yield "no run is open"
        return
    rows = [(run.run, run.status, _where(run), _known(session, run)) for run in left]
    yield from render.table(rows)


def _where(run: "OpenRun") -> str:
    return f"process {run.pid} on {run.host}" if run.pid else f"on {run.host}" if run.host else "-"


def _known(session: Session, run: "OpenRun") -> str:
    from cas.tracking.ends.recovery import ELSEWHERE, ORPHANED

    if run.status == ORPHANED:
        return f"its journal is gone: `cas recover {run.run}` commits what is there"
    if run.status == ELSEWHERE and run.silent_seconds:
        return f"no sign of life for {int(run.silent_seconds)} s"
    return f"started {render.moment(session.now, run.started, terminal=session.terminal)}"


def _plain(run: "OpenRun") -> dict[str, Any]:
    return {
        "run": run.run,
        "ref": run.ref,
        "status": run.status,
        "host": run.host,
        "pid": run.pid,
        "started": run.started,
        "silent_seconds": run.silent_seconds,
    }
