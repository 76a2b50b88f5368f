"""Real code whose processes take turns at file operations, in an order that somebody chooses.

`play` runs each program on a thread of its own, with file operations of its own, and lets exactly
one run at any time. Before each file operation the chooser says who goes on, so that an order of
turns can be repeated, and all orders up to a number of switches be tried one after another. Names
that are drawn at random are the same for the same program, however it is interleaved.
"""

import fcntl
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import shake_128
from itertools import pairwise
from typing import Protocol, TypeVar
from unittest.mock import patch

from cas.backend.files import FileOps
from cas.repo import transaction
from cas.store import pool
from tests.support.faulty import WatchedOps

T = TypeVar("T")
Program = Callable[[FileOps], object]
NOBODY = -1
START = ("start", "")
# Before these another process can see or do something that matters; all else commutes with
# whatever the others do.
VISIBLE = frozenset(
    {"open_new", "open_read", "lock", "link", "rename", "unlink", "stat", "scandir"}
)
PRIVATE = ("tmp/", "hints/")
STUCK_SECONDS = 60.0
ENDLESS = 100_000


class Cut(BaseException):
    """The process ends here."""


@dataclass(frozen=True, slots=True)
class Step:
    """One file operation of one program; `others` could have gone first."""

    actor: int
    operation: str
    path: str
    others: tuple[int, ...] = ()

    @property
    def visible(self) -> bool:
        """Whether it matters who of two goes first, this or another program."""
        return self.operation in VISIBLE and not self.path.startswith(PRIVATE)


class Chooser(Protocol):
    """An order of turns."""

    def choose(self, at: int, running: int, waiting: Sequence[int]) -> int:
        """Return who of the waiting takes turn number `at`; `running` took the one before."""

    def cuts(self, at: int, actor: int) -> bool:
        """Say whether the process ends in place of its turn."""


@dataclass(frozen=True, slots=True)
class Following:
    """One after another as in `order`, but for these switches, and ends at these turns."""

    order: tuple[int, ...]
    switches: Mapping[int, int] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()

    def choose(self, at: int, running: int, waiting: Sequence[int]) -> int:
        wanted = self.switches.get(at, running)
        if wanted in waiting:
            return wanted
        return next(actor for actor in self.order if actor in waiting)

    def cuts(self, at: int, actor: int) -> bool:
        return at in self.ends


class Wandering:
    """A switch now and then, to anybody."""

    def __init__(self, seed: int, *, often: float, end: int | None = None) -> None:
        self._rng = random.Random(seed)
        self._often = often
        self._end = end

    def choose(self, at: int, running: int, waiting: Sequence[int]) -> int:
        if running in waiting and self._rng.random() >= self._often:
            return running
        return self._rng.choice(waiting)

    def cuts(self, at: int, actor: int) -> bool:
        return at == self._end


