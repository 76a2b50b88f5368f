"""What is shown to a run, on its way to the store: a queue, and the thread that empties it.

The caller copies what it shows and goes on. The thread encodes it; what is small goes to the
journal, what is a file is stored and held by the draft first, in batches, at most once a second.
A store that does not take it is asked again; an error that comes from the content is reported and
costs this content alone.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from cas.errors import TrackingError
from cas.objects.tree import Entry
from cas.repo.transaction import Transaction
from cas.store.pool import NICENESS
from cas.tracking.checkpoints.checkpoint import write_state
from cas.tracking.journals.state import redacted_frame
from cas.tracking.live import Live
from cas.tracking.media.content import Content, Prepared
from cas.tracking.privacy.noting import noting
from cas.tracking.shown.logged import PACKED, PACKED_TOTAL, STATE_FORMAT, Logged, frames

BEHIND_SECONDS: Final = 0.5
ROOM: Final = 256 * 1024 * 1024  # bytes that wait at most
PATIENCE_SECONDS: Final = 5.0  # for room, once: then nothing more is taken until there is some
LEAST_PAUSE: Final = 1.0  # seconds between two batches of files
MOST_PAUSE: Final = 10.0
DUTY: Final = 20  # a batch that took so long is followed by a pause of so many times that
SHARE: Final = 200  # the pause grows with the run's own length, a part of so many of it
FILES: Final = frozenset(
    {"image", "audio", "figure", "table", "embedding"}
)  # kinds that are never packed


@dataclass(frozen=True, slots=True)
class Parcel:
    """One thing on its way: the call that gave it, where it belongs, and its content to be."""

    call: str
    row: Logged  # without content
    prepared: Prepared
    taken: Mapping[str, int] = field(default_factory=dict)  # out of it so far, by kind


LOGGED: Final = "logged"  # where the report says that something logged lacks something
Ready = tuple[str, Logged, Content]


def pause(batch_seconds: float, run_seconds: float) -> float:
    """Return for how long no batch of files follows one that took so long."""
    return min(max(LEAST_PAUSE, DUTY * batch_seconds, run_seconds / SHARE), MOST_PAUSE)


class Outbox:
    """The queue of one open run; `failed` is told of each thing that could not be stored."""

    def __init__(self, live: Live, failed: Callable[[str, Exception], None]) -> None:
        self._live = live
        self._failed = failed
        self._parcels: deque[Parcel] = deque()
        self._ready: list[Ready] = []
        self._held = 0
        self._packing = 0  # bytes of what is ready and packed
        self._stuck = False
        self._told = False
        self._began = self._due = time.monotonic()
        self._room = threading.Condition()
        self._turn = threading.Lock()
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cas-outbox", daemon=True)

    def start(self) -> None:
        """Begin to empty the queue."""
        # While the interpreter ends, Python starts no threads: then `halt` does all of it.
        with suppress(RuntimeError):
            self._thread.start()

    def halt(self) -> None:
        """Store all that is in the queue; what cannot be is reported."""
        self._halted.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()
        for call, row, _ in self._ready:
            self._failed(call, TrackingError(f"{row.key} at step {row.step} could not be stored"))
        self._ready = []

    def put(self, parcel: Parcel) -> None:
        """Take one thing; raise TrackingError when too much waits already, and stays waiting."""
        with self._room:
            if self._is_full(parcel.prepared.nbytes):
                patience = 0.0 if self._stuck else PATIENCE_SECONDS
                free = self._room.wait_for(
                    lambda: not self._is_full(parcel.prepared.nbytes), patience
                )
                self._stuck = not free
                if not free:
                    raise TrackingError(
                        f"{parcel.row.key} was left out: {self._held} bytes wait to be stored"
                    )
            self._parcels.append(parcel)
            self._held += parcel.prepared.nbytes

    def flush(self) -> None:
        """Store what has come up so far, or keep it for the next time."""
        self._pass(now=True)

    def _is_full(self, more: int) -> bool:
        return self._held > 0 and self._held + more > ROOM

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # whoever trains in this process comes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._halted.wait(BEHIND_SECONDS):
            self._pass(now=False)

    def _pass(self, *, now: bool) -> None:
        with self._turn:
            for _ in range(len(self._parcels)):  # one by one: Ctrl-C in `halt` loses none
                self._encode(self._parcels[0])
                self._parcels.popleft()
            began = time.monotonic()
            try:
                self._send(all_of_it=now or began >= self._due)
            except Exception as error:
                self._say(error)
                self._due = began + MOST_PAUSE
            with self._room:
                waiting = sum(parcel.prepared.nbytes for parcel in self._parcels)
                self._held = waiting + sum(row.size for _, row, _ in self._ready)
                self._room.notify_all()

    def _encode(self, parcel: Parcel) -> None:
        try:
            with noting() as taken:
                content = parcel.prepared.encode()
            if taken := taken + Counter(parcel.taken):
                where = "/".join((LOGGED, *parcel.row.where))
                self._live.note(redacted_frame(where, taken))
            size = (
                len(content.value) if isinstance(content.value, bytes) else parcel.prepared.nbytes
            )
            row = replace(parcel.row, format=content.format, size=size, options=content.options)
            self._ready.append((parcel.call, self._packed(row, content), content))
        except Exception as error:
            self._failed(f"{parcel.call}: {parcel.row.key}", error)

    def _packed(self, row: Logged, content: Content) -> Logged:
        """Return the row with its content when that is small."""
        if row.kind in FILES or content.format == STATE_FORMAT or row.size > PACKED:
            return row
        if self._live.state.logged.packed_bytes + self._packing + row.size > PACKED_TOTAL:
            return row
        self._packing += row.size
        return replace(row, data=content.value)

    def _send(self, *, all_of_it: bool) -> None:
        """Store what is ready; things of a key that waits for its files wait with them."""
        waits = {row.where for _, row, _ in self._ready if row.data is None and not all_of_it}
        sent = [one for one in self._ready if one[1].where not in waits]
        later = [one for one in self._ready if one[1].where in waits]
        files = [one for one in sent if one[1].data is None]
        stored = iter(self._stored(files) if files else ())
        for frame in frames(row if row.data is not None else next(stored) for _, row, _ in sent):
            self._live.note(frame)
        self._ready = later
        self._packing = sum(row.size for _, row, _ in later if row.data is not None)

    def _stored(self, files: Sequence[Ready]) -> Sequence[Logged]:
        began = time.monotonic()

        def write(tx: Transaction) -> list[Logged]:
            return [_write(tx, row, content) for _, row, content in files]

        rows = self._live.add_logged(write)
        ended = time.monotonic()
        self._due = ended + pause(ended - began, ended - self._began)
        return rows

    def _say(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            self._live.tell(f"warning: {error} (what was logged waits to be stored)")


def _write(tx: Transaction, row: Logged, content: Content) -> Logged:
    if isinstance(content.value, bytes):
        return replace(row, id=tx.writer.blob(content.value))
    entry: Entry = write_state(tx.writer, content.value)
    return replace(row, id=entry.id, size=entry.size)
