"""When a collection is due, found out from what is known anyway, and one that ends in time.

A collection notes down at its end how far the repository had come. What has happened since is a
difference of a few numbers: nothing is marked to find out that there is nothing to do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.errors import ConflictError
from cas.repo.collect.gctidy import last_collection
from cas.repo.config import load
from cas.repo.repo import Repo

if TYPE_CHECKING:
    from cas.repo.collect.gcplan import GcPlan

SETTING: Final = "gc.auto"
AUTO: Final = "auto"
PACKS: Final = 64  # new packs after which small ones are worth merging
ROOTS: Final = 500  # operations after which something has probably been let go of
SECONDS: Final = 60.0
DELETE: Final = "delete"  # as `replace.sweep` calls it


def wanted(repo: Repo) -> bool:
    """Say whether this repository collects by itself, and that is due now."""
    return load(repo).get(SETTING) == AUTO and is_due(repo)


def is_due(repo: Repo) -> bool:
    """Say whether enough has happened since the last collection."""
    root, last = repo.root, last_collection(repo)
    return root.seq - last.root >= ROOTS or len(root.packs) - last.packs >= PACKS


def collect(repo: Repo, seconds: float, clock: Callable[[], float]) -> "GcPlan | None":
    """Collect within about so many seconds; None when that was not enough, or others kept on.

    What was not done is left for the next time; nothing is half done.
    """
    from cas.repo.collect import gc

    limit = _Limit(clock() + seconds, clock)
    try:
        return gc.execute(repo, gc.plan(repo, progress=limit), progress=limit)
    except (OutOfTimeError, ConflictError):
        return None


class OutOfTimeError(Exception):
    """A collection took longer than it was given."""


@dataclass(slots=True)
class _Limit:
    """Progress that goes no further than a moment of some clock."""

    end: float
    clock: Callable[[], float]
    is_deleting: bool = False

    def start(self, what: str, total: int | None = None) -> None:
        """Begin a part of the work; raise OutOfTimeError when it is too late for that."""
        # What is condemned is deleted and cleared to the end: that is what gives the space back.
        self.is_deleting = what == DELETE
        self.advance(0)

    def advance(self, units: int = 1) -> None:
        """Go on; raise OutOfTimeError when it is too late for that."""
        if not self.is_deleting and self.clock() > self.end:
            raise OutOfTimeError

    def finish(self) -> None:
        """End a part of the work."""
        self.is_deleting = False
