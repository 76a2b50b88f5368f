"""The tensors of a safetensors file in other files: `python -m benchmarks.containers FILE OUT`.

OUT ends in `.pt` for what `torch.save` writes, else it is safetensors again: the tensors in reverse
order, behind other metadata.
"""

import json
import sys
from pathlib import Path

import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def read(path: Path) -> dict[str, tuple[str, torch.Tensor]]:
    """Return name, dtype as the file names it, and tensor, in the order of the file."""
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    found = {}
    for name, about in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = about["data_offsets"]
        flat = torch.frombuffer(raw[start + first : start + last], dtype=torch.uint8)
        found[name] = about["dtype"], flat.view(DTYPES[about["dtype"]]).view(about["shape"])
    return found


def write(path: Path, tensors: dict[str, tuple[str, torch.Tensor]]) -> None:
    if path.suffix == ".pt":
        torch.save({name: tensor for name, (_, tensor) in tensors.items()}, path)
        return
    header: dict[str, object] = {"__metadata__": {"format": "pt", "written": "reversed"}}
    bodies, at = [], 0
    for name, (dtype, tensor) in reversed(tensors.items()):
        body = tensor.flatten().view(torch.uint8).numpy().tobytes()
        offsets = [at, at + len(body)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        bodies.append(body)
        at += len(body)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(bodies))


if __name__ == "__main__":
    write(Path(sys.argv[2]), read(Path(sys.argv[1])))
