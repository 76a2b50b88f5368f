"""Files that an open run logged, as its draft holds them.

They stand in segments, each a tree with what is said of its files. A full one never changes, so
that a draft costs what is new since the one before, not all that was ever logged.
Format: docs/format/run.md.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cas.objects import canonical
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.trees import ingest
from cas.store.writer import ObjectWriter
from cas.tracking.shown.logged import MEDIA, Logged, frames
from cas.tracking.shown.loggedrecord import file_entry

SEGMENT: Final = 128  # files in a segment
ROWS: Final = "rows"


@dataclass(frozen=True, slots=True)
class Shelf:
    """The files that one process of a run has logged so far: full segments, and the newest."""

    writer: str = field(default_factory=lambda: os.urandom(8).hex())
    full: tuple[Entry, ...] = ()
    newest: tuple[Logged, ...] = ()

    @property
    def path(self) -> str:
        """Where it stands in a draft."""
        return f"{MEDIA}/{self.writer}"

    def grown(self, writer: ObjectWriter, rows: Sequence[Logged]) -> "Shelf":
        """Return the shelf with these files too, whose contents are stored."""
        full, newest = self.full, (*self.newest, *rows)
        while len(newest) >= SEGMENT:
            full, newest = (*full, _segment(writer, newest[:SEGMENT])), newest[SEGMENT:]
        return replace(self, full=full, newest=newest)

    def items(self, writer: ObjectWriter) -> dict[str, Entry]:
        """Return what a draft holds of it, by path."""
        last = (_segment(writer, self.newest),) if self.newest else ()
        return {
            f"{self.path}/{number:06}": entry for number, entry in enumerate((*self.full, *last))
        }


def drafted(repo: Repo, draft: Commit) -> dict[str, Entry]:
    """Return the shelves that a draft holds, by the paths where they stand."""
    entry = repo.lookup(draft.payload, MEDIA.encode()) if draft.payload is not None else None
    if entry is None or entry.kind is not EntryKind.TREE:
        return {}
    return {f"{MEDIA}/{one.name.decode()}": one for one in repo.entries(entry.id)}


def drafted_frames(repo: Repo, draft: Commit) -> Iterator[Mapping[str, Any]]:
    """Yield frames that tell of all files that a draft holds, of every process of the run."""
    for shelf in drafted(repo, draft).values():
        for segment in repo.entries(shelf.id):
            entry = repo.lookup(segment.id, ROWS.encode())
            told = canonical.decode(repo.store.read(Kind.BLOB, entry.id)) if entry else []
            for frame in told if isinstance(told, list) else []:
                if isinstance(frame, dict):
                    yield frame


def _segment(writer: ObjectWriter, rows: Sequence[Logged]) -> Entry:
    told = canonical.encode(list(frames(rows)))
    entries = [(f"{at:03}".encode(), file_entry(row)) for at, row in enumerate(rows)]
    entries.append((ROWS.encode(), ingest.file_entry(writer, ROWS.encode(), told)))
    tree = ingest.nest(writer, entries)
    return Entry(b"segment", EntryKind.TREE, tree.id, tree.size, ingest.FOLDER_MODE)
