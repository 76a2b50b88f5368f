"""Telling somebody of an event: a command that is run, or an address that is called.

Both get the event as JSON and a time limit, on a thread of their own: what hangs there holds up
neither the training nor the watch. What they answer is not looked at, but for that they failed.
"""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from cas.tracking.watching.events import Event

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

COMMAND_SECONDS: Final = 60.0
WEBHOOK_SECONDS: Final = 10.0
WAITING: Final = 100  # events; more at once are not sent
PATIENCE: Final = 5.0  # seconds that the end of a run waits for what is on its way


class Notifier:
    """Sends events of one run, one after the other."""

    def __init__(
        self, run: str, command: tuple[str, ...], webhook: str | None, tell: Callable[[str], None]
    ) -> None:
        self._run = run
        self._command = command
        self._webhook = webhook
        self._tell = tell
        self._told = False
        self._events: queue.Queue[Event | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def send(self, event: Event) -> None:
        """Send an event soon; without a command and an address this does nothing."""
        if not self._command and self._webhook is None:
            return
        with self._lock:
            begun = self._thread is not None or self._begun()
        if not begun:
            self._deliver(event)
            return
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._failed("too many events at once")

    def close(self) -> None:
        """Wait for what is on its way, a little."""
        if self._thread is None:
            return
        until = time.monotonic() + PATIENCE
        try:
            self._events.put(None, timeout=PATIENCE)
        except queue.Full:
            return
        self._thread.join(max(0.0, until - time.monotonic()))

    def _begun(self) -> bool:
        """Begin the thread; say whether that can still be done: not as the interpreter ends."""
        thread = threading.Thread(target=self._work, name="cas-notify", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        raw = json.dumps({"run": self._run, **event.document()}).encode()
        if self._command:
            self._try("command", self._execute, raw)
        if self._webhook is not None:
            self._try("webhook", self._call, raw)

    def _try(self, what: str, send: Callable[[bytes], None], raw: bytes) -> None:
        try:
            send(raw)
        except Exception as error:  # whatever the command or the address does, training goes on
            self._failed(f"the {what} {_why(error)}")

    def _execute(self, raw: bytes) -> None:
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "CAS_EVENT": raw.decode()},
            start_new_session=True,  # Ctrl-C is not meant for it, and it can be ended as a whole
        ) as process:
            try:
                process.communicate(raw, COMMAND_SECONDS)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "command")

    def _call(self, raw: bytes) -> None:
        from urllib.request import Request

        headers = {"Content-Type": "application/json", "User-Agent": "cas"}
        request = Request(str(self._webhook), raw, headers)
        with _opener().open(request, timeout=WEBHOOK_SECONDS) as answer:
            answer.read(1)

    def _failed(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._tell(f"warning: an event was not sent: {why}")


def _opener() -> "OpenerDirector":
    """Return what calls an address and no other: a redirect would lose the event on its way."""
    from urllib.request import HTTPRedirectHandler, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *given: Any) -> None:
            """Return None: the answer is then an error as any other."""

    return build_opener(Stay)


def _why(error: Exception) -> str:
    """Return what went wrong without the address or the command, which may hold a secret."""
    code = getattr(error, "code", None)
    match error:
        case subprocess.CalledProcessError():
            return f"ended with {error.returncode}"
        case subprocess.TimeoutExpired() | TimeoutError():
            return "took too long"
        case OSError() if isinstance(code, int):
            return f"answered {code}" + (
                ": give the address it leads to" if code // 100 == 3 else ""
            )
        case OSError():
            return f"failed: {error.strerror or type(error).__name__}"
    return f"failed: {type(error).__name__}"
