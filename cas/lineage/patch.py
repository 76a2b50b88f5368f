"""The code of two commits as a patch: a unified diff for each text file that differs.

What is no text, or too large to be compared line by line, is only said to differ. The lines of all
files together are a patch that `git apply` takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Final

from cas.errors import NotFoundError
from cas.ids import CommitId, ObjectId, TreeId
from cas.lineage.values import ADDED, CHANGED, REMOVED
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.trees.diff import Change, diff

MAX_TEXT: Final = 512 * 1024
MAX_LINES: Final = 10_000
CODE: Final = b"code"


@dataclass(frozen=True, slots=True)
class FilePatch:
    """One file of the code that differs; `note` says why there are no lines."""

    path: str
    how: str
    lines: tuple[str, ...] = field(default=(), repr=False)
    note: str = ""

    @property
    def added(self) -> int:
        """The number of lines that came."""
        return sum(line.startswith("+") for line in self.lines[2:])

    @property
    def removed(self) -> int:
        """The number of lines that went."""
        return sum(line.startswith("-") for line in self.lines[2:])


def code_patch(repo: Repo, old: CommitId, new: CommitId) -> tuple[FilePatch, ...]:
    """Return what differs in the code of two commits; nothing when one of them has no code."""
    trees = [_code(repo, id) for id in (old, new)]
    if trees[0] is None or trees[1] is None:
        return ()
    return tuple(_file(repo, change) for change in diff(repo, *trees) if not _only_folders(change))


def _code(repo: Repo, id: CommitId) -> TreeId | None:
    entry = repo.lookup(repo.commit(id).tree, CODE)
    found = entry is not None and entry.kind is EntryKind.TREE and entry.stored
    return TreeId(entry.id) if entry is not None and found else None


def _only_folders(change: Change) -> bool:
    sides = [entry for entry in (change.old, change.new) if entry is not None]
    return all(entry.kind is EntryKind.TREE for entry in sides)


def _file(repo: Repo, change: Change) -> FilePatch:
    path = change.path.decode("utf-8", "surrogateescape")
    how = ADDED if change.old is None else REMOVED if change.new is None else CHANGED
    old, new = _text(repo, change.old), _text(repo, change.new)
    if isinstance(old, _Untold) or isinstance(new, _Untold):
        reasons = {side.reason for side in (old, new) if isinstance(side, _Untold)}
        return FilePatch(path, how, note=", ".join(sorted(reasons)))
    lines = tuple(_unified(path, old, new))
    modes = [entry.mode for entry in (change.old, change.new) if entry is not None]
    note = f"mode {modes[0]:o} → {modes[-1]:o}" if len(set(modes)) > 1 else ""
    return FilePatch(path, how, lines, note)


@dataclass(frozen=True, slots=True)
class _Untold:
    """Why a file is not shown line by line."""

    reason: str


def _text(repo: Repo, entry: Entry | None) -> "list[str] | _Untold | None":
    """Return a file's lines with their ends, None when there is no file."""
    if entry is None:
        return None
    if entry.kind is not EntryKind.FILE:
        return _Untold(entry.kind.name.lower())
    if not entry.stored:
        return _Untold("not stored")
    if entry.size > MAX_TEXT:
        return _Untold("large")
    return _lines(repo, entry.id)


def _lines(repo: Repo, id: ObjectId) -> "list[str] | _Untold":
    try:
        raw = repo.store.read(Kind.BLOB, id)
        text = raw.decode()
    except NotFoundError:
        return _Untold("not stored")
    except UnicodeDecodeError:
        return _Untold("binary")
    if "\0" in text:
        return _Untold("binary")
    # Only the newline ends a line: what else str.splitlines knows stands inside of lines.
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop()[:-1]
    lines += [last] if last else []
    return lines if len(lines) <= MAX_LINES else _Untold("large")


def _unified(path: str, old: list[str] | None, new: list[str] | None) -> Iterator[str]:
    names = (
        "/dev/null" if old is None else f"a/{path}",
        "/dev/null" if new is None else f"b/{path}",
    )
    for line in unified_diff(old or [], new or [], *names):
        if line.endswith("\n"):
            yield line[:-1]
        else:
            yield line
            yield "\\ No newline at end of file"
