"""What a command costs before it does anything: the time over a bare interpreter.

    .venv/bin/python benchmarks/bench_startup.py [FOLDER]

FOLDER is a small repository, `demo` by default (`make demo` makes it). The three commands take
turns, so that a slow moment of the machine hits them alike; what is printed are medians.
"""

import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

ROUNDS = 25
BIN = Path(sys.executable).parent


def main(folder: Path) -> None:
    commands = {
        "bare interpreter": [sys.executable, "-c", "pass"],
        "cas --version": [str(BIN / "cas"), "--version"],
        "cas log -n 20": [str(BIN / "cas"), "log", "-n", "20"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            seconds[name].append(timed(command, folder))
    bare = median(seconds["bare interpreter"])
    for name, taken in seconds.items():
        low, _, high = quantiles(taken, n=4)
        over = median(taken) - bare
        print(
            f"{name:18} {median(taken) * 1e3:6.1f} ms  ({low * 1e3:.1f} to {high * 1e3:.1f})"
            f"  over bare {over * 1e3:5.1f} ms, {median(taken) / bare:.2f}x"
        )


def timed(command: list[str], folder: Path) -> float:
    start = perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo"))
