"""A program while it runs: what it prints goes on and is kept, signals go through to it.

What it prints into a terminal it prints into one of its own, so that it draws its bars and colours,
and prints at once, as it would without us. Two outputs that are one file are one here too, in the
order in which it writes.
"""

import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.tracking.privacy.cleanlog import CleanLog, CleanStream

PIECE: Final = 64 * 1024
GRACE: Final = 2.0  # seconds that its output may stay open behind the end of a program, untold
FORWARDED: Final = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
ENOUGH: Final = 3  # how many Ctrl-C end a program that does not end by itself

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Stream:
    """One way out of a program: where it is read, and where that goes."""

    source: int
    to: int
    terminal: bool


@dataclass(slots=True)
class Child:
    """A program that has been started, and the ends of its output that we hold."""

    process: "subprocess.Popen[bytes]"
    streams: Sequence[Stream]
    name: str
    tell: Tell
    stopped: tuple[int, int] = field(default_factory=os.pipe)  # closed once nobody reads any more
    interrupts: int = 0

    def stop_reading(self) -> None:
        """Let what still prints print for itself."""
        with suppress(OSError):
            os.write(self.stopped[1], b".")


def started(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], output: tuple[int, int], tell: Tell
) -> Child:
    """Start a program whose output goes to these two; raise InvalidInputError.

    `tell` gets what a person should know while it runs.
    """
    program = str(cwd / argv[0]) if os.path.dirname(argv[0]) else argv[0]
    one = _same(*output)
    opened = [_opened(to) for to in output[: 1 if one else 2]]
    writing = [inside for _, inside in opened]
    try:
        process = subprocess.Popen(
            [program, *argv[1:]], cwd=cwd, env=env, stdout=writing[0], stderr=writing[-1]
        )
    except (OSError, ValueError) as error:
        for stream, _ in opened:
            os.close(stream.source)
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(f"cannot run {argv[0]}: {reason}") from error
    finally:
        for end in writing:
            os.close(end)
    return Child(process, [stream for stream, _ in opened], os.path.basename(argv[0]), tell)


def followed(child: Child, log: CleanLog) -> int:
    """Pass on what a program prints, and keep it, until it ends; return its exit code.

    What it has started, and what still has its output when it has ended, is waited for too: it
    would be killed as it prints. Ctrl-C ends that.
    """
    threads = [
        threading.Thread(target=_tee, args=(child, stream, log.stream()), daemon=True)
        for stream in child.streams
    ]
    with _signals(child):
        for thread in threads:
            thread.start()
        code = child.process.wait()
        for thread in threads:
            thread.join(GRACE)
        if any(thread.is_alive() for thread in threads):
            child.tell(
                f"{child.name} has ended, but something that it started still has its output: "
                "waiting for that too; Ctrl-C stops waiting"
            )
        for thread in threads:
            thread.join()
    for end in child.stopped:
        os.close(end)
    return code


def _same(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _opened(to: int) -> tuple[Stream, int]:
    """Return how something on its way to a file is read, and what it is written to."""
    if _is_terminal(to):
        with suppress(OSError, ImportError):  # where there is none, a pipe does as well
            import pty
            import termios

            outside, inside = pty.openpty()
            mode: list[Any] = termios.tcgetattr(inside)
            mode[1] &= ~termios.OPOST  # the real one does what is to be done to line ends
            termios.tcsetattr(inside, termios.TCSANOW, mode)
            stream = Stream(outside, to, terminal=True)
            _resize(stream)
            return stream, inside
    outside, inside = os.pipe()
    return Stream(outside, to, terminal=False), inside


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _resize(stream: Stream) -> None:
    """Give a terminal of a program the size of the one that it is shown in."""
    import fcntl
    import termios

    with suppress(OSError):
        size = fcntl.ioctl(stream.to, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(stream.source, termios.TIOCSWINSZ, size)


@contextmanager
def _signals(child: Child) -> Iterator[None]:
    """Let signals be about the program: how it ends is then recorded like any other end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Callable[[int, object], None]] = {
        getattr(signal, name): lambda number, _: _forward(child, number)
        for name in FORWARDED
        if hasattr(signal, name)
    }
    handlers[signal.SIGINT] = lambda number, _: _interrupt(child)
    if any(stream.terminal for stream in child.streams):
        handlers[signal.SIGWINCH] = lambda number, _: _resized(child, number)
    before = {}
    for number, handler in handlers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def _forward(child: Child, number: int) -> None:
    if child.process.returncode is None:
        child.process.send_signal(number)
    else:
        child.stop_reading()


def _interrupt(child: Child) -> None:
    """Take a Ctrl-C, which a terminal has sent to the program too: its end is what counts."""
    if child.process.returncode is not None:
        child.stop_reading()
        return
    child.interrupts += 1
    if child.interrupts == ENOUGH:
        child.process.kill()
    elif child.interrupts == ENOUGH - 1:
        if not _at_terminal():  # then it may have been sent to us alone
            child.process.send_signal(signal.SIGINT)
        child.tell(f"{child.name} has not ended yet: Ctrl-C once more kills it")


def _at_terminal() -> bool:
    """Say whether we are what a terminal sends its Ctrl-C to."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _resized(child: Child, number: int) -> None:
    for stream in child.streams:
        if stream.terminal:
            _resize(stream)
    if child.process.returncode is None:
        child.process.send_signal(number)  # it may have looked before we were done


def _tee(child: Child, stream: Stream, log: CleanStream) -> None:
    """Pass on what comes at once, and log it without secrets."""
    try:
        for data in _read(child, stream):
            with suppress(OSError):  # whoever read our output may be gone: the log goes on
                _write(stream.to, data)
            with suppress(OSError):
                log.feed(data)
    finally:
        os.close(stream.source)
        with suppress(OSError):
            log.end()


def _read(child: Child, stream: Stream) -> Iterator[bytes]:
    """Yield what comes, until nobody can write any more, or nobody wants to wait for that."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(stream.source, selectors.EVENT_READ)
        waiting.register(child.stopped[0], selectors.EVENT_READ)
        while stream.source in {key.fd for key, _ in waiting.select()}:
            try:
                data = os.read(stream.source, PIECE)
            except OSError:  # so a terminal says that it was closed
                return
            if not data:
                return
            yield data


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
