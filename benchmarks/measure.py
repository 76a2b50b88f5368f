"""What a command costs: wall and CPU seconds, peak memory, and the size of what it leaves."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

BLOCK = 1 << 20
POLL_SECONDS = 0.02
LAUNCH = str(Path(__file__).with_name("launch.py"))


class FailedError(Exception):
    """A command, or a check of what it left, failed; the text says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one or several commands took; CPU and memory with all their children."""

    wall: float = 0.0
    cpu: float = 0.0
    peak: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak))


def run(command: Sequence[str], cwd: Path, env: Mapping[str, str], output: Path) -> Usage:
    """Run a command to its end, its standard output into a file; raise FailedError."""
    told, took = (output.with_name(output.name + end) for end in (".stderr", ".took"))
    launched = (sys.executable, "-I", "-S", LAUNCH, str(took), *command)
    took.unlink(missing_ok=True)
    with output.open("wb") as out, told.open("wb") as err:
        subprocess.run(
            launched,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            check=False,
        )
    if not took.exists():
        raise FailedError(f"{command[0]} cannot be run")
    wall, cpu, peak, code = took.read_text().split()
    if code != "0":
        lines = (told.read_text(errors="replace") + output.read_text(errors="replace")).split("\n")
        said = " ".join(line.strip() for line in lines if line.strip())[-300:]
        words = " ".join(Path(word).name for word in command[:4])
        raise FailedError(f"`{words}` ended with {code}: {said}")
    return Usage(float(wall), float(cpu), int(peak))


def size(folder: Path) -> int:
    """Return the sum of the sizes of the files in a folder, or of a file."""
    if not folder.is_dir():
        return folder.stat().st_size if folder.exists() else 0
    total, open_folders = 0, [str(folder)]
    while open_folders:
        try:
            entries = list(os.scandir(open_folders.pop()))
        except FileNotFoundError:
            continue  # it went away while a command runs
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                open_folders.append(entry.path)
                continue
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total


class Watch:
    """Samples the size of a folder while it is entered; `most` is the largest seen."""

    def __init__(self, folder: Path) -> None:
        self.most = size(folder)
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self.most = max(self.most, size(self._folder))


def check_equal(given: Path, restored: Path) -> None:
    """Raise FailedError unless two files or folders hold the same bytes under the same names."""
    if given.is_file():
        _check_file(given, restored)
        return
    names = _names(given)
    if names != _names(restored):
        raise FailedError(f"restored {restored.name}: other names than were given")
    for name in names:
        _check_file(given / name, restored / name)


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _check_file(given: Path, restored: Path) -> None:
    with given.open("rb") as one, restored.open("rb") as other:
        while block := one.read(BLOCK):
            if other.read(BLOCK) != block:
                raise FailedError(f"restored {given.name} differs from what was given")
        if other.read(1):
            raise FailedError(f"restored {given.name} is longer than what was given")


def sync_all() -> None:
    """Leave nothing unwritten that the next command would have to pay for."""
    os.sync()


def middle(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the lowest, the median and the highest."""
    known = sorted(values)
    return known[0], median(known), known[-1]