class Ranked:
    """The first in a random rank goes on, and falls to the end of it at a few random turns.

    Burckhardt and others, "A randomized scheduler with probabilistic guarantees of finding bugs":
    a bug that takes d switches is met with at least a known probability.
    """

    def __init__(
        self, seed: int, *, actors: int, falls: int, length: int, end: int | None = None
    ) -> None:
        rng = random.Random(seed)
        self._rank = rng.sample(range(actors), actors)
        self._falls = {rng.randrange(length) for _ in range(falls)}
        self._end = end

    def choose(self, at: int, running: int, waiting: Sequence[int]) -> int:
        if at in self._falls and running in self._rank:
            self._rank.remove(running)
            self._rank.append(running)
        return next(actor for actor in self._rank if actor in waiting)

    def cuts(self, at: int, actor: int) -> bool:
        return at == self._end


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it: a result or an error for each program, neither for one that was cut."""

    steps: tuple[Step, ...]
    results: Mapping[int, object]
    errors: Mapping[int, Exception]

    def told(self) -> str:
        """Return the order of turns, for the report of a test that fails."""
        lines: list[str] = []
        for at, step in enumerate(self.steps):
            if not at or step.actor != self.steps[at - 1].actor:
                lines.append(f"{at}: program {step.actor}:")
            if step.visible:
                lines.append(f"    {at} {step.operation} {step.path}")
        return "\n".join([*lines, *(f"{n}: {error!r}" for n, error in self.errors.items())])


class Turns:
    """The baton: whoever holds it runs."""

    def __init__(self, actors: int, chooser: Chooser) -> None:
        self.steps: list[Step] = []
        self._chooser = chooser
        self._waiting: dict[int, tuple[str, str]] = dict.fromkeys(range(actors), START)
        self._batons = [threading.Lock() for _ in range(actors)]
        for baton in self._batons:
            baton.acquire()
        self._dead: set[int] = set()
        self._blocked: set[int] = set()
        self._running = NOBODY
        self._drawn = [0] * actors
        self.over = threading.Event()

    def begin(self) -> None:
        """Let somebody start."""
        self._hand_on()

    def first(self, actor: int) -> None:
        """Wait for the very first turn."""
        self._batons[actor].acquire()
        self._take(actor)

    def come(self, actor: int, operation: str, path: str, *, blocked: bool = False) -> None:
        """Wait for a turn; raise Cut when the process ends in place of it.

        Who is `blocked` gets one after somebody else has moved.
        """
        if actor in self._dead:
            raise Cut
        self._waiting[actor] = operation, path
        if blocked:
            self._blocked.add(actor)
        if not self._hand_on(actor):
            self._batons[actor].acquire()
        self._take(actor)

    def leave(self, actor: int) -> None:
        """Let the others go on: this one has ended."""
        if self._waiting:
            self._hand_on()
        else:
            self.over.set()

    def draw(self, size: int) -> bytes:
        """Return what is random to others: it depends on who draws it for which time."""
        actor = self._running
        self._drawn[actor] += 1
        return shake_128(b"%d.%d" % (actor, self._drawn[actor])).digest(size)

    def sleep(self, _: float) -> None:
        """Let somebody else go on."""
        self.come(self._running, "sleep", "", blocked=True)

    def _hand_on(self, own: int = NOBODY) -> bool:
        """Choose who goes on; say whether that is oneself."""
        assert len(self.steps) < ENDLESS, f"they wait for each other: {self._waiting}"
        free = [actor for actor in self._waiting if actor not in self._blocked]
        free = free or list(self._waiting)
        chosen = self._chooser.choose(len(self.steps), self._running, free)
        self._running = chosen
        if chosen == own:
            return True
        self._batons[chosen].release()
        return False

    def _take(self, actor: int) -> None:
        operation, path = self._waiting.pop(actor)
        self._blocked.clear()
        at = len(self.steps)
        self.steps.append(Step(actor, operation, path, tuple(self._waiting)))
        if self._chooser.cuts(at, actor):
            self._dead.add(actor)
            raise Cut


class ProcessOps(WatchedOps):
    """File operations of one process, which may end; nothing here is about power cuts."""

    def close(self, fd: int) -> None:
        # Nobody sees it, the kernel does it for the dead, and `end` may have come first.
        if self.paths.pop(fd, None) is not None:
            FileOps.close(self, fd)

    def fsync(self, fd: int) -> None:
        self.watch("fsync", self.paths[fd], lambda: None)

    def fsync_dir(self, path: str) -> None:
        self.watch("fsync_dir", path, lambda: None)

    def end(self) -> None:
        """Close what the process left open when it was cut."""
        while self.paths:
            with suppress(OSError):
                os.close(self.paths.popitem()[0])


class TurnOps(ProcessOps):
    """File operations of one program, each in its turn.

    When `apart`, its locks are seen by nobody else, nor theirs by it: as of another host.
    """

    def __init__(self, turns: Turns, actor: int, root: str, *, apart: bool) -> None:
        super().__init__()
        self._apart = apart
        self._turns = turns
        self._actor = actor
        self._cut = len(root) + 1

    def watch(self, operation: str, path: str, run: Callable[[], T]) -> T:
        self._turns.come(self._actor, operation, path[self._cut :])
        return run()

    def lock(self, fd: int, how: int) -> None:
        free = self._apart
        blocked = False
        while not free:
            self._turns.come(self._actor, "lock", self.paths[fd][self._cut :], blocked=blocked)
            try:
                FileOps.lock(self, fd, how | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                if how & fcntl.LOCK_NB:
                    raise
                blocked = True


def play(
    root: str, programs: Sequence[Program], chooser: Chooser, *, apart: bool = False
) -> Played:
    """Run the programs, which work on the folder `root`, as the chooser says."""
    turns = Turns(len(programs), chooser)
    results: dict[int, object] = {}
    errors: dict[int, Exception] = {}

    def run(actor: int) -> None:
        ops = TurnOps(turns, actor, root, apart=apart)
        try:
            turns.first(actor)
            results[actor] = programs[actor](ops)
        except Cut:
            ops.end()
        except Exception as error:
            errors[actor] = error
        finally:
            turns.leave(actor)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(programs))]
    with _alone(turns):
        for thread in threads:
            thread.start()
        turns.begin()
        if not turns.over.wait(STUCK_SECONDS):
            raise TimeoutError(Played(tuple(turns.steps), results, errors).told())
        for thread in threads:
            thread.join()
    return Played(tuple(turns.steps), results, errors)


def bounded(
    run: Callable[[Chooser], Played],
    order: tuple[int, ...],
    switches: int,
    rng: random.Random | None = None,
) -> Iterator[tuple[Following, Played]]:
    """Play every order with up to so many switches, each before what others can see.

    Who has ended is followed by the next in `order`, and that is no switch. With `rng` they come
    in a random order.
    """
    pending: list[Following] = [Following(order)]
    while pending:
        chooser = pending.pop(rng.randrange(len(pending)) if rng else NOBODY)
        played = run(chooser)
        yield chooser, played
        if len(chooser.switches) < switches:
            last = max(chooser.switches, default=NOBODY)
            pending += (
                Following(order, {**chooser.switches, at: other})
                for at, other in _switches(played.steps)
                if at > last
            )


def _switches(steps: Sequence[Step]) -> Iterator[tuple[int, int]]:
    """Yield where somebody could go on and somebody else could go first, and who."""
    for at, (before, step) in enumerate(pairwise(steps), 1):
        if step.visible and before.actor == step.actor:
            for other in step.others:
                yield at, other


@contextmanager
def _alone(turns: Turns) -> Iterator[None]:
    """Let the one who has the baton be the only one who runs: jobs run where they are given."""
    with (
        at_once(),
        patch.object(transaction, "_uninterrupted", lambda action: action()),
        patch.object(os, "urandom", turns.draw),
        patch.object(time, "sleep", turns.sleep),
    ):
        yield


@contextmanager
def at_once() -> Iterator[None]:
    """Let jobs run where they are given, not beside whoever gives them."""
    with patch.object(pool, "_start", _at_once):
        yield


def _at_once(job: Callable[[], T], _: object) -> "Future[T]":
    future: Future[T] = Future()
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)
    return future
