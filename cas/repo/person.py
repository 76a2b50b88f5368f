"""Commits that a person makes of files: `heads/main` moves, with its old value as `previous`.

The paths are the payload; params and metrics are the record.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cas.errors import InvalidInputError, NotFoundError
from cas.ids import CommitId, TreeId
from cas.objects.commit import COMMIT, PREVIOUS, Commit, Parent, Volume
from cas.objects.document import document
from cas.objects.tree import EntryKind, TreeSummary
from cas.progress import SILENT, Progress
from cas.repo.layout import MAIN
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest
from cas.repo.trees.statcache import StatCache, open_statcache


@dataclass(frozen=True, slots=True)
class Told:
    """What a person says of a commit."""

    author: str
    message: str = ""
    experiment: str | None = None
    params: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] | None = None
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """A new commit: its logical bytes, and how many were newly written for them."""

    id: CommitId
    previous: CommitId | None
    given_bytes: int
    stored_bytes: int


def commit_paths(
    repo: Repo, paths: Sequence[Path], base: Path, told: Told, *, progress: Progress = SILENT
) -> Committed:
    """Commit files and directories under their paths below `base`; others under their names.

    Raises NotFoundError for a path that is not there, InvalidInputError for one that cannot be read
    or stored, or when there is none.
    """
    wanted = placed(paths, base)
    for path in wanted.values():
        _insist_on(path)
    if any(parent.role == PREVIOUS for parent in told.parents):
        raise InvalidInputError(f"the role {PREVIOUS} is the history's own: choose another")
    time = repo.clock()

    def build(tx: Transaction) -> Committed:
        payload = _payload(tx, wanted, cache, progress)
        record = _record(tx, told)
        before = tx.ref(MAIN)
        parents = told.parents if before is None else (Parent(PREVIOUS, before), *told.parents)
        volume = Volume(payload.size + record.size, tx.writer.stored)
        id = tx.record(
            Commit(
                kind=COMMIT,
                tree=record.id,
                payload=payload.id,
                parents=parents,
                experiment=told.experiment,
                time=time,
                author=told.author,
                message=told.message,
                volume=volume,
            )
        )
        tx.set_ref(MAIN, id)
        return Committed(id, before, volume.given_bytes, volume.stored_bytes)

    with open_statcache(repo) as cache:
        done = transact(repo, "commit", build)
        cache.save()
    return done


def placed(paths: Sequence[Path], base: Path) -> dict[bytes, Path]:
    """Return each path by the name that it gets in the commit; what another holds is dropped.

    The empty name stands for `base` itself.
    """
    found: dict[bytes, Path] = {}
    top = os.path.abspath(base)
    for path in paths:
        place = os.path.abspath(base / path)
        inside = place == top or place.startswith(top.rstrip("/") + "/")
        name = os.path.relpath(place, top) if inside else os.path.basename(place)
        key = b"" if name == "." else os.fsencode(name)
        if found.setdefault(key, Path(place)) != Path(place):
            raise InvalidInputError(f"two paths are called {name}: commit them from above both")
    if not found:
        raise InvalidInputError("nothing to commit: name files or directories")
    return {key: path for key, path in found.items() if not _held(key, found)}


def _insist_on(path: Path) -> None:
    try:
        os.lstat(path)
    except FileNotFoundError:
        raise NotFoundError("file", os.fsdecode(path)) from None
    except (OSError, ValueError):
        return  # it says why when it is read


def _held(key: bytes, found: Mapping[bytes, Path]) -> bool:
    """Say whether a path is inside another one that is committed too."""
    above = [b"", *(key[:at] for at, char in enumerate(key) if char == ord("/"))]
    return any(
        name != key and name in found and found[name].is_dir() and not found[name].is_symlink()
        for name in above
    )


def _payload(
    tx: Transaction, wanted: Mapping[bytes, Path], cache: StatCache, progress: Progress
) -> TreeSummary:
    entries = {
        key: ingest.add(tx.writer, path, cache=cache, progress=progress)
        for key, path in wanted.items()
    }
    whole = entries.get(b"")
    if whole is None:
        return ingest.nest(tx.writer, entries.items())
    if whole.kind is not EntryKind.TREE:
        raise InvalidInputError(f"{wanted[b'']} is not a directory")
    return TreeSummary(TreeId(whole.id), whole.size, 0)


def _record(tx: Transaction, told: Told) -> TreeSummary:
    summary = {name: {"last": value} for name, value in (told.metrics or {}).items()}
    documents = {b"params.json": dict(told.params or {}), b"summary.json": summary}
    return ingest.nest(
        tx.writer,
        [
            (name, ingest.file_entry(tx.writer, name, document(value)))
            for name, value in documents.items()
        ],
    )
