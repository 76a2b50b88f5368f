"""Tensor files written byte by byte, so that any of their bytes can lie."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

F32 = "FloatStorage"
PUT = b"q"  # and the number


def safetensors(
    tensors: Mapping[str, tuple[str, list[int], bytes]], metadata: dict[str, str] | None = None
) -> bytes:
    """Return a safetensors file as its writers make it."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return with_header(header, b"".join(data for _, _, data in tensors.values()))


def with_header(header: object, data: bytes) -> bytes:
    """Return a safetensors file with this header; text is taken as it is."""
    raw = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def text(value: str) -> bytes:
    """Return the operation that pushes a text."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """Return the operation that pushes an int."""
    return b"J" + struct.pack("<i", value)


def named(name: str) -> bytes:
    """Return the operation that pushes a global."""
    module, _, attribute = name.rpartition(" ")
    return f"c{module}\n{attribute}\n".encode()


def naturals(values: tuple[int, ...]) -> bytes:
    """Return the operations that push a tuple of ints."""
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, count: int, kind: str = F32) -> bytes:
    """Return the operations that push a storage."""
    parts = text("storage") + named(f"torch {kind}") + text(key) + text("cpu") + number(count)
    return b"(" + parts + b"tQ"


def tensor(
    key: str,
    shape: tuple[int, ...],
    *,
    strides: tuple[int, ...] | None = None,
    count: int | None = None,
    start: int = 0,
    kind: str = F32,
    rebuild: str = "_rebuild_tensor_v2",
) -> bytes:
    """Return the operations that push a tensor."""
    if strides is None:
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    parts = storage(key, prod(shape) if count is None else count, kind) + number(start)
    parts += (
        naturals(shape) + naturals(strides) + b"\x89" + named("collections OrderedDict") + b")R"
    )
    return named(f"torch._utils {rebuild}") + b"(" + parts + b"tR"


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    """Return the pickle of a dict of pushed values."""
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def archive(pickled: bytes, data: Mapping[str, bytes], **options: Any) -> bytes:
    """Return a torch.save file: a zip of stored members."""
    method = options.get("method", zipfile.ZIP_STORED)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        made.writestr("archive/data.pkl", pickled)
        made.writestr("archive/byteorder", options.get("order", "little"))
        for key, raw in data.items():
            made.writestr(f"archive/data/{key}", raw)
        made.writestr("archive/version", "3\n")
    return out.getvalue()


def npz(arrays: Mapping[str, Any]) -> bytes:
    """Return an .npz file as NumPy writes it."""
    import numpy as np

    named: Any = dict(arrays)
    out = io.BytesIO()
    np.savez(out, **named)
    return out.getvalue()


def gguf_text(value: str) -> bytes:
    """Return a text as GGUF writes it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(
    tensors: Mapping[str, tuple[int, list[int], bytes]],
    values: Sequence[tuple[str, int, bytes]] = (),
    *,
    alignment: int = 32,
    version: int = 3,
    claims: tuple[int | None, int | None] = (None, None),
) -> bytes:
    """Return a GGUF file of tensors (kind, dimensions, data) and values (key, kind, bytes).

    `claims` are how many of both it says that it has.
    """
    counts = [
        len(had) if said is None else said
        for had, said in zip((tensors, values), claims, strict=True)
    ]
    out = struct.pack("<4sIQQ", b"GGUF", version, *counts)
    for key, kind, raw in values:
        out += gguf_text(key) + struct.pack("<I", kind) + raw
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        out += (
            gguf_text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        )
        out += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % alignment)
    return out + bytes(-len(out) % alignment) + data


class Touch:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def canary(path: str) -> bytes:
    """Return a pickle that makes a folder when it is loaded."""
    return pickle.dumps(OrderedDict(weight=Touch(path)), protocol=2)
