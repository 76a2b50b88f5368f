"""What a call of `log_metrics` takes, how many points a second get durable, how fast they are read.

    .venv/bin/python benchmarks/bench_tracking.py [--peers]

With `--peers` MLflow (file store, and SQLite where it can be had) and W&B (offline) log the same
beside it, in turns, each in a process of its own; they are installed into `.bench/trackers` when
they are missing. Times of a call are percentiles over all calls of a tight loop; the others are
medians with the lowest and the highest of the rounds.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, perf_counter_ns
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".bench" / "trackers"
PEER_PYTHON = PEERS / "bin" / "python"
WANTED = ("mlflow-skinny==3.17.2", "sqlalchemy", "alembic", "sqlparse", "wandb==0.31.0")
ROUNDS = 3
WIDTHS = (1, 10)
POINTS = 500_000
PEER_CALLS = {"mlflow": 2000, "mlflow-sqlite": 200, "wandb": 5000}
RUNS, METRICS, STEPS = 100, 10, 10_000
FLOOR, GOAL = (10.0, 100.0), (3.0, 50.0)


def begun(folder: Path) -> Any:
    """Start a run in a folder of its own, silently."""
    import cas

    os.environ["CAS_DIR"] = str(folder / ".cas")
    os.chdir(folder)
    return cas.track("bench", name="x")


def calls(folder: Path, width: int) -> dict[str, float]:
    """Return what a call with so many metrics takes, and how many points a second get durable."""
    began = perf_counter()
    run = begun(folder)
    started = perf_counter()
    names = [f"metric_{number}" for number in range(width)]
    took = []
    for step in range(POINTS // width):
        values = dict.fromkeys(names, 0.5 + step % 7)
        before = perf_counter_ns()
        run.log_metrics(values, step)
        took.append(perf_counter_ns() - before)
    run.finish()
    whole = perf_counter() - started
    took.sort()
    return {
        "start": started - began,
        "points_per_second": POINTS / whole,
        "p50_us": took[len(took) // 2] / 1e3,
        "p99_us": took[len(took) * 99 // 100] / 1e3,
    }


def reading(folder: Path) -> list[float]:
    """Return the seconds that all metrics of 100 runs take to read, each time opened anew."""
    import random

    from cas.repo.repo import Repo
    from cas.repo.revision import resolve
    from cas.repo.transaction import transact
    from cas.tracking import record
    from cas.tracking.journals.state import RunState
    from cas.tracking.numbers.curve import read_curves

    made = Repo.create(folder / ".cas", who="bench@host", clock=lambda: 0)
    numbers = random.Random(7)
    for number in range(RUNS):
        state = RunState(f"bench/{number}", f"runs/bench/{number}", os.urandom(16))
        for step in range(STEPS):
            values = {f"metric_{n}": numbers.random() for n in range(METRICS)}
            state.metrics.add(values, step, 1e9 + step)
        moment = record.Moment(number, "bench", "finished")
        transact(made, "run", partial(record.finish, state=state, captured={}, moment=moment))
    times = []
    for _ in range(ROUNDS):
        began = perf_counter()
        repo = Repo.open(made.path, who="bench@host", clock=lambda: 0)
        count = 0
        for number in range(RUNS):
            curves = read_curves(repo, resolve(repo, f"bench/{number}"), times=False)
            count += sum(map(len, curves.values()))
        times.append(perf_counter() - began)
        assert count == RUNS * METRICS * STEPS
    return times


def install() -> str:
    """Make the venv of the peers when it is missing; return why that did not work."""
    if PEER_PYTHON.exists():
        return ""
    PEERS.parent.mkdir(exist_ok=True)
    for command in (
        (sys.executable, "-m", "venv", str(PEERS)),
        (str(PEER_PYTHON), "-m", "pip", "install", "--quiet", *WANTED),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip().split("\n")[-1]
    return ""


def peer(name: str, width: int, folder: Path) -> dict[str, float] | None:
    """Let a peer log; None when it cannot."""
    script = str(ROOT / "benchmarks" / "peer_trackers.py")
    command = (str(PEER_PYTHON), script, name, str(folder), str(PEER_CALLS[name]), str(width))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    lines = done.stdout.strip().split("\n")
    found: dict[str, float] | None = json.loads(lines[-1]) if done.returncode == 0 else None
    return found


def own(width: int, folder: Path) -> dict[str, float]:
    """Log with cas, in a process of its own too."""
    command = (sys.executable, str(Path(__file__)), "--one", str(width), str(folder))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found: dict[str, float] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def shown(name: str, rounds: list[dict[str, float]]) -> None:
    """Print what the rounds of one tool say."""
    if not rounds:
        print(f"  {name:<22} could not be had")
        return
    cells = []
    for key, unit in (
        ("p50_us", "us"), ("p99_us", "us"), ("points_per_second", "points/s"), ("start", "s"),
    ):  # fmt: skip
        values = [one[key] for one in rounds]
        cells.append(f"{median(values):>12,.2f} {unit} ({min(values):,.2f} to {max(values):,.2f})")
    print(f"  {name:<22}" + "  ".join(cells))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(calls(Path(sys.argv[3]), int(sys.argv[2]))))
        return
    side_by_side("--peers" in sys.argv[1:])
    with TemporaryDirectory() as folder:
        times = reading(Path(folder))
    told = f"{median(times):.2f} s ({min(times):.2f} to {max(times):.2f}; goal 1)"
    print(f"reading {RUNS} runs x {METRICS} metrics x {STEPS:,} steps: {told}")


def side_by_side(peers: bool) -> None:
    """Let all tools log in turns, and print what each took."""
    problem = install() if peers else ""
    names = list(PEER_CALLS) if peers and not problem else []
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for width in WIDTHS:
            with TemporaryDirectory() as folder:
                found.setdefault(f"cas, {width} a call", []).append(own(width, Path(folder)))
            for name in names:
                with TemporaryDirectory() as folder:
                    one = peer(name, width, Path(folder))
                    found.setdefault(f"{name}, {width} a call", []).extend([one] if one else [])
    print(f"log_metrics: p50, p99 (goal {GOAL}, floor {FLOOR}), durable points/s, start")
    for tool, rounds in found.items():
        shown(tool, rounds)
    if problem:
        print(f"  peers: {problem}")
    for name, width in [(name, width) for name in names for width in WIDTHS]:
        ours, theirs = (found[f"{tool}, {width} a call"] for tool in ("cas", name))
        if theirs:
            rates = [median(one["points_per_second"] for one in each) for each in (ours, theirs)]
            print(f"  cas against {name}, {width} a call: {rates[0] / rates[1]:.0f}x points/s")


if __name__ == "__main__":
    main()
