"""Move files into a repository: they are committed, read back, compared, and only then deleted.

Each file is deleted by itself, when its bytes were read from the published commit, past the page
cache where that can be, and are those that the file has at that moment. Links and what lies outside
of the working folder are refused before anything is written; what changes meanwhile stays.
Format: docs/format/checkout.md.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cas.errors import CasError, CorruptionError, InvalidInputError, NotFoundError, RefusedError
from cas.ids import BlobId, Buffer, TreeId
from cas.objects.node import Node
from cas.objects.tree import Entry, EntryKind, find
from cas.progress import SILENT, Progress
from cas.repo.person import Committed, Told, commit_paths, placed
from cas.repo.repo import Repo
from cas.repo.trees.folder import Folder
from cas.repo.trees.names import LEFT_OUT, MAX_NESTING, shown

NODES: Final = 64  # of the committed trees, kept from one file to the next
CHANGED: Final = "it has changed since it was committed"


@dataclass(frozen=True, slots=True)
class MovePlan:
    """What a move would commit and delete; paths are relative to `base`, `/` between names."""

    base: Path
    paths: tuple[bytes, ...]
    files: tuple[bytes, ...]
    folders: tuple[bytes, ...]
    """Folders, each before the one that it lies in; those that are empty then are deleted too."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did."""

    commit: Committed
    removed: int
    removed_bytes: int
    kept: tuple[tuple[bytes, str], ...]
    """Files that stayed where they are, and why."""


def plan(repo: Repo, paths: Sequence[Path], base: Path) -> MovePlan:
    """Decide what to move; change nothing.

    Raises RefusedError for links, for what lies outside of `base`, for `base` itself and for what
    holds the repository; NotFoundError and InvalidInputError for what cannot be read or is no file.
    """
    wanted = placed(paths, base)
    survey = _Survey()
    top = _opened(base)
    with top:
        for key, place in wanted.items():
            _insist_on_inside(repo, key, place, base)
            *above, name = key.split(b"/")
            with _entered(top, above, key) as folder:
                survey.add(folder, key, name, 0)
    return MovePlan(
        base, tuple(wanted), tuple(survey.files), tuple(survey.folders), survey.size_bytes
    )


def execute(repo: Repo, plan: MovePlan, told: Told, *, progress: Progress = SILENT) -> Moved:
    """Commit what was planned, and delete each file whose bytes are found in the commit.

    Raises what `commit_paths` does, and nothing is deleted then. What is deleted can be read from
    the commit; whatever cannot be told to be there stays, with the reason in the result.
    """
    places = [plan.base / os.fsdecode(path) for path in plan.paths]
    committed = commit_paths(repo, places, plan.base, told, progress=progress)
    repo.refresh()
    payload = repo.commit(committed.id).payload
    if payload is None:
        raise CorruptionError(f"the payload of {committed.id.short} is missing: `cas fsck`")
    store, read = repo.store.for_bulk(), lru_cache(NODES)(repo.node)
    removed, size = 0, 0
    kept: list[tuple[bytes, str]] = []
    progress.start("read", plan.size_bytes)
    with _opened(plan.base) as top:
        for path in plan.files:
            try:
                entry = _committed(read, payload, path)
                _remove(store.pieces(BlobId(entry.id)), top, path, progress)
                size += entry.size
                removed += 1
            except CasError as error:
                kept.append((path, str(error)))
        for path in plan.folders:
            *above, name = path.split(b"/")
            with suppress(CasError), _entered(top, above, path) as folder:
                folder.clear_folder(name)
    progress.finish()
    return Moved(committed, removed, size, tuple(kept))


def _committed(read: Callable[[TreeId], Node], tree: TreeId, path: bytes) -> Entry:
    """Return the entry of a file in the commit; raise RefusedError when it is no file there."""
    *above, last = path.split(b"/")
    for name in above:
        tree = TreeId(_of_kind(find(tree, name, read), EntryKind.TREE).id)
    return _of_kind(find(tree, last, read), EntryKind.FILE)


def _of_kind(entry: Entry | None, kind: EntryKind) -> Entry:
    if entry is None or entry.kind is not kind or not entry.stored:
        raise RefusedError(CHANGED)
    return entry


def _remove(stored: Iterator[Buffer], top: Folder, path: bytes, progress: Progress) -> None:
    """Delete a file if it holds what is stored; raise CasError when it has to stay."""

    def told() -> Iterator[Buffer]:
        for piece in stored:
            yield piece
            progress.advance(len(piece))

    *above, name = path.split(b"/")
    with _entered(top, above, path) as folder:
        if not folder.remove_same(name, told()):
            raise RefusedError(CHANGED)


class _Survey:
    """What there is to move."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.folders: list[bytes] = []
        self.size_bytes = 0

    def add(self, folder: Folder, path: bytes, name: bytes, level: int) -> None:
        """Look at what is at a name in a folder, and at all below it."""
        found = folder.look(name)
        if found is None:
            raise NotFoundError("file", os.fsdecode(path))
        if stat.S_ISREG(found.st_mode):
            self.files.append(path)
            self.size_bytes += found.st_size
            return
        if stat.S_ISLNK(found.st_mode):
            raise _link(path)
        if not stat.S_ISDIR(found.st_mode):
            raise InvalidInputError(f"{shown(path)} is neither a file nor a folder")
        if level > MAX_NESTING:
            raise InvalidInputError(f"{shown(path)} is nested more than {MAX_NESTING} deep")
        with folder.enter(name) as inner:
            for below in sorted(inner.names() - LEFT_OUT):
                self.add(inner, path + b"/" + below, below, level + 1)
        self.folders.append(path)


def _insist_on_inside(repo: Repo, key: bytes, place: Path, base: Path) -> None:
    """Insist that a path lies below the working folder, and that the repository is not in it."""
    if not key:
        raise RefusedError("the working folder itself cannot be moved: name what is in it")
    if Path(os.path.abspath(base)) not in place.parents:
        raise RefusedError(f"{shown(os.fsencode(place))} lies outside of the working folder")
    if not LEFT_OUT.isdisjoint(key.split(b"/")):
        raise RefusedError(f"{shown(key)} belongs to cas or git: it cannot be moved")
    real, own = place.resolve(), repo.path.resolve()
    if own.is_relative_to(real) or real.is_relative_to(own):
        raise RefusedError(f"{shown(key)} holds the repository itself: it cannot be moved")


def _opened(base: Path) -> Folder:
    folder = Folder.open(base)
    if folder is None:
        raise NotFoundError("folder", str(base))
    return folder


@contextmanager
def _entered(top: Folder, above: Sequence[bytes], path: bytes) -> Iterator[Folder]:
    """Open the folder that a path lies in, by name from the top, never through a link."""
    with ExitStack() as stack:
        folder = top
        for name in above:
            found = folder.look(name)
            if found is None:
                raise NotFoundError("file", os.fsdecode(path))
            if stat.S_ISLNK(found.st_mode):
                raise _link(folder.below(name))
            folder = stack.enter_context(folder.enter(name))
        yield folder


def _link(path: bytes) -> RefusedError:
    return RefusedError(f"{shown(path)} is a link: only files are moved, so name others")
