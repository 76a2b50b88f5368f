"""A save that several processes make together, as each of them sees it.

They agree before anything is stored; from then on they know of each other only what the draft of
the run holds. The first process publishes, the others look for what came of it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cas.errors import CasError, InvalidInputError, NotFoundError, TrackingError
from cas.ids import CommitId
from cas.objects.framework import Memory
from cas.objects.pystate import Flat
from cas.objects.tree import Entry
from cas.repo import place
from cas.repo.layout import JOURNALS
from cas.repo.transaction import Transaction
from cas.tracking.captured.environment import here
from cas.tracking.checkpoints import parts
from cas.tracking.checkpoints.parts import Given, Save
from cas.tracking.checkpoints.saver import Saving
from cas.tracking.checkpoints.staging import stage, staged_bytes
from cas.tracking.checkpoints.storing import Storing, Told
from cas.tracking.ends.liveness import SILENT_SECONDS, is_locked, recoverable
from cas.tracking.live import Live
from cas.tracking.runfiles import read_header
from cas.tracking.start import say

SOON: Final = 0.02  # seconds until the draft is looked at again, at first and at last
LATER: Final = 0.5
LIVENESS: Final = 1.0  # between two looks whether the others live
TRIES: Final = 60  # of leaving word of a failure, a second apart: the disk may be full
FAILED: Final = "the sharded checkpoint could not be saved"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a process says of itself before a save; it goes to another process."""

    rank: int
    run: bytes
    journal: str
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed of a save: its number, the journal of each process, the bytes of all of it."""

    save: int
    journals: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process has taken of its state, copied where there is memory for that."""

    terms: Terms
    number: int
    given: Given
    memory: Memory | None


