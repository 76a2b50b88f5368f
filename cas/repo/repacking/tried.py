"""What a repack has tried in vain, so that the next one need not: a file that may be deleted.

For each piece with its possible bases, 16 bytes of a digest. Format: docs/format/layout.md.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from cas.backend.files import OPS, FileOps
from cas.backend.wholefile import replace_file
from cas.errors import BackendError, CorruptionError, NotFoundError
from cas.ids import BlobId, digest
from cas.repo.layout import CACHE
from cas.repo.root import envelope, opened

NAME: Final = "repack"
MAGIC: Final = b"CAST"
SIZE: Final = 16
MOST: Final = 1 << 30  # bytes of a file that is read


class Tried:
    """A set of pieces that stay as they are, whatever the bases that are known for them."""

    def __init__(self, repo: Path, known: Iterable[bytes] = (), *, ops: FileOps = OPS) -> None:
        self._repo = repo
        self._ops = ops
        self._known = set(known)
        self._changed = False

    @classmethod
    def read(cls, repo: Path, *, ops: FileOps = OPS) -> Self:
        """Return what is noted down in a repository; a damaged file is as good as none."""
        path = repo / CACHE / NAME
        with suppress(OSError, CorruptionError):
            if path.stat().st_size <= MOST:
                body, _ = opened(path.read_bytes(), MAGIC, NAME)
                known = (body[at : at + SIZE] for at in range(0, len(body), SIZE))
                return cls(repo, known, ops=ops)
        return cls(repo, ops=ops)

    def knows(self, piece: BlobId, bases: Iterable[BlobId], *, smallest: bool) -> bool:
        """Say whether a piece with these bases was tried in vain."""
        return bool(self._known) and _key(piece, bases, smallest=smallest) in self._known

    def add(self, piece: BlobId, bases: Iterable[BlobId], *, smallest: bool) -> None:
        """Note down that a piece with these bases stays as it is."""
        self._known.add(_key(piece, bases, smallest=smallest))
        self._changed = True

    def write(self) -> None:
        """Write the file when something was added; where it cannot be, it is done without."""
        if not self._changed:
            return
        with suppress(BackendError, NotFoundError):
            raw = envelope(MAGIC, b"".join(sorted(self._known)))
            replace_file(self._repo, f"{CACHE}/{NAME}", raw, ops=self._ops, durable=False)
            self._changed = False


def _key(piece: BlobId, bases: Iterable[BlobId], *, smallest: bool) -> bytes:
    return digest(b"smallest" if smallest else b"default", piece, *bases, size=SIZE)
