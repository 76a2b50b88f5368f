"""Objects into files: a tree is written into a folder, which becomes what was stored.

Nothing is written outside the folder: every name is checked, and everything is reached through open
directories, never through a link. A stored link comes back as it was, wherever it leads; making it
writes nothing there, and nothing is written through it afterwards. What is there already is never
changed without `force`: neither its bytes nor its permission bits.
Format: docs/format/checkout.md.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from cas.errors import (
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    StorageFullError,
)
from cas.ids import BlobId, TreeId
from cas.objects.tree import Entry, EntryKind
from cas.plain import few, human_bytes
from cas.progress import SILENT, Progress
from cas.repo.repo import Repo
from cas.repo.trees.filewriter import FileWriter
from cas.repo.trees.folder import Folder, write_at
from cas.repo.trees.names import MAX_NESTING, refusal, shown

MAX_ENTRIES: Final = 20_000_000  # a few nodes can name more files than any disk holds
NAMED_IN_MESSAGE: Final = 3
LARGE: Final = 1024 * 1024  # from here on files are read and written past the page cache


@dataclass(frozen=True, slots=True)
class CheckoutPlan:
    """What a checkout would do; paths are relative to `target`, `/` between names."""

    target: Path
    what: Entry | TreeId
    write: tuple[bytes, ...]
    """Files and links to write, and folders to make."""
    equal: frozenset[bytes]
    """Files and links that are there already, byte for byte."""
    modes: tuple[bytes, ...]
    """What has other permission bits, which only `force` changes."""
    conflicts: tuple[bytes, ...]
    """What is there and differs, which only `force` overwrites."""
    states: int
    """States and series, which have no file form: `cas.load` gives them."""
    named: tuple[bytes, ...]
    """What was only named when it was stored: there is nothing to write."""
    size_bytes: int
    """How much would be written, conflicts included."""
    growth_bytes: int
    """How much more would be there afterwards."""


def plan(
    repo: Repo, what: Entry | TreeId, target: Path, *, max_entries: int = MAX_ENTRIES
) -> CheckoutPlan:
    """Decide what to write; change nothing.

    A directory's contents go into the folder `target`, a file or a link goes there under its own
    name. Raises InvalidInputError for names that would leave it, and for a single state.
    """
    if target.absolute().resolve().is_relative_to(repo.path.absolute().resolve()):
        raise InvalidInputError(f"{target} is inside the repository itself: name another place")
    survey = _Survey(repo, max_entries)
    folder = Folder.open(target)
    try:
        survey.folder(folder, b"", _top(repo, what), 0)
    finally:
        if folder is not None:
            folder.close()
    return CheckoutPlan(
        target=target,
        what=what,
        write=tuple(survey.write),
        equal=frozenset(survey.equal),
        modes=tuple(survey.modes),
        conflicts=tuple(survey.conflicts),
        states=survey.states,
        named=tuple(survey.named),
        size_bytes=survey.size_bytes,
        growth_bytes=survey.growth_bytes,
    )


def execute(
    repo: Repo, planned: CheckoutPlan, *, force: bool = False, progress: Progress = SILENT
) -> None:
    """Write what the plan says; with `force`, also over what differs.

    Raises RefusedError before anything is written when something differs and `force` is not given,
    and StorageFullError when it would not fit. What was written when an error comes stays, each
    file whole.
    """
    if planned.conflicts and not force:
        raise RefusedError(_differs(planned))
    _check_room(planned)
    new = not os.path.lexists(planned.target)
    progress.start("write files", planned.size_bytes)
    with Folder.create(planned.target) as folder:
        _Checkout(repo, planned, force, progress).fill(folder, b"", _top(repo, planned.what))
        if new and isinstance(planned.what, Entry) and planned.what.kind is EntryKind.TREE:
            folder.set_mode(planned.what.mode)
    progress.finish()


@dataclass(slots=True)
class _Survey:
    """One walk over a tree, beside the folder that it would be written to."""

    repo: Repo
    left: int
    write: list[bytes] = field(default_factory=list)
    equal: set[bytes] = field(default_factory=set)
    modes: list[bytes] = field(default_factory=list)
    conflicts: list[bytes] = field(default_factory=list)
    named: list[bytes] = field(default_factory=list)
    states: int = 0
    size_bytes: int = 0
    growth_bytes: int = 0

    def folder(
        self, folder: Folder | None, path: bytes, entries: Iterable[Entry], depth: int
    ) -> None:
        """Look at one directory; `folder` is None where there is none yet."""
        if depth > MAX_NESTING:
            raise InvalidInputError(f"{shown(path)} is nested more than {MAX_NESTING} folders deep")
        for entry in entries:
            self.left -= 1
            if self.left < 0:
                raise InvalidInputError("the tree has more entries than a checkout writes")
            inner = _inner(path, entry.name)
            if not entry.stored:
                self.named.append(inner)
            elif entry.kind is EntryKind.TREE:
                self.directory(folder, inner, entry, depth)
            elif entry.kind in {EntryKind.FILE, EntryKind.LINK}:
                self.leaf(folder, inner, entry)
            else:
                self.states += 1

    def directory(self, folder: Folder | None, path: bytes, entry: Entry, depth: int) -> None:
        """Look at one directory in another."""
        found = folder.look(entry.name) if folder else None
        entries = self.repo.entries(entry.id)
        if folder is not None and found is not None and stat.S_ISDIR(found.st_mode):
            self.mode(path, entry, found)
            with folder.enter(entry.name) as below:
                self.folder(below, path, entries, depth + 1)
            return
        (self.write if found is None else self.conflicts).append(path)
        self.folder(None, path, entries, depth + 1)

    def leaf(self, folder: Folder | None, path: bytes, entry: Entry) -> None:
        """Look at one file or link."""
        found = folder.look(entry.name) if folder else None
        if folder is not None and found is not None and _equal(folder, entry, found):
            self.equal.add(path)
            self.mode(path, entry, found)
            return
        (self.write if found is None else self.conflicts).append(path)
        if entry.kind is EntryKind.FILE:
            self.size_bytes += entry.size
            is_file = found is not None and stat.S_ISREG(found.st_mode)
            self.growth_bytes += entry.size - (found.st_size if found and is_file else 0)
            place = self.repo.store.find(entry.id)
            if place is None:
                raise NotFoundError("data of", shown(path), "it was pruned, or is elsewhere")
            # What is stored as a few bytes may be far more than its tree says.
            if place.row.size != entry.size:
                raise _odd_size(path, place.row.size, entry)

    def mode(self, path: bytes, entry: Entry, found: os.stat_result) -> None:
        """Note other permission bits."""
        if entry.kind is not EntryKind.LINK and stat.S_IMODE(found.st_mode) != entry.mode:
            self.modes.append(path)


class _Checkout:
    """One walk that writes."""

    def __init__(self, repo: Repo, planned: CheckoutPlan, force: bool, progress: Progress) -> None:
        self._repo = repo
        self._bulk = repo.store.for_bulk()
        self._equal = planned.equal
        self._conflicts = frozenset(planned.conflicts)
        self._modes = frozenset(planned.modes) if force else frozenset()
        self._progress = progress

    def fill(self, folder: Folder, path: bytes, entries: Iterable[Entry]) -> None:
        """Write one directory: files and directories first, then links."""
        made: list[bytes] = []
        links: list[Entry] = []
        for entry in entries:
            if not entry.stored:
                continue
            if entry.kind is EntryKind.LINK:
                links.append(entry)
            elif entry.kind is EntryKind.FILE:
                self._file(folder, _inner(path, entry.name), entry)
            elif entry.kind is EntryKind.TREE:
                self._directory(folder, _inner(path, entry.name), entry)
            else:
                continue
            made.append(entry.name)
        for entry in links:
            self._link(folder, _inner(path, entry.name), entry)
        _check_names(folder, made)

    def _file(self, folder: Folder, path: bytes, entry: Entry) -> None:
        if path in self._equal:
            if path in self._modes:
                folder.set_mode_of(entry.name, entry.mode)
            return
        replace = self._clear(folder, path, entry.name)
        fill = partial(self._fill_file, path, entry)
        folder.write(entry.name, fill, mode=entry.mode, replace=replace)

    def _link(self, folder: Folder, path: bytes, entry: Entry) -> None:
        assert entry.link is not None
        if path not in self._equal:
            replace = self._clear(folder, path, entry.name)
            folder.link(entry.name, entry.link, replace=replace)

    def _directory(self, folder: Folder, path: bytes, entry: Entry) -> None:
        if path in self._conflicts:
            folder.clear(entry.name)
        new = folder.look(entry.name) is None
        with folder.make(entry.name) if new else folder.enter(entry.name) as below:
            self.fill(below, path, self._repo.entries(entry.id))
            if new or path in self._modes:
                below.set_mode(entry.mode)

    def _clear(self, folder: Folder, path: bytes, name: bytes) -> bool:
        """Make way for a file or link; say whether it replaces another."""
        if path not in self._conflicts:
            return False
        found = folder.look(name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            folder.clear(name)
            return False
        return True

    def _fill_file(self, path: bytes, entry: Entry, fd: int) -> None:
        size = 0
        for count in self._filled(BlobId(entry.id), entry.size, fd):
            size += count
            self._progress.advance(count)
        if size != entry.size:
            raise _odd_size(path, size, entry)

    def _filled(self, id: BlobId, size: int, fd: int) -> Iterator[int]:
        """Write a blob to a file; yield how many bytes are done since the last time."""
        if size < LARGE:
            at = 0
            for piece in self._repo.store.pieces(id):
                write_at(fd, piece, at)
                at += len(piece)
            yield at
            return
        with FileWriter(fd) as file:
            for count in self._bulk.pour(id, file.room):
                file.filled(count)
                yield count
            file.finish()


def _top(repo: Repo, what: Entry | TreeId) -> Iterable[Entry]:
    """Return the entries that go into the target itself."""
    if not isinstance(what, Entry):
        return repo.entries(what)
    name = shown(what.name)
    if not what.stored:
        raise NotFoundError("data of", name, "only its fingerprint was recorded")
    match what.kind:
        case EntryKind.TREE:
            return repo.entries(what.id)
        case EntryKind.FILE | EntryKind.LINK:
            return (what,)
    raise InvalidInputError(
        f"{name} is a {what.kind.name.lower()}, which has no file form: "
        "read it with `cas.load` or `run.load_checkpoint`"
    )


def _inner(path: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory; raise InvalidInputError when it is refused."""
    inner = path + b"/" + name if path else name
    reason = refusal(name)
    if reason is not None:
        raise InvalidInputError(f"cannot write {shown(inner)}: {reason}")
    return inner


