"""One entry for all of it: `make bench`, or `.venv/bin/python -m benchmarks --help`."""

import argparse
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.measure import FailedError
from benchmarks.report import Figure, Results
from benchmarks.rows import FILE_ROWS, Bench, Row
from benchmarks.sidebyside import Runner
from benchmarks.state_rows import STATE_ROWS
from benchmarks.workloads import SCALES, Data

ROWS: dict[str, Row] = {**STATE_ROWS, **FILE_ROWS}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--only", help="workloads, separated by commas; --list names them")
    parser.add_argument("--list", action="store_true", help="name the workloads and stop")
    parser.add_argument("--scale", choices=sorted(SCALES), default="small")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds of each")
    parser.add_argument("--no-peers", action="store_true", help="cas and torch alone")
    parser.add_argument("--zipnn", action="store_true", help="build ZipNN too; it needs torch")
    parser.add_argument("--work", type=Path, default=peers.BENCH / "work", help="a folder to use")
    parser.add_argument("--out", type=Path, default=peers.BENCH / "results")
    args = parser.parse_args(words)
    args.work, args.out = args.work.resolve(), args.out.resolve()
    args.only = args.only.split(",") if args.only else list(ROWS)
    if unknown := set(args.only) - set(ROWS):
        parser.error(f"no workload {', '.join(sorted(unknown))}: --list names them")
    return args


def main() -> None:
    args = arguments()
    if args.list:
        print("\n".join(ROWS))
        return
    problems = [] if args.no_peers else peers.install(args.zipnn)
    runner = Runner(args.work, args.repeat, not args.no_peers, problems)
    bench = Bench(Data(peers.BENCH / "data", SCALES[args.scale]), runner, Results())
    bench.results.about |= machine() | {"scale": args.scale, "rounds": args.repeat}
    bench.results.about["versions"] = {} if args.no_peers else peers.versions()
    stem = datetime.now(tz=UTC).strftime(f"{args.scale}-%Y%m%d-%H%M%S")
    for name in args.only:
        measure(bench, name)
        bench.results.about["problems"] = runner.problems
        told, raw = bench.results.write(args.out, stem)  # after each, so that a stop loses little
    print(told.read_text())
    print(f"{told}\n{raw}", file=sys.stderr)


def measure(bench: Bench, name: str) -> None:
    """Run one row; what stops it becomes a line of the table."""
    start = time.perf_counter()
    try:
        ROWS[name](bench, name)
    except FailedError as error:
        bench.add(Figure(name, name, "", note=str(error)))
    finally:
        shutil.rmtree(bench.runner.work, ignore_errors=True)
    seconds = bench.results.about.setdefault("seconds", {})
    seconds[name] = round(time.perf_counter() - start)


def machine() -> dict[str, Any]:
    model = "unknown"
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        lines = cpus.read_text().split("\n")
        model = next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), model
        )
    return {
        "machine": f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load at the start": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
