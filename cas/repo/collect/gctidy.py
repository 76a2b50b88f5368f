"""What dead processes have left behind, and who may still be at work on it.

Evidence, not age: a file that was written before every live session was opened belongs to none of
them. Times are only compared with each other, and all of them are the file system's own. Where
this is wrong, because locks do not reach another host, a writer has to do its work again.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cas.backend.base import KeyInfo
from cas.backend.files import is_locked
from cas.errors import CasError, CorruptionError, NotFoundError, UnsupportedError
from cas.repo import root as roots
from cas.repo.collect.reserve import renew
from cas.repo.layout import (
    INDEX,
    JOURNALS,
    ROOTS,
    SESSIONS,
    TMP,
    root_number,
    snapshot_key,
)
from cas.repo.packfiles import pack_files
from cas.repo.repo import Repo
from cas.repo.root import Operation, Root
from cas.repo.session import others
from cas.store.indexfile import IndexFile
from cas.store.pack import PackInfo

STILL: Final = 600.0  # seconds that a temporary file was not touched, where locks may not reach
KEPT_ROOTS: Final = 1000
KEPT_S: Final = 30 * 86_400.0
TRIMMED: Final = 256  # roots that one collection deletes
HINT: Final = "gc"
JOURNAL: Final = "journal"
LOG: Final = "log"
UNBORN: Final = "new"


def orphans(repo: Repo, base: Root, own: str, mine: frozenset[bytes]) -> tuple[PackInfo, ...]:
    """Return the pack files that no root lists or condemns and that no live session may own."""
    known = mine | {info.name for info in base.packs + base.condemned}
    found = [file for file in pack_files(repo.backend) if file.info.name not in known]
    # Listed first, asked second: who opens a session later has no file among these.
    oldest = oldest_session(repo, own) if found else None
    return tuple(file.info for file in found if oldest is None or file.modified < oldest)


def oldest_session(repo: Repo, own: str) -> float | None:
    """Return when the oldest live session but `own` was opened, None when there is none.

    Files of sessions that are over are removed.
    """
    folder = repo.path / SESSIONS
    if next(others(folder, own, ops=repo.ops), None) is None:
        return None
    for _ in others(folder, own, ops=repo.ops):
        pass  # each that is over is removed when it is looked at
    times = []
    for entry in repo.ops.scandir(os.fspath(folder)):
        with suppress(FileNotFoundError):
            if entry.name != own:
                times.append(repo.ops.stat(entry.path).st_mtime)
    return min(times, default=None)


@dataclass(frozen=True, slots=True)
class Collected:
    """How far a repository had come when it was collected last; zeros when that is not known."""

    root: int = 0
    packs: int = 0


def last_collection(repo: Repo) -> Collected:
    """Return what was noted down by the last collection."""
    words = (repo.backend.read_hint(HINT) or "").split()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        return Collected()
    root, packs = (int(word[:18]) for word in words)
    return Collected(root, packs) if root <= repo.root.seq else Collected()


def tidy(repo: Repo, operation: Operation) -> None:
    """Remove what dead processes have left, old roots, and index files that help nobody."""
    with suppress(CasError, OSError):  # the collection is done; the next one tidies up
        own, last = operation.id.hex(), last_collection(repo)
        now = repo.ops.stat(os.fspath(repo.path / SESSIONS / own)).st_mtime
        oldest = oldest_session(repo, own)
        before = now - STILL if oldest is None else min(oldest, now - STILL)
        _sweep_temporary(repo, before)
        sweep_journals(repo, before)
        if oldest is None:
            _sweep_indexes(repo)
        if last.root:
            trim(repo, min(last.root, repo.root.seq - KEPT_ROOTS), now - KEPT_S)
        repo.backend.write_hint(HINT, f"{repo.root.seq} {len(repo.root.packs)}")
        renew(repo)


def trim(repo: Repo, limit: int, written: float) -> int:
    """Delete the oldest roots, below number `limit` and older than `written`; return how many.

    Each deletion is durable before the next: at no time does a root stand alone of which the next
    one is gone, for that would be taken for the newest. Snapshots go with the last root that
    names them; of a root that cannot be read nobody knows which those are.
    """
    named: set[str] = set()
    done = 0
    for info in repo.backend.scan(ROOTS):
        seq = root_number(info.key)
        if seq is None:
            continue
        if done == TRIMMED or seq >= limit or info.modified.timestamp() >= written:
            with suppress(CorruptionError):
                _sweep_snapshots(repo, named - _named(repo, seq))
            break
        with suppress(CorruptionError):
            named |= _named(repo, seq)
        repo.backend.delete(info.key)
        repo.backend.sync(ROOTS)
        done += 1
    return done


def _sweep_snapshots(repo: Repo, gone: set[str]) -> None:
    """Delete snapshots that no root names any more: once a newer one is named, none is again."""
    bases = (repo.root.refs_base, repo.root.packs_base)
    for key in gone - {snapshot_key(base.name) for base in bases if base is not None}:
        repo.backend.delete(key)


def _named(repo: Repo, seq: int) -> set[str]:
    """Return the snapshots that a root names; raise CorruptionError where it cannot be read."""
    file = roots.read_file(repo.backend, seq)
    pairs = (file.raw.get("refs_base"), file.raw.get("packs_base"))
    return {snapshot_key(pair[0]) for pair in pairs if pair is not None}


def sweep_journals(repo: Repo, before: float) -> None:
    """Remove what runs left that are over: logs whose journal is gone, and journals never begun.

    A journal itself is for `recovery`, which knows what it says; so is a part of one.
    """
    folder = os.fspath(repo.path / JOURNALS)
    with suppress(FileNotFoundError):
        entries = {entry.name: entry.path for entry in repo.ops.scandir(folder)}
        for name, path in sorted(entries.items()):
            stem, _, kind = name.partition(".")
            over = kind == LOG and f"{stem}.{JOURNAL}" not in entries
            if kind == f"{JOURNAL}.{UNBORN}" or over:
                with suppress(OSError):
                    if repo.ops.stat(path).st_mtime < before and _is_free(repo, path):
                        repo.ops.unlink(path)


def _is_free(repo: Repo, path: str) -> bool:
    """Say whether nobody has a lock on a file; no where there are no locks."""
    fd = repo.ops.open_read(path)
    try:
        return is_locked(repo.ops, fd) is False
    finally:
        repo.ops.close(fd)


def _sweep_temporary(repo: Repo, before: float) -> None:
    """Remove files in tmp/ that are older than every live session, and that nobody touches."""
    try:
        entries = repo.ops.scandir(os.fspath(repo.path / TMP))
    except FileNotFoundError:
        return
    for entry in entries:
        with suppress(OSError):
            if repo.ops.stat(entry.path).st_mtime < before:
                repo.ops.unlink(entry.path)


def _sweep_indexes(repo: Repo) -> None:
    wanted = {info.name for info in repo.root.packs}
    files = sorted(repo.backend.scan(INDEX), key=lambda info: -info.size_bytes)
    for info in files:
        covers = _covered(repo, info) & wanted
        if not covers:
            repo.backend.delete(info.key)
        wanted -= covers


def _covered(repo: Repo, info: KeyInfo) -> set[bytes]:
    try:
        return set(IndexFile.open(repo.backend, info.key, info.size_bytes).packs)
    except (CorruptionError, NotFoundError, UnsupportedError):
        return set()
