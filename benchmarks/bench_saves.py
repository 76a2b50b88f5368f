"""What a checkpoint costs the training loop: how long a save holds it up, and how it goes on.

    .venv/bin/python benchmarks/bench_saves.py [MIB] [--seconds S] [--every S]

A model and its Adam state of MIB mebibytes. Told are medians: the time that `save_checkpoint` holds
up the loop, beside a copy of the same state (`clone` of each tensor) and a blocking `torch.save`
with a sync, taking turns. Then a loop of equal steps, without saves and with one every S seconds.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

import cas

ROUNDS = 7
MIB = 1 << 20
WIDTH = 1024


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

    names = ("copy", "torch.save", "save_checkpoint", "until")
    took: dict[str, list[float]] = {name: [] for name in names}
    with cas.track("bench", repo=folder, retention=cas.Keep(last=2), system_metrics=False) as run:
        for number in range(ROUNDS + 1):
            step(model, optimizer)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            took["copy"].append(timed(partial(copy, state)))
            took["torch.save"].append(timed(save_with_torch))
            began = time.perf_counter()
            saving = run.save_checkpoint(model=model, optimizer=optimizer, step=number)
            took["save_checkpoint"].append(time.perf_counter() - began)
            saving.wait()
            took["until"].append(time.perf_counter() - began)
    middle = {name: median(values[1:]) for name, values in took.items()}  # the first warms up
    held = middle["save_checkpoint"]
    size = sum(value.nbytes for value in model.state_dict().values()) * 3
    print(f"a state of {size / MIB:.0f} MiB, medians of {ROUNDS}:")
    print(f"  a copy of it           {middle['copy'] * 1000:8.1f} ms")
    print(f"  torch.save, synced     {middle['torch.save'] * 1000:8.1f} ms")
    print(f"  save_checkpoint        {held * 1000:8.1f} ms, durable after {middle['until']:.2f} s")
    print(f"  beside a copy          {held / middle['copy']:8.2f} x")
    print(f"  beside torch.save      {held / middle['torch.save']:8.1%}")


def slowed(folder: Path, mib: int, seconds: float, every: float) -> None:
    model, optimizer = training(mib)
    batch = torch.randn(64, WIDTH)

    def loop(run: cas.Run, until: float) -> list[float]:
        steps: list[float] = []
        ends = time.perf_counter() + until
        while time.perf_counter() < ends:
            began = time.perf_counter()
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if run.should_save(len(steps)):
                run.save_checkpoint(model=model, optimizer=optimizer, step=len(steps))
            steps.append(time.perf_counter() - began)
        return steps

    rates = {}
    for name, interval in (("without", None), ("with", every), ("again without", None)):
        strategy = cas.Strategy(save_seconds=interval)
        with cas.track("bench", repo=folder, strategy=strategy, retention={"last": 2}) as run:
            rates[name] = len(loop(run, seconds)) / seconds
    base = (rates["without"] + rates["again without"]) / 2
    print(f"a loop of {seconds:.0f} s, one save every {every:.0f} s:")
    print(f"  {base:.1f} steps/s without saves, {rates['with']:.1f} with")
    print(f"  slowed by {1 - rates['with'] / base:.1%} (without saves, runs differ by", end=" ")
    print(f"{abs(rates['without'] - rates['again without']) / base:.1%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("mib", type=int, nargs="?", default=512)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=30)
    given = parser.parse_args()
    with TemporaryDirectory(prefix="cas-bench-") as place:
        os.chdir(place)
        blocked(Path(place), given.mib)
        if given.seconds:
            slowed(Path(place), given.mib, given.seconds, given.every)


if __name__ == "__main__":
    main()
