"""Refs that are not where the operations on record have left them.

Nothing of cas moves a ref without saying so in its root. Where one is gone nevertheless, gc would
take for dead what it kept: so gc asks first, from the last collection on, and fsck at every root.
Format: docs/format/ordering.md.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cas.errors import CorruptionError, NotFoundError, RefusedError
from cas.ids import CommitId
from cas.plain import few
from cas.repo import root as roots
from cas.repo.collect.gctidy import last_collection
from cas.repo.layout import root_key
from cas.repo.refs import Refs
from cas.repo.repo import Repo
from cas.repo.root import RefChange, Root

NAMED: Final = 3
GC: Final = "gc"
LOOKED: Final = 1000  # roots that are read to find the last collection where nothing is noted down
Moves = Mapping[str, CommitId | None]


@dataclass(frozen=True, slots=True)
class Vanished:
    """A ref that root `seq` and the operations since have left at `was`, and that is not there."""

    name: str
    was: CommitId
    seq: int

    def __str__(self) -> str:
        return f"{self.name} (commit {self.was.short})"


def check(repo: Repo, root: Root, before: Root | None = None) -> None:
    """Insist that every ref is where `before` and the operations since have left it.

    Without `before` it is the root at which a collection last ended, or else the oldest one of the
    last thousand. Raises RefusedError, which names those that are not, and where the newest root
    of all is gone.
    """
    if lost := repo.lost():
        raise RefusedError(
            f"nothing is collected: root {lost} was the newest, and is gone: restore "
            f"{root_key(lost)} from a copy, or bring back what can be with `cas fsck --repair`"
        )
    before = _last_collected(repo, root) if before is None else before
    if before is None or before.seq >= root.seq:
        return
    moves: dict[str, CommitId | None] = {}
    unread = 0
    for seq in range(root.seq, before.seq, -1):
        try:
            changes = roots.read_file(repo.backend, seq).changes
        except (CorruptionError, NotFoundError):
            unread = seq
            continue
        for change in changes:
            moves.setdefault(change.name, change.new)  # the newest counts
    found = list(unaccounted(before, root, moves))
    if found:
        raise _refused(found, unread)


def unaccounted(before: Root, root: Root, moves: Moves) -> Iterator[Vanished]:
    """Yield the refs of `before`, as `moves` have left them since, that `root` has not."""
    for name in _differing(before.refs, root.refs) | moves.keys():
        should = moves[name] if name in moves else before.refs.get(name)
        if should is not None and root.refs.get(name) != should:
            yield Vanished(name, should, before.seq)


class Watch:
    """Goes over roots in order, and remembers what no operation on the way accounts for."""

    def __init__(self) -> None:
        self._known: dict[str, Vanished] = {}

    @property
    def found(self) -> list[Vanished]:
        """The refs that are not where they should be, as of the last root, by name."""
        return [one for _, one in sorted(self._known.items())]

    def step(self, before: Root | None, root: Root) -> None:
        """Look at a root and at the one that it follows; None where that cannot be read."""
        moves = {change.name: change.new for change in root.changes}
        for name in list(self._known):
            if name in moves or root.refs.get(name) == self._known[name].was:
                del self._known[name]
        if before is not None:
            self._known |= {one.name: one for one in unaccounted(before, root, moves)}


def accounted(found: Iterable[Vanished], root: Root) -> tuple[RefChange, ...]:
    """Return the changes with which an operation says that these refs are right as they are."""
    return tuple(RefChange(one.name, one.was, root.refs.get(one.name)) for one in found)


def _differing(old: Mapping[str, CommitId], new: Mapping[str, CommitId]) -> set[str]:
    """Return the names in `old` that may be elsewhere in `new`."""
    if isinstance(old, Refs) and isinstance(new, Refs) and old.table is new.table:
        return {name for name, _ in old.moved.items() ^ new.moved.items()}
    return {name for name, _ in old.items() - new.items()}


def _last_collected(repo: Repo, root: Root) -> Root | None:
    """Return the root at which a collection last ended, an older one where that is not known."""
    try:
        return roots.read(repo.backend, last_collection(repo).root or _begun(repo, root), root)
    except (CorruptionError, NotFoundError):
        return None  # fsck tells of it


def _begun(repo: Repo, root: Root) -> int:
    """Return the number of the newest root that a collection made, or of the oldest looked at."""
    found = root.seq
    for seq in range(root.seq - 1, max(root.seq - LOOKED, 0), -1):
        try:
            file = roots.read_file(repo.backend, seq)
        except NotFoundError:
            break
        except CorruptionError:
            continue
        found = seq
        if file.operation.what == GC:
            break
    return found


def _refused(found: Collection[Vanished], unread: int) -> RefusedError:
    told = few([str(one) for one in sorted(found, key=lambda one: one.name)], NAMED)
    but = f"; root {unread}, which might, cannot be read" if unread else ""
    return RefusedError(
        f"nothing is collected: no operation on record says why {told} is gone or elsewhere{but}: "
        "keep it with `cas tag NAME HASH` if it is needed, then say `cas fsck --accept-loss`"
    )
