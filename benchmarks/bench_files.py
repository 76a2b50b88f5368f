"""Many small files: the first commit of them against git, and the same again, unchanged.

    .venv/bin/python benchmarks/bench_files.py [FILES] [ROUNDS]

Each round makes FILES files of 2 KiB (10,000 by default, a hundred to a folder, half of them text
and half noise) and runs whole processes in turn, so that a slow moment of the machine hits all
alike. git comes twice: as it is, which syncs no object, and made to sync them, as cas does. What
is printed are medians, and the CPU seconds beside them.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter

SIZE = 2048
CAS = str(Path(sys.executable).parent / "cas")
GIT = ["git", "-c", "user.name=b", "-c", "user.email=b@localhost", "-c", "gc.auto=0"]
SYNC = ["-c", "core.fsync=all", "-c", "core.fsyncMethod=batch"]
WORDS = ["loss", "step", "epoch", "train", "eval", "batch", "mean", "model", "layer", "weight"]

Taken = tuple[float, float]  # wall and CPU seconds


def main(files: int = 10_000, rounds: int = 5) -> None:
    taken: dict[str, list[Taken]] = {}
    with TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as place:
        for number in range(rounds):
            folder = Path(place) / str(number)
            for name, once in one_round(folder, files, number).items():
                taken.setdefault(name, []).append(once)
            shutil.rmtree(folder)
    first = median(wall for wall, _ in taken["git, first"])
    for name, seconds in taken.items():
        walls = [wall for wall, _ in seconds]
        low, _, high = quantiles(walls, n=4) if len(walls) > 1 else walls * 3
        print(
            f"{name:20} {median(walls):6.3f} s  ({low:.3f} to {high:.3f})"
            f"  CPU {median(cpu for _, cpu in seconds):6.3f} s"
            f"  {median(walls) / first:5.2f} of the first of git"
        )


def one_round(place: Path, files: int, seed: int) -> dict[str, Taken]:
    """Return what each step took."""
    make(place / "data", files, random.Random(seed))
    env = os.environ | {"CAS_DIR": str(place / ".cas")}
    cas = [CAS, "commit", "data"]
    plain = [*GIT, f"--git-dir={place / 'git'}", f"--work-tree={place}"]
    synced = [*GIT, *SYNC, f"--git-dir={place / 'synced'}", f"--work-tree={place}"]
    for command in ([CAS, "init"], [*plain, "init", "-q"], [*synced, "init", "-q"]):
        subprocess.run(command, cwd=place, env=env, check=True, capture_output=True)
    os.sync()
    return {
        name: timed(commands, place, env)
        for name, commands in {
            "bare interpreter": [[sys.executable, "-c", "pass"]],
            "cas, first": [cas],
            "git, first": in_git(plain),
            "git synced, first": in_git(synced),
            "cas, unchanged": [cas],
            "git, unchanged": in_git(plain),
        }.items()
    }


def in_git(git: list[str]) -> list[list[str]]:
    return [[*git, "add", "data"], [*git, "commit", "-q", "-m", "x", "--allow-empty"]]


def make(folder: Path, files: int, rng: random.Random) -> None:
    for number in range(files):
        path = folder / f"{number // 100:04d}" / f"{number:07d}.bin"
        if number % 100 == 0:
            path.parent.mkdir(parents=True)
        text = " ".join(rng.choices(WORDS, k=SIZE // 3))[:SIZE].encode()
        path.write_bytes(text if number % 2 else rng.randbytes(SIZE))


def timed(commands: list[list[str]], folder: Path, env: dict[str, str]) -> Taken:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = perf_counter()
    for command in commands:
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    wall = perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
