"""Runs without an end: which still live, and how those that do not are committed.

Reading commands only tell; the next writing command on the run's host commits a lost run, as
*crashed* or as it said itself that it ended, from its journal and its draft, once the journal's
lock is free.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cas.errors import CasError, CorruptionError
from cas.objects import canonical
from cas.repo.layout import JOURNALS
from cas.repo.repo import Repo
from cas.tracking.environment import here
from cas.tracking.journal import (
    Header,
    claimed,
    is_locked,
    read_journal,
    recoverable,
    scan_frames,
)
from cas.tracking.state import RunState

if TYPE_CHECKING:
    from cas.repo.transaction import Transaction
    from cas.tracking.record import Items

RUNNING: Final = "running"
LOST: Final = "lost"
ELSEWHERE: Final = "elsewhere"
CRASHED: Final = "crashed"
HEAD: Final = 64 * 1024  # of a journal holds its header
PART: Final = 4 * 1024 * 1024  # of a log is looked through at a time


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has not been committed to its end."""

    run: str
    ref: str
    status: str  # running, lost (its process is gone), elsewhere (cannot be told from here)
    host: str
    pid: int
    started: int
    path: Path


def open_runs(repo: Repo) -> list[OpenRun]:
    """Return the runs that have no finishing commit yet, as far as this host can tell.

    Writes nothing, and of each journal reads the start.
    """
    return [run for run in _journals(repo) if _draft_ref(run) in repo.root.refs]


def recover_lost(repo: Repo) -> list[str]:
    """Commit every lost run of this host; return their names.

    One that cannot be committed keeps no other from being so; its error is raised at the end.
    """
    done: list[str] = []
    problem: CasError | None = None
    for run in _journals(repo):
        if run.status != LOST:
            continue
        try:
            if _recover(repo, run):
                done.append(run.run)
        except CasError as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return done


def joined_journals(repo: Repo, uid: bytes) -> list[Path]:
    """Return the journals of processes that continued this run inside another."""
    return sorted((repo.path / JOURNALS).glob(f"{uid.hex()}-*.journal"))


def log_file(repo: Repo, uid: bytes) -> Path:
    """Return where `cas run` keeps what a program prints while it runs."""
    return repo.path / JOURNALS / f"{uid.hex()}.log"


def log_entry(tx: "Transaction", log: Path) -> "Items":
    """Store what a program printed, without secrets, in bounded memory."""
    from cas.objects.tree import Entry, EntryKind
    from cas.repo.ingest import FILE_MODE
    from cas.tracking.secrets import scrub_bytes

    def clean() -> Iterator[bytes]:
        with open(log, "rb") as lines:
            # Up to a line's end, so that no secret is cut in two.
            while part := lines.read(PART) + lines.readline(PART):
                yield scrub_bytes(part)[0]

    id, size = tx.writer.stream(clean(), log.stat().st_size)
    return {"log.txt": Entry(b"log.txt", EntryKind.FILE, id, size, FILE_MODE)}


def _draft_ref(run: OpenRun) -> str:
    return RunState(run.run, run.ref, b"").open_ref


def _recover(repo: Repo, lost: OpenRun) -> bool:
    """Commit a lost run while holding all its journals; False when somebody else does."""
    header = _header(lost.path)
    parts = [lost.path, *joined_journals(repo, header.uid)]
    with ExitStack() as stack:
        ours = [stack.enter_context(claimed(path)) for path in parts]
        return all(ours) and _commit_lost(repo, lost, header.uid, parts)


def _commit_lost(repo: Repo, lost: OpenRun, uid: bytes, parts: list[Path]) -> bool:
    from cas.repo.transaction import Transaction, transact
    from cas.tracking import record

    state = RunState(lost.run, lost.ref, uid, chosen=record.chosen_monitor(repo))
    for path in parts:
        journal = read_journal(path)
        state.replay(frame for frame in journal.frames if path == lost.path or not _ends(frame))
        if path == lost.path:
            state.position = journal.positions[-1] if journal.positions else 0
    log = log_file(repo, uid)
    ended = max(path.stat().st_mtime_ns for path in parts) // 1000

    def build(tx: Transaction) -> bool:
        tip, draft = tx.ref(state.ref), tx.ref(state.open_ref)
        if draft is None:
            return False  # it ended properly, or never began: only its journal was left
        state.seq = repo.commit(tip).seq if tip is not None else 0
        begun = repo.commit(draft)
        moment = record.Moment(ended, begun.author or repo.who, state.status or CRASHED)
        captured = record.captured_items(repo, begun.tree)
        heavy = log_entry(tx, log) if log.exists() else {}
        record.finish(tx, state, captured, moment, heavy=heavy)
        return True

    committed = transact(repo, f"recover {lost.run}", build)
    for path in (log, *parts):
        path.unlink(missing_ok=True)
    return committed


def _ends(frame: object) -> bool:
    return isinstance(frame, dict) and frame.get("t") == "finish"


def _journals(repo: Repo) -> Iterator[OpenRun]:
    folder, place = repo.path / JOURNALS, here()
    for path in sorted(folder.glob("*.journal")) if folder.is_dir() else ():
        if "-" in path.stem:
            continue  # a part of a run that another process owns
        try:
            header = _header(path)
        except (CasError, OSError):
            continue
        parts = [path, *joined_journals(repo, header.uid)]
        locked = any(map(is_locked, parts))
        lost = recoverable(header, locked=locked, here=place)
        yield OpenRun(
            run=header.run,
            ref=header.ref,
            status=RUNNING if locked else LOST if lost else ELSEWHERE,
            host=header.host,
            pid=header.pid,
            started=header.started,
            path=path,
        )


def _header(path: Path) -> Header:
    with open(path, "rb") as journal:
        raw = journal.read(HEAD)
    for payload, _ in scan_frames(raw):
        return Header.from_value(canonical.decode(payload))
    raise CorruptionError(f"{path} is no journal: its header cannot be read")
