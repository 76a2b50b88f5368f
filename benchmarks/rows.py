"""The rows of the table that compare files, stored by every tool as a user would store them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import size
from benchmarks.peers import TOOLS
from benchmarks.report import NO_BARS, Bars, Figure, Results, Sample
from benchmarks.sidebyside import Runner, Workload
from benchmarks.workloads import GIB, MIB, Data

EVERY = ("cas", "restic", "borg", "git-lfs", "dvc", "hf-xet")
GROWN = (1.1, 1.1)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a row needs: the data, the runner and where results go."""

    data: Data
    runner: Runner
    results: Results

    def side_by_side(self, workload: Workload) -> list[Sample]:
        samples = self.runner.samples(workload)
        self.results.samples += samples
        return samples

    def add(self, *figures: Figure) -> None:
        self.results.figures += figures


Row = Callable[[Bench, str], None]


def pick(samples: Sequence[Sample], tool: str, action: str) -> list[Sample]:
    return [one for one in samples if (one.tool, one.action) == (tool, action)]


def faster(samples: Sequence[Sample], peer: str, action: str) -> tuple[float, ...]:
    """Return, for each round, how many times faster cas was than a peer."""
    return tuple(
        other.usage.wall / own.usage.wall
        for own, other in zip(
            pick(samples, "cas", action), pick(samples, peer, action), strict=False
        )
    )


def why_not(bench: Bench, row: str, tool: str, otherwise: str = "") -> str:
    """Return what is known of why a tool gave nothing."""
    known = [text for text in bench.runner.problems if text.startswith(f"{row}: {tool}")]
    return known[-1] if known else otherwise or f"{tool} was left out"


def throughput(bench: Bench, row: str) -> None:
    """One large file of trained weights, against every tool."""
    path = bench.data.trained() / "large.pt"
    samples = bench.side_by_side(Workload(row, [path], EVERY))
    bars = {"restic": (3, 6), "borg": (1.5, 3), "dvc": (3, 8), "git-lfs": (2, 4), "hf-xet": (3, 6)}
    what = f"durable add of a file ({size(path) / 1e6:.0f} MB of weights), throughput"
    for peer, (floor, goal) in bars.items():
        values = faster(samples, peer, "add")
        note = f"{peer}: {TOOLS[peer].durability}" if values else why_not(bench, row, peer)
        bench.add(Figure(row, what, peer, values, (floor, goal), more=True, note=note))
    for peer, (floor, goal) in {"restic": (2, 5), "borg": (2, 4)}.items():
        values = faster(samples, peer, "restore")
        note = "nobody syncs" if values else why_not(bench, row, peer)
        what = "restore of that file, throughput"
        bench.add(Figure(row, what, peer, values, (floor, goal), more=True, note=note))


