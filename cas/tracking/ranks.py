"""A program that runs as several processes at once: rank 0 owns the run, the others add to it.

Which rank a process is, its launcher says in the environment. Rank 0 begins the run and leaves a
note in the repository under a key that all processes of the launch know; the others wait for it,
write journals of their own, and rank 0 takes these over as it ends.
Format: docs/format/journal.md, "Files".
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from cas.errors import CasError
from cas.ids import blob_id
from cas.repo.layout import JOURNALS
from cas.repo.repo import Repo
from cas.tracking.captured.environment import here
from cas.tracking.captured.variables import KEY_VARIABLE
from cas.tracking.ends.liveness import is_locked
from cas.tracking.journals.journal import ALIVE, read_journal
from cas.tracking.journals.state import RunState, open_ref
from cas.tracking.live import Live
from cas.tracking.runfiles import has_owner, joined_journals, remove_files

WAIT_SECONDS: Final = 60.0  # for rank 0 to begin
LINGER_SECONDS: Final = 10.0  # for the others to end
LOOK_SECONDS: Final = 0.05
SUFFIX: Final = ".launch"
NOT_TAKEN: Final = frozenset({"finish", "commit", "moved", ALIVE})
_ordinals = count()  # of the runs of this process: every rank begins the same ones


@dataclass(frozen=True, slots=True)
class Launcher:
    """The variables by which one launcher tells rank and size, and what its processes share."""

    name: str
    rank: str
    size: str
    shared: tuple[str, ...]


LAUNCHERS: Final = (
    Launcher(
        "torchrun",
        "RANK",
        "WORLD_SIZE",
        ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"),
    ),
    Launcher("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("PMIX_NAMESPACE",)),
    Launcher("mpiexec", "PMI_RANK", "PMI_SIZE", ("PMI_JOBID", "MPI_LOCALNRANKS")),
    Launcher("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_JOB_ID", "SLURM_STEP_ID")),
)


@dataclass(frozen=True, slots=True)
class Launch:
    """Which of how many processes this one is; all of a launch have the same `key`."""

    launcher: str
    rank: int
    size: int
    key: str


def launch(environ: Mapping[str, str]) -> Launch | None:
    """Return what a launcher says of this process; None for a program that runs alone."""
    for one in LAUNCHERS:
        rank, size = (environ.get(name, "") for name in (one.rank, one.size))
        if rank.isdecimal() and size.isdecimal() and int(size) > 1 and int(rank) < int(size):
            shared = [environ.get(name, "") for name in (KEY_VARIABLE, *one.shared)]
            if not any(shared):  # then it is one host, and one process has started all of them
                shared = [here().host, str(os.getppid())]
            told = "\n".join([one.name, size, *shared])
            return Launch(one.name, int(rank), int(size), blob_id(told.encode()).short)
    return None


def announce(repo: Repo, launched: Launch, state: RunState) -> None:
    """Tell the other ranks which run has begun; what fails here costs them alone."""
    from cas.backend.wholefile import replace_file
    from cas.objects.document import document

    note = {"uid": state.uid.hex(), "ref": state.ref, "run": state.run}
    name = _note(launched, next(_ordinals))
    with suppress(CasError, OSError):
        replace_file(repo.path, f"{JOURNALS}/{name}", document(note), ops=repo.ops)


def found(repo: Repo, launched: Launch, seconds: float = WAIT_SECONDS) -> RunState | None:
    """Wait for the run that rank 0 begins; None when it does not in time."""
    path = repo.path / JOURNALS / _note(launched, next(_ordinals))
    until = time.monotonic() + seconds
    while True:
        state = _announced(repo, path)
        if state is not None or time.monotonic() >= until:
            return state
        time.sleep(LOOK_SECONDS)


def forget(repo: Repo, uid: bytes) -> None:
    """Take back what was announced of a run, and the journals that it has taken over."""
    folder = repo.path / JOURNALS
    notes = [path for path in folder.glob(f"*{SUFFIX}") if _read(path).get("uid") == uid.hex()]
    over = [path for path in joined_journals(repo, uid) if not is_locked(path)]
    remove_files(repo, [*notes, *over])


class Gathering:
    """What other processes have noted down of a run of ours, each journal taken over once."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._taken: set[Path] = set()

    def take(self, seconds: float = LINGER_SECONDS) -> Iterator[str]:
        """Take over all journals, waiting so long for their writers to end.

        Yields what could not be had.
        """
        until = time.monotonic() + seconds
        for path in joined_journals(self._live.repo, self._live.state.uid):
            while is_locked(path) and time.monotonic() < until:
                time.sleep(LOOK_SECONDS)
            if path not in self._taken:
                self._taken.add(path)
                try:
                    take_over(self._live, path)
                except (CasError, OSError) as error:
                    yield f"what another process logged: {error}"


def take_over(live: Live, path: Path) -> None:
    """Note down what another process of the same run has noted down."""
    for frame in read_journal(path).frames:
        if frame["t"] not in NOT_TAKEN:
            live.note(frame)


def _note(launched: Launch, ordinal: int) -> str:
    return f"{launched.key}-{ordinal}{SUFFIX}"


def _announced(repo: Repo, path: Path) -> RunState | None:
    """Return the run that a note tells of while it lives: the note may be of an earlier launch."""
    told = _read(path)
    try:
        state = RunState(told["run"], told["ref"], bytes.fromhex(told["uid"]))
    except (KeyError, TypeError, ValueError):
        return None
    lives = has_owner(repo, state.uid) and open_ref(state.ref) in repo.refresh().refs
    return state if lives else None


def _read(path: Path) -> dict[str, Any]:
    from cas.objects.document import read_document

    try:
        told = read_document(path.read_bytes())
    except (CasError, OSError):
        return {}
    return told if isinstance(told, dict) else {}
