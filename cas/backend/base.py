"""The storage seam: named byte strings on some medium.

Knows nothing of objects, refs or formats. A key is relative, lower-case ASCII and `/`-separated.
Format: docs/format/backend.md.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from cas.errors import InvalidInputError
from cas.ids import Buffer

MAX_KEY_LENGTH: Final = 200
# First segments that a medium keeps for itself.
TEMPORARY: Final = "tmp"
HINTS: Final = "hints"
RESERVED: Final = frozenset({TEMPORARY, HINTS})

# No segment starts or ends with a dot: `.`, `..`, hidden files and `.nfs…` are never keys.
_SEGMENT: Final = r"[a-z0-9_-](?:[a-z0-9_.-]*[a-z0-9_-])?"
_KEY: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_NAME: Final = re.compile(_SEGMENT)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of bytes inside a value; to the value's end when `length` is None."""

    offset: int
    length: int | None = None

    def __post_init__(self) -> None:
        if self.offset < 0 or (self.length is not None and self.length < 0):
            raise InvalidInputError(f"not a span: {self.length} bytes from {self.offset}")


WHOLE: Final = Span(0)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What is known of a key without reading its value."""

    key: str
    size_bytes: int
    modified: datetime


class Sink(Protocol):
    """One new value, written from front to back by one thread of one process.

    After an error, in whatever method, the value is gone and the sink is of no more use.
    """

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append these buffers, in order."""

    def seal(self) -> None:
        """Make all bytes durable; the name is durable after `Backend.sync`."""

    def discard(self) -> None:
        """Remove what was written; without effect when sealed or discarded before."""


class Backend(Protocol):
    """Named byte strings.

    Every backend promises:

    - a key is created once and its value never changes: a taken key is ConflictError, and of
      several that create one key at the same time exactly one succeeds;
    - `put_new` shows its value whole or not at all, and once it returns, the value is durable and
      every later call sees it; OutcomeUnknownError says that the key may or may not last;
    - a sealed value is seen by every later call, and durable after the next `sync` of its folder;
      whether a value that is not sealed yet can be seen is not promised;
    - it may be used from several threads at once.

    Other failures of the medium are BackendError or a subclass. `tests/contract/backend.py` holds
    each implementation to these promises.
    """

    def create(self, key: str) -> Sink:
        """Start a new value under its final name; raise ConflictError when the key is taken."""

    def put_new(self, key: str, data: Buffer) -> None:
        """Write a whole new value, durably; raise ConflictError when the key is taken."""

    def read(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of each span.

        Raise NotFoundError for a missing key, CorruptionError when the value ends before a span.
        """

    def delete(self, key: str) -> None:
        """Remove the key; a missing key is no error. Durable after `sync` of its folder."""

    def scan(self, prefix: str) -> Iterator[KeyInfo]:
        """Yield the keys that start with `prefix`, in key order, looking at each in its turn."""

    def sync(self, prefix: str) -> None:
        """Make the names directly in this folder durable, `packs/` for instance."""


class Exists(Protocol):
    """A backend that can say whether a key is taken without reading its value."""

    def size(self, key: str) -> int | None:
        """Return the size of the value in bytes; None when there is no such key.

        As sure as a read: what other processes have deleted is not there, over a network too.
        """


@runtime_checkable
class Uncached(Protocol):
    """A backend whose values can be read without a trace in a cache of the system."""

    def uncached(self) -> Backend:
        """Return the same backend for reading much once; nothing is written through it."""


@runtime_checkable
class Holding(Protocol):
    """A backend that holds values open, whose space is not free for as long as it does."""

    def close(self) -> None:
        """Let go of all of them; the next read opens what it needs anew."""


class Hints(Protocol):
    """A backend that can keep small texts which may be stale, lost or nonsense: only to save time.

    Neither method fails when the medium does.
    """

    def read_hint(self, name: str) -> str | None:
        """Return the text last written under `name`, if it is still there."""

    def write_hint(self, name: str, text: str) -> None:
        """Keep the text, replacing an older one; nothing promises that it stays."""


def check_key(key: str) -> str:
    """Return `key`; raise InvalidInputError unless it is one that every backend can hold."""
    if len(key) > MAX_KEY_LENGTH or not _KEY.fullmatch(key):
        raise InvalidInputError(
            f"not a key: {key!r}; keys are lower-case letters, digits, - _ . and /, "
            f"without a dot at either end of a segment, up to {MAX_KEY_LENGTH} characters"
        )
    if key.split("/", 1)[0] in RESERVED:
        raise InvalidInputError(f"not a key: {key!r}; this folder belongs to the backend")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`; raise InvalidInputError unless it is empty or the start of a key."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def check_hint(name: str) -> str:
    """Return `name`; raise InvalidInputError unless it is one segment of a key."""
    if len(name) > MAX_KEY_LENGTH or not _NAME.fullmatch(name):
        raise InvalidInputError(f"not the name of a hint: {name!r}")
    return name
