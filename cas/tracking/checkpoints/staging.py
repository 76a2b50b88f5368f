"""Staging memory: what a checkpoint is copied to, so that the training loop can go on at once.

A buffer holds one state, tensor after tensor. Buffers are used again from save to save: to copy
into memory that was touched before takes half the time. How much they take together is bounded.
"""

import threading
from collections.abc import Callable
from typing import Final

from cas.objects.framework import Memory, TensorView
from cas.objects.pystate import Flat
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints.copying import Move, copy
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
    target, begin, at = memoryview(memory), _address(memory), 0
    views: list[tuple[tuple[str | int, ...], TensorView]] = []
    moves: list[Move] = []
    waits: list[Callable[[], object]] = []
    for path, view in flat.views:
        size = view.nbytes
        place = target[at : at + size]
        if view.address is not None:
            moves.append((begin + at, view.address, size))
        else:
            waits += _filled(view, place)
        at += _aligned(size)
        copied = TensorView(view.dtype, view.shape, view.identity, _returning(place), view.extra)
        views.append((path, copied))
    copy(moves)
    for wait in waits:
        wait()
    return Flat(flat.value, tuple(views))


class Staging:
    """The buffers of one run; `limit` bounds their bytes, by default a part of what is free."""

    def __init__(self, limit: int | None = None, free: Free = free_bytes) -> None:
        self._limit = limit
        self._free = free
        self._sharers = 1
        self._idle: list[Memory] = []
        self._busy: list[Memory] = []
        self._changed = threading.Condition()

    def share(self, count: int) -> None:
        """Take this part of what is free: so many processes of this host do the same."""
        self._sharers = count

    def is_busy(self, nbytes: int) -> bool:
        """Say whether whoever takes memory for a state of this size has to wait for it."""
        with self._changed:
            return not self._has_room(nbytes)

    def fits(self, nbytes: int) -> bool:
        """Say whether a state of this size may be copied, when no other one is in the way."""
        with self._changed:
            return self._is_idle(nbytes) or nbytes <= self._most()

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
        return max(FEW, (free + held) // (PART * self._sharers)) if free is not None else 2**63

    def _has_room(self, nbytes: int) -> bool:
        if not self._busy:
            return True  # what does not fit by itself is not asked for, or has become too large
        if len(self._busy) >= BUFFERS:
            return False
        return self._is_idle(nbytes) or sum(map(len, self._busy)) + nbytes <= self._most()

    def _is_idle(self, nbytes: int) -> bool:
        """Say whether memory of this size is held already: then it is free, whatever is else."""
        return any(len(memory) >= nbytes for memory in self._idle)

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


def _filled(view: TensorView, place: memoryview) -> list[Callable[[], object]]:
    """Have a tensor written to a place; return what waits for that, if anything has to."""
    if view.fill is not None:
        waits = view.fill(place)
        return [] if waits is None else [waits]
    data = view.buffer()
    copy([(_address(place), _address(data), data.nbytes)])
    return []


def _address(memory: Memory) -> int:
    import numpy as np

    return int(np.frombuffer(memory, np.uint8).ctypes.data)
