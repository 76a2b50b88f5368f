"""Staging memory: what a checkpoint is copied to, so that the training loop can go on at once.

A buffer holds one state, tensor after tensor. Buffers are used again from save to save: to copy
into memory that was touched before takes half the time. How much they take together is bounded.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cas.objects.framework import Memory, TensorView
from cas.objects.pystate import Flat
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints.memory import free_bytes

BUFFERS: Final = 2  # one that is being stored, and one that waits
PART: Final = 4  # of the free memory is taken at most one part in so many
ALIGNMENT: Final = 64
FEW: Final = 16 * 1024 * 1024  # bytes that are always there

Free = Callable[[], int | None]


def staged_bytes(flat: Flat) -> int:
    """Return the bytes that a flattened state takes in a buffer."""
    return sum(_aligned(view.nbytes) for _, view in flat.views)


def stage(flat: Flat, memory: Memory) -> Flat:
    """Return a flattened state whose tensors are copies in `memory`, made when this returns."""
    target, at = memoryview(memory), 0
    views: list[tuple[tuple[str | int, ...], TensorView]] = []
    copying: list[Callable[[], object]] = []
    for path, view in flat.views:
        place = target[at : at + view.nbytes]
        at += _aligned(view.nbytes)
        waits = _fill(view, place)
        copying += [waits] if waits is not None else []
        views.append((path, replace(view, buffer=_returning(place), fill=None)))
    for wait in copying:
        wait()
    return Flat(flat.value, tuple(views))


class Staging:
    """The buffers of one run; `limit` bounds their bytes, by default a part of what is free."""

    def __init__(self, limit: int | None = None, free: Free = free_bytes) -> None:
        self._limit = limit
        self._free = free
        self._idle: list[Memory] = []
        self._busy: list[Memory] = []
        self._changed = threading.Condition()

    def fits(self, nbytes: int) -> bool:
        """Say whether a state of this size may be copied, when no other one is in the way."""
        with self._changed:
            return nbytes <= self._most()

    def take(self, nbytes: int, *, wait: bool = True) -> Memory | None:
        """Return memory for a state that fits; None when it would have to wait and must not.

        Raises MemoryError when the system has less than it said.
        """
        with self._changed:
            while not self._has_room(nbytes):
                if not wait:
                    return None
                self._changed.wait()
            memory = self._found(nbytes)
            self._busy.append(memory)
            return memory

    def give_back(self, memory: Memory) -> None:
        """Take memory back whose content is not needed any more."""
        with self._changed:
            self._busy = [one for one in self._busy if one is not memory]
            self._idle.append(memory)
            self._changed.notify_all()

    def clear(self) -> None:
        """Let go of the memory that is not in use."""
        with self._changed:
            self._idle.clear()

    def _most(self) -> int:
        if self._limit is not None:
            return self._limit
        free = self._free()
        held = sum(map(len, self._idle)) + sum(map(len, self._busy))
        return max(FEW, (free + held) // PART) if free is not None else 2**63

    def _has_room(self, nbytes: int) -> bool:
        if not self._busy:
            return True  # what does not fit by itself is not asked for, or has become too large
        return len(self._busy) < BUFFERS and sum(map(len, self._busy)) + nbytes <= self._most()

    def _found(self, nbytes: int) -> Memory:
        for number, memory in enumerate(self._idle):
            if len(memory) >= nbytes:
                return self._idle.pop(number)
        self._idle.clear()  # they are too small: states grow, but hardly ever shrink
        return frameworks.staging(nbytes)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _returning(place: memoryview) -> Callable[[], memoryview]:
    return lambda: place


def _fill(view: TensorView, place: memoryview) -> Callable[[], object] | None:
    if view.fill is not None:
        return view.fill(place)
    import numpy as np

    # Unlike a slice of a memoryview, it lets other threads run.
    np.copyto(np.frombuffer(place, np.uint8), np.frombuffer(view.buffer(), np.uint8))
    return None
