"""From a flattened state to a checkpoint: staged, stored behind the loop, made room for.

A state that does not fit into staging memory is stored from where it is, tensor by tensor, while
the loop waits. Below what must stay free of the disk nothing more is stored.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from cas.errors import StorageFullError
from cas.ids import CommitId
from cas.objects.framework import Memory
from cas.objects.pystate import Flat
from cas.objects.tree import Entry
from cas.plain import human_bytes
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction
from cas.tracking.checkpoints.checkpoint import write_flat
from cas.tracking.checkpoints.retain import Retention
from cas.tracking.checkpoints.room import Disk, Sizes
from cas.tracking.checkpoints.saver import Saver, Saving
from cas.tracking.checkpoints.staging import Staging, stage, staged_bytes
from cas.tracking.checkpoints.strategy import SKIP, Strategy
from cas.tracking.ends.past import Now
from cas.tracking.live import Live
from cas.tracking.record import Moment
from cas.tracking.start import say

FULL: Final = "checkpoint left out"

T = TypeVar("T")

Alert = Callable[[str, str], object]


@dataclass(frozen=True, slots=True)
class Told:
    """What a checkpoint says beside its state."""

    moment: Moment
    details: Mapping[str, Any]
    now: Now


class Storing:
    """How one open run stores its checkpoints; `failed` is told of what went wrong behind it."""

    def __init__(
        self,
        live: Live,
        strategy: Strategy,
        keep: Keep | None,
        *,
        failed: Callable[[Exception], None],
        alert: Alert,
    ) -> None:
        self.retention = None if keep is None else Retention(live.repo, keep, say)
        self.saver = Saver(failed)
        self._live = live
        self._strategy = strategy
        self._keep = keep
        self._staging = Staging(strategy.staging_bytes)
        self._alert = alert
        self._sizes = Sizes()
        self._is_full = False
        self._told_blocking = False

    def put(self, saving: Saving, flat: Flat, told: Callable[[], Told], *, wait: bool) -> None:
        """Have a state stored; with `wait`, from where it is, and durably when this returns."""
        memory = None
        if not wait:
            memory = self.memory(staged_bytes(flat), saving)
            if saving.done:
                return
        if memory is None:
            self.saver.run(partial(self._store, flat, told()), saving)
            return
        try:
            staged, known = stage(flat, memory), told()
        except BaseException:
            self._staging.give_back(memory)
            raise
        self.saver.put(partial(self._store, staged, known, memory), saving)

    def name(
        self, write: Callable[[Transaction], Entry], told: Told, size: int, stored: int
    ) -> CommitId:
        """Commit a checkpoint of stored parts, which cost `stored` bytes for a state of `size`."""
        live = self._live
        id = self.making_room(
            lambda: live.checkpoint(write, told.moment, told.details, told.now, stored)
        )
        self._is_full = False
        self._learn(id, size)
        self._retain()
        return id

    def making_room(self, action: Callable[[], T]) -> T:
        """Do something; where the disk turns out to be full, again once what can go has gone."""
        try:
            return action()
        except StorageFullError:
            self._make_room()
            return action()

    def share(self, count: int) -> None:
        """Say that so many processes of this host stage their checkpoints in its memory."""
        self._staging.share(count)

    def would_wait(self, size: int) -> bool:
        """Say whether a state of this size is to be left out: two others are still being stored."""
        return self._strategy.busy == SKIP and self._staging.is_busy(size)

    def give_back(self, memory: Memory) -> None:
        """Take back memory that `memory` has returned, whose content is not needed any more."""
        self._staging.give_back(memory)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until all that was given is stored; say whether it is."""
        return self.saver.settle(seconds)

    def ended(self) -> None:
        """Free memory and disk that the run needs no more, now that it has ended."""
        self._staging.clear()
        if self.retention is not None:
            self._live.between(self.retention.ended)

    def memory(self, size: int, saving: Saving, *, wait: bool = False) -> Memory | None:
        """Return memory for a copy; None when the state is too large, or the save was left out."""
        with suppress(MemoryError):
            if self._staging.fits(size):
                memory = self._staging.take(size, wait=wait or self._strategy.busy != SKIP)
                if memory is None:
                    say(f"checkpoint at step {saving.step} left out: two are still being stored")
                    saving.end()
                return memory
        if not self._told_blocking:
            self._told_blocking = True
            say(
                f"warning: a state of {human_bytes(size)} does not fit into the memory for copies: "
                "each save holds up the loop until it is stored (see staging of cas.Strategy)"
            )
        return None

    def _store(self, flat: Flat, told: Told, memory: Memory | None = None) -> CommitId | None:
        size = staged_bytes(flat)
        try:
            if not self.has_room(size):
                return None
            id = self.making_room(partial(self._commit, flat, told))
        finally:
            if memory is not None:
                self._staging.give_back(memory)
        self._is_full = False
        self._learn(id, size)
        self._retain()
        return id

    def _commit(self, flat: Flat, told: Told) -> CommitId:
        return self._live.checkpoint(
            lambda tx: write_flat(tx.writer, flat), told.moment, told.details, told.now
        )

    def has_room(self, size: int) -> bool:
        """Say whether the disk has room; what can be let go of goes first. Alerts once if not."""
        if self._lacks_room(size) is None:
            return True
        self._make_room()
        disk = self._lacks_room(size)
        if disk is not None and not self._is_full:
            self._is_full = True
            text = f"{human_bytes(disk.free)} are free at {self._live.repo.path}"
            self._alert(FULL, f"{text}; see min_free of cas.Strategy, and `cas prune --gc`")
        return disk is None

    def _lacks_room(self, size: int) -> Disk | None:
        """Return the disk when it has no room for a state of this size."""
        disk = Disk.of(self._live.repo.path)
        taken, least = self._sizes.expected(size), self._strategy.min_free_bytes
        return None if disk is None or disk.has_room(taken, least) else disk

    def _make_room(self) -> None:
        """Let go of what the policy does not keep, and give back the space of all that is dead."""
        retention, repo = self.retention, self._live.repo

        def free() -> None:
            if retention is not None:
                retention.make_room(self._live.state.run, self._live.state.ref)
                return
            from cas.repo.collect import gc  # NumPy is loaded with it: no run waits for that

            planned = gc.plan(repo)
            if not planned.empty:
                gc.execute(repo, planned, run=self._live.state.run)

        with suppress(Exception):  # the save then fails, or is left out, by itself
            self._live.between(free)

    def _learn(self, id: CommitId, size: int) -> None:
        volume = self._live.repo.commit(id).volume
        stored = volume.stored_bytes if volume is not None else 0
        self._sizes.add(size, stored, time.monotonic())
        disk = Disk.of(self._live.repo.path)
        told = self._sizes.outlook(disk, self._keep) if disk is not None else None
        if told is not None:
            say(told)

    def _retain(self) -> None:
        """Let the run's policy look at what has been saved."""
        policy, state = self.retention, self._live.state
        if policy is not None:
            self._live.between(lambda: policy.saved(state.run, state.ref))