class Together:
    """The saves that this process of a run makes with others."""

    def __init__(self, live: Live, storing: Storing, rank: Callable[[], int]) -> None:
        self._live = live
        self._storing = storing
        self._rank = rank
        self._saves = 0
        self._looked: tuple[CommitId | None, int, Save] = (None, 0, Save())
        self._under_way: dict[int, int] = {}  # the size of each, by number

    def offer(self, size: int) -> Offer:
        """Return what this process says before a save of which it stores up to `size` bytes."""
        live = self._live
        busy = self._storing.would_wait(size)
        return Offer(self._rank(), live.state.uid, live.journal.name, busy)

    def agree(self, offers: Sequence[Offer], size: int) -> Terms | None:
        """Return, as the first process, what is agreed; None leaves this checkpoint out.

        What the disk has room for is looked at here, for all. Raises InvalidInputError where the
        processes are not those of one run.
        """
        _check(offers)
        if any(offer.busy for offer in offers):
            say("sharded checkpoint left out: two are still being stored")
            return None
        if not self._storing.has_room(size + sum(list(self._under_way.values()))):
            return None
        self._saves += 1
        self._under_way[self._saves] = size
        return Terms(self._saves, tuple(offer.journal for offer in offers), size)

    def take(
        self,
        terms: Terms,
        number: int,
        states: Mapping[bytes, object],
        saving: Saving,
        *,
        wait: bool,
    ) -> Taken:
        """Take the states of this process, copied unless it waits until they are stored.

        Raises UnstorableError, naming the path of what cannot be stored.
        """
        given = Given(states)
        sizes = {name: -(-staged_bytes(flat) // 64) * 64 for name, flat in given.flats.items()}
        size = sum(sizes.values())
        memory = None if wait else self._storing.memory(size, saving, wait=True)
        if memory is None:
            return Taken(terms, number, given, None)
        try:
            view, at, staged = memoryview(memory), 0, dict[bytes, Flat]()
            for name, flat in given.flats.items():
                staged[name] = stage(flat, view[at : at + sizes[name]])
                at += sizes[name]
        except BaseException:
            self._storing.give_back(memory)
            raise
        return Taken(terms, number, Given(staged), memory)

    def give_up(self, taken: Taken | None, terms: Terms | None) -> None:
        """Let go of what was taken for a save that does not come about."""
        if terms is not None:
            self._under_way.pop(terms.save, None)
        if taken is not None and taken.memory is not None:
            self._storing.give_back(taken.memory)

    def start(self, taken: Taken, told: Callable[[], Told], saving: Saving) -> None:
        """Have what was taken stored; what was not copied is stored when this returns."""
        saver = self._storing.saver
        try:
            known = told() if taken.number == 0 else None
            (saver.put if taken.memory is not None else saver.run)(
                partial(self._store, taken, known), saving
            )
        except BaseException as error:  # the others wait for this part
            if not saving.done:
                saver.put(partial(self._leave_word, taken, type(error).__name__), Saving())
            raise

    def _store(self, taken: Taken, told: Told | None) -> CommitId:
        try:
            before = self._live.repo.refresh().refs.get(self._live.state.ref)
            try:
                self._hold(taken)
            except BaseException as error:
                tries = TRIES if isinstance(error, Exception) else 1
                self._leave_word(taken, str(error) or type(error).__name__, tries)
                raise
            finally:
                if taken.memory is not None:
                    self._storing.give_back(taken.memory)
            if told is None:
                return self._outcome(taken, before)
            return self._publish(taken, told)
        finally:
            self._under_way.pop(taken.terms.save, None)

    def _hold(self, taken: Taken) -> None:
        path = parts.path_of(taken.terms.save, taken.number)
        self._storing.making_room(lambda: self._live.hold_part(path, taken.given))

    def _leave_word(self, taken: Taken, text: str, tries: int = TRIES) -> None:
        """Tell the others that this process has no part, as soon as it can be told."""
        save, number = taken.terms.save, taken.number

        def write(tx: Transaction) -> Entry:
            if number:
                return parts.problem(tx, text)
            return parts.failure(tx, f"process 0: {text}")

        path = parts.path_of(save, number) if number else parts.failed_path(save)
        for _ in range(tries):
            with suppress(CasError, OSError):
                self._live.hold_part(path, write)
                return
            with suppress(CasError, OSError):
                if self._seen(save) is None:
                    return  # the run is over
            time.sleep(LIVENESS)

    def _publish(self, taken: Taken, told: Told) -> CommitId:
        """Publish, as the first process, once all parts are there."""
        save, reason = self._all_there(taken)
        stored = sum(part.stored for part in save.parts)

        def write(tx: Transaction) -> Entry:
            if reason is not None:
                raise TrackingError(f"{FAILED}: {reason}")
            return parts.put_together(tx, save.parts)

        try:
            return self._storing.name(write, told, taken.terms.size, stored)
        except Exception as error:
            text = reason or f"process 0: {error}"
            with suppress(CasError, OSError):
                path = parts.failed_path(taken.terms.save)
                self._live.hold_part(path, lambda tx: parts.failure(tx, text))
            raise

    def _all_there(self, taken: Taken) -> tuple[Save, str | None]:
        """Wait for all parts; return them, and what went wrong in one of the processes."""
        count = len(taken.terms.journals)
        others = Others(self._live, taken.terms.journals)
        pause = SOON
        while True:
            save = self._seen(taken.terms.save)
            there = {part.number for part in save.parts} if save is not None else set()
            if save is None or 0 not in there:
                return Save(), parts.LATE
            if save.reason is not None:
                return save, save.reason
            missing = [number for number in range(count) if number not in there]
            if not missing:
                return save, None
            gone = others.gone(missing)
            if gone is not None:
                return save, f"process {gone} has ended"
            time.sleep(pause)
            pause = min(2 * pause, LATER)

    def _outcome(self, taken: Taken, before: CommitId | None) -> CommitId:
        """Wait, as another process than the first, for what comes of a part that is there."""
        others = Others(self._live, taken.terms.journals)
        pause = SOON
        while True:
            over = others.gone([0]) is not None  # looked at first: it may have ended just now
            save = self._seen(taken.terms.save)
            if save is not None and save.failed is not None:
                raise TrackingError(f"{FAILED}: {save.failed}")
            waits = save is not None and any(part.number == taken.number for part in save.parts)
            if not waits:
                tip = self._live.repo.root.refs.get(self._live.state.ref)
                found = taken.given.published(self._live.repo, (before, tip), taken.number)
                if found is None:
                    raise TrackingError(f"{FAILED}: {parts.LATE}")
                return found
            if over:
                raise TrackingError(f"{FAILED}: process 0, which publishes it, has ended")
            time.sleep(pause)
            pause = min(2 * pause, LATER)

    def _seen(self, save: int) -> Save | None:
        """Return how far a save has come; None when the run has no draft any more."""
        repo = self._live.repo
        while True:
            draft = repo.refresh().refs.get(self._live.state.open_ref)
            if draft is None:
                return None
            if self._looked[:2] == (draft, save):
                return self._looked[2]
            try:
                self._looked = draft, save, parts.look(repo, repo.commit(draft), save)
            except NotFoundError:  # replaced and collected since
                if repo.refresh().refs.get(self._live.state.open_ref) == draft:
                    raise


class Others:
    """Whether other processes of a run live, by their journals."""

    def __init__(self, live: Live, journals: Sequence[str]) -> None:
        folder = live.repo.path / JOURNALS
        self._paths = [folder / name for name in journals]
        self._local = place.is_local(live.repo.path)
        self._looked = 0.0
        self._signs: dict[Path, tuple[object, float]] = {}

    def gone(self, numbers: Sequence[int]) -> int | None:
        """Return the first of these processes that has surely ended; it looks but rarely."""
        now = time.monotonic()
        if now - self._looked < LIVENESS:
            return None
        self._looked = now
        return next((number for number in numbers if self._is_gone(self._paths[number], now)), None)

    def _is_gone(self, path: Path, now: float) -> bool:
        if is_locked(path):
            self._signs.pop(path, None)
            return False
        try:
            header, state = read_header(path), path.stat()
        except (CasError, OSError):
            return not path.exists()
        if recoverable(header, locked=False, here=here(), local=self._local):
            return True
        # Of another host no lock may be seen: it lives while it writes, a sign of life a minute.
        sign = state.st_size, state.st_mtime_ns
        seen, since = self._signs.setdefault(path, (sign, now))
        if seen != sign:
            self._signs[path] = sign, now
            return False
        return now - since >= SILENT_SECONDS


def _check(offers: Sequence[Offer]) -> None:
    """Refuse to save what is not of one run, counted as its launcher counts."""
    first = offers[0]
    if first.rank:
        raise InvalidInputError(
            f"process 0 of the group is rank {first.rank} of its run: torch.distributed must count "
            "the processes as their launcher does"
        )
    strange = [number for number, offer in enumerate(offers) if offer.run != first.run]
    if strange:
        raise InvalidInputError(
            f"process {strange[0]} of the group is not of the run of process 0: start them with "
            "torchrun, or call init_process_group before cas.track, in a repository that all share"
        )
