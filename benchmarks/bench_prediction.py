"""What Adam's moments tell about the next weights, and how much smaller a delta gets by it.

    .venv/bin/python -m benchmarks.bench_prediction FOLDER

FOLDER is what `benchmarks.training` wrote at the scale `full`. A prediction is made from what the
reader has, and stands in the place of the base: the codecs are those of the store, on tensors
joined and cut in blocks of 4 MiB. Gaps below 25 steps are trained here, from the tenth checkpoint
on. Everything is a part of raw size. Takes some minutes of one core.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.network import Network, batches, corpus, step
from benchmarks.training import TRAINED, Plan, _rate
from cas.codec import bits, choose
from cas.codec.base import delta_for
from cas.codec.bits import Words
from cas.codec.element import Element
from cas.codec.grouped import GROUPS, Groups
from cas.codec.planes import plan_rows, split_sample

SHORT = (1, 2, 5, 10)
START = 9  # the checkpoint in the middle
BETA1, BETA2, EPSILON, DECAY = 0.9, 0.999, 1e-8, 0.01
BLOCK = 4 << 20
CACHED = 64 << 10  # numbers that a pass takes at once
MAX_DELTAS = 8  # one upon another

Floats = NDArray[Any]  # of 4 bytes: rounded to these after every operation
Tensors = list[Floats]
Features = Callable[["State", "State", "State"], list[Tensors]]  # of the last, the base, the new


@dataclass(frozen=True, slots=True)
class State:
    """A checkpoint: weights and both moments, tensor by tensor, none of them shaped."""

    step: int
    rate: float
    w: Tensors
    m: Tensors
    v: Tensors

    def updates(self) -> Tensors:
        """What one step at a rate of 1 would take from each weight."""
        one, two = (np.float32(1 / (1 - beta**self.step)) for beta in (BETA1, BETA2))
        return [
            m * one / (np.sqrt(v * two) + np.float32(EPSILON))
            for m, v in zip(self.m, self.v, strict=True)
        ]


# Each weight is decayed, then so much of these is added, fitted for each tensor.
PREDICTORS: dict[str, Features] = {
    "the base's moments": lambda last, base, new: [base.updates()],
    "the new moments": lambda last, base, new: [new.updates()],
    "both": lambda last, base, new: [base.updates(), new.updates()],
    "the last change": lambda last, base, new: [changes(last, base)],
    "all of these": lambda last, base, new: [base.updates(), new.updates(), changes(last, base)],
}
BOTH = PREDICTORS["both"]


def main() -> None:
    torch.set_num_threads(1)
    paths = sorted((Path(sys.argv[1]) / "series").iterdir())
    middle = read(paths[START])
    later = [*trained_on(paths[START]), read(paths[START + 1]), read(paths[START + 2])]
    print("\nweights: by what they are predicted, and the size of the delta for each gap")
    print(f"{'':22}" + "".join(f"{new.step - middle.step:8}" for new in later))
    for name, features in PREDICTORS.items():
        sizes = []
        for new in later:
            last = read(paths[START - max(1, (new.step - middle.step) // Plan().gap)])
            sizes.append(stored(new.w, predicted(last, middle, new, features)))
        print(f"  {name:20}" + "".join(f"{size:8.4f}" for size in sizes), flush=True)
    heading()
    for new in later:
        row(measured(middle, new))
    speeds(middle, later[-2])
    heading()
    rows = [measured(read(base), read(new)) for base, new in pairwise(paths)]
    for each in rows:
        row(each)
    whole_series(rows)


def read(path: Path) -> State:
    return state_of(torch.load(path, weights_only=True, mmap=True))


def state_of(saved: Mapping[str, Any]) -> State:
    moments = [saved["optimizer"]["state"][k] for k in range(len(saved["model"]))]
    return State(
        int(moments[0]["step"]),
        saved["optimizer"]["param_groups"][0]["lr"],
        [value.numpy().ravel().copy() for value in saved["model"].values()],
        [each["exp_avg"].numpy().ravel().copy() for each in moments],
        [each["exp_avg_sq"].numpy().ravel().copy() for each in moments],
    )


def trained_on(path: Path) -> Iterator[State]:
    """Yield the states a few steps after a checkpoint, trained as the series was."""
    plan = Plan()
    saved = torch.load(path, weights_only=True)
    network = Network(plan.shape)
    network.load_state_dict(saved["model"])
    optimizer = torch.optim.AdamW(network.parameters())
    optimizer.load_state_dict(saved["optimizer"])
    text = corpus()
    source = batches(text[: int(len(text) * TRAINED)], plan.shape, seed=1)
    start = int(saved["optimizer"]["state"][0]["step"])
    for at in range(1, start + max(SHORT) + 1):
        batch = next(source)
        if at > start:
            optimizer.param_groups[0]["lr"] = _rate(at, plan.steps)
            step(network, optimizer, batch)
        if at - start in SHORT:
            both = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
            yield state_of(both)


def changes(old: State, new: State) -> Tensors:
    return [after - before for before, after in zip(old.w, new.w, strict=True)]


def predicted(last: State, base: State, new: State, features: Features) -> Tensors:
    """The weights of `new`, from its moments and all that is older."""
    kept = np.float32(1 - new.rate * DECAY * (new.step - base.step))
    columns = list(zip(*features(last, base, new), strict=True))
    return [
        guess(old * kept, found, fit(wanted - old * kept, found))
        for wanted, old, found in zip(new.w, base.w, columns, strict=True)
    ]


def fit(wanted: Floats, found: tuple[Floats, ...]) -> Floats:
    """By how much of each of these what is wanted is met best."""
    rows = np.stack(found).astype(np.float64)
    factors = np.linalg.lstsq(rows @ rows.T, rows @ wanted.astype(np.float64), rcond=None)[0]
    return factors.astype(np.float32)


def guess(start: Floats, found: tuple[Floats, ...], factors: Floats) -> Floats:
    """Single operations only, as IEEE rounds them: the same on every machine."""
    for factor, each in zip(factors, found, strict=True):
        start = start + factor * each
    return start


def decayed(base: State, new: State) -> Tensors:
    """The second moment of `new`: the rest of the old one; one gradient is known from m."""
    gap = new.step - base.step
    rest = [np.float32(BETA2**gap) * v for v in base.v]
    if gap > 1:
        return rest
    known = [
        (m - np.float32(BETA1) * old) / np.float32(1 - BETA1)
        for m, old in zip(new.m, base.m, strict=True)
    ]
    return [v + np.float32(1 - BETA2) * g * g for v, g in zip(rest, known, strict=True)]


def scales(base: State, new: State, guessed: Floats) -> Words:
    """How far each weight may be off, in units of its last place: halves of powers of 2.

    By how much v grew, the gradients in between are known in size.
    """
    rest = np.float32(BETA2 ** (new.step - base.step))
    grown = np.maximum(joined(new.v) - rest * joined(base.v), 0)
    off = np.sqrt(grown / np.maximum(joined(new.v), np.float32(1e-30)))
    return ((off.view("<u4") >> 22) - (guessed.view("<u4") >> 23 & 255) * 2 & 0xFF).astype("<u2")


def exponents(base: Floats) -> Words:
    return (base.view("<u4") >> 23 & 0xFF).astype("<u2")


def joined(tensors: Tensors) -> Floats:
    return np.concatenate(tensors)


def blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK // 4):
        yield slice(start, start + BLOCK // 4)


def stored(new: Tensors, base: Tensors | None = None) -> float:
    """The size as a delta; where that gains nothing or there is no base, in full."""
    words, against = joined(new), None if base is None else joined(base)
    size = 0
    for block in blocks(words.size):
        data, element = words[block].data, Element(4, floating=True)
        delta = None if against is None else choose.encode_delta(data, against[block].data, element)
        size += len((delta or choose.encode(data, element))[1])
    return size / words.nbytes


def grouped(new: Floats, base: Floats, keys: Words) -> float:
    """The size as a delta with the steps in the order of keys that the reader has too."""
    size = 0
    for block in blocks(new.size):
        ordered = gathered(steps(new[block], base[block]), keys[block])
        size += plan_rows(split_sample(ordered))[1]
    return size / new.nbytes


def shifted(new: Floats, base: Floats) -> float:
    """The size as a delta of floats above 0 that mostly fall, and none by more than a little."""
    far = new.view("<i4") - base.view("<i4")
    up = (far - np.quantile(far, 1e-4).astype("<i4")).view("<u4")
    return sum(plan_rows(split_sample(up[block]))[1] for block in blocks(up.size)) / new.nbytes


def steps(new: Floats, base: Floats) -> Words:
    made = np.empty(new.size, "<u4")
    bits.difference(new.view("<u4"), base.view("<u4"), made, floating=True)
    return made


def gathered(words: Words, keys: Words) -> Words:
    ordered = np.empty_like(words)
    groups = Groups(keys * np.uint16(GROUPS // 2))
    for chunk, (start, stop) in enumerate(groups.chunks()):
        groups.gather(chunk, words[start:stop], ordered)
    return ordered


def scattered(ordered: Words, keys: Words) -> Words:
    words = np.empty_like(ordered)
    groups = Groups(keys * np.uint16(GROUPS // 2))
    for chunk, (start, stop) in enumerate(groups.chunks()):
        groups.scatter(chunk, ordered, words[start:stop])
    return words


def halved(base: State, new: State) -> tuple[float, float]:
    """The sizes of a delta of bfloat16 weights, without and with a prediction."""
    old, wanted = ([bfloat16(w) for w in state.w] for state in (base, new))
    wide = State(base.step, base.rate, [widened(w) for w in old], base.m, base.v)
    target = State(new.step, new.rate, [widened(w) for w in wanted], new.m, new.v)
    guessed = [bfloat16(w) for w in predicted(base, wide, target, BOTH)]
    sizes = []
    for against in (old, guessed):
        words, bases = (np.concatenate(found) for found in (wanted, against))
        size = 0
        for start in range(0, words.size, BLOCK // 2):
            data, other = (each[start : start + BLOCK // 2].data for each in (words, bases))
            element = Element(2, floating=True)
            delta = choose.encode_delta(data, other, element)
            size += len((delta or choose.encode(data, element))[1])
        sizes.append(size / words.nbytes)
    return sizes[0], sizes[1]


def bfloat16(values: Floats) -> Words:
    words = values.view("<u4")
    rounded: Words = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype("<u2")
    return rounded


def widened(words: Words) -> Floats:
    return (words.astype("<u4") << 16).view("<f4")


def measured(base: State, new: State) -> dict[str, float]:
    """All sizes for one pair of checkpoints."""
    guessed = predicted(base, base, new, BOTH)
    old, wanted, near = joined(base.w), joined(new.w), joined(guessed)
    found = {"gap": float(new.step - base.step)}
    for kind in "wmv":
        found[f"{kind} full"] = stored(getattr(new, kind))
        found[f"{kind} plain"] = stored(getattr(new, kind), getattr(base, kind))
    found["w pred"] = stored(new.w, guessed)
    found["w g-plain"] = grouped(wanted, old, exponents(old))
    found["w g-pred"] = grouped(wanted, near, scales(base, new, near))
    if found["gap"] == 1:  # nothing is left to be put in order
        found["w g-pred"] = found["w pred"]
    found["v pred"] = stored(new.v, decayed(base, new))
    found["v offset"] = shifted(joined(new.v), joined(base.v))
    found["bf plain"], found["bf pred"] = halved(base, new)
    for way, parts in {
        "full": ("w full", "v full"),
        "plain": ("w plain", "v plain"),
        "pred": ("w pred", "v pred"),
        "g-plain": ("w g-plain", "v plain"),
        "g-pred": ("w g-pred", "v pred"),
        "simple": ("w g-plain", "v offset"),
    }.items():
        m = found["m full" if way == "full" else "m plain"]
        found[f"all {way}"] = (m + sum(found[part] for part in parts)) / 3
    return found


COLUMNS = (
    *("w full", "w plain", "w pred", "w g-plain", "w g-pred", "m full", "m plain"),
    *("v full", "v plain", "v pred", "v offset", "all full", "all plain", "all pred"),
    *("all g-plain", "all g-pred", "all simple", "bf plain", "bf pred"),
)


def heading() -> None:
    print("\nplain: a delta as it is; pred: against a prediction; g-: in groups; bf: bfloat16;")
    print("offset: steps without a sign, counted from the lowest; simple: offset and g-plain")
    print(" gap" + "".join(f"{name:>12}" for name in COLUMNS))


def row(found: dict[str, float]) -> None:
    print(f"{found['gap']:4.0f}" + "".join(f"{found[c]:12.4f}" for c in COLUMNS), flush=True)


def whole_series(rows: list[dict[str, float]]) -> None:
    """Print the size of 20 checkpoints: the first in full, and each that would stand too deep."""
    print("\nall checkpoints of the series, the first in full")
    for way in ("full", "plain", "pred", "g-plain", "g-pred", "simple"):
        deltas = [each[f"all {way}"] for each in rows]
        # The first is not measured alone: the second in full is as large to four digits.
        first = rows[0]["all full"]
        limited = [
            each["all full"] if not number % (MAX_DELTAS + 1) else each[f"all {way}"]
            for number, each in enumerate(rows, 1)
        ]
        once, often = ((first + sum(sizes)) / (len(sizes) + 1) for sizes in (deltas, limited))
        print(f"  {way:8} one full {once:.4f}   every ninth full {often:.4f}")


def speeds(base: State, new: State) -> None:
    """Print how long each pass takes; a predicted delta needs several."""
    old, wanted = joined(base.w), joined(new.w)
    found = (joined(base.updates()), joined(new.updates()))
    factors = fit(wanted - old, found)
    keys = exponents(old)
    moments = [joined(kind) for kind in (base.m, base.v, new.m, new.v)]
    element = Element(4, floating=True)
    made = [choose.encode_delta(wanted[b].data, old[b].data, element) for b in blocks(old.size)]
    ordered = [gathered(wanted[b].view("<u4"), keys[b]) for b in blocks(old.size)]
    target = memoryview(bytearray(BLOCK))

    def decode(*, check: bool = False) -> None:
        for block, delta in zip(blocks(old.size), made, strict=True):
            assert delta is not None
            room = target[: wanted[block].nbytes]
            delta_for(delta[0]).decode_into(delta[1], old[block].data, room)
            assert not check or room == wanted[block].data.cast("B")

    decode(check=True)
    for each, block in zip(ordered, blocks(old.size), strict=True):
        assert np.array_equal(scattered(each, keys[block]), wanted[block].view("<u4"))

    passes: dict[str, Callable[[], object]] = {
        "encode a plain delta": lambda: [
            choose.encode_delta(wanted[b].data, old[b].data, element) for b in blocks(old.size)
        ],
        "decode a plain delta": decode,
        "predict from both moments": lambda: predict(old, moments, factors),
        "fit": lambda: fit(wanted - old, found),
        "put in groups": lambda: [
            gathered(wanted[b].view("<u4"), keys[b]) for b in blocks(old.size)
        ],
        "take from groups": lambda: [
            scattered(each, keys[b]) for each, b in zip(ordered, blocks(old.size), strict=True)
        ],
    }
    print("\npasses over the weights, MB/s")
    for name, work in passes.items():
        times = []
        for _ in range(3):
            start = perf_counter()
            work()
            times.append(perf_counter() - start)
        print(f"  {name:28}{wanted.nbytes / min(times) / 1e6:8.0f}", flush=True)


def predict(old: Floats, moments: list[Floats], factors: Floats) -> Floats:
    """Predict as a reader would: block by block, in the cache."""
    made = np.empty_like(old)
    small = np.float32(EPSILON)
    for start in range(0, old.size, CACHED):
        part = slice(start, start + CACHED)
        m, v, new_m, new_v = (each[part] for each in moments)
        found = (m / (np.sqrt(v) + small), new_m / (np.sqrt(new_v) + small))
        made[part] = guess(old[part], found, factors)
    return made


if __name__ == "__main__":
    main()
