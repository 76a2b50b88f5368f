"""The reflog: every operation that is still on record, as the roots tell it, newest first.

The number of an operation is that of the root that it made. Each root names the digest of the one
that it follows, so the newest vouches for all before it. Nothing but roots is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from string import hexdigits
from typing import Final

from cas.errors import AmbiguousError, CorruptionError, NotFoundError
from cas.repo import layout
from cas.repo import root as roots
from cas.repo.repo import Repo
from cas.repo.revision import ALIASES, ROOMS
from cas.repo.root import Operation, RefChange

MIN_ID: Final = 4
SHORT: Final = 10  # digits of an id
MAX_DIGITS: Final = 16  # of a root's number
EVERYWHERE: Final = (*ROOMS, layout.OPEN, layout.HOLDS, layout.ARCHIVED)


@dataclass(frozen=True, slots=True)
class Past:
    """One operation; `vouched` unless the chain of roots leads past it."""

    number: int
    operation: Operation
    changes: tuple[RefChange, ...]
    vouched: bool

    @property
    def id(self) -> str:
        """The operation's id, as errors and JSON have it."""
        return self.operation.id.hex()


def history(repo: Repo) -> Iterator[Past]:
    """Yield every operation that is on record, newest first; raise CorruptionError.

    One that the chain leads past is damaged, or what a copy had and this repository never went on
    from. Older ones that gc has taken are simply not there.
    """
    newest = repo.refresh()
    trunk, number = newest.check, newest.seq
    while number:
        try:
            file = roots.read_file(repo.backend, number)
            previous, past = file.raw["previous"], (number, file.operation, file.changes)
        except NotFoundError:
            number = _below(repo, number)
            continue
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptionError(f"root {number} does not have the fields of a root") from error
        vouched = file.check == trunk
        yield Past(*past, vouched)
        if vouched:
            trunk = previous
        number -= 1


def find(repo: Repo, word: str) -> Past:
    """Return the operation with this number, or with an id that begins so.

    Raises NotFoundError and AmbiguousError.
    """
    hint = "`cas reflog` lists them"
    if word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS:
        found = next((past for past in history(repo) if past.number <= int(word)), None)
        if found is not None and found.number == int(word):
            return found
    if len(word) < MIN_ID or not set(word) <= set(hexdigits):
        raise NotFoundError("operation", word, hint)
    meant = [past for past in history(repo) if past.id.startswith(word.lower())]
    if not meant:
        raise NotFoundError("operation", word, hint)
    if len({past.id for past in meant}) > 1:
        raise AmbiguousError(word, [f"operation {past.number} ({past.id})" for past in meant])
    return meant[0]


def names(word: str) -> frozenset[str]:
    """Return every ref that a word may stand for, whether there is one or not."""
    name = ALIASES.get(word, word).removeprefix("refs/")
    return frozenset(room + name for room in EVERYWHERE)


def shown(ref: str) -> str:
    """Return a ref as people read it: a hold's id in short."""
    room = layout.HOLDS
    return ref[: len(room) + SHORT] if ref.startswith(room) else ref


def _below(repo: Repo, number: int) -> int:
    """Return the number of the next older root that is there, 0 when there is none."""
    return max((seq for seq in roots.numbers(repo.backend) if seq < number), default=0)
