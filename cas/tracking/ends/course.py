"""What the checkpoints of a run say of its points up to the newest of them, as frames of a journal.

Points stand in the checkpoint that they led up to. Of what is known beyond them, of epochs and of
points that were left out, a later checkpoint says the newest.
Format: docs/format/run.md.
"""

from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from cas.errors import CorruptionError
from cas.ids import CommitId, ManifestId
from cas.objects import canonical
from cas.objects.commit import CHECKPOINT, Commit
from cas.objects.kind import Kind
from cas.objects.manifest import Column, Series
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.tracking.numbers.columns import COLUMNS
from cas.tracking.record import SUMS

Columns = dict[str, tuple[bytes, bytes]]


def course(repo: Repo, base: CommitId | None) -> list[Commit]:
    """Return the checkpoints up to one, oldest first, whose points together are its history.

    Of a run that was gone on with, the first checkpoint after that has all points before it.
    """
    own = segment(repo.commit, base) if base is not None else ()
    return [commit for _, commit in takewhile(lambda item: item[1].kind == CHECKPOINT, own)][::-1]


def frame(repo: Repo, commits: Iterable[Commit]) -> dict[str, Any] | None:
    """Return all points of such commits as one frame, None where there are none."""
    parts: dict[str, list[tuple[bytes, bytes, bytes]]] = {}
    sums: dict[tuple[str, int | None], list[Any]] = {}
    for commit in commits:
        values, times = (columns(repo, commit, name) for name in ("metrics", "times"))
        for name in sorted(values.keys() & times.keys()):
            parts.setdefault(name, []).append((*values[name], times[name][1]))
        for row in _sums(repo, commit):
            sums[row[0], row[1]] = row
    if not parts and not sums:
        return None
    joined = {
        key: [b"".join(part[at] for part in parts[name]) for name in parts]
        for at, key in enumerate(COLUMNS)
    }
    known = [row for (name, _), row in sums.items() if name in parts]
    return {"t": "points", "names": list(parts), **joined} | ({"sums": known} if known else {})


def columns(repo: Repo, commit: Commit, what: str) -> Columns:
    """Return the rows of a series in a record by name: the bytes of their steps and values."""
    entry = repo.lookup(commit.tree, what.encode())
    found = repo.manifest(ManifestId(entry.id)) if entry is not None else None
    if not isinstance(found, Series):
        return {}

    def data(column: Column) -> bytes:
        inline = column.data
        return bytes(repo.store.read(Kind.BLOB, column.id) if inline is None else inline)

    return {row.name: (data(row.steps), data(row.values)) for row in found.rows}


def _sums(repo: Repo, commit: Commit) -> list[Any]:
    """Return the sums of a checkpoint; one of before there were any has none."""
    entry = repo.lookup(commit.tree, SUMS.encode())
    told = canonical.decode(repo.store.read(Kind.BLOB, entry.id)) if entry is not None else []
    rows = told if isinstance(told, list) else [None]
    if not all(isinstance(row, list) and len(row) == 3 for row in rows):
        raise CorruptionError(f"the sums of a checkpoint of {commit.full_name} are none")
    return rows
