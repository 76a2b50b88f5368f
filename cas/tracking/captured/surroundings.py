"""What takes long to read of a run's surroundings: packages and hardware, read behind its start.

A run begins without waiting for more than a moment. What is not there by then is added by the next
transaction of the run, so that its first commit has all of it.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from cas.objects.document import document
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured.capture import as_data
from cas.tracking.captured.hardware import hardware
from cas.tracking.captured.installed import installed, tried
from cas.tracking.captured.parts import Capture
from cas.tracking.record import Items

PATIENCE_S: Final = 0.05
LONGEST_S: Final = 30.0  # a disk that does not answer holds up no commit for longer
ENVIRONMENT: Final = "environment.json"
HOST: Final = "host.json"


class Surroundings:
    """Packages and hardware, on their way."""

    def __init__(self, parts: Capture) -> None:
        self._parts = parts
        self._found: dict[str, Mapping[str, Any]] = {}
        self._done = threading.Event()
        self._then: Callable[[], None] | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._read, name="cas-surroundings", daemon=True).start()

    def ready(self, seconds: float | None = PATIENCE_S) -> bool:
        """Wait for a moment, or with None until the end; say whether everything is there."""
        return self._done.wait(seconds)

    def added(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the documents that grow, with what was found; waits for it a while."""
        self._done.wait(LONGEST_S)
        return {name: {**known[name], **more} for name, more in self._found.items()}

    def late(self, known: Mapping[str, Any]) -> Callable[[Transaction, Items], Items]:
        """Return what writes these documents into a later transaction, beside what is captured.

        One that somebody has written anew since, a program that knows better, is left alone.
        """

        def write(tx: Transaction, captured: Items) -> Items:
            items: Items = {}
            for name, value in self.added(known).items():
                before, whole = (
                    ingest.file_entry(tx.writer, name.encode(), document(as_data(one)))
                    for one in (known[name], value)
                )
                if name in captured and captured[name].id in {before.id, whole.id}:
                    items[name] = whole
            return items

        return write

    def then(self, call: Callable[[], None]) -> None:
        """Call this, on the thread that reads, once everything is there; at once when it is."""
        with self._lock:
            if not self._done.is_set():
                self._then = call
                return
        call()

    def _read(self) -> None:
        found: dict[str, Mapping[str, Any]] = {}
        if self._parts.packages:
            found[ENVIRONMENT] = tried(installed) or {}
        if self._parts.hardware:
            found[HOST] = tried(hardware) or {}
        with self._lock:
            self._found = found
            self._done.set()
        if self._then is not None:
            tried(self._then)
