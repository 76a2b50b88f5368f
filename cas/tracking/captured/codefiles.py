"""The files of captured code into objects; what was found without secrets is not read again.

A file counts as it was found before while its `stat` says so, the filter and the user's rules are
the same, and the store still has its bytes. One with secrets is read each time, because each run
tells what was taken out of it.
Format: docs/format/statcache.md.
"""

import json
import os
import stat
from collections.abc import Iterator
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Final

from cas.errors import CasError
from cas.ids import ObjectId, digest
from cas.objects.tree import Entry, EntryKind
from cas.repo.trees import ingest
from cas.repo.trees.statcache import NO_ID, Notes, StatCache, file_row, key_of, parts
from cas.store.writer import ObjectWriter
from cas.tracking.captured.source import LINK, Source, SourceFile, read_clean
from cas.tracking.privacy import noting, personal, redaction, secretforms, secretnames, secrets
from cas.tracking.privacy.secrets import Taken

FILTER: Final = (secrets, secretforms, secretnames, personal, redaction, noting)


class CodeFiles:
    """The stored files of one captured source: their entries by path, and what was taken out."""

    def __init__(self, writer: ObjectWriter, known: StatCache) -> None:
        self._writer = writer
        self._known = known
        self.entries: list[tuple[bytes, Entry]] = []
        self.taken: dict[bytes, list[Taken]] = {}

    def store(self, source: Source) -> None:
        """Store every file and link; one that went away since it was listed is left out."""
        began = self._known.now()
        rows = dict(_rows(source.files))
        together = b"".join(rows.values())
        key = key_of(os.fsencode(source.top), f"code {_filter().hex()}")
        known, notes = self._known.find(key, began), self._known.notes(began)
        found = known.ids_of(together) if known else repeat(NO_ID)
        ids = dict(zip(rows, found, strict=False))
        for file in source.files:
            if file.kind == LINK:
                self._link(file)
            elif file.path in rows:
                self._file(file, rows[file.path], ids[file.path], notes)
        learnt = notes.known(key, together, None)
        if known is None or known.raw != learnt.raw:
            self._known.keep(key, learnt)

    def _link(self, file: SourceFile) -> None:
        try:
            self.entries.append((file.path, ingest.add(self._writer, Path(file.absolute))))
        except (CasError, OSError):
            return  # capture never fails a run

    def _file(self, file: SourceFile, row: bytes, id: bytes, notes: Notes) -> None:
        """Store a file, unless it is known to be clean; note what it held if it is."""
        name = file.path.rpartition(b"/")[2]
        mode = 0o755 if file.mode & 0o100 else ingest.FILE_MODE
        size = parts(row)[2]
        if id != NO_ID and self._writer.has(ObjectId(id)):
            self.entries.append((file.path, Entry(name, EntryKind.FILE, ObjectId(id), size, mode)))
            notes.add(row, id)
            return
        try:
            data, taken = read_clean(file)
            entry = ingest.file_entry(self._writer, name, data, mode)
        except (CasError, OSError):
            notes.add(row, None)
            return
        self.entries.append((file.path, entry))
        if taken:
            self.taken[file.path] = taken
        same = not taken and len(data) == size and _row(file) == row
        notes.add(row, entry.id if same else None)


def _rows(files: tuple[SourceFile, ...]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the path and the row of each file that is still one, in the order of the paths."""
    for file in files:
        if file.kind != LINK and (row := _row(file)) is not None:
            yield file.path, row


def _row(file: SourceFile) -> bytes | None:
    try:
        found = os.lstat(file.absolute)
    except OSError:
        return None
    return file_row(file.path, found) if stat.S_ISREG(found.st_mode) else None


def _filter() -> bytes:
    """Return what names the filter with the rules in force: another one finds other secrets."""
    rules = json.dumps(redaction.in_force().as_words(), sort_keys=True)
    return digest(_source_of_filter(), rules.encode())


@cache
def _source_of_filter() -> bytes:
    # Of the code itself, not of a number that somebody has to think of.
    try:
        return digest(*(Path(module.__file__ or "").read_bytes() for module in FILTER))
    except OSError:
        return os.urandom(ObjectId.SIZE)  # it cannot be told: nothing counts in another process
