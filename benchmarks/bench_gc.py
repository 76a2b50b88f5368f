"""What marking and planning a collection cost in a store of a million objects.

    .venv/bin/python benchmarks/bench_gc.py [OBJECTS]

Makes two repositories in a temporary folder, each part in a process of its own: one of folders of
files, as a dataset is committed, and one of runs with many small checkpoints, where there is a
container for every few objects. Tells objects marked a second, the memory that marking takes beside
the footers, and how long the plan takes.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from cas.ids import blob_id
from cas.objects.commit import CHECKPOINT, COMMIT, Commit
from cas.objects.kind import Kind
from cas.objects.manifest import Column, State, TensorRow
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.collect import gc
from cas.repo.collect.gcplan import decide
from cas.repo.marking import mark
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.store.encoding import Record
from cas.store.pinned import PinnedStore
from cas.store.record import RecordHeader

FOLDER = 1000  # files in a folder
TENSORS = 20  # of a checkpoint
SIZE = 70  # bytes: what does not stand in the manifest itself
MIB = 1 << 20


def opened(folder: Path) -> Repo:
    if (folder / "format").exists():
        return Repo.open(folder, who="bench", clock=lambda: 1)
    return Repo.create(folder, who="bench", clock=lambda: 1)


def blob(tx: Transaction, number: int) -> Entry:
    """Store a blob of its own, without a job for each."""
    data = number.to_bytes(8, "big") * 9
    id = blob_id(data)
    tx.writer.copy(*Record(RecordHeader.of(Kind.BLOB, 0, id, len(data), data), data))
    return Entry(b"f%08d" % number, EntryKind.FILE, id, len(data), 0o644)


def files(folder: Path, objects: int) -> None:
    """Commit folders of files."""

    def make(tx: Transaction) -> None:
        folders = []
        for first in range(0, objects, FOLDER):
            entries = [blob(tx, number) for number in range(first, first + FOLDER)]
            tree = build(entries, tx.writer.tree)
            folders.append(Entry(b"d%08d" % first, EntryKind.TREE, tree.id, tree.size, 0o755))
        root = build(folders, tx.writer.tree)
        tx.set_ref("heads/main", tx.record(Commit(kind=COMMIT, tree=root.id)))

    transact(opened(folder), "files", make)


def checkpoints(folder: Path, objects: int) -> None:
    """Commit checkpoints, each with a state of its own."""

    def make(tx: Transaction) -> None:
        for first in range(0, objects, TENSORS + 4):
            rows = []
            for number in range(first, first + TENSORS):
                entry = blob(tx, number)
                column = Column(entry.id, None)  # type: ignore[arg-type]
                shape = (entry.size,)
                rows.append(TensorRow((str(number),), "uint8", shape, column.id, None))
            state = State(None, tuple(rows))
            id = tx.writer.manifest(state.to_bytes())
            payload = build([Entry(b"state", EntryKind.STATE, id, state.size)], tx.writer.tree)
            record = build([blob(tx, 10**9 + first)], tx.writer.tree)
            commit = Commit(kind=CHECKPOINT, tree=record.id, payload=payload.id, step=first)
            tx.set_ref(f"tags/{first}", tx.record(commit))

    transact(opened(folder), "checkpoints", make)


def measure(folder: Path) -> None:
    repo = opened(folder)
    root = repo.refresh()
    begun = perf_counter()
    store = PinnedStore(repo.backend, root.packs)
    read = perf_counter() - begun
    rows = len(store.joined)
    before = peak()
    begun, busy = perf_counter(), process_time()
    live = mark(store, root.refs, root.tombstones)
    marking, busy = perf_counter() - begun, process_time() - busy
    memory = peak() - before
    begun = perf_counter()
    planned = decide(root, live, repo.backend, ())
    deciding = perf_counter() - begun
    assert live.objects == rows
    assert planned.empty
    print(f"  {rows:,} objects in {len(root.packs)} packs; footers read in {read:.1f} s")
    print(f"  marked in {marking:.1f} s: {rows / marking:,.0f} objects/s")
    print(f"  {busy:.1f} s of a processor: {rows / busy:,.0f} objects/s where nothing else runs")
    print(f"  {memory / rows:.0f} bytes of memory an object, beside the footers")
    print(f"  plan decided in {deciding:.2f} s")
    begun = perf_counter()
    gc.plan(repo)
    print(f"  cas gc --dry-run: {perf_counter() - begun:.1f} s")


def peak() -> int:
    """Return the most memory that this process had so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM")


PARTS = {"files": files, "checkpoints": checkpoints}


def main(words: list[str]) -> None:
    if len(words) == 3:
        name, folder, objects = words
        if name == "measure":
            measure(Path(folder))
        else:
            PARTS[name](Path(folder), int(objects))
        return
    objects = words[0] if words else "1000000"
    with TemporaryDirectory(prefix="cas-bench-") as place:
        for name in PARTS:
            print(f"{name}:", flush=True)
            for part in (name, "measure"):
                command = [sys.executable, __file__, part, os.path.join(place, name), objects]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
