"""What fsck costs: its structure part on very many objects, and all bytes against restic.

    .venv/bin/python benchmarks/bench_fsck.py [OBJECTS] [MEGABYTES]

Makes a repository of OBJECTS small files (1 million by default) in a temporary folder, checks it,
then one of MEGABYTES (800) of weights and random bytes, and, where restic is installed, the same
files as a restic repository, which `restic check --read-data` reads. Each is measured three times,
in turn, with the files in the page cache. Processor time is told beside wall time, because it says
the same on a machine that has other work.
"""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from cas.objects.commit import Commit
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact

ROUNDS = 3
IN_FOLDER = 1000
CAS = [sys.executable, "-m", "cas"]


def many_files(path: Path, count: int) -> None:
    """Make a repository of so many files of 200 bytes, no two alike."""
    repo = Repo.create(path, who="bench", clock=lambda: 0)
    rng = np.random.default_rng(1)

    def make(transaction: Transaction) -> None:
        writer = transaction.writer
        folders = []
        for number in range(count // IN_FOLDER):
            files = [
                Entry(b"f%04d" % name, EntryKind.FILE, writer.blob(rng.bytes(200)), 200, 0o644)
                for name in range(IN_FOLDER)
            ]
            tree = build(files, writer.tree)
            folders.append(Entry(b"d%06d" % number, EntryKind.TREE, tree.id, tree.size, 0o755))
        tree = build(folders, writer.tree)
        commit = transaction.record(Commit(kind="commit", tree=tree.id))
        transaction.set_ref("heads/main", commit)

    transact(repo, "bench", make)


def some_weights(folder: Path, megabytes: int) -> None:
    """Write files of which two thirds are weights and one third is random."""
    rng = np.random.default_rng(2)
    third = megabytes * 1_000_000 // 3
    for number in range(2):
        weights = rng.standard_normal(third // 4, dtype=np.float32) * 0.02
        np.save(folder / f"weights{number}.npy", weights)
    (folder / "random.bin").write_bytes(rng.bytes(third))


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return its wall time and the processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    wall = perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, spent


def told(what: str, times: list[tuple[float, float]]) -> None:
    wall, spent = min(wall for wall, _ in times), min(spent for _, spent in times)
    print(f"  {what:36} {wall:7.2f} s wall, {spent:7.2f} s of processors")


def structure(folder: Path, count: int) -> None:
    print(f"structure of {count:,} objects")
    many_files(folder / "many" / ".cas", count)
    told("cas fsck", [timed([*CAS, "fsck"], folder / "many") for _ in range(ROUNDS)])
    told("cas fsck --full", [timed([*CAS, "fsck", "--full"], folder / "many")])


def against_restic(folder: Path, megabytes: int) -> None:
    print(f"every byte of {megabytes} MB")
    data, own, theirs = folder / "data", folder / "own", folder / "theirs"
    data.mkdir()
    own.mkdir()
    some_weights(data, megabytes)
    timed([*CAS, "init"], own)
    timed([*CAS, "commit", str(data), "-m", "bench"], own)
    checks = {"cas fsck --full": [*CAS, "fsck", "--full"]}
    restic = shutil.which("restic")
    if restic:
        os.environ["RESTIC_PASSWORD"] = "bench"
        base = [restic, "-q", "-r", str(theirs)]
        timed([*base, "init"], folder)
        timed([*base, "backup", str(data)], folder)
        checks["restic check --read-data"] = [*base, "check", "--read-data", "--no-cache"]
    times: dict[str, list[tuple[float, float]]] = {what: [] for what in checks}
    for _ in range(ROUNDS):
        for what, command in checks.items():
            times[what].append(timed(command, own))
    for what, taken in times.items():
        told(what, taken)


def main(count: int = 1_000_000, megabytes: int = 800) -> None:
    with TemporaryDirectory() as folder:
        structure(Path(folder), count)
    with TemporaryDirectory() as folder:
        against_restic(Path(folder), megabytes)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
