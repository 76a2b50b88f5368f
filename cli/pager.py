"""Long lists on a terminal, a screen at a time, as git shows its own."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain, islice
from typing import Final

VARIABLES: Final = ("CAS_PAGER", "PAGER")
USUAL: Final = "less"
# Ends where all fits on a screen, keeps colours, leaves what was shown where it is.
LESS: Final = {"LESS": "FRX"}


def program(environment: Mapping[str, str]) -> list[str] | None:
    """Return the pager that the surroundings ask for, None for none."""
    if environment.get("TERM", "dumb") == "dumb":
        return None
    told = next((environment[name] for name in VARIABLES if name in environment), USUAL)
    try:
        words = shlex.split(told)
    except ValueError:
        return None
    if not words or words == ["cat"] or shutil.which(words[0]) is None:
        return None
    return words


def page(lines: Iterable[str]) -> None:
    """Print lines; those that are more than a screen through a pager, if somebody is there."""
    rest = iter(lines)
    words = program(os.environ) if sys.stdin.isatty() and sys.stdout.isatty() else None
    if words is None:
        _print(rest)
        return
    first = list(islice(rest, max(shutil.get_terminal_size().lines - 1, 1)))
    more = list(islice(rest, 1))
    if not more:
        _print(first)
        return
    sys.stdout.flush()
    try:
        shown = subprocess.Popen(words, stdin=subprocess.PIPE, env=LESS | dict(os.environ))
    except OSError:
        _print(chain(first, more, rest))
        return
    try:
        _feed(shown, chain(first, more, rest))
    finally:
        _wait(shown)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _feed(shown: "subprocess.Popen[bytes]", lines: Iterable[str]) -> None:
    """Write lines to a pager, until it has been left."""
    if shown.stdin is None:
        return
    with suppress(BrokenPipeError, KeyboardInterrupt), shown.stdin as target:
        for line in lines:
            target.write(f"{line}\n".encode("utf-8", "surrogateescape"))


def _wait(shown: "subprocess.Popen[bytes]") -> None:
    """Wait for a pager; Ctrl-C is the pager's, which takes back what it did to the terminal."""
    while True:
        try:
            shown.wait()
        except KeyboardInterrupt:
            continue
        return
