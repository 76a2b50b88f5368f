"""What a checkpoint costs the training loop: how long a save holds it up, and what it takes of it.

    .venv/bin/python -m benchmarks.bench_saves [MIB] [--pairs N] [--every S] [--beside]

A model and its Adam state of MIB mebibytes. First, medians: the time that `save_checkpoint` holds
up the loop, beside a copy of the same state (`clone` of each tensor) and a blocking `torch.save`
with a sync, taking turns; and the same for a save that is asked for while the one before is still
being stored. With `--beside` other processes keep every core busy meanwhile.

Then what one save takes of a loop, also on a machine that others use: short stretches of equal
steps, with a save at their beginning and without, take turns in pairs. Told is by how much a
stretch with a save is longer than its neighbour, as the median of the pairs with its quartiles, and
how much more processor time the whole process took; both as a share of the S seconds between two
saves. Processor time is the sharper of the two: about what a loop loses that has all cores to
itself and uses them. Where others use them too, a second of it takes longer than a second.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import torch

import cas

ROUNDS = 9
MIB = 1 << 20
WIDTH = 1024
LONGER = 1.5  # a stretch goes on for so many times as long as a save is being stored


def training(mib: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a model with its optimizer, whose states together have so many mebibytes."""
    layers = max(1, mib * MIB // (3 * 4 * WIDTH * (WIDTH + 1)))
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    step(model, optimizer)
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Change every number of the state."""
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def copy(state: Any) -> Any:
    """Return a state with every tensor copied."""
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: copy(value) for key, value in state.items()}
    return [copy(value) for value in state] if isinstance(state, list) else state


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def blocked(folder: Path, mib: int) -> None:
    model, optimizer = training(mib)

    def save_with_torch() -> None:
        with open(folder / "x.pt", "wb") as file:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())

    names = ("copy", "torch.save", "save_checkpoint", "until", "overlapping")
    took: dict[str, list[float]] = {name: [] for name in names}
    with cas.track("bench", repo=folder, retention=cas.Keep(last=2), system_metrics=False) as run:
        for number in range(ROUNDS + 1):
            step(model, optimizer)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            took["copy"].append(timed(partial(copy, state)))
            del state
            took["torch.save"].append(timed(save_with_torch))
            began = time.perf_counter()
            saving = run.save_checkpoint(model=model, optimizer=optimizer, step=2 * number)
            took["save_checkpoint"].append(time.perf_counter() - began)
            saving.wait()
            took["until"].append(time.perf_counter() - began)
            step(model, optimizer)
            run.save_checkpoint(model=model, optimizer=optimizer, step=2 * number)
            began = time.perf_counter()
            saving = run.save_checkpoint(model=model, optimizer=optimizer, step=2 * number + 1)
            took["overlapping"].append(time.perf_counter() - began)
            saving.wait()
    size = sum(value.nbytes for value in model.state_dict().values()) * 3
    least = {name: min(values[1:]) for name, values in took.items()}  # the first warms up
    middle = {name: median(values[1:]) for name, values in took.items()}
    print(f"a state of {size / MIB:.0f} MiB, the median of {ROUNDS} and the least:")
    for name, told in {
        "copy": "a copy of it",
        "torch.save": "torch.save, synced",
        "save_checkpoint": "save_checkpoint",
        "overlapping": "while one is stored",
        "until": "until it is durable",
    }.items():
        print(f"  {told:20} {middle[name] * 1000:8.1f} ms {least[name] * 1000:8.1f} ms")
    for name in ("copy", "torch.save"):
        ratios = [one["save_checkpoint"] / one[name] for one in (middle, least)]
        print(f"  beside {name:13} {ratios[0]:8.1%}    {ratios[1]:8.1%}")


@dataclass(frozen=True)
class Stretch:
    """What a stretch of steps took: seconds of the loop, and processor time of the process."""

    wall: float
    cpu: float


class Loop:
    """A loop of equal steps, and what it saves."""

    def __init__(self, run: cas.Run, mib: int) -> None:
        self._run = run
        self._model, self._optimizer = training(mib)
        self._batch = torch.randn(64, WIDTH)
        self._saved = 0

    def save(self) -> Any:
        self._saved += 1
        return self._run.save_checkpoint(
            model=self._model, optimizer=self._optimizer, step=self._saved
        )

    def steps(self, count: int) -> None:
        for _ in range(count):
            loss = self._model(self._batch).square().mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()

    def stretch(self, count: int, *, saves: bool) -> Stretch:
        wall, cpu = time.perf_counter(), time.process_time()
        saving = self.save() if saves else None
        self.steps(count)
        took = time.perf_counter() - wall
        if saving is not None:
            saving.wait()
        return Stretch(took, time.process_time() - cpu)


def slowed(folder: Path, mib: int, pairs: int, every: float) -> None:
    with cas.track("bench", repo=folder, retention=cas.Keep(last=2), system_metrics=False) as run:
        loop = Loop(run, mib)
        for _ in range(3):  # what is first warms up
            span = timed(lambda: loop.save().wait())
        count = max(4, int(LONGER * span / timed(partial(loop.steps, 4)) * 4))
        without, longer, cpu = [], [], []
        for number in range(pairs):
            order = (True, False) if number % 2 else (False, True)
            found = {saves: loop.stretch(count, saves=saves) for saves in order}
            without.append(found[False].wall)
            longer.append(found[True].wall - found[False].wall)
            cpu.append(found[True].cpu - found[False].cpu)
    print(f"{pairs} pairs of {count} steps ({median(without):.2f} s), with a save and without:")
    cores = len(os.sched_getaffinity(0))
    for name, values, of in (("longer by", longer, every), ("processor", cpu, every * cores)):
        low, middle, high = (value / of for value in quantiles(values, n=4))
        spent = f"{median(values) * 1000:7.0f} ms"
        print(f"  {name:10} {spent}, of {of:.0f} s {middle:.1%} ({low:.1%} to {high:.1%})")


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many cores busy."""
    code = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("mib", type=int, nargs="?", default=512)
    parser.add_argument("--pairs", type=int, default=12, help="0 leaves that part out")
    parser.add_argument("--every", type=float, default=30)
    parser.add_argument("--beside", action="store_true", help="other processes use every core")
    given = parser.parse_args()
    with (
        TemporaryDirectory(prefix="cas-bench-") as place,
        neighbours(len(os.sched_getaffinity(0)) if given.beside else 0),
    ):
        os.chdir(place)
        blocked(Path(place), given.mib)
        if given.pairs:
            slowed(Path(place), given.mib, max(2, given.pairs), given.every)


if __name__ == "__main__":
    main()
