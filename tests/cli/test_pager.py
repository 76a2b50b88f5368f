"""A list that is longer than a screen goes through a pager, when somebody sits there."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cli import pager

CALL = (
    "import sys\nfrom cli.pager import page\n"
    "page(f'line {n} \\x1b[32mgreen\\x1b[0m' for n in range(int(sys.argv[1])))\n"
    "print('behind')\n"
)


def seen(lines: int, **environment: str) -> str:
    """Return what a person sees who lets a program page so many lines on 24 rows."""
    import fcntl
    import struct
    import termios

    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in {"PAGER", "CAS_PAGER", "LINES"}}
    child = subprocess.Popen(
        [sys.executable, "-c", CALL, str(lines)],
        stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
        env=kept | {"TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )  # fmt: skip
    os.close(inside)
    found = b""
    try:
        while data := os.read(outside, 10_000):
            found += data
    except OSError:  # closed
        pass
    os.close(outside)
    assert child.wait(30) == 0
    return found.decode().replace("\r\n", "\n")


def test_what_fits_on_a_screen_is_printed(tmp_path: Path) -> None:
    pagers = {"CAS_PAGER": f"tee {tmp_path / 'paged'}"}
    assert seen(23, **pagers).count("line") == 23
    assert not (tmp_path / "paged").exists()


def test_what_does_not_goes_through_the_pager_whole(tmp_path: Path) -> None:
    text = seen(24, CAS_PAGER=f"tee {tmp_path / 'paged'}", PAGER="false")
    assert (tmp_path / "paged").read_text() == "".join(
        f"line {n} \x1b[32mgreen\x1b[0m\n" for n in range(24)
    )
    assert text.endswith("behind\n")


def test_a_pager_that_is_left_early_ends_the_list() -> None:
    text = seen(1_000_000, PAGER="head -n 2")
    assert text.count("line") == 2
    assert text.endswith("behind\n")


@pytest.mark.parametrize(
    "environment",
    [
        {"PAGER": "cat"},
        {"PAGER": ""},
        {"PAGER": "no-such-program"},
        {"TERM": "dumb"},
        {"PAGER": "'"},
    ],
)
def test_without_a_pager_all_is_printed(environment: dict[str, str]) -> None:
    assert seen(30, **environment).count("line") == 30


def test_its_own_variable_goes_first() -> None:
    screen = {"TERM": "xterm", "PAGER": "cat -A"}
    assert pager.program(screen) == ["cat", "-A"]
    assert pager.program(screen | {"CAS_PAGER": "cat"}) is None
    assert pager.program({"PAGER": "cat -A"}) is None


def test_in_a_pipe_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    pager.page(str(number) for number in range(500))
    assert capsys.readouterr().out.count("\n") == 500
