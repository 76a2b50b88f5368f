"""A repository: a store, its roots and refs, under one backend.

Opening reads one small file; everything else is read when it is asked for.
Format: docs/format/layout.md.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cas.backend.base import Span
from cas.backend.files import OPS, FileOps
from cas.backend.local import LocalBackend, create_local
from cas.errors import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NoRepositoryError,
    NotFoundError,
    RefusedError,
    UnsupportedError,
)
from cas.ids import CommitId, ManifestId, ObjectId, TreeId, digest
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.plain import few
from cas.repo import root as roots
from cas.repo.check import copied
from cas.repo.check.copied import Skipped
from cas.repo.layout import FORMAT
from cas.repo.root import FIRST_PREVIOUS, Operation, Root
from cas.store.packed import PackedStore

if TYPE_CHECKING:
    from cas.objects.manifest import Manifest
    from cas.objects.tree import Entry, Node

VERSION: Final = 1
FEATURES: Final = frozenset[str]()
HEAD_LINE: Final = "cas repository"
FIRST: Final = re.compile(rb"cas repository\nversion (?P<version>[1-9][0-9]{0,8})\n")
LINES: Final = re.compile(
    FIRST.pattern + rb"requires(?P<requires>(?: [a-z0-9-]+)*)\nid [0-9a-f]{32}\n"
)
HINT: Final = "root"
LOST: Final = "lost"  # a root that was the newest, and whose number was free again
LOOKS: Final = 5  # at a folder that others write to meanwhile
SHOWN: Final = 3  # roots that a warning names


class Repo:
    """An open repository."""

    def __init__(
        self, path: Path, *, who: str, clock: Callable[[], int], ops: FileOps = OPS
    ) -> None:
        """Take an existing repository; `clock` returns microseconds since the epoch."""
        self.path = path
        self.who = who
        self.clock = clock
        self.ops = ops  # through which all that is written to the repository's folder goes
        self.backend = LocalBackend(path, ops=ops)
        self.tell: Callable[[str], None] = _warn  # of what a reader should know
        self.skipped: tuple[Skipped, ...] = ()  # newer roots of which not everything is here
        self._root: Root | None = None
        self._seen = 0  # the highest number of a root that is known to have been here
        self._missing = 0  # such a number, when the newest root that was found was a lower one
        self.store = PackedStore(self.backend, lambda: self.refresh().packs)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        who: str = "",
        clock: Callable[[], int] = lambda: 0,
        ops: FileOps = OPS,
    ) -> Self:
        """Open the repository in `path`; raise NoRepositoryError or UnsupportedError."""
        repo = cls(path, who=who, clock=clock, ops=ops)
        try:
            (raw,) = repo.backend.read(FORMAT, [Span(0, None)])
        except NotFoundError:
            raise NoRepositoryError(str(path)) from None
        check_format(raw, str(path))
        return repo

    @classmethod
    def create(cls, path: Path, *, who: str, clock: Callable[[], int], ops: FileOps = OPS) -> Self:
        """Make a new repository in `path`; raise ConflictError when there is one already."""
        if (path / FORMAT).exists():
            raise ConflictError(f"repository {path}")
        create_local(path, ops=ops).close()
        repo = cls(path, who=who, clock=clock, ops=ops)
        operation = Operation(os.urandom(16), who, "init", clock())
        first = Root(seq=1, previous=FIRST_PREVIOUS, operation=operation)
        # The format file comes last: with it the folder is a repository, and has its first root,
        # which may also be that of somebody who did not come further.
        with suppress(ConflictError):
            repo._root = roots.publish(repo.backend, first, os.urandom(16))
        lines = (HEAD_LINE, f"version {VERSION}", "requires", f"id {os.urandom(16).hex()}")
        text = "".join(f"{line}\n" for line in lines).encode()
        repo.backend.put_new(FORMAT, text + _check_line(text))
        copied.settle_in(repo)
        return repo

    @property
    def root(self) -> Root:
        """The newest root that this handle has seen."""
        return self._root or self.refresh()

    def refresh(self) -> Root:
        """Return the newest root there is."""
        if self._root is None and not copied.is_home(self):
            self._root = self._first_seen()
        else:
            hint = 0 if self._root else self.hinted()
            # Of the moment before: another thread may find the root that this one is publishing.
            seen = self._seen = max(self._seen, hint, self._root.seq if self._root else 0)
            newest = roots.newest(self.backend, hint, self._root)
            self._missing = seen if seen > newest.seq else 0
            if not self.skipped or newest.seq > self.skipped[0].seq:
                self._root, self.skipped = newest, ()
        assert self._root is not None
        return self._root

    def _first_seen(self) -> Root:
        """Return the newest root in a folder that may be a copy: one of which everything is here.

        Others may write meanwhile, or collect packs: then it is looked at again.
        """
        for _ in range(LOOKS):
            found, skipped = copied.newest_whole(self.backend)
            if found is None:
                break
            if not skipped:
                # Its hint may have been copied later than its roots: that is no root that is lost.
                self.backend.write_hint(HINT, str(found.seq))
                copied.settle_in(self)
                return found
            if not roots.exists(self.backend, skipped[0].seq + 1):
                self.skipped = tuple(skipped)
                self.tell(
                    f"this copy was taken while others wrote: it opens at root {found.seq}; "
                    f"not whole: {few([str(one) for one in skipped], SHOWN)}"
                )
                return found
        return roots.newest(self.backend, self.hinted())

    def check_whole(self) -> None:
        """Insist that this is no copy of which newer roots are passed over; raise RefusedError."""
        root = self.root
        if self.skipped:
            raise RefusedError(
                f"this copy was taken while others wrote, and root {root.seq} is its newest whole "
                "one: `cas fsck --repair` goes on from there with all that came; then write"
            )

    def settled(self, root: Root) -> None:
        """Take a root that makes such a copy whole."""
        self.skipped = ()
        self.adopt(root)
        copied.settle_in(self)

    def hinted(self) -> int:
        """Return the number of the newest root that anybody noted down, 0 for none."""
        return _number(self.backend.read_hint(HINT))

    def lost(self) -> int:
        """Return the number of a root that was the newest one once and is gone, 0 for none.

        That its number was noted down is a doubt only: a file server may answer from memory. It is
        sure, and noted down for good, once that number could be taken anew.
        """
        self.refresh()
        seen = max(self._seen, self.hinted())  # before the newest: others publish meanwhile
        if seen > self.refresh().seq and not self.skipped:
            return seen
        return _number(self.backend.read_hint(LOST))

    def lost_no_more(self) -> None:
        """Forget of a root that is gone: somebody has said that it is given up."""
        self._seen = self._missing = 0
        self.backend.write_hint(LOST, "")

    def adopt(self, root: Root) -> None:
        """Take a root that this handle has just published as the newest."""
        if self._missing >= root.seq:
            self.backend.write_hint(LOST, str(self._missing))
        self._seen, self._missing = root.seq, 0
        self._root = root
        self.backend.write_hint(HINT, str(root.seq))

    def commit(self, id: CommitId) -> Commit:
        """Return a commit; raise NotFoundError."""
        return Commit.from_bytes(self.store.read(Kind.COMMIT, id))

    def node(self, id: TreeId) -> "Node":
        """Return one node of a tree; raise NotFoundError."""
        from cas.objects.tree import Node

        return Node.from_bytes(self.store.read(Kind.TREE, id))

    def manifest(self, id: ManifestId) -> "Manifest":
        """Return a manifest; raise NotFoundError."""
        from cas.objects.manifest import manifest_from_bytes

        return manifest_from_bytes(self.store.read(Kind.MANIFEST, id))

    def entries(self, tree: ObjectId) -> Iterator["Entry"]:
        """Yield the entries of one directory, in order."""
        from cas.objects.tree import scan

        return scan(TreeId(tree), self.node)

    def lookup(self, tree: ObjectId, path: bytes) -> "Entry | None":
        """Return the entry at a `/`-separated path below a directory, if it is there."""
        from cas.objects.tree import EntryKind, find

        entry = None
        for name in path.strip(b"/").split(b"/"):
            if entry is not None:
                if entry.kind is not EntryKind.TREE or not entry.stored:
                    return None
                tree = entry.id
            entry = find(TreeId(tree), name, self.node)
            if entry is None:
                return None
        return entry

    def document(self, tree: ObjectId, path: str) -> object:
        """Return the JSON document at a path below a directory, None when there is none."""
        from cas.objects.document import check_size, read_document

        entry = self.lookup(tree, path.encode())
        if entry is None or not entry.stored:
            return None
        if (place := self.store.find(entry.id)) is not None:
            check_size(place.row.size)
        return read_document(self.store.read(Kind.BLOB, entry.id))


def check_format(raw: bytes, place: str) -> None:
    """Insist that the format file is one that this version can work with."""
    first = FIRST.match(raw)
    # Of a later format nobody knows what else its lines may say.
    if first is not None and (number := int(first["version"])) > VERSION:
        raise UnsupportedError(
            f"repository {place} has format {number}; this cas knows up to {VERSION}: upgrade cas"
        )
    found = LINES.match(raw)
    damaged = CorruptionError(f"{place}/{FORMAT} is damaged: restore it from a copy")
    if found is None:
        raise damaged
    missing = set(found["requires"].decode().split()) - FEATURES
    if missing:
        raise UnsupportedError(
            f"repository {place} requires {', '.join(sorted(missing))}: upgrade cas"
        )
    *lines, last = raw.splitlines(keepends=True)
    # The first repositories have four lines and no check.
    if len(lines) > 3 and last != _check_line(b"".join(lines)):
        raise damaged


def _warn(message: str) -> None:
    import warnings

    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _check_line(text: bytes) -> bytes:
    return b"check %s\n" % digest(text, size=8).hex().encode()


def check_ref(name: str) -> str:
    """Return a ref's name; raise InvalidInputError when it cannot be one."""
    parts = name.split("/")
    bad = any(not part or part.startswith((".", "-")) or ".." in part for part in parts)
    if bad or len(name) > 400 or any(c in "@~^: \\" or not c.isprintable() for c in name):
        raise InvalidInputError(
            f"{name!r} cannot be a name: letters, digits, '.', '_', '-' in parts between '/'"
        )
    return name


def _number(hint: str | None) -> int:
    return int(hint) if hint and hint.isascii() and hint.isdigit() and len(hint) < 20 else 0