def second(samples: Sequence[Sample], action: str = "add version 2") -> list[int]:
    """Return, for each round, the bytes that the second version added behind an action."""
    return [
        after.stored - before.stored
        for before, after in zip(
            pick(samples, "cas", "add"), pick(samples, "cas", action), strict=False
        )
    ]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of a file, and what the second may add to the store.

    With `delta`, the second is smaller only as a delta, so that it is judged after `cas repack`.
    """

    what: str
    versions: Callable[[Data], Sequence[Path]]
    floor: float
    goal: float
    delta: bool = False
    beside: bool = False

    def __call__(self, bench: Bench, row: str) -> None:
        versions = self.versions(bench.data)
        parent = "base-model" if self.delta else ""
        workload = Workload(row, versions, EVERY, repack=True, parent=parent, beside=self.beside)
        samples = bench.side_by_side(workload)
        raw = size(versions[1])
        for action, when in SECOND.items():
            values = tuple(added / raw for added in second(samples, action))
            judged = self.delta == (action == "repack") and action != "repack --smallest"
            bars = (self.floor, self.goal) if judged else NO_BARS
            note = "" if values else why_not(bench, row, "cas", f"cas did not {action}")
            if values or judged:
                bench.add(Figure(row, f"{self.what}, {when}", "raw", values, bars, note=note))
        bench.add(*growth(row, samples))


SECOND = {
    "add version 2": "right after",
    "repack": "after repack",
    "repack --smallest": "after repack --smallest",
}


def growth(row: str, samples: Sequence[Sample]) -> Iterator[Figure]:
    """Yield how large the store was at most during a repack, against before it."""
    for action in ("repack", "repack --smallest"):
        done = pick(samples, "cas", action)
        if not done:
            continue
        before = [one.stored for one in samples if one.tool == "cas" and one.action[:3] == "add"]
        earlier = before[-1] if action == "repack" else pick(samples, "cas", "repack")[-1].stored
        values = tuple(one.most / earlier for one in done)
        what = f"{row}: most on disk during {action}"
        yield Figure(row, what, "size before it", values, GROWN)


def single(
    what: str,
    source: Callable[[Data], Path],
    *,
    floor: float | None = None,
    goal: float | None = None,
) -> Row:
    """Return a row for the stored size of one file."""

    def row_of(bench: Bench, row: str) -> None:
        samples = bench.side_by_side(Workload(row, [source(bench.data)], (*EVERY, "zipnn")))
        values = tuple(one.stored / one.given for one in pick(samples, "cas", "add"))
        note = "" if values else why_not(bench, row, "cas")
        bench.add(Figure(row, what, "raw", values, (floor, goal), note=note))

    return row_of


def files(bench: Bench, row: str) -> None:
    """Many small files: the first add and one that finds nothing changed."""
    many = row == "files-many"
    folder = bench.data.files(many=many)
    count = sum(1 for _ in folder.rglob("*.txt"))
    tools = ("cas", "restic", "borg", "git") if many else ("cas", "restic", "borg", "git", "dvc")
    samples = bench.side_by_side(Workload(row, [folder], tools, again=True))
    values = tuple(1 / value for value in faster(samples, "git", "add"))
    bars = NO_BARS if many else (1.0, 0.6)
    note = "git: `sync -f` behind it" if values else why_not(bench, row, "git")
    what = f"add {count:,} x 2 KiB, time"
    bench.add(Figure(row, what, "git add + commit", values, bars, note=note))
    values = faster(samples, "restic", "again")
    bars = NO_BARS if many else (5.0, 10.0)
    note = "" if values else why_not(bench, row, "restic")
    what = f"add again, unchanged, {count:,} files, times faster"
    bench.add(Figure(row, what, "restic", values, bars, more=True, note=note))


def huge(bench: Bench, row: str) -> None:
    """Peak memory while one very large file is added and restored."""
    path = bench.data.huge()
    runner = replace(bench.runner, rounds=1)
    samples = replace(bench, runner=runner).side_by_side(Workload(row, [path], ("cas",)))
    judged: dict[str, Bars] = {"add": (400, 200), "restore": NO_BARS}
    for action, bars in judged.items():
        values = tuple(one.usage.peak / MIB for one in pick(samples, "cas", action))
        note = "" if values else why_not(bench, row, "cas")
        what = f"peak memory in MiB, {action} of a {size(path) / GIB:.2f} GiB file"
        bench.add(Figure(row, what, "", values, bars, note=note))


def _published(*names: str) -> Callable[[Data], Sequence[Path]]:
    return lambda data: [data.published(name) for name in names]


def _same_weights(name: str) -> Callable[[Data], Sequence[Path]]:
    return lambda data: [data.published("minilm-base.safetensors"), data.same_weights(name)]


FILE_ROWS: dict[str, Row] = {
    "throughput": throughput,
    "minilm": Pair(
        "a published base and a real fine-tune of it (MiniLM), the second",
        _published("minilm-base.safetensors", "minilm-tuned.safetensors"),
        floor=0.70,
        goal=0.66,
        delta=True,
    ),
    "container": Pair(
        "the same weights as safetensors and as torch.save (MiniLM), the second",
        _same_weights("minilm.pt"),
        floor=0.01,
        goal=0.001,
        beside=True,
    ),
    "layout": Pair(
        "the same weights in another order of the file (MiniLM), the second",
        _same_weights("minilm-reversed.safetensors"),
        floor=0.01,
        goal=0.001,
        beside=True,
    ),
    "whisper": Pair(
        "the same weights shifted by 75 bytes (Whisper), the second",
        _published("whisper-one.bin", "whisper-other.bin"),
        floor=0.008,
        goal=0.004,
    ),
    "front": Pair(
        "bytes inserted at the front of a large opaque file, the second",
        lambda data: [data.opaque(), data.opaque_shifted()],
        floor=0.003,
        goal=0.002,
    ),
    "table": Pair(
        "a CSV table edited in the middle, the second",
        lambda data: [data.table(), data.table(edited=True)],
        floor=0.03,
        goal=0.01,
    ),
    "published-bf16": single(
        "a published bf16 checkpoint (a torch.save file), stored size",
        lambda data: data.published("astra-bf16.pt"),
    ),
    "random": single("random bytes, stored size", Data.random, floor=1.001, goal=1.0005),
    "files": files,
    "files-many": files,
    "huge": huge,
}
