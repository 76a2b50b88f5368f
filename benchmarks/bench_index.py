"""What the index costs in a store of millions of objects: opening, look-ups, merging, memory.

    .venv/bin/python benchmarks/bench_index.py [ROWS] [PACKS]

Makes an index of ROWS random rows (5 million by default) of PACKS packs (512) in a temporary
folder; the packs themselves are not there. Each part runs in a process of its own, so that its
memory is its own; memory is what it had at most over what it had before. Files are in the page
cache. Look-ups are given as medians and quartiles over batches.
"""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from cas.backend.base import WHOLE, Backend
from cas.backend.local import LocalBackend
from cas.ids import ObjectId
from cas.store.index import Index, Segments, consolidate
from cas.store.joined import Joined
from cas.store.pack import PackClass, PackInfo, Row
from cas.store.segment import Segment, key_of

ROUNDS = 5
MIB = 1 << 20


class Made(Segments):
    """Segments whose footers are made up: no packs are there."""

    def __init__(self, backend: Backend, rows: int, packs: int) -> None:
        super().__init__(backend)
        self._made = {info.name: info for info in listed(packs)}
        self._rows = rows // packs

    def _footer(self, info: PackInfo) -> Segment:
        number = int.from_bytes(info.name, "big")
        return Segment(made_rows(self._rows, number), (info.name,))


def listed(packs: int) -> list[PackInfo]:
    return [
        PackInfo(number.to_bytes(16, "big"), 1 << 30, b"\0" * 32, PackClass.DATA)
        for number in range(packs)
    ]


def made_rows(count: int, seed: int) -> bytes:
    """Return rows as a footer has them: random, in order, with a pack's number of 0."""
    raw = np.random.default_rng(seed).integers(0, 256, (count, Row.SIZE), np.uint8)
    raw[:, 53:] = 0
    keys = raw[:, :8].copy().view(">u8").ravel()
    return raw[np.argsort(keys)].tobytes()


def some_ids(count: int, rows: int, packs: int) -> list[ObjectId]:
    """Return ids that are there, from a few packs, in random order."""
    picked = np.random.default_rng(7).integers(0, packs, 8)
    raw = np.concatenate(
        [
            np.frombuffer(made_rows(rows // packs, int(number)), np.uint8).reshape(-1, Row.SIZE)
            for number in picked
        ]
    )
    order = np.random.default_rng(8).integers(0, len(raw), count)
    return [ObjectId(raw[at, : ObjectId.SIZE].tobytes()) for at in order]


def absent_ids(count: int) -> list[ObjectId]:
    raw = np.random.default_rng(9).integers(0, 256, (count, ObjectId.SIZE), np.uint8)
    return [ObjectId(row.tobytes()) for row in raw]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(what: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float, float]:
    taken = []
    for _ in range(rounds):
        start = perf_counter()
        what()
        taken.append(perf_counter() - start)
    low, middle, high = quantiles(taken, n=4) if rounds > 1 else (taken[0],) * 3
    return low, middle, high


def told(what: str, seconds: tuple[float, float, float], per: int = 1) -> None:
    low, middle, high = (value / per for value in seconds)
    unit, scale = ("us", 1e6) if middle < 1e-3 else ("ms", 1e3) if middle < 1 else ("s", 1)
    print(f"  {what:44} {middle * scale:8.2f} {unit}  ({low * scale:.2f} to {high * scale:.2f})")


def make(backend: LocalBackend, rows: int, packs: int) -> None:
    index = Index(Made(backend, rows, packs), listed(packs))
    before = peak()
    start = perf_counter()
    assert consolidate(backend, index, b"\1" * 16)
    seconds = perf_counter() - start
    (info,) = backend.scan("index/")
    print(f"  {info.size_bytes / MIB:.0f} MiB index file")
    told("merge and write it", (seconds,) * 3)
    print(f"  {'memory for that':44} {peak() - before:8.0f} MiB, footers {before:.0f} MiB")
    (raw,) = backend.read(info.key, [WHOLE])

    def copy() -> None:
        backend.put_new("index/copy.idx", raw)
        backend.delete("index/copy.idx")

    told("write as many bytes, synced as well", timed(copy, 3))


def look_up(backend: LocalBackend, rows: int, packs: int) -> None:
    ids, absent = some_ids(100_000, rows, packs), absent_ids(100_000)
    infos = listed(packs)
    before = peak()
    told("open", timed(lambda: Index(Segments(backend), infos)))
    index = Index(Segments(backend), infos)
    print(f"  {'memory for that':44} {peak() - before:8.1f} MiB")
    assert index.uncovered == []
    for id in ids[:100]:
        index.find(id)
    before = peak()
    told("find, each", timed(lambda: [index.find(id) for id in ids[:2000]]), 2000)
    missed = timed(lambda: [index.find(id) for id in absent[:2000]])
    told("find what is not there, each", missed, 2000)
    print(f"  {'memory for that':44} {peak() - before:8.1f} MiB")
    for count in (2000, 10_000, 100_000):
        there, gone = ids[:count], absent[:count]
        assert [place.row.id for place in index.find_many(there) if place] == there
        told(f"find_many of {count}, each", timed(partial(index.find_many, there)), count)
        told("... that are not there, each", timed(partial(index.find_many, gone)), count)
    print(f"  {'memory for all that':44} {peak() - before:8.1f} MiB")


def join(backend: LocalBackend, rows: int, packs: int) -> None:
    def footers() -> Iterator[tuple[bytes, bytes]]:
        for number, info in enumerate(listed(packs)):
            yield info.name, made_rows(rows // packs, number)

    ids = some_ids(10_000, rows, packs)
    told("make up all footers", timed(lambda: sum(1 for _ in footers()), 1))
    before = peak()
    told("the same, and join them for gc and fsck", timed(lambda: Joined(footers()), 1))
    print(f"  {'memory for that':44} {peak() - before:8.0f} MiB")
    joined = Joined(footers())
    told(
        "find in them, each",
        timed(lambda: [joined.find(id, key_of(id)) for id in ids]),
        len(ids),
    )


STAGES = {"make": make, "look_up": look_up, "join": join}


def main(rows: int, packs: int) -> None:
    print(f"{rows} rows of {packs} packs, {rows * Row.SIZE / MIB:.0f} MiB")
    with TemporaryDirectory() as folder:
        for stage in STAGES:
            print(stage.replace("_", " "))
            sys.stdout.flush()
            command = [sys.executable, __file__, "--stage", stage, folder, str(rows), str(packs)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        stage, folder, *counts = sys.argv[2:]
        STAGES[stage](LocalBackend(Path(folder)), *map(int, counts))
    else:
        given = [int(text) for text in sys.argv[1:]]
        main(*given, *(5_000_000, 512)[len(given) :])
