"""How small the codecs make tensors, and how fast, on one core.

    .venv/bin/python benchmarks/bench_codecs.py [--train STEPS] [--pair BASE FINE]

Generated weights always; with `--train`, the state of Adam of a small transformer that learns the
source of the standard library, so many steps after a start of 500, in full and against earlier
states; with `--pair`, two safetensors files of the same tensors, the second against the first.
Everything is cut in blocks of 4 MiB, checked to come back, and timed as the best of several rounds.
`coders` compares ways to code a plane of exponents, which is where the settings come from.
"""

import argparse
import json
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import zstandard

from cas.codec import choose
from cas.codec.base import codec_for, delta_for
from cas.codec.bits import as_bytes
from cas.codec.element import Element

ROUNDS = 5
BLOCK = 4 << 20
START = 500
FLOATS = {2: Element(2, floating=True), 4: Element(4, floating=True), 8: Element(8, floating=True)}

Words = np.ndarray[Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, metavar="STEPS", default=0)
    parser.add_argument("--pair", nargs=2, type=Path, metavar=("BASE", "FINE"))
    asked = parser.parse_args()
    coders(generated()["float32"])
    heading()
    for name, words in generated().items():
        row(name, words)
    if asked.pair:
        base, fine = (read_safetensors(path) for path in asked.pair)
        compared("fine-tune", fine, base)
    if asked.train:
        series(asked.train)


def generated() -> dict[str, Words]:
    """Bell-shaped weights, as most tensors are."""
    made = np.random.default_rng(0).standard_normal(4 << 20) * 0.02
    single = made.astype("<f4")
    return {
        "float32": single.view("<u4"),
        "bfloat16": bfloat16(single.view("<u4")),
        "float16": made.astype("<f2").view("<u2"),
        "float64": made.view("<u8"),
    }


def bfloat16(words: Words) -> Words:
    """Round float32 to the nearest bfloat16."""
    rounded: Words = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype("<u2")
    return rounded


def compared(name: str, words: Words, base: Words) -> None:
    """The rows of float32 words: whole and as a delta, and the same of their bfloat16 casts."""
    row(f"{name} fp32", words)
    row(f"{name} fp32 delta", words, base)
    row(f"{name} bf16", bfloat16(words))
    row(f"{name} bf16 delta", bfloat16(words), bfloat16(base))


def series(steps: int) -> None:
    kept = dict(trained({0, 1, 10, 100, steps} & set(range(steps + 1))))
    start = kept.pop(0)
    for step, state in sorted(kept.items()):
        for part in ("m", "v"):
            row(f"Adam {part} fp32, gap {step}", state[part])
            row(f"Adam {part} fp32, gap {step} delta", state[part], start[part])
        compared(f"Adam w, gap {step}", state["w"], start["w"])


def heading() -> None:
    print(f"{'':34}  size of raw  encode MB/s  decode MB/s  codecs")


def row(name: str, words: Words, base: Words | None = None) -> None:
    element = FLOATS[words.itemsize]
    size = stored = 0
    encoding = decoding = 0.0
    tags: set[str] = set()
    for data, against in blocks(words, base):
        seconds, made = best(partial(encoded, data, against, element))
        tag, body, delta = made
        target = memoryview(bytearray(len(data)))
        if delta and against is not None:
            fill = partial(delta_for(tag).decode_into, body, against, target)
        else:
            fill = partial(codec_for(tag).decode_into, body, target)
        encoding += seconds
        decoding += best(fill)[0]
        assert target == data, f"{name} did not come back"
        size, stored = size + len(data), stored + len(body)
        tags.add(tag.name.lower())
    print(
        f"{name:34}  {stored / size:11.4f}  {size / encoding / 1e6:11.0f}"
        f"  {size / decoding / 1e6:11.0f}  {', '.join(sorted(tags))}",
        flush=True,
    )


def encoded(data: memoryview, base: memoryview | None, element: Element) -> tuple[Any, Any, bool]:
    """The tag, the body and whether it is a delta; in full where a delta gains nothing."""
    found = None if base is None else choose.encode_delta(data, base, element)
    return (*(found or choose.encode(data, element)), found is not None)


