"""Whether the disk has room for one more checkpoint, and where a run's use of it is heading."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cas.plain import human_bytes
from cas.repo.retain.retention import Keep

PART: Final = 100  # unless said otherwise, one part in so many of the disk stays free,
MOST: Final = 1024**3  # and no more than this
FAR: Final = 1000  # more checkpoints than this that still fit are no news
HELD: Final = 3  # how many of them the policy keeps that is proposed


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
        self._given = 0

    def add(self, given: int, stored: int) -> None:
        """Take note of a checkpoint: its size, and what was newly stored for it."""
        self.count += 1
        self.stored, self._given = stored, given

    def expected(self, given: int) -> int:
        """Return how much a state of so many bytes will take: before the first, all of it."""
        if not self._given:
            return given
        return given * self.stored // self._given

    def outlook(self, disk: Disk, keep: Keep | None) -> str | None:
        """Return where the use of the disk is heading, once that is known; None for no news."""
        if self.count != 2 or not self.stored or keep is not None:
            return None
        fit = disk.free // self.stored
        if fit >= FAR:
            return None
        held = human_bytes((HELD + 2) * self.stored)
        return (
            f"a checkpoint takes {human_bytes(self.stored)}: the disk is full after {fit} more; "
            f"retention=cas.Keep(last={HELD}, best=1) would hold them at about {held}"
        )
