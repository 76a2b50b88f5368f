"""How long `cas.track` takes in a project of 300 files, 4 MB of code under git.

    .venv/bin/python -m benchmarks.bench_start [--peers]

Each start is one fresh process; its import is told apart. `first` is the first start in a project,
which reads and filters all of the code; `later` is one in which no file has changed since. With
`--peers` `mlflow.start_run` and `wandb.init(mode="offline")` start in the same project, in turns;
they are installed into `.bench/trackers` when they are missing. MLflow's SQLite is told apart in
the same way. The figures are medians of 7, with the lowest and the highest; `cpu` is what the start
of cas computes, git included, which other work on the machine changes less than the time.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.bench_tracking import PEER_PYTHON, ROOT, install

FILES, BYTES = 300, 4_000_000
ROUNDS = 7
GOAL = 0.2
KEYS = ("import", "start", "cpu")
PEERS = ("mlflow", "mlflow-sqlite", "wandb")
GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@host")
Took = dict[str, float]


def make_project(folder: Path) -> None:
    """Fill a folder with real code, that of this Python, and commit it with git."""
    found = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    fitting = [path for path in found if 5_000 < path.stat().st_size < 30_000]
    random.Random(7).shuffle(fitting)
    size = 0
    for number, path in enumerate(fitting[:FILES]):
        place = folder / f"part{number % 20}" / f"module{number}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        size += path.stat().st_size
    print(f"{min(len(fitting), FILES)} files, {size / 1e6:.1f} MB of code")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)


def one_start() -> Took:
    """Start a run in the current folder; return what the import and the start took."""
    began = perf_counter()
    import cas

    begin = cas.track  # this imports it
    imported, before = perf_counter(), computed()
    run = begin("bench")
    took = {"import": imported - began, "start": perf_counter() - imported}
    took["cpu"] = computed() - before
    run.finish()
    return took


def computed() -> float:
    """Return the seconds that this process and its children have computed."""
    return sum(os.times()[:4])


def started(command: list[str], project: Path, **env: str) -> Took | None:
    """Let a process start a run in the project; None when it cannot."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=project, env=os.environ | env
    )
    lines = done.stdout.strip().split("\n")
    found: Took | None = json.loads(lines[-1]) if done.returncode == 0 else None
    return found


def own(project: Path, repository: Path) -> Took | None:
    """Start a run of cas."""
    command = [sys.executable, "-m", "benchmarks.bench_start", "--one"]
    return started(command, project, PYTHONPATH=str(ROOT), CAS_DIR=str(repository))


def peer(name: str, project: Path, folder: Path) -> Took | None:
    """Start a run of a peer."""
    script = str(ROOT / "benchmarks" / "peer_trackers.py")
    folder.mkdir(exist_ok=True)
    return started([str(PEER_PYTHON), script, name, str(folder), "0", "1"], project)


def in_turns(folder: Path, peers: tuple[str, ...]) -> dict[str, list[Took]]:
    """Let all tools start in turns, so that a slow moment of the machine hits them alike."""
    project = folder / "project"
    make_project(project)
    own(project, folder / "kept")
    found: dict[str, list[Took]] = {}
    for number in range(ROUNDS):
        turns = {
            "cas, first": own(project, folder / f"first{number}"),
            "cas, later": own(project, folder / "kept"),
        }
        for name in peers:
            turns[f"{name}, first"] = peer(name, project, folder / f"{name}{number}")
            turns[f"{name}, later"] = peer(name, project, folder / f"{name}{number}")
        for name, took in turns.items():
            found.setdefault(name, []).extend([took] if took else [])
    return found


def shown(times: list[float]) -> str:
    """Return a median with the lowest and the highest, in milliseconds."""
    low, mid, high = (value * 1e3 for value in (min(times), median(times), max(times)))
    return f"{mid:7.0f} ms ({low:.0f} to {high:.0f})"


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one_start()))
        return
    wanted = "--peers" in sys.argv[1:]
    problem = install() if wanted else ""
    with TemporaryDirectory() as folder:
        found = in_turns(Path(folder), PEERS if wanted and not problem else ())
    for name, rounds in found.items():
        if not rounds:
            print(f"  {name:<22} could not be had")
            continue
        cells = (f"{key} {shown([one[key] for one in rounds])}" for key in KEYS if key in rounds[0])
        print(f"  {name:<22}" + "  ".join(cells))
    print(f"goal of a later start: {GOAL * 1e3:.0f} ms")
    if problem:
        print(f"  peers: {problem}")


if __name__ == "__main__":
    main()
