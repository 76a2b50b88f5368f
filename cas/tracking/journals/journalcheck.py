"""Checking journals, for fsck: damage is told apart from the torn end that a crash leaves.

A reader stops at the first frame that is not whole. Where whole frames stand behind it, or where
the journal ends before a position that a commit includes, it is no crash that cut it.
Format: docs/format/journal.md.
"""

from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Final

from cas.errors import CasError, CorruptionError
from cas.ids import digest
from cas.objects.commit import JournalPosition
from cas.repo.check.packcheck import ERROR, WARNING, Finding
from cas.repo.layout import JOURNALS, OPEN
from cas.repo.repo import Repo
from cas.tracking.journals.journal import (
    CHECK_SIZE,
    LENGTH,
    MAX_FRAME,
    PREFIX,
    read_journal,
    scan_values,
)
from cas.tracking.journals.state import RunState

WHAT: Final = "journal"
SUFFIX: Final = ".journal"
# Bytes that are hashed to find a frame behind a damage, as a multiple of the file.
EFFORT: Final = 16
MOMENT: Final = 0.02  # in which a writer that is at it has written the rest of a frame


def findings(repo: Repo) -> Iterator[Finding]:
    """Yield what is wrong with the journals; raise CasError when no root can be read."""
    ends: dict[str, int] = {}
    folder = repo.path / JOURNALS
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
        key = f"{JOURNALS}/{path.name}"
        try:
            raw = path.read_bytes()
            ends[path.name] = _end(raw)
            yield from _checked(path, key, raw)
        except (CasError, OSError) as error:
            if path.exists():  # else its run has ended meanwhile
                yield Finding(ERROR, WHAT, key, f"{error}: what it noted down is lost")
    yield from _open_runs(repo, ends)


def _checked(path: Path, key: str, raw: bytes) -> Iterator[Finding]:
    journal = read_journal(path)
    header = journal.header
    if path.name.partition("-")[0].removesuffix(SUFFIX) != header.uid.hex():
        raise CorruptionError(f"it is the journal of {header.run} under another name")
    RunState(header.run, header.ref, header.uid).replay(journal.frames)
    end = _end(raw)
    if not journal.torn or _grows(path, raw):
        return
    behind = _whole_frame(raw, end)
    if behind is not None:
        detail = f"it is damaged at byte {end}, and what stands from byte {behind} on is not read"
        yield Finding(ERROR, WHAT, key, f"{detail}: restore it from a copy")
    elif len(raw) > end:
        detail = f"its last {len(raw) - end} bytes are no whole frame: a crash left them, or damage"
        yield Finding(WARNING, WHAT, key, detail)


def _grows(path: Path, raw: bytes) -> bool:
    """Say whether a writer is just in the middle of a frame."""
    sleep(MOMENT)
    return path.read_bytes() != raw


def _open_runs(repo: Repo, ends: dict[str, int]) -> Iterator[Finding]:
    """Check that the journal of each open run reaches as far as its draft says."""
    for ref, id in sorted(repo.refresh().refs.items()):
        if not ref.startswith(OPEN):
            continue
        try:
            position = repo.commit(id).journal
        except CasError:
            continue  # told of as what the ref needs
        if position is None or repo.refresh().refs.get(ref) != id:
            continue
        detail = _shortfall(position, ends)
        if detail:
            name = f"{JOURNALS}/{_name(position)}"
            yield Finding(ERROR, WHAT, name, f"{ref} includes it up to byte {position.position}, "
                          f"and {detail}")  # fmt: skip


def _shortfall(position: JournalPosition, ends: dict[str, int]) -> str | None:
    end = ends.get(_name(position))
    if end is None:
        return "it is missing or cannot be read"
    return f"it ends at byte {end}" if end < position.position else None


def _name(position: JournalPosition) -> str:
    return f"{position.run.hex()}{SUFFIX}"


def _end(raw: bytes) -> int:
    """Return where the last frame ends that a reader reads."""
    return max((end for _, end in scan_values(raw)), default=0)


def _whole_frame(raw: bytes, start: int) -> int | None:
    """Return where a whole frame begins, from `start` on, as far as a bounded search finds one."""
    view, left = memoryview(raw), EFFORT * len(raw)
    for at in range(start, len(raw) - PREFIX):
        (length,) = LENGTH.unpack_from(raw, at)
        end = at + PREFIX + length
        if not 0 < length <= MAX_FRAME or end > len(raw):
            continue
        left -= length
        if left < 0:
            return None
        found = digest(view[at + PREFIX : end], size=CHECK_SIZE)
        if found == view[at + LENGTH.size : at + PREFIX]:
            return at
    return None
