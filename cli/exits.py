"""Exit codes by category of error, and errors of the operating system as ours."""

import errno
from typing import Final

from cas.errors import (
    AmbiguousError,
    BackendError,
    CasError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    RefusedError,
    StorageFullError,
    TrackingError,
    UnsupportedError,
)

OK: Final = 0
FAILED: Final = 1
DIVERGED: Final = 20
REPRODUCTION_FAILED: Final = 21
INTERNAL: Final = 70
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

# Narrow before wide: the first class that fits decides.
CODES: Final[tuple[tuple[type[CasError], int], ...]] = (
    (AmbiguousError, 4),
    (InvalidInputError, 2),
    (NotFoundError, 3),
    (ConflictError, 5),
    (RefusedError, 6),
    (CorruptionError, 7),
    (UnsupportedError, 8),
    (StorageFullError, 10),
    (ReadOnlyError, 11),
    (BackendError, 9),
    (TrackingError, 12),
)

MEANINGS: Final[tuple[tuple[int, str], ...]] = (
    (0, "done"),
    (1, "some other failure"),
    (2, "a wrong call or bad input"),
    (3, "not found: repository, revision, path or file"),
    (4, "an ambiguous revision"),
    (5, "somebody else changed the same thing first"),
    (6, "refused, because something would be lost"),
    (7, "stored data is damaged"),
    (8, "a newer cas is needed"),
    (9, "the storage failed, or a file cannot be read"),
    (10, "no space left"),
    (11, "the repository cannot be written to"),
    (12, "tracking failed during a run"),
    (20, "a reproduction diverged"),
    (21, "a reproduction could not be carried out"),
    (70, "an internal error"),
    (130, "interrupted"),
)

_FULL = (errno.ENOSPC, errno.EDQUOT)


def code_of(error: CasError) -> int:
    """Return the exit code of an error."""
    if _is_damage(error):
        return 7
    return next((code for kind, code in CODES if isinstance(error, kind)), FAILED)


def advice(error: CasError) -> str:
    """Return what to do about damage, where the error does not say it itself."""
    told = any(word in str(error) for word in ("fsck", "restore"))
    if told or not _is_damage(error):
        return ""
    return ": `cas fsck --full` names all that is damaged, restore that from a copy"


def _is_damage(error: CasError) -> bool:
    # A key is nothing that people name: what has one is listed, and its file is gone.
    lost = isinstance(error, NotFoundError) and error.kind == "key"
    return lost or isinstance(error, CorruptionError)


def from_os(error: OSError) -> CasError:
    """Return an error of the operating system as one of ours."""
    reason = error.strerror or str(error) or type(error).__name__
    name = "" if error.filename is None else printable(error.filename)
    if error.errno in _FULL:
        if name:
            return StorageFullError(f"{name}: no space left: `cas prune --gc` frees some")
        # Without a name it is what a command prints to, which may be anywhere.
        return StorageFullError("no space left where the output goes: free some, then try again")
    if isinstance(error, FileNotFoundError) and name:
        return NotFoundError("file", name)
    return BackendError(f"{name}: {reason}" if name else reason)


def printable(name: object) -> str:
    """Return a file's name as text that any terminal can take."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    raw = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw)
