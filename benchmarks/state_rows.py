"""The rows about checkpoints that come from memory, saved through the Python interface."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Usage, run, size
from benchmarks.peers import BENCH, environment
from benchmarks.report import NO_BARS, Bars, Figure, Sample
from benchmarks.rows import EVERY, GROWN, Bench, Row
from benchmarks.sidebyside import Workload, repacked

NO_REPACK = "cas has no such command yet"


def child(home: Path, *words: object) -> Any:
    """Run `states` in a home that is a git work tree of its own; return what it printed."""
    env = environment(home)
    if not (home / ".git").exists():
        run(("git", "init", "--quiet"), home, env, home / "output")
    del env["CAS_DIR"]
    command = (sys.executable, "-m", "benchmarks.states", *map(str, words))
    run(command, home, env, home / "output")
    return json.loads((home / "output").read_text())


@dataclass(frozen=True, slots=True)
class Series:
    """Checkpoints saved one after the other, or fine-tunes of a base saved as forks of its run.

    Sizes are those of the whole store, less what it held before the first save: the record of the
    run, its code and environment.
    """

    what: str
    folder: str
    default: Bars
    smallest: Bars = NO_BARS
    one: Bars = NO_BARS  # one checkpoint alone
    restore: tuple[Bars, Bars] | None = None  # by default, and --smallest
    changed: bool = False  # against the bytes of the tensors that changed

    def __call__(self, bench: Bench, row: str) -> None:
        files = sorted((bench.data.trained() / self.folder).glob("*.pt"))
        base = [path for path in files if path.name == "base.pt"]
        rest = [path for path in files if path not in base]
        name = self.what.format(len(rest))
        home = bench.runner.fresh(row)
        option = ("--base", base[0]) if base else ()
        print(f"{row}: cas", file=sys.stderr)
        told = child(home, "save", home / "store", *rest, *option)
        bench.results.samples += _saves(row, told, [*base, *rest])
        raw, before = sum(map(size, files)), told["empty"]
        if self.changed:
            about = json.loads((bench.data.trained() / "about.json").read_text())
            raw, before = about["frozen"]["changed_bytes"], told["sizes"][0]
        ratio = (told["final"] - before) / raw
        against = "changed bytes" if self.changed else "sum of raw"
        bench.add(Figure(row, f"{name}, right after", against, (ratio,)))
        last = {"store": (told["revs"][-1], rest[-1])}
        if not base:
            alone = child(home, "save", home / "alone", rest[-1])
            last["alone"] = (alone["revs"][-1], rest[-1])
            ratio = (alone["sizes"][0] - alone["empty"]) / size(rest[-1])
            bench.add(Figure(row, f"{name}, one of them alone", "raw", (ratio,), self.one))
        held = told["final"]
        for smallest, bars in enumerate((self.default, self.smallest)):
            done = repacked(row, home, 0, sum(map(size, files)), smallest=bool(smallest))
            when = "after repack --smallest" if smallest else "after repack"
            what = f"{name}, {when}"
            if done is None:
                bench.add(Figure(row, what, against, (), bars, note=NO_REPACK))
                continue
            bench.results.samples.append(done)
            bench.add(Figure(row, what, against, ((done.stored - before) / raw,), bars))
            what = f"{row}: most on disk during {done.action}"
            bench.add(Figure(row, what, "size before it", (done.most / held,), GROWN))
            held = done.stored
            if self.restore is not None:
                what = f"restore of the last of {name}, {when}"
                values = _loads(bench, row, home, last, done.action)
                bench.add(Figure(row, what, "time of a full one", values, self.restore[smallest]))
        if not base:
            tools = (*EVERY, "zipnn")
            bench.side_by_side(Workload(f"{row} as files", [rest[0].parent], tools))


def _saves(row: str, told: Mapping[str, Any], files: Sequence[Path]) -> Iterator[Sample]:
    given = 0
    for number, (path, used, stored) in enumerate(
        zip(files, told["saves"], told["sizes"], strict=True)
    ):
        given += size(path)
        usage = Usage(used["wall"], used["cpu"], used["peak"])
        if number in {0, 1, len(files) - 1}:
            what = f"save_checkpoint no. {number + 1}"
            how = "durable on return"
            yield Sample(row, "cas", what, 0, usage, given, stored, how, moved=size(path))


def _loads(
    bench: Bench, row: str, home: Path, last: Mapping[str, tuple[str, Path]], when: str
) -> tuple[float, ...]:
    """Return the time of a load from the series over one from a store of its own, each round."""
    places = [f"{home / name}={rev}={path}" for name, (rev, path) in last.items()]
    told = child(home, "load", *places, "--rounds", bench.runner.rounds)
    took = [told[f"{home / name}={rev}"] for name, (rev, _) in last.items()]
    for name, rounds in zip(last, took, strict=True):
        what = f"load the last, {'stored alone' if name == 'alone' else f'of all, after {when}'}"
        bench.results.samples += _samples(row, "cas", what, rounds, size(last[name][1]))
    return tuple(one["wall"] / full["wall"] for one, full in zip(*took, strict=True))


def _samples(
    row: str,
    tool: str,
    what: str,
    rounds: Sequence[Mapping[str, Any]],
    given: int,
    *,
    how: str = "",
) -> Iterator[Sample]:
    for number, one in enumerate(rounds):
        usage = Usage(one["wall"], one["cpu"], one["peak"])
        yield Sample(row, tool, what, number, usage, given, durability=how, moved=given)


def save_load(bench: Bench, row: str) -> None:
    """Save and load one checkpoint after the other, with cas and with torch in turns."""
    files = sorted((bench.data.trained() / "series").glob("*.pt"))[: bench.runner.rounds + 1]
    home = bench.runner.fresh(row)
    found = BENCH.glob("venv/lib/*/site-packages") if bench.runner.peers else ()
    option = [word for place in found for word in ("--safetensors", place)]
    print(f"{row}: cas, torch, safetensors in turns", file=sys.stderr)
    told = child(home, "versus", home, *files, *option)
    given = size(files[-1])
    for action, how in (("save", "durable on return"), ("load", "")):
        for tool, rounds in told[action].items():
            bench.results.samples += _samples(row, tool, action, rounds, given, how=how)
    size_of = f"{given / 1e6:.0f} MB"
    compared = (
        ("save", f"durable save of a checkpoint from memory ({size_of}), wall", (1.75, 1.2)),
        ("load", f"load a state dict ({size_of}), wall", (2.0, 1.2)),
    )
    for action, what, bars in compared:
        judged: dict[str, Bars] = {"torch": bars, "safetensors": NO_BARS}
        for peer, peer_bars in judged.items():
            both = told[action]["cas"], told[action].get(peer, [])
            walls = tuple(a["wall"] / b["wall"] for a, b in zip(*both, strict=False))
            cpus = [a["cpu"] / max(b["cpu"], 1e-9) for a, b in zip(*both, strict=False)]
            note = f"CPU {sum(cpus) / len(cpus):.2f}x" if cpus else f"{peer} is not installed"
            against = f"{peer} + fsync" if action == "save" else f"{peer}, no mmap"
            bench.add(Figure(row, what, against, walls, peer_bars, note=note))


def one_tensor(bench: Bench, row: str) -> None:
    """Read one tensor of a large checkpoint, and all of it."""
    path = bench.data.trained() / "large.pt"
    home = bench.runner.fresh(row)
    print(f"{row}: cas", file=sys.stderr)
    rev = child(home, "save", home / "store", path)["revs"][0]
    told = child(home, "tensor", home / "store", rev, "--rounds", bench.runner.rounds)
    bench.results.samples += _samples(row, "cas", "one tensor", told["one"], told["nbytes"])
    bench.results.samples += _samples(row, "cas", "all of it", told["all"], size(path))
    both = zip(told["one"], told["all"], strict=True)
    walls = tuple(one["wall"] / full["wall"] for one, full in both)
    note = f"{told['nbytes'] / 1e6:.1f} MB of it; both open the repository"
    what = f"read one tensor of a {size(path) / 1e6:.0f} MB checkpoint"
    bench.add(Figure(row, what, "reading all of it", walls, (1 / 20, 1 / 50), note=note))


STATE_ROWS: dict[str, Row] = {
    "adam-series": Series(
        "{} checkpoints with Adam state, fp32",
        "series",
        default=(0.79, 0.76),
        smallest=(0.76, 0.73),
        one=(0.84, 0.82),
        restore=((2.5, 1.7), (7, 5)),
    ),
    "bf16-series": Series(
        "{} checkpoints of bf16 weights, 10 steps apart",
        "close",
        default=(0.25, 0.18),
        one=(0.67, 0.65),
        restore=(NO_BARS, NO_BARS),
    ),
    "frozen": Series(
        "a fine-tune with 5 % of tensors changed",
        "frozen",
        default=(1.03, 1.01),
        changed=True,
    ),
    "tunes-bf16": Series("{} full fine-tunes and their base, bf16", "tunes16", (0.50, 0.42)),
    "tunes-fp32": Series("{} full fine-tunes and their base, fp32", "tunes", (0.72, 0.67)),
    "save-load": save_load,
    "one-tensor": one_tensor,
}
