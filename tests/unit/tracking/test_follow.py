"""A program while it runs: its output, its signals, and what it leaves behind."""

import io
import os
import pty
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import InvalidInputError
from cas.tracking import follow
from cas.tracking.follow import followed, started
from cas.tracking.privacy.cleanlog import CleanLog

NOTHING: Callable[[str], object] = lambda text: None  # noqa: E731


def run(
    folder: Path, *argv: str, output: tuple[int, int], tell: Callable[[str], object] = NOTHING
) -> tuple[int, str]:
    """Run a program to its end; return its exit code and its log."""
    with open(folder / "log", "wb", buffering=0) as log:
        child = started(argv, folder, os.environ, output, tell)
        code = followed(child, CleanLog(log))
    return code, (folder / "log").read_text()


def python(text: str) -> tuple[str, ...]:
    return sys.executable, "-c", f"import os, signal, sys, time\n{text}"


def drained(end: int) -> tuple[io.BytesIO, threading.Thread]:
    """Collect what comes out of a terminal."""
    found = io.BytesIO()

    def read() -> None:
        try:
            while data := os.read(end, 1000):
                found.write(data)
        except OSError:
            os.close(end)

    thread = threading.Thread(target=read)
    thread.start()
    return found, thread


def test_a_program_in_a_terminal_is_in_one(tmp_path: Path) -> None:
    import fcntl
    import struct
    import termios

    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    seen, thread = drained(outside)
    code, log = run(
        tmp_path,
        *python(
            "print(sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size(1).columns)\n"
            "print('one'); print('two', file=sys.stderr); print('three')"
        ),
        output=(inside, inside),
    )
    os.close(inside)
    thread.join()
    assert code == 0
    assert log == "True True 77\none\ntwo\nthree\n"  # line ends are the real terminal's to make
    assert seen.getvalue().decode() == log.replace("\n", "\r\n")


def test_it_prints_at_once_in_a_terminal(tmp_path: Path) -> None:
    outside, inside = pty.openpty()
    seen, thread = drained(outside)
    wait = f"print('early')\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    done: list[int] = []

    def go() -> None:
        while b"early" not in seen.getvalue():
            time.sleep(0.01)
        done.append(1)
        (tmp_path / "go").touch()

    threading.Thread(target=go).start()
    run(tmp_path, *python(wait), output=(inside, inside))
    os.close(inside)
    thread.join()
    assert done == [1]


def test_two_outputs_that_are_one_file_keep_their_order(tmp_path: Path) -> None:
    with open(tmp_path / "both", "wb") as both:
        _, log = run(
            tmp_path,
            "sh", "-c", "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done",
            output=(both.fileno(), os.dup(both.fileno())),
        )  # fmt: skip
    assert log == "".join(f"o{n}\ne{n}\n" for n in range(1, 6))
    assert (tmp_path / "both").read_text() == log


def test_what_it_leaves_behind_is_waited_for_until_somebody_says_not_to(tmp_path: Path) -> None:
    told: list[str] = []

    def enough(text: str) -> None:
        told.append(text)
        signal.raise_signal(signal.SIGINT)

    with open(os.devnull, "wb") as nowhere:
        output = (nowhere.fileno(), nowhere.fileno())
        began = time.monotonic()
        line = "(sleep 60; echo never) & echo now; exit 3"
        assert run(tmp_path, "sh", "-c", line, output=output, tell=enough) == (3, "now\n")
        assert time.monotonic() - began < 50
        assert len(told) == 1
        assert "something that it started still has its output" in told[0]
        line = "(sleep 0.5; echo late) & echo now"
        assert run(tmp_path, "sh", "-c", line, output=output) == (0, "now\nlate\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_third_interrupt_kills_what_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(follow, "_at_terminal", lambda: terminal)
    deaf = (
        "signal.signal(signal.SIGINT, lambda *a: print('heard', flush=True))\n"
        "print('ready', flush=True)\nwhile True: time.sleep(0.05)"
    )
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        log = tmp_path / "log"
        while not log.exists() or "ready" not in log.read_text():
            time.sleep(0.01)
        for number in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            while number == 1 and not told:
                time.sleep(0.01)
            time.sleep(0.5)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with open(os.devnull, "wb") as nowhere:
        output = (nowhere.fileno(), nowhere.fileno())
        code, log = run(tmp_path, *python(deaf), output=output, tell=told.append)
    thread.join()
    assert code == -signal.SIGKILL
    assert told == [f"{Path(sys.executable).name} has not ended yet: Ctrl-C once more kills it"]
    assert log.count("heard") == (0 if terminal else 1)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTERM"])
def test_signals_go_through_to_the_program(tmp_path: Path, name: str) -> None:
    text = (
        f"signal.signal(signal.{name}, lambda *a: (print('heard', flush=True), os._exit(7)))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    number = getattr(signal, name)

    def send() -> None:
        log = tmp_path / "log"
        while not log.exists() or "ready" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    with open(os.devnull, "wb") as nowhere:
        output = (nowhere.fileno(), nowhere.fileno())
        assert run(tmp_path, *python(text), output=output) == (7, "ready\nheard\n")
    thread.join()


def test_what_is_ignored_around_it_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with open(os.devnull, "wb") as nowhere:
            text = "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
            output = (nowhere.fileno(), nowhere.fileno())
            assert run(tmp_path, *python(text), output=output) == (0, "True\n")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_stays_open(tmp_path: Path) -> None:
    with open(os.devnull, "wb") as nowhere:
        output = (nowhere.fileno(), 2)
        before = len(os.listdir("/proc/self/fd"))
        assert run(tmp_path, "true", output=output)[0] == 0
        (tmp_path / "no-program").write_text("x")
        (tmp_path / "no-program").chmod(0o755)
        with pytest.raises(InvalidInputError, match=r"cannot run \./no-program: Exec format"):
            started(["./no-program"], tmp_path, os.environ, output, NOTHING)
        assert len(os.listdir("/proc/self/fd")) == before
