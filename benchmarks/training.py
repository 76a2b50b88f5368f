"""Train the checkpoints that the benchmarks store: `python -m benchmarks.training OUT SCALE`.

One run of AdamW: a warm-up, then a cosine rate. Checkpoints are taken only after WARM steps, when
both moments have settled. Then full fine-tunes of its end on text that it has not seen, and one
with all but a few tensors frozen. What changed between neighbours stands in `about.json`.
"""

import copy
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks.network import Network, Shape, batches, corpus, digest, step

THREADS = 2
PEAK, LAST = 3e-4, 3e-5
TUNE_RATE = 2e-5
TRAINED = 0.8  # of the text; the rest is for the fine-tunes
Named = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train and when to save."""

    shape: Shape = field(default_factory=Shape)
    warm: int = 300
    gap: int = 25
    saves: int = 20
    close_gap: int = 10
    tunes: int = 10
    tune_steps: int = 40
    copies: int = 14

    @property
    def steps(self) -> int:
        return self.warm + self.gap * (self.saves - 1)

    def saved_at(self) -> list[int]:
        return [self.warm + self.gap * k for k in range(self.saves)]

    def close_at(self) -> list[int]:
        return [self.steps - self.close_gap * k for k in reversed(range(self.saves))]


PLANS = {
    "full": Plan(),
    "small": Plan(Shape(64, 2, 2, 32, 4), 20, 4, 4, 2, 2, 4, 2),
}


def generate(out: Path, plan: Plan) -> dict[str, Any]:
    """Train and write everything under a folder; return what there is to know about it."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    text = corpus()
    cut = int(len(text) * TRAINED)
    about: dict[str, Any] = {"plan": asdict(plan), "text": digest(text), "text_bytes": len(text)}
    network = Network(plan.shape)
    about["parameters"] = sum(value.numel() for value in network.parameters())
    about["loss"] = _train(out, plan, network, text[:cut])
    base = dict(network.state_dict())
    _write(out / "tunes/base.pt", {"model": base})
    _write(out / "tunes16/base.pt", {"model": _halved(base)})
    apart = []
    for k in range(plan.tunes):
        start = cut + (len(text) - cut) * k // plan.tunes
        tuned = _tune(plan, base, text[start : start + (len(text) - cut) // plan.tunes], k)
        apart.append(_relative(base, tuned))
        _write(out / f"tunes/{k:02}.pt", {"model": tuned})
        _write(out / f"tunes16/{k:02}.pt", {"model": _halved(tuned)})
    about["tunes"] = {
        "rate": TUNE_RATE,
        "median_relative_change": mean(apart),
        "changed": _shares([_load(out / "tunes" / name) for name in ("base.pt", "00.pt")]),
        "changed_bf16": _shares([_load(out / "tunes16" / name) for name in ("base.pt", "00.pt")]),
    }
    about["frozen"] = _frozen(out, plan, base, text[cut:])
    about["series"] = _shares(_load(path) for path in sorted((out / "series").iterdir()))
    about["close"] = _shares(_load(path) for path in sorted((out / "close").iterdir()))
    _large(out, plan)
    (out / "about.json").write_text(json.dumps(about, indent=1))
    return about


def _train(out: Path, plan: Plan, network: Network, text: bytes) -> float:
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK)
    source = batches(text, plan.shape, seed=1)
    loss = math.nan
    for at in range(1, plan.steps + 1):
        optimizer.param_groups[0]["lr"] = _rate(at, plan.steps)
        loss = step(network, optimizer, next(source))
        if at in plan.saved_at():
            whole = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
            _write(out / f"series/{plan.saved_at().index(at):02}.pt", whole)
        if at in plan.close_at():
            place = out / f"close/{plan.close_at().index(at):02}.pt"
            _write(place, {"model": _halved(network.state_dict())})
        if at % 50 == 0:
            print(f"step {at} of {plan.steps}, loss {loss:.3f}", flush=True)
    return loss


def _rate(at: int, steps: int) -> float:
    warm = max(steps // 15, 1)
    if at < warm:
        return PEAK * at / warm
    return LAST + (PEAK - LAST) * (1 + math.cos(math.pi * (at - warm) / (steps - warm))) / 2


def _tune(plan: Plan, base: Named, text: bytes, seed: int, only: Iterable[str] = ()) -> Named:
    network = Network(plan.shape)
    network.load_state_dict(base)
    wanted = set(only)
    for name, value in network.named_parameters():
        value.requires_grad_(not wanted or name in wanted)
    trained = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=TUNE_RATE)
    source = batches(text, plan.shape, seed=100 + seed)
    for _ in range(plan.tune_steps):
        step(network, optimizer, next(source))
    return dict(network.state_dict())


def _frozen(out: Path, plan: Plan, base: Named, text: bytes) -> dict[str, Any]:
    """Train every twentieth tensor alone, the last ones of the network."""
    names = [name for name in base if base[name].dim() == 2]
    trained = names[-max(1, round(len(base) / 20)) :]
    tuned = _tune(plan, base, text, 99, only=trained)
    _write(out / "frozen/base.pt", {"model": base})
    _write(out / "frozen/tuned.pt", {"model": tuned})
    changed = sum(tuned[name].nbytes for name in trained)
    return {"trained": trained, "of": len(base), "changed_bytes": changed}


def _large(out: Path, plan: Plan) -> None:
    """Put the states of several checkpoints into one: about 1 GiB, and no value twice."""
    paths = sorted((out / "series").iterdir())[: plan.copies]
    model = {
        f"part{k:02}.{kind}.{name}": value
        for k, path in enumerate(paths)
        for kind, named in _kinds(_load(path)).items()
        for name, value in named.items()
    }
    _write(out / "large.pt", {"model": model})


def _kinds(state: Mapping[str, Any]) -> dict[str, Named]:
    """Return weights, first and second moments, by name."""
    kinds: dict[str, Named] = {"w": dict(state["model"])}
    for index, moments in state.get("optimizer", {"state": {}})["state"].items():
        kinds.setdefault("m", {})[str(index)] = moments["exp_avg"]
        kinds.setdefault("v", {})[str(index)] = moments["exp_avg_sq"]
    return kinds


def _shares(states: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return, for each kind, the mean share of values that differ between neighbours."""
    shares: dict[str, list[float]] = defaultdict(list)
    before: dict[str, Named] | None = None
    for state in states:
        kinds = _kinds(state)
        for kind, named in kinds.items() if before is not None else ():
            assert before is not None
            differ = sum(_differing(before[kind][name], value) for name, value in named.items())
            shares[kind].append(differ / sum(value.numel() for value in named.values()))
        before = kinds
    return {kind: round(mean(values), 4) for kind, values in shares.items()}


def _differing(one: Tensor, other: Tensor) -> int:
    width = {2: torch.int16, 4: torch.int32}[one.element_size()]
    return int((one.view(width) != other.view(width)).sum())


def _relative(base: Named, tuned: Named) -> float:
    parts = [((tuned[name] - base[name]).abs() / base[name].abs()).flatten() for name in base]
    return float(torch.cat(parts).nan_to_num().median())


def _halved(named: Mapping[str, Tensor]) -> Named:
    return {name: value.to(torch.bfloat16) for name, value in named.items()}


def _write(path: Path, state: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(copy.deepcopy(dict(state)), path)


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


if __name__ == "__main__":
    print(json.dumps(generate(Path(sys.argv[1]), PLANS[sys.argv[2]]), indent=1))
