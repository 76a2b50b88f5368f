"""Runs without an end: which still live, and when those that do not are committed.

Reading commands only tell. The next writing command commits a run whose process is surely gone, or
which has given no sign of life for ten minutes, as *crashed* or as it said itself that it ended.
What cannot be told from here is left to `cas recover`. A run that lives on in spite of all that
loses nothing: it goes on under a name of its own.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cas.errors import CasError, RefusedError
from cas.repo import place
from cas.repo.layout import OPEN, REPRODUCTIONS, RUNS
from cas.repo.repo import Repo
from cas.tracking.captured.environment import here
from cas.tracking.ends.ending import CRASHED
from cas.tracking.ends.liveness import SILENT_SECONDS, Watch, claimed, is_locked, recoverable
from cas.tracking.journals.journal import Header
from cas.tracking.journals.state import open_ref
from cas.tracking.runfiles import all_journals, log_file, moved_on, read_header, remove_files

RUNNING: Final = "running"
LOST: Final = "lost"
ELSEWHERE: Final = "elsewhere"
ORPHANED: Final = "orphaned"


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has not been committed to its end.

    It is running, lost (its process is gone), elsewhere (that cannot be told from here), or
    orphaned (its journal is not there).
    """

    run: str
    ref: str
    status: str
    host: str
    pid: int
    started: int
    path: Path
    parts: tuple[Path, ...] = ()
    uid: bytes = b""
    sure: bool = False  # that it is lost, for which nothing was taken on trust
    silent_seconds: float = 0.0  # for how long it has been watched without a sign of life

    @property
    def draft(self) -> str:
        """The ref of what the run has logged so far."""
        return open_ref(self.ref)


def open_runs(repo: Repo, *, orphans: bool = False) -> list[OpenRun]:
    """Return the runs that have no finishing commit yet, as far as this host can tell.

    Writes nothing, and of each journal reads the start. With `orphans`, those too whose journal is
    not there: it was removed, or did not come along when the repository was copied.
    """
    refs = repo.root.refs
    found = [run for run in _journals(repo, Watch(repo, here())) if run.draft in refs]
    if orphans:
        known = {run.draft for run in found}
        found += [_orphan(repo, ref) for ref in sorted(refs) if _is_draft(ref) and ref not in known]
    return found


def recover_lost(repo: Repo) -> list[str]:
    """Commit every run that is lost; return the names they are committed under.

    One that cannot be committed keeps no other from being so; its error is raised at the end.
    """
    done: list[str] = []
    problem: CasError | None = None
    watch = Watch(repo, here())
    for run in list(_journals(repo, watch)):
        if run.status != LOST:
            continue
        try:
            name = _recover(repo, run, watch)
            done += [name] if name is not None else []
        except CasError as error:
            problem = problem or error
    watch.save()
    if problem is not None:
        raise problem
    return done


def recover(repo: Repo, run: OpenRun, *, force: bool = False) -> str | None:
    """Commit one open run because a person says that it is dead; return its name.

    None when somebody else has just done it. Raises RefusedError for one whose journal is locked,
    unless `force` says that even so nobody is there.
    """
    from cas.tracking.ends import rescue

    if run.status == ORPHANED:
        return rescue.commit_lost(repo, rescue.from_draft(repo, run.run, run.ref))
    if run.status == RUNNING and not force:
        raise RefusedError(
            f"{run.run} is running: process {run.pid} on {run.host or 'an unknown host'} has its "
            "journal locked: stop it, or say with --force that it is gone"
        )
    watch = Watch(repo, here())
    list(_journals(repo, watch))  # so that what was seen of others stays noted down
    name = _recover(repo, run, watch, force=force)
    watch.save()
    return name


def said(repo: Repo, run: str) -> str:
    """Return in words what became of a run that was lost, now that it is committed."""
    tip = repo.root.refs.get(f"{RUNS}{run}")
    status = repo.commit(tip).status if tip is not None else None
    if status in {None, CRASHED}:
        return f"{run} ended without a finish: committed as crashed"
    return f"{run} ended as {status} and could not say so: committed now"


def _recover(repo: Repo, lost: OpenRun, watch: Watch, *, force: bool = False) -> str | None:
    """Commit a lost run while holding all its journals; None when that was done before.

    Journals stay until it is sure that nobody writes to them any more: what comes after the commit
    is committed by the next pass.
    """
    from cas.tracking.ends import rescue

    with ExitStack() as stack:
        claims = [stack.enter_context(claimed(path)) for path in lost.parts]
        if not all(claims) and not force:
            return None
        header = read_header(lost.parts[0])
        found = rescue.from_journals(repo, header.run, header.ref, lost.uid, list(lost.parts))
        name = rescue.commit_lost(repo, found)
        over = name is None and lost.silent_seconds >= SILENT_SECONDS
        if all(claims) and (lost.sure or over):
            remove_files(repo, (log_file(repo, lost.uid), *lost.parts))
        elif name is not None:
            watch.begin_again(lost.uid.hex())
    return name


def _journals(repo: Repo, watch: Watch) -> Iterator[OpenRun]:
    at, local = here(), place.is_local(repo.path)
    for uid, paths in all_journals(repo).items():
        try:
            header = read_header(paths[0])
        except (CasError, OSError):
            continue
        locked = any(map(is_locked, paths))
        dead = recoverable(header, locked=locked, here=at, local=local)
        watched = not locked and not (dead and local)
        silent = watch.silent_seconds(uid, paths) if watched else 0.0
        lost = dead or silent >= SILENT_SECONDS
        status = RUNNING if locked else LOST if lost else ELSEWHERE
        yield _open_run(repo, header, status, paths, sure=dead and local, silent=silent)


def _open_run(
    repo: Repo, header: Header, status: str, paths: list[Path], *, sure: bool, silent: float
) -> OpenRun:
    run, ref = header.run, header.ref
    if open_ref(ref) not in repo.root.refs:
        run, ref = moved_on(repo, header.uid, repo.root.refs) or (run, ref)
    return OpenRun(
        run=run,
        ref=ref,
        status=status,
        host=header.host,
        pid=header.pid,
        started=header.started,
        path=paths[0],
        parts=tuple(paths),
        uid=header.uid,
        sure=sure,
        silent_seconds=silent,
    )


def _is_draft(ref: str) -> bool:
    return ref.startswith(OPEN)


def _orphan(repo: Repo, draft: str) -> OpenRun:
    """Return what is known of a run that has a draft and no journal."""
    commit = repo.commit(repo.root.refs[draft])
    rest = draft.removeprefix(OPEN)
    ref = rest if rest.startswith(REPRODUCTIONS) else f"{RUNS}{rest}"
    return OpenRun(
        run=commit.full_name or rest,
        ref=ref,
        status=ORPHANED,
        host=(commit.author or "").rpartition("@")[2],
        pid=0,
        started=commit.time or 0,
        path=repo.path,
    )
