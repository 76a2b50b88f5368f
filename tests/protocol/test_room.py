"""A full disk can always be collected: the reserve, and the order in which a plan is carried out.

Room is counted in blocks. Others fill the disk between any two commands, as far as they like; every
order is worked out. What is let go of is always worth more than the reserve, as gc makes that again
only where there is plenty of room. Modelled after `cas/repo/collect/reserve.py` and
`cas/repo/collect/gcstages.py`.
"""

from collections import deque
from dataclasses import dataclass, fields, replace

import pytest

ROOT = 1  # blocks that a root takes; `prune --gc` publishes three: one drops, two collect
RESERVE = 3 * ROOT
DEAD = 8  # packs in which nothing lives any more
HALF = 6  # one that is half dead,
COPY = 4  # and what lives on in it
SIZE = 24  # blocks of the disk that are free in the beginning


@dataclass(frozen=True, slots=True)
class Guards:
    """The rules; each is missed."""

    kept_from_the_start: bool = True
    """`init` makes the reserve."""
    given_up: bool = True
    """A command that frees space gives the reserve up where the disk is full."""
    made_again: bool = True
    """gc makes it again."""
    dead_first: bool = True
    """What takes no copies is collected in a step of its own, before anything is copied."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What is free, what is kept in reserve, how often somebody lets go of something yet."""

    free: int
    reserve: int
    rounds: int = 3


def taken(disk: Disk, blocks: int, guards: Guards) -> Disk | None:
    """Return the disk with so many blocks taken, of the reserve too; None where they are not."""
    if disk.free < blocks and guards.given_up:
        disk = replace(disk, free=disk.free + disk.reserve, reserve=0)
    return None if disk.free < blocks else replace(disk, free=disk.free - blocks)


def pruned_and_collected(disk: Disk, guards: Guards) -> Disk | None:
    """Return the disk after `prune --gc`, None when nothing could be freed."""
    dropped = taken(disk, ROOT, guards)
    if dropped is None:
        return None
    steps = [(0, DEAD), (COPY, HALF)] if guards.dead_first else [(COPY, DEAD + HALF)]
    after: Disk | None = None
    for copies, freed in steps:
        done = taken(after or dropped, copies + 2 * ROOT, guards)
        if done is not None:
            after = replace(done, free=done.free + freed)
    if after is None:
        return None
    if guards.made_again and after.reserve < RESERVE and after.free >= RESERVE:
        after = replace(after, free=after.free - RESERVE, reserve=RESERVE)
    return replace(after, rounds=disk.rounds - 1)


def stuck(guards: Guards) -> tuple[int, list[Disk]]:
    """Return how many disks can come about, and those that cannot be collected any more."""
    first = Disk(SIZE, RESERVE if guards.kept_from_the_start else 0)
    seen, queue, found = {first}, deque([first]), list[Disk]()
    while queue:
        disk = queue.popleft()
        following = [replace(disk, free=left) for left in range(disk.free)]
        if disk.rounds:
            after = pruned_and_collected(disk, guards)
            if after is None:
                found.append(disk)
            else:
                following.append(after)
        for one in following:
            if one not in seen:
                seen.add(one)
                queue.append(one)
    return len(seen), found


def test_a_full_disk_can_always_be_collected() -> None:
    count, found = stuck(Guards())
    assert count > 80
    assert not found


@pytest.mark.parametrize("guard", [field.name for field in fields(Guards)])
def test_without_it_a_full_disk_stays_full(guard: str) -> None:
    _, found = stuck(replace(Guards(), **{guard: False}))
    assert found
    assert all(disk.free < COPY + 3 * ROOT for disk in found)