def _equal(folder: Folder, entry: Entry, found: os.stat_result) -> bool:
    if entry.kind is EntryKind.LINK:
        return stat.S_ISLNK(found.st_mode) and folder.read_link(entry.name) == entry.link
    same = stat.S_ISREG(found.st_mode) and found.st_size == entry.size
    return same and folder.hash(entry.name) == entry.id


def _check_names(folder: Folder, made: list[bytes]) -> None:
    """Insist that the file system holds every name as it was given."""
    there = folder.names() if made else set[bytes]()
    for name in made:
        if name not in there:
            raise InvalidInputError(
                f"the file system keeps {shown(folder.below(name))} under another name, or as one "
                "with another file: check out to another file system"
            )


def _odd_size(path: bytes, size: int, entry: Entry) -> CorruptionError:
    return CorruptionError(
        f"{shown(path)} has {size} bytes where its tree says {entry.size}: run fsck"
    )


def _check_room(planned: CheckoutPlan) -> None:
    """Insist that there is room for what would be written, where that can be told."""
    target = planned.target.absolute()
    try:
        found = os.statvfs(next(place for place in (target, *target.parents) if place.exists()))
    except OSError:
        return
    free = found.f_bavail * found.f_frsize
    if found.f_blocks and planned.growth_bytes > free:
        raise StorageFullError(
            f"{planned.target} would grow by {human_bytes(planned.growth_bytes)}, and its disk has "
            f"{human_bytes(free)} free: nothing was written; name a place with more room"
        )


def _differs(planned: CheckoutPlan) -> str:
    names = few([shown(path) for path in planned.conflicts], NAMED_IN_MESSAGE)
    verb = "differs" if len(planned.conflicts) == 1 else "differ"
    return (
        f"{names} in {planned.target} {verb} from what would be written: "
        "move it away, or say --force to overwrite"
    )
