"""Whether the disk has room for one more checkpoint, and where a run's use of it is heading."""

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cas.plain import human_bytes
from cas.repo.retain.retention import COUNTS, Keep

PART: Final = 100  # unless said otherwise, one part in so many of the disk stays free,
MOST: Final = 1024**3  # and no more than this
FAR: Final = 1000  # more checkpoints than this that still fit are no news
HELD: Final = 3  # how many of them the policy keeps that is proposed
SEEN: Final = 8  # of so many checkpoints the one that took most tells what the next one takes
HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: its size, and what of it a user may still take, in bytes."""

    size: int
    free: int

    @classmethod
    def of(cls, path: Path) -> "Disk | None":
        """Return the file system of a folder; None when it does not tell."""
        try:
            told = os.statvfs(path)
        except OSError:
            return None
        size = told.f_blocks * told.f_frsize
        return cls(size, told.f_bavail * told.f_frsize) if size > 0 else None

    def has_room(self, nbytes: int, min_free: int | None) -> bool:
        """Say whether so many bytes more leave enough free."""
        left = min(MOST, self.size // PART) if min_free is None else min_free
        return self.free - nbytes >= left


class Sizes:
    """What the checkpoints of a run take on disk, learned from those that were stored."""

    def __init__(self) -> None:
        self.count = 0
        self.stored = 0  # by the newest one
        self._seen: deque[tuple[int, int]] = deque(maxlen=SEEN)
        self._at = self._apart = 0.0

    def add(self, given: int, stored: int, now: float) -> None:
        """Take note of a checkpoint: its size, what was newly stored for it, and when, in seconds.

        `now` is of a clock that only goes on.
        """
        self.count += 1
        self.stored = stored
        self._seen.append((given, stored))
        self._at, self._apart = now, now - self._at

    def expected(self, given: int) -> int:
        """Return how much a state of so many bytes will take: before the first, all of it.

        One that was stored already took next to nothing, which says little of the next one.
        """
        return max((given * stored // max(1, size) for size, stored in self._seen), default=given)

    def outlook(self, disk: Disk, keep: Keep | None) -> str | None:
        """Return where the use of the disk is heading, once that is known; None for no news."""
        if self.count != 2 or not self.stored:
            return None
        fit, most = disk.free // self.stored, _most(keep)
        if fit >= FAR or (most is not None and most - self.count <= fit):
            return None
        proposed = f"retention=cas.Keep(last={HELD}, best=1)"
        held = human_bytes((HELD + 2) * self.stored)
        return (
            f"a checkpoint takes {human_bytes(self.stored)}: the disk is full after {fit} more"
            f"{self._soon(fit)}; {proposed} would hold them at about {held}"
        )

    def _soon(self, count: int) -> str:
        """Return when so many more will have been saved, if they go on as the first two did."""
        hours = count * self._apart / HOUR
        return f", in about {hours:.0f} h" if 1 <= hours < FAR else ""


def _most(keep: Keep | None) -> int | None:
    """Return how many checkpoints a policy lets stay; None where they become ever more."""
    if keep is None or (keep.budget is None and (keep.every or keep.within or not keep.has_rules)):
        return None
    if keep.budget is not None:
        return 0  # it is in bytes, and they were counted by whoever said it
    counts = [getattr(keep, name) or 0 for name in COUNTS]
    return sum([*counts, *keep.min.values(), *keep.max.values()]) + 2  # the newest, the best
