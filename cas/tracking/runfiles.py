"""The files of open runs: their journals by run, and what a program prints meanwhile.

Format: docs/format/journal.md.
"""

import os
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from cas.backend.folders import Folders
from cas.errors import CasError, CorruptionError
from cas.objects import canonical
from cas.repo.layout import JOURNALS
from cas.repo.repo import Repo
from cas.tracking.ends.liveness import is_locked
from cas.tracking.journals.journal import Header, read_journal, scan_frames
from cas.tracking.journals.state import open_ref

if TYPE_CHECKING:
    from cas.repo.transaction import Transaction
    from cas.tracking.privacy.secrets import Taken
    from cas.tracking.record import Items

HEAD: Final = 64 * 1024  # of a journal holds its header
PART: Final = 4 * 1024 * 1024  # of a log is looked through at a time


def all_journals(repo: Repo) -> dict[str, list[Path]]:
    """Return the journals there are by their run's uid in hex, a run's own first."""
    folder, found = repo.path / JOURNALS, dict[str, list[Path]]()
    for path in sorted(folder.glob("*.journal")) if folder.is_dir() else ():
        uid, part, _ = path.stem.partition("-")
        paths = found.setdefault(uid, [])
        paths.insert(len(paths) if part else 0, path)
    return found


def journals_of(repo: Repo, uid: bytes) -> list[Path]:
    """Return the journals of one run, its own first."""
    own = repo.path / JOURNALS / f"{uid.hex()}.journal"
    return [path for path in (own,) if path.exists()] + joined_journals(repo, uid)


def has_owner(repo: Repo, uid: bytes) -> bool:
    """Say whether the process that a run belongs to lives."""
    own = repo.path / JOURNALS / f"{uid.hex()}.journal"
    return own.exists() and is_locked(own)


def joined_journals(repo: Repo, uid: bytes) -> list[Path]:
    """Return the journals of processes that continued this run inside another."""
    return sorted((repo.path / JOURNALS).glob(f"{uid.hex()}-*.journal"))


def read_header(path: Path) -> Header:
    """Return the header of a journal, from its start alone."""
    with open(path, "rb") as journal:
        raw = journal.read(HEAD)
    for payload, _ in scan_frames(raw):
        return Header.from_value(canonical.decode(payload))
    raise CorruptionError(f"{path} is no journal: its header cannot be read")


def moved_on(repo: Repo, uid: bytes, refs: Container[str]) -> tuple[str, str] | None:
    """Return the name and ref under which a run goes on that was taken for dead, if it does.

    `refs` are those of the newest root: what was not published there, nobody goes on under.
    """
    found = None
    for path in journals_of(repo, uid):
        try:
            frames = read_journal(path).frames
        except CasError:
            continue
        for frame in frames:
            if isinstance(frame, dict) and frame.get("t") == "moved":
                run, ref = frame.get("run"), frame.get("ref")
                if isinstance(run, str) and isinstance(ref, str) and open_ref(ref) in refs:
                    found = run, ref
    return found


def log_file(repo: Repo, uid: bytes) -> Path:
    """Return where `cas run` keeps what a program prints while it runs."""
    return repo.path / JOURNALS / f"{uid.hex()}.log"


def create_log(repo: Repo, uid: bytes) -> BinaryIO:
    """Begin that file, with the group and mode of the repository."""
    path = os.fspath(log_file(repo, uid).absolute())
    folders = Folders(os.fspath(repo.path.absolute()), repo.ops)
    return cast("BinaryIO", os.fdopen(folders.open_new(path), "wb", buffering=0))


def remove_files(repo: Repo, paths: Iterable[Path]) -> None:
    """Remove what a commit holds by now; a journal that stays is looked at again later."""
    for path in paths:
        with suppress(OSError):
            repo.ops.unlink(os.fspath(path))


def log_entry(
    tx: "Transaction", log: Path, note: "Callable[[Taken], None]" = lambda _: None
) -> "Items":
    """Store what a program printed, without secrets, in bounded memory; `note` those that go."""
    from cas.objects.tree import Entry, EntryKind
    from cas.repo.trees.ingest import FILE_MODE
    from cas.tracking.privacy.secrets import scrub_pieces

    def clean() -> Iterator[bytes]:
        with open(log, "rb") as lines:
            yield from scrub_pieces(lines.read, lines.readline, PART, note)

    id, size = tx.writer.stream(clean(), log.stat().st_size)
    return {"log.txt": Entry(b"log.txt", EntryKind.FILE, id, size, FILE_MODE)}
