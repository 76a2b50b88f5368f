"""What is done for a repository after a run or commit: a repack or gc in a process of its own.

Only where the repository is set to it, and never beside an open run of this process. The process is
niced, belongs to nobody's terminal, and outlives this one; that it fails hurts nobody.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

# Not first as the interpreter ends: a module that is loaded then lets a Ctrl-C pass for an error.
from cas.repo.collect import gcauto
from cas.repo.repo import Repo
from cas.tracking.ends import ending
from cas.tracking.record import settings

# The shell ends at once, so that nobody has to wait for what it has started.
DETACHED: Final = ("/bin/sh", "-c", 'nice -n 19 "$@" &', "cas")
WAIT: Final = 10  # seconds for the shell

Start = Callable[[Sequence[str], Mapping[str, str]], object]


def after_run(repo: Repo, start: "Start | None" = None) -> bool:
    """Start what the repository is set to, now that a run has ended; say whether that was done."""
    if ending.runs_are_open() or settings(repo).get("repack") != "auto":
        return after_commit(repo, start)
    return _begun(repo, ("repack",), start)


def after_commit(repo: Repo, start: "Start | None" = None) -> bool:
    """Start a collection where the repository is set to it and one is due; say whether it was."""
    if ending.runs_are_open() or not gcauto.wanted(repo):
        return False
    return _begun(repo, ("gc", "--auto"), start)


def _begun(repo: Repo, words: Sequence[str], start: "Start | None") -> bool:
    if not sys.executable:
        return False
    command = (*DETACHED, sys.executable, "-m", "cas", *words)
    try:
        (start or _start)(command, os.environ | {"CAS_DIR": str(repo.path)})
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return False  # not while the interpreter ends, or where there is no such shell
    return True


def _start(command: Sequence[str], environment: Mapping[str, str]) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(
        command,
        env=environment,
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        start_new_session=True,
        timeout=WAIT,
        check=True,
    )
