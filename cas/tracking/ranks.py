"""A program that runs as several processes at once: rank 0 owns the run, the others add to it.

Which rank a process is, its launcher says in the environment. Rank 0 begins the run and leaves a
note in the repository under a key that all processes of the launch know; the others wait for it,
write journals of their own, and rank 0 takes these over as it ends.
Format: docs/format/journal.md, "Files".
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from cas.errors import CasError, CorruptionError
from cas.ids import CommitId, ObjectId, blob_id
from cas.repo.layout import JOURNALS
from cas.repo.repo import Repo
from cas.tracking.captured.environment import here
from cas.tracking.captured.variables import KEY_VARIABLE, RANK_VARIABLE
from cas.tracking.ends.liveness import is_locked
from cas.tracking.journals.journal import ALIVE, read_journal
from cas.tracking.journals.state import RunState, open_ref
from cas.tracking.live import Live
from cas.tracking.runfiles import has_owner, joined_journals, remove_files

WAIT_SECONDS: Final = 150.0  # for rank 0 to begin, which may wait for a sign of life itself
LINGER_SECONDS: Final = 10.0  # for the others to end
LOOK_SECONDS: Final = 0.05
SUFFIX: Final = ".launch"
NOT_TAKEN: Final = frozenset({"finish", "commit", "moved", ALIVE})
Group = Callable[[], tuple[int, int] | None]
_ordinals = count()  # of the runs of this process: every rank begins the same ones


@dataclass(frozen=True, slots=True)
class Launcher:
    """The variables by which one launcher tells rank and size, and what its processes share."""

    name: str
    rank: str
    size: str
    shared: tuple[str, ...]
    local: str  # how many of them are on this host


LAUNCHERS: Final = (
    Launcher(
        "torchrun",
        "RANK",
        "WORLD_SIZE",
        ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"),
        "LOCAL_WORLD_SIZE",
    ),
    Launcher(
        "mpirun",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("PMIX_NAMESPACE",),
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    Launcher("mpiexec", "PMI_RANK", "PMI_SIZE", ("PMI_JOBID",), "MPI_LOCALNRANKS"),
    Launcher(
        "srun",
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        ("SLURM_JOB_ID", "SLURM_STEP_ID"),
        "SLURM_NTASKS_PER_NODE",
    ),
)


@dataclass(frozen=True, slots=True)
class Launch:
    """Which of how many processes this one is; all of a launch have the same `key`."""

    launcher: str
    rank: int
    size: int
    key: str
    local: int = 1  # how many of them are on this host; all where that is not told


def launch(environ: Mapping[str, str], group: Group = lambda: None) -> Launch | None:
    """Return what a launcher says of this process; None for a program that runs alone.

    Where none says anything, what `group` returns counts: rank and size of the process group that
    the program has made itself. A program that a process of a launch has started is none of it,
    although it has the same environment.
    """
    if environ.get(RANK_VARIABLE, str(os.getpid())) != str(os.getpid()):
        environ = {}
    for one in LAUNCHERS:
        rank, size = (environ.get(name, "") for name in (one.rank, one.size))
        if rank.isdecimal() and size.isdecimal() and int(size) > 1 and int(rank) < int(size):
            local = environ.get(one.local, "")
            count = min(int(local), int(size)) if local.isdecimal() and int(local) else int(size)
            key = _key(environ, one.name, int(size), one.shared)
            return Launch(one.name, int(rank), int(size), key, count)
    made = group()
    if made is None or made[1] < 2:
        return None
    key = _key(environ, "group", made[1], ("MASTER_ADDR", "MASTER_PORT"))
    return Launch("group", made[0], made[1], key, made[1])


def _key(environ: Mapping[str, str], name: str, size: int, variables: Sequence[str]) -> str:
    """Return what all processes of a launch have alike, and no other has."""
    shared = [environ.get(one, "") for one in (KEY_VARIABLE, *variables)]
    if not any(shared):  # then it is one host, and one process has started all of them
        shared = [here().host, str(os.getppid())]
    return blob_id("\n".join([name, str(size), *shared]).encode()).short


def announce(repo: Repo, launched: Launch, state: RunState, base: CommitId | None = None) -> None:
    """Tell the other ranks which run has begun, and the checkpoint of its own that it goes on from.

    What fails here costs them alone.
    """
    from cas.backend.wholefile import replace_file
    from cas.objects.document import document

    note = {"uid": state.uid.hex(), "ref": state.ref, "run": state.run}
    if base is not None:
        note["resumed"] = str(base)
    name = _note(launched, next(_ordinals))
    with suppress(CasError, OSError):
        replace_file(repo.path, f"{JOURNALS}/{name}", document(note), ops=repo.ops)


def found(
    repo: Repo, launched: Launch, seconds: float = WAIT_SECONDS
) -> tuple[RunState | None, CommitId | None]:
    """Wait for the run that rank 0 begins; None when it does not in time.

    With it comes the checkpoint of its own that it goes on from, if there is one.
    """
    path = repo.path / JOURNALS / _note(launched, next(_ordinals))
    until = time.monotonic() + seconds
    while True:
        told = _announced(repo, path)
        if told[0] is not None or time.monotonic() >= until:
            return told
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
    """Note down what another process of the same run has noted down.

    A frame that makes no sense costs no other; CorruptionError then tells of the first.
    """
    problem: Exception | None = None
    for frame in read_journal(path).frames:
        try:
            if frame["t"] not in NOT_TAKEN:
                live.note(frame)
        except Exception as error:  # whatever a file says, the run comes to its end
            problem = problem or error
    if problem is not None:
        raise CorruptionError(f"{path.name}: not all of it could be taken over: {problem!r}")


def _note(launched: Launch, ordinal: int) -> str:
    return f"{launched.key}-{ordinal}{SUFFIX}"


def _announced(repo: Repo, path: Path) -> tuple[RunState | None, CommitId | None]:
    """Return the run that a note tells of while it lives: the note may be of an earlier launch."""
    told = _read(path)
    try:
        state = RunState(told["run"], told["ref"], bytes.fromhex(told["uid"]))
        base = CommitId(ObjectId.parse(told["resumed"])) if "resumed" in told else None
    except (KeyError, TypeError, ValueError):
        return None, None
    lives = has_owner(repo, state.uid) and open_ref(state.ref) in repo.refresh().refs
    return (state, base) if lives else (None, None)


def _read(path: Path) -> dict[str, Any]:
    from cas.objects.document import read_document

    try:
        told = read_document(path.read_bytes())
    except (CasError, OSError):
        return {}
    return told if isinstance(told, dict) else {}
