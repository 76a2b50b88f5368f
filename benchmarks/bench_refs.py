"""What refs cost: a commit and opening with very many of them, a move's syncs, the reflog, undo.

    .venv/bin/python benchmarks/bench_refs.py [REFS]

Makes two repositories in a temporary folder, one empty, one with REFS tags (100,000 by default),
and does the same to both. Times are medians with quartiles; what is `cold` has read nothing yet.
Then 1, 4 and 16 processes move refs of their own in one repository as fast as they can.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, time_ns

from cas.backend.files import FileOps
from cas.ids import CommitId
from cas.objects.commit import COMMIT, Commit
from cas.repo import undo
from cas.repo.reflog import history
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest

ROUNDS = 101
CROWDS = (1, 4, 16)
SECONDS = 5.0
FEW = 11


class Counted(FileOps):
    """File operations that count what makes data durable."""

    def __init__(self) -> None:
        self.syncs = 0

    def fsync(self, fd: int) -> None:
        self.syncs += 1
        super().fsync(fd)

    def fsync_dir(self, path: str) -> None:
        self.syncs += 1
        super().fsync_dir(path)


def opened(path: Path, ops: FileOps) -> Repo:
    return Repo.open(path, who="bench@host", clock=lambda: time_ns() // 1000, ops=ops)


def commit(repo: Repo, ref: str) -> CommitId:
    def make(tx: Transaction) -> CommitId:
        entry = ingest.file_entry(tx.writer, b"f", os.urandom(100))
        id = tx.record(Commit(kind=COMMIT, tree=ingest.nest(tx.writer, [(b"f", entry)]).id))
        tx.set_ref(ref, id)
        return id

    return transact(repo, "commit", make)


def timed(what: str, act: Callable[[int], object], rounds: int = ROUNDS) -> None:
    times = []
    for number in range(rounds):
        start = perf_counter()
        act(number)
        times.append(1e3 * (perf_counter() - start))
    low, middle, high = quantiles(times, n=4)
    print(f"  {what:<28} {middle:8.2f} ms  ({low:.2f} to {high:.2f})")


def measure(folder: Path, count: int) -> None:
    ops = Counted()
    made = Repo.create(folder / ".cas", who="bench@host", clock=lambda: time_ns() // 1000)
    repo = opened(made.path, ops)
    id = commit(repo, "heads/main")

    def many(tx: Transaction) -> None:
        for number in range(count):
            tx.set_ref(f"tags/experiment-{number % 97}/run-{number:06}", id)

    start = perf_counter()
    if count:
        transact(repo, "many", many)
    print(f"{count:,} refs, set in one transaction in {perf_counter() - start:.2f} s")
    timed("commit", lambda n: commit(repo, f"tags/new-{n}"))
    timed("move a ref", lambda n: move(repo, f"tags/new-{n}", id))
    timed("cold: open", lambda _: opened(repo.path, ops).refresh(), FEW)
    timed("cold: open and commit", lambda n: commit(opened(repo.path, ops), f"tags/c{n}"), FEW)
    timed("cold: the last 10 operations", lambda _: newest(opened(repo.path, ops)), FEW)
    timed("undo", lambda _: undo.execute(repo, undo.plan(repo)), FEW)
    before = ops.syncs
    move(repo, "tags/new-0", None)
    print(f"  {'syncs of one move':<28} {ops.syncs - before:8}")


def crowd(folder: Path, writers: int) -> None:
    """Let many processes move refs at once; print how often one moved, and how long one waited."""
    made = Repo.create(folder / ".cas", who="bench@host", clock=lambda: time_ns() // 1000)
    id = commit(made, "heads/main")
    with ProcessPoolExecutor(writers, mp_context=get_context("spawn")) as pool:
        list(pool.map(abs, range(writers)))  # all are there
        until = time_ns() + int(SECONDS * 1e9)
        jobs = [pool.submit(moved, made.path, f"tags/w-{n}", id, until) for n in range(writers)]
        each = [job.result() for job in jobs]
    times = sorted(time for one in each for time in one)
    p50, p99 = (1e3 * times[int(part * (len(times) - 1))] for part in (0.5, 0.99))
    print(
        f"  {writers:>2} processes: {len(times) / SECONDS:7.0f} updates/s; one takes {p50:.1f} ms, "
        f"99 of 100 at most {p99:.0f} ms, all at most {1e3 * times[-1]:.0f} ms; "
        f"the slowest process made {min(map(len, each))}, the fastest {max(map(len, each))}"
    )


def moved(path: Path, name: str, id: CommitId, until: int) -> list[float]:
    """Set and drop a ref until then; return how long each move took, in seconds."""
    repo, times = opened(path, FileOps()), list[float]()
    while time_ns() < until:
        start = perf_counter()
        move(repo, name, None if len(times) % 2 else id)
        times.append(perf_counter() - start)
    return times


def move(repo: Repo, name: str, id: CommitId | None) -> None:
    transact(repo, "move", lambda tx: tx.set_ref(name, id))


def newest(repo: Repo) -> None:
    log = history(repo)
    for _ in range(10):
        next(log)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with TemporaryDirectory() as folder:
        for refs in (0, count):
            measure(Path(folder) / str(refs), refs)
        print("many at once")
        for writers in CROWDS:
            crowd(Path(folder) / f"crowd-{writers}", writers)


if __name__ == "__main__":
    main()
