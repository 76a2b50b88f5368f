"""Whether a run that this host cannot look at has ended: by waiting for a sign of life.

A live run gives one each minute at least. Who goes on with a run that lives after all does it no
harm (it parts, and loses nothing), so this need not be sure, only mostly right.
"""

import time
from collections.abc import Callable
from typing import Final

from cas.errors import CasError, RefusedError
from cas.repo.repo import Repo
from cas.tracking.ends.liveness import state_of
from cas.tracking.ends.recovery import ORPHANED, OpenRun, recover
from cas.tracking.runfiles import journals_of

PATIENCE_SECONDS: Final = 90.0  # a sign of life and a half
LOOK_SECONDS: Final = 0.5


def ended(repo: Repo, run: OpenRun, tell: Callable[[str], None], *, at_once: bool = False) -> bool:
    """Commit the end of a run, unless it gives a sign of life meanwhile; say whether it has ended.

    `at_once` says that it surely has, whatever holds its lock.
    """
    if not at_once and not _is_silent(repo, run, tell):
        return False
    try:
        recover(repo, run, force=True)
    except RefusedError:
        return False
    return run.draft not in repo.refresh().refs


def _is_silent(repo: Repo, run: OpenRun, tell: Callable[[str], None]) -> bool:
    seconds = PATIENCE_SECONDS - run.silent_seconds
    if seconds > 0:
        where = f"on {run.host}" if run.host else "elsewhere"
        tell(
            f"{run.run} may still be running {where}: waiting up to {seconds:.0f} s for a sign of "
            f"life (`cas recover --force {run.run}` says that it is gone)"
        )
    seen, until = _signs(repo, run), time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        now = _signs(repo, run)
        if now != seen:
            return run.draft not in repo.refresh().refs  # it lives, or somebody committed its end
    return True


def _signs(repo: Repo, run: OpenRun) -> str:
    """Return what changes when the run says anything."""
    if run.status == ORPHANED:
        commit = repo.commit(repo.root.refs[run.draft]) if run.draft in repo.root.refs else None
        uid = commit.journal.run if commit is not None and commit.journal is not None else b""
    else:
        uid = run.uid
    try:
        return state_of(journals_of(repo, uid)) if uid else ""
    except (CasError, OSError):
        return ""
