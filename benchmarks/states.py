"""Checkpoints through the Python interface, in a process of its own; prints JSON.

    python -m benchmarks.states save REPO FILE... [--base FILE]
    python -m benchmarks.states load REPO=REV=FILE... --rounds N
    python -m benchmarks.states versus FOLDER FILE... [--safetensors DIR]
    python -m benchmarks.states tensor REPO REV --rounds N

FILE is what `torch.save` wrote. Contenders take turns; the first round of each is a warm-up and is
left out. `cas.track` makes the repository and captures the folder that it runs in, as for a user.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

import cas
from benchmarks.measure import size

STATUS = Path("/proc/self/status")
Timed = dict[str, float]


def save(repo: Path, files: list[Path], base: Path | None) -> dict[str, Any]:
    """Save files as checkpoints: of one run, or each as a fork of the run that saved `base`."""
    told: dict[str, Any] = {"revs": [], "sizes": [], "saves": []}

    def keep(run: cas.Run, path: Path, step: int) -> None:
        state = read(path)
        took, rev = timed(partial(saved, run, state, step))
        told["saves"].append(took)
        told["revs"].append(rev)
        told["sizes"].append(size(repo))

    if base is None:
        with cas.track("bench", name="series", repo=repo) as run:
            told["empty"] = size(repo)
            for step, path in enumerate(files):
                keep(run, path, step)
    else:
        with cas.track("bench", name="base", repo=repo) as run:
            told["empty"] = size(repo)
            keep(run, base, 0)
        for number, path in enumerate(files):
            with cas.fork("bench/base", name=f"tune-{number}", repo=repo) as run:
                keep(run, path, 1)
    told["final"] = size(repo)
    return told


def load(places: list[tuple[Path, str, Path]], rounds: int) -> dict[str, list[Timed]]:
    """Load checkpoints of several repositories in turns, each checked against its file."""
    took: dict[str, list[Timed]] = {f"{repo}={rev}": [] for repo, rev, _ in places}
    for number in range(rounds + 1):
        for repo, rev, path in places:
            one, loaded = timed(partial(cas.load, rev, repo=repo))
            if number:
                took[f"{repo}={rev}"].append(one)
            else:
                check_same(read(path), loaded)
    return took


def versus(folder: Path, files: list[Path], extra: Path | None) -> dict[str, Any]:
    """Save and load each file's state in turns: cas, torch, and safetensors where it is there."""
    if extra is not None:
        sys.path.append(str(extra))
    told: dict[str, dict[str, list[Timed]]] = {"save": {}, "load": {}}
    with cas.track("bench", name="versus", repo=folder / "store") as run:
        for step, path in enumerate(files):
            state, target = read(path), folder / "one.pt"
            contenders: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
                "cas": (partial(saved, run, state, step), partial(loaded_state, run)),
                "torch": (partial(torch_saved, state, target), read),
                **_safetensors(state, folder / "one.safetensors"),
            }
            for name, (write, back) in contenders.items():
                wrote, handle = timed(write)
                took, loaded = timed(partial(back, handle))
                if name != "safetensors":
                    check_same(state, loaded)
                del loaded
                if step:
                    told["save"].setdefault(name, []).append(wrote)
                    told["load"].setdefault(name, []).append(took)
    return told


def tensor(repo: Path, rev: str, rounds: int) -> dict[str, Any]:
    """Read one tensor of a checkpoint and all of it, in turns; the tensor is of middling size."""
    whole = cas.load(rev, repo=repo)["model"]
    name = sorted(whole, key=lambda key: whole[key].nbytes)[len(whole) // 2]
    told: dict[str, Any] = {"nbytes": whole[name].nbytes, "one": [], "all": []}
    for number in range(rounds + 1):
        one, got = timed(partial(cas.read_tensor, rev, f"model.{name}", repo=repo))
        rest, _ = timed(partial(cas.load, rev, repo=repo))
        if not same(got, whole[name]):
            raise SystemExit(f"{name} read alone differs")
        if number:
            told["one"].append(one)
            told["all"].append(rest)
    return told


def saved(run: cas.Run, state: Mapping[str, Any], step: int) -> str:
    """Save a state and return its revision once it is durable."""
    parts = {name: state[name] for name in ("model", "optimizer") if name in state}
    commit = run.save_checkpoint(step=step, wait=True, **parts).commit
    if commit is None:
        raise SystemExit("save_checkpoint failed")
    return str(commit.hex())


def loaded_state(run: cas.Run, rev: str) -> Mapping[str, Any]:
    return run.load_checkpoint(rev, restore_rng=False).state


def torch_saved(state: Mapping[str, Any], path: Path) -> Path:
    """Write a state with torch, durably."""
    with path.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    return path


def read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def timed(action: Callable[[], Any]) -> tuple[Timed, Any]:
    """Return wall and CPU seconds and the memory that it needed at most, beside its result."""
    os.sync()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is used now
    before = _status("VmRSS")
    cpu, wall = time.process_time(), time.perf_counter()
    result = action()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak": max(0, _status("VmHWM") - before)}, result


def check_same(given: Any, back: Any, path: str = "state") -> None:
    """End the process unless all that was given came back, tensors bit for bit."""
    if isinstance(given, torch.Tensor):
        if not same(given, back):
            raise SystemExit(f"{path} came back different")
    elif isinstance(given, Mapping):
        for key, value in given.items():
            check_same(value, back[key], f"{path}/{key}")
    elif isinstance(given, (list, tuple)):
        for index, value in enumerate(given):
            check_same(value, back[index], f"{path}/{index}")
    elif given != back:
        raise SystemExit(f"{path} came back different")


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    flat = [each.detach().contiguous().flatten().view(torch.uint8) for each in (one, other)]
    return torch.equal(flat[0], flat[1])


def _safetensors(state: Mapping[str, Any], path: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file, save_file
    except ImportError:
        return {}
    moments = state.get("optimizer", {"state": {}})["state"]
    flat = {f"model.{name}": value for name, value in state["model"].items()} | {
        f"optimizer.{index}.{name}": value
        for index, named in moments.items()
        for name, value in named.items()
    }

    def write() -> None:
        save_file(flat, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())

    return {"safetensors": (write, lambda _: load_file(path))}


def _status(field: str) -> int:
    if not STATUS.exists():
        return 0
    found = (line.split() for line in STATUS.read_text().split("\n") if line.startswith(field))
    return next((int(words[1]) * 1024 for words in found), 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["save", "load", "versus", "tensor"])
    parser.add_argument("words", nargs="+")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--safetensors", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    first, rest = Path(args.words[0]), args.words[1:]
    result: object
    if args.what == "save":
        result = save(first, [Path(word) for word in rest], args.base)
    elif args.what == "load":
        places = [word.split("=") for word in args.words]
        result = load([(Path(repo), rev, Path(file)) for repo, rev, file in places], args.rounds)
    elif args.what == "versus":
        result = versus(first, [Path(word) for word in rest], args.safetensors)
    else:
        result = tensor(first, rest[0], args.rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
