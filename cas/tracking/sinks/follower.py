"""What feeds the sinks of an open run: each has a thread that reads the journal as it grows.

A sink that fails, or that hangs, costs the run nothing but a few seconds at its end.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Final

from cas.objects import canonical
from cas.objects.kind import Kind
from cas.repo.repo import Repo
from cas.store.pool import NICENESS
from cas.tracking.journals.journal import MAX_FRAME, scan_frames
from cas.tracking.live import Live
from cas.tracking.shown.logged import STATE_FORMAT, Logged
from cas.tracking.sinks.lines import BEGIN, END, POINTS, lines
from cas.tracking.sinks.sink import Sink

EVERY_SECONDS: Final = 1.0
PART: Final = 2 * MAX_FRAME  # of a journal is read at a time: a whole frame at least
STUCK_SECONDS: Final = 5.0  # without taking anything, at the end of the run: it is left alone
LINGER_SECONDS: Final = 15.0  # all sinks together, however busy: who ends a run may soon kill it
# What a run that goes on has said already, when it was logged.
SAID_BEFORE: Final = frozenset({POINTS, "logged", "event"})


class Followers:
    """Feeds the sinks of an open run until that ends."""

    def __init__(self, live: Live, sinks: Sequence[Sink]) -> None:
        self._live = live
        self._each = [Follower(live, sink) for sink in sinks]

    def start(self) -> None:
        """Begin to feed them."""
        for one in self._each:
            one.start()

    def halt(self) -> None:
        """Feed them with what is left, and close them; who takes too long does not get it."""
        with suppress(Exception):  # the run itself tells of a journal that cannot be written
            self._live.flush()
        for one in self._each:
            one.end()
        until = time.monotonic() + LINGER_SECONDS
        for one in self._each:
            one.wait(until)


class Follower:
    """Reads the journal of an open run as it grows, and feeds a sink with it."""

    def __init__(self, live: Live, sink: Sink) -> None:
        self._live = live
        self._sink = sink
        self._wanted = frozenset(getattr(sink, "contents", ()))
        self._journal = live.journal
        self._after = live.state.metrics.last_step  # of a run that goes on
        self._past = live.state.position if self._after >= 0 else 0
        self._at = 0
        self._inode: int | None = None
        self._end: list[Mapping[str, Any]] = []  # it may be noted before the last points are
        self._left = threading.Event()  # it gets no more
        self._moved = 0.0
        self._repo: Repo | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cas-sink", daemon=True)

    def start(self) -> None:
        """Begin to feed the sink."""
        self._thread.start()

    def end(self) -> None:
        """Let it feed the sink with what is left, and close it."""
        self._moved = time.monotonic()
        self._ended.set()

    def wait(self, until: float) -> None:
        """Wait for the end of it, as long as the sink goes on taking; then leave it alone."""
        while self._thread.is_alive():
            now = time.monotonic()
            if now > until or now - self._moved > STUCK_SECONDS:
                self._left.set()
                self._live.tell(f"warning: {self._name} is too slow: it lacks the end of the run")
                return
            self._thread.join(0.05)

    @property
    def _name(self) -> str:
        return f"the sink {type(self._sink).__name__}"

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # whoever trains in this process comes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        state = self._live.state
        begin = {"type": BEGIN, "run": state.run, "uid": state.uid.hex()}
        self._offer([begin if self._after < 0 else begin | {"after": self._after}])
        while not self._ended.wait(EVERY_SECONDS):
            self._read()
        self._read()
        self._offer(self._end)
        with suppress(Exception):
            self._sink.close()
        if self._repo is not None:
            self._repo.backend.close()

    def _read(self) -> None:
        try:
            with open(self._journal, "rb") as file:
                self._follow(file)
        except OSError:
            pass  # it is not there any more, or not yet

    def _follow(self, file: IO[bytes]) -> None:
        inode = os.fstat(file.fileno()).st_ino
        if self._inode not in {None, inode}:
            self._at = file.seek(0, os.SEEK_END)  # written anew: what it says was said before
        self._inode = inode
        while not self._left.is_set():
            file.seek(self._at)
            frames, read = [], 0
            for payload, read in scan_frames(file.read(PART)):
                frames.append((canonical.decode(payload), self._at + read))
            if not frames:
                return
            self._at += read
            self._offer(line for frame, ends in frames for line in self._lines(frame, ends))

    def _lines(self, frame: Any, ends: int) -> Iterator[Mapping[str, Any]]:
        past = ends <= self._past and isinstance(frame, dict) and frame.get("t") in SAID_BEFORE
        return iter(()) if past else lines(frame, self._content, self._wanted)

    def _content(self, row: Logged) -> bytes | None:
        """Return the bytes of something logged; None for a state, and where they cannot be read."""
        if row.data is not None or row.id is None or row.format == STATE_FORMAT:
            return row.data
        try:
            if self._repo is None:  # one of its own: the run's is in the hands of its threads
                self._repo = Repo.open(self._live.repo.path)
            return bytes(self._repo.store.read(Kind.BLOB, row.id))
        except Exception:  # the sink goes on without it
            return None

    def _offer(self, told: Iterable[Mapping[str, Any]]) -> None:
        if self._left.is_set():
            return
        try:
            for line in told:
                if line["type"] == END and told is not self._end:
                    self._end = [line]
                    continue
                self._sink.take(line)
                self._moved = time.monotonic()
                if self._left.is_set():  # it was given up meanwhile
                    return
        except BaseException as error:
            self._left.set()
            reason = str(error) or type(error).__name__
            self._live.tell(f"warning: {self._name} has failed and gets no more: {reason}")
