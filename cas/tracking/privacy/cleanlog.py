"""What a program prints, kept without secrets while it is being printed.

Several streams share a file. Each comes in whole lines, and in whole private keys: a line that the
other stream cuts in two could hide a secret from the filter, and so could the end of a piece.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from cas.tracking.privacy.secrets import REMOVED, UNKNOWN, Taken, is_cut, scrub_file

MAX_LINE: Final = 1024 * 1024  # a longer one is kept in pieces
MAX_KEY: Final = 64 * 1024  # so long at most a private key is waited for


class CleanLog:
    """A file that streams are written to, each through a `stream` of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._lines = 0
        self.taken: list[Taken] = []  # what is missing in the file, in its order

    def stream(self) -> "CleanStream":
        """Return the way in for one more stream."""
        return CleanStream(self)

    def write(self, text: bytes) -> None:
        """Write a piece of whole lines without its secrets; raise OSError."""
        clean, taken = scrub_file(text)
        with self._lock:
            self.taken += [replace(one, line=one.line + self._lines) for one in taken]
            self._lines += clean.count(b"\n")
            while clean:
                clean = clean[os.write(self._file.fileno(), clean) :]


class CleanStream:
    """One stream on its way into a `CleanLog`."""

    def __init__(self, log: CleanLog) -> None:
        self._log = log
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        """Take what came; what may be the first half of a secret waits for the other half."""
        self._waiting += data
        if b"\n" not in data and len(self._waiting) <= MAX_LINE:
            return
        whole = self._waiting.rfind(b"\n") + 1 or len(self._waiting)
        if is_cut(self._waiting[:whole]) and len(self._waiting) <= MAX_KEY:
            whole = self._waiting.rfind(b"\n", 0, self._waiting.rfind(b"-----BEGIN ")) + 1
        ready, self._waiting = self._waiting[:whole], self._waiting[whole:]
        if ready:
            self._log.write(ready)

    def end(self) -> None:
        """Write what still waits: nothing more comes."""
        ready, self._waiting = self._waiting, b""
        if ready:
            self._log.write(ready)


def removed_before(log: Path) -> Iterator[Taken]:
    """Yield each place of a log at which something was taken out, of whatever kind."""
    mark = REMOVED.encode()
    with open(log, "rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE), b""), start=1):
            for place in range(line.count(mark)):
                yield Taken(number, place, UNKNOWN, "", 0)
