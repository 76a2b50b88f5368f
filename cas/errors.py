"""Every error cas raises, grouped by what a caller can do next.

    CasError
    ├── NotFoundError         look elsewhere, or fetch
    │   └── NoRepositoryError   go there, or `cas init`
    ├── ConflictError         read again, then retry
    ├── CorruptionError       run fsck, restore from a remote
    ├── UnsupportedError      use a newer cas
    ├── InvalidInputError     fix the call
    │   ├── AmbiguousError      say which of the candidates is meant
    │   └── UnstorableError     convert the value at `path` first
    ├── RefusedError          something would be lost: look, then say so explicitly
    ├── TrackingError         what went wrong while a run was open, told at its end
    └── BackendError          check the storage; retry when `transient`
        ├── StorageFullError    free space: `cas prune --gc` needs none
        ├── ReadOnlyError       reading commands still work
        └── OutcomeUnknownError look whether `operation` is in the reflog

`code` is a stable slug that scripts match on: codes are added, never renamed.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar


class CasError(Exception):
    """Base of every error raised by cas."""

    code: ClassVar[str] = "error"


class NotFoundError(CasError, LookupError):
    """The named thing is not here."""

    code = "not-found"

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(f"{kind} {name} not found{f': {hint}' if hint else ''}")
        self.kind = kind
        self.name = name


class NoRepositoryError(NotFoundError):
    """There is no repository at or above the place that was named."""

    code = "no-repository"

    def __init__(self, place: str) -> None:
        super().__init__("repository", f"at or above {place}", "`cas init` makes one")


class ConflictError(CasError):
    """Someone else changed the same thing first."""

    code = "conflict"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} changed since it was read")
        self.name = name


class CorruptionError(CasError):
    """Stored bytes contradict their name, their checksum or their format."""

    code = "corruption"


class UnsupportedError(CasError):
    """The data is fine, but this version of cas is too old for it."""

    code = "unsupported"


class InvalidInputError(CasError, ValueError):
    """The call can never work as it was made."""

    code = "invalid-input"


class AmbiguousError(InvalidInputError):
    """A word could mean several things; `candidates` are what it could be."""

    code = "ambiguous"

    def __init__(self, word: str, candidates: Sequence[str]) -> None:
        super().__init__(f"{word} is ambiguous: it could be {', '.join(candidates)}")
        self.word = word
        self.candidates = tuple(candidates)


class UnstorableError(InvalidInputError):
    """A value in a state cannot be stored; `path` says where it stands."""

    code = "unstorable"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot store {path}: {reason}")
        self.path = path
        self.reason = reason


class RefusedError(CasError):
    """The call would lose or overwrite something that nobody said could go."""

    code = "refused"


class TrackingError(CasError):
    """Tracking failed while a run was open; the training loop was not disturbed."""

    code = "tracking"


class BackendError(CasError):
    """The storage underneath failed."""

    code = "backend"

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class StorageFullError(BackendError):
    """No space, inodes or quota are left."""

    code = "storage-full"


class ReadOnlyError(BackendError):
    """The repository cannot be written to."""

    code = "read-only"


class OutcomeUnknownError(BackendError):
    """A sync failed after the root was in place: the operation may or may not last."""

    code = "outcome-unknown"

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(f"outcome of operation {operation} unknown: {reason}")
        self.operation = operation


def no_such(what: str, name: object, known: Iterable[str]) -> InvalidInputError:
    """Return the error that a name is none of those there are, with the one that was meant.

    `what` begins the sentence: `strategy has no`.
    """
    from difflib import get_close_matches

    names = list(known)
    begun = [one for one in names if name and one.startswith(str(name))]
    near = begun[:1] or get_close_matches(str(name), names, n=1)
    meant = f": did you mean {near[0]}?" if near else ""
    return InvalidInputError(f"{what} {name!r}; there are {', '.join(names)}{meant}")
