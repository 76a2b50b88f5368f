"""MLflow and W&B as their users call them, in a venv of their own; prints what it took as JSON.

    .bench/trackers/bin/python benchmarks/peer_trackers.py TOOL FOLDER CALLS WIDTH

TOOL is mlflow (its file store), mlflow-sqlite or wandb (offline). CALLS calls log WIDTH metrics
each, of MLflow by `log_metric` or, of more than one, by `log_metrics`; then the run is finished and
what it wrote is synced, within the measured time. With 0 calls only the import and the start count.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Log = Callable[[dict[str, float], int], object]
Begin = Callable[[Path], tuple[Log, Callable[[], object]]]


def mlflow(folder: Path, *, sqlite: bool = False) -> tuple[Log, Callable[[], object]]:
    """Start a run; return how to log a point, and how to end."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    module: Any = importlib.import_module("mlflow")
    files = (folder / "mlruns").as_uri()  # it makes the folder itself
    module.set_tracking_uri(f"sqlite:///{folder}/mlflow.db" if sqlite else files)
    module.start_run()

    def log(values: dict[str, float], step: int) -> None:
        if len(values) > 1:
            module.log_metrics(values, step=step)
        for name, value in values.items() if len(values) == 1 else ():
            module.log_metric(name, value, step=step)

    return log, module.end_run


def wandb(folder: Path) -> tuple[Log, Callable[[], object]]:
    """Start a run; return how to log a point, and how to end."""
    os.environ |= {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    module: Any = importlib.import_module("wandb")
    run = module.init(project="bench", dir=str(folder), mode="offline")
    return lambda values, step: run.log(values, step=step), run.finish


BEGINS: dict[str, Begin] = {
    "mlflow": mlflow, "mlflow-sqlite": partial(mlflow, sqlite=True), "wandb": wandb,
}  # fmt: skip


def main() -> None:
    tool, folder = sys.argv[1], Path(sys.argv[2]).absolute()
    calls, width = map(int, sys.argv[3:5])
    folder.mkdir(parents=True, exist_ok=True)
    before = time.perf_counter()
    importlib.import_module(tool.partition("-")[0])
    began = time.perf_counter()
    log, end = BEGINS[tool](folder)
    started = time.perf_counter()
    if not calls:
        end()
        print(json.dumps({"import": began - before, "start": started - began}))
        return
    took = []
    names = [f"metric_{number}" for number in range(width)]
    for step in range(calls):
        values = dict.fromkeys(names, 0.5 + step % 7)
        before = time.perf_counter_ns()
        log(values, step)
        took.append(time.perf_counter_ns() - before)
    end()
    subprocess.run(["sync", "-f", str(folder)], check=True)
    whole = time.perf_counter() - started
    took.sort()
    print(
        json.dumps(
            {
                "start": started - began,
                "points_per_second": calls * width / whole,
                "p50_us": took[calls // 2] / 1e3,
                "p99_us": took[calls * 99 // 100] / 1e3,
            }
        )
    )


if __name__ == "__main__":
    main()