def blocks(words: Words, base: Words | None) -> Iterator[tuple[memoryview, memoryview | None]]:
    count = BLOCK // words.itemsize
    for start in range(0, words.size, count):
        part = as_bytes(words[start : start + count].data).data
        against = None if base is None else as_bytes(base[start : start + count].data).data
        yield part, against


def best(work: Callable[[], Any]) -> tuple[float, Any]:
    seconds = []
    for _ in range(ROUNDS):
        start = perf_counter()
        result = work()
        seconds.append(perf_counter() - start)
    return min(seconds), result


def coders(words: Words) -> None:
    """Ways to code the exponents of a block."""
    plane = (words[: BLOCK // 4] >> 23 & 255).astype(np.uint8)
    counts = np.bincount(plane)
    shares = counts[counts > 0] / plane.size
    print(f"one plane of exponents; order-0 entropy {-(shares * np.log2(shares)).sum() / 8:.4f}")
    ways: dict[str, dict[str, int]] = {"level 1": {}}
    for matching in (5, 6, 7):
        for table in (6, 8, 10):
            ways[f"level 1, min_match {matching}, tables 2^{table}"] = {
                "min_match": matching, "hash_log": table, "chain_log": table,
            }  # fmt: skip
    tuned = {"min_match": 7, "hash_log": 6, "chain_log": 6}
    ways |= {f"the same, window 2^{log}": {**tuned, "window_log": log} for log in (12, 15, 17)}
    ways |= {"the same, dfast": {**tuned, "strategy": 2}}
    made = {name: parameters(1, **settings) for name, settings in ways.items()}
    made |= {"level 3": parameters(3), "level -1": parameters(-1)}
    raw = plane.tobytes()
    for name, given in made.items():
        compressor = zstandard.ZstdCompressor(compression_params=given)
        encoding, body = best(partial(compressor.compress, raw))
        decoding, back = best(partial(zstandard.ZstdDecompressor().decompress, body))
        assert back == raw
        print(
            f"  {name:34}{len(body) / len(raw):11.4f}  {len(raw) / encoding / 1e6:11.0f}"
            f"  {len(raw) / decoding / 1e6:11.0f}"
        )


def parameters(level: int, **settings: int) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(level, **settings)


def read_safetensors(path: Path) -> Words:
    """The float32 tensors of a file, one after another by name."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    tensors = sorted(
        (name, entry["data_offsets"])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    )
    return np.concatenate([np.frombuffer(data[a:b], "<u4") for _, (a, b) in tensors])


def trained(wanted: set[int]) -> Iterator[tuple[int, dict[str, Words]]]:
    """Yield the states of Adam so many steps after the start: weights and both moments."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    library = Path(sysconfig.get_path("stdlib"))
    text = torch.tensor(list(b"".join(p.read_bytes() for p in sorted(library.glob("*.py")))))
    width, length, batch = 256, 128, 16
    layer = nn.TransformerEncoderLayer(
        width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    embed, places = nn.Embedding(256, width), nn.Embedding(length, width)
    head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 256))
    model = nn.ModuleList([embed, places, layers, head])
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, 3e-4)
    mask = nn.Transformer.generate_square_subsequent_mask(length)
    for step in range(1, START + max(wanted) + 1):
        starts = torch.randint(0, len(text) - length - 1, (batch,)).tolist()
        lines = torch.stack([text[start : start + length + 1] for start in starts])
        taken = embed(lines[:, :-1]) + places.weight
        guess = head(layers(taken, mask=mask, is_causal=True))
        loss = nn.functional.cross_entropy(guess.reshape(-1, 256), lines[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step - START in wanted:
            state = optimizer.state
            parts = {
                "w": [weight.detach() for weight in weights],
                "m": [state[weight]["exp_avg"] for weight in weights],
                "v": [state[weight]["exp_avg_sq"] for weight in weights],
            }
            yield step - START, {part: joined(found) for part, found in parts.items()}


def joined(tensors: list[Any]) -> Words:
    return np.concatenate([tensor.numpy().ravel().view("<u4").copy() for tensor in tensors])


if __name__ == "__main__":
    main()
