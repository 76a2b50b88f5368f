"""What is fuzzed of files of others: tensors that lie where they are said to, or bytes."""

import io
import struct
from itertools import pairwise
from typing import Any

import numpy as np

from cas.errors import CorruptionError
from cas.objects.containers import gguf as gguf_reader
from cas.objects.containers import npy, statedict, torchzip, zips
from cas.objects.containers import npz as npz_reader
from cas.objects.containers import safetensors as safetensors_reader
from cas.objects.containers.files import contents_in
from cas.objects.containers.found import OddError
from cas.objects.containers.nested import spans_in
from tests.fuzz.fuzzing import Target
from tests.support.tensorfiles import (
    archive,
    gguf,
    gguf_text,
    naturals,
    npz,
    safetensors,
    state_dict,
    tensor,
    text,
)

W = np.arange(40, dtype="<f4").tobytes()


def targets() -> dict[str, Target]:
    """Return the readers of tensor files."""
    return {
        "safetensors": Target(_safetensors(), _file, [b'"F32"', b'"__metadata__":{}', b"[]", b"{"]),
        "npy": Target(_npys(), _file, [b"'descr'", b"True", b"(", b"|O", b"<f4", b", "]),
        "zip": Target(_archives(), _file, [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"]),
        "npz": Target([npz({"a": np.arange(40.0), "b": np.ones(3)})], _file, [b".npy", b"PK\1\2"]),
        "gguf": Target(_ggufs(), _file, [gguf_text("general.alignment"), b"\4\0\0\0"]),
        "pickle": Target(_pickles(), _pickle, [b"(", b"t", b"R", b"}", b"]", b"Q", b"q\1", b"h\1"]),
    }


def _file(data: bytes) -> object:
    """Look at a file as an ingest does; what is found must lie in it, one behind the other."""
    found = contents_in(io.BytesIO(data))
    spans = spans_in(io.BytesIO(data), 64)
    places = [(span.offset, span.offset + span.nbytes) for span in spans]
    assert all(0 <= start < stop <= len(data) for start, stop in places), "spans leave the file"
    assert all(first[1] <= second[0] for first, second in pairwise(places)), "spans overlap"
    if found is None:
        raise CorruptionError(_reason(data))
    for row in found.tensors:
        inside = row.offset is None or 0 <= row.offset <= row.offset + row.nbytes <= len(data)
        assert inside, "a tensor leaves the file"
    return found.kind, len(found.tensors), len(spans)


def _reason(data: bytes) -> str:
    """Return why a file is opaque bytes, so that what is close to being none is changed further."""
    file = io.BytesIO(data)
    try:
        if data.startswith(zips.MAGIC):
            members = zips.members(file, len(data))
            alike = all(member.name.endswith(".npy") for member in members)
            (npz_reader if alike else torchzip).read(file, len(data), members)
        elif data.startswith(npy.MAGIC):
            npy.read(file, len(data))
        elif data.startswith(gguf_reader.MAGIC):
            gguf_reader.read(file, len(data))
        else:
            safetensors_reader.read(file, len(data))
    except (ValueError, IndexError) as error:
        return str(error)
    return "no kind that is known"


def _safetensors() -> list[bytes]:
    many = {str(n): ("F32", [10], W[:40]) for n in range(9)}
    return [
        safetensors({"w": ("F32", [4, 10], W), "n": ("I64", [], b"\1" * 8)}, {"format": "pt"}),
        safetensors(many),
        safetensors({}),
    ]


def _npys() -> list[bytes]:
    made = []
    for version in ((1, 0), (2, 0)):
        for array in (np.arange(40.0), np.asfortranarray(np.ones((3, 4), "<i2")), np.array(True)):
            out = io.BytesIO()
            np.lib.format.write_array(out, array, version=version)
            made.append(out.getvalue())
    return made


def _archives() -> list[bytes]:
    pushed = {"w": tensor("0", (4, 10)), "b": tensor("1", (2,), kind="LongStorage")}
    return [archive(state_dict(pushed), {"0": W, "1": bytes(16)}), archive(b"\x80\2}.", {})]


def _ggufs() -> list[bytes]:
    values: list[Any] = [
        ("general.name", 8, gguf_text("test")),
        ("general.alignment", 4, struct.pack("<I", 64)),
        ("tokens", 9, struct.pack("<IQ", 8, 3) + gguf_text("a") * 3),
        ("scores", 9, struct.pack("<IQ", 6, 2) + bytes(8)),
    ]
    tensors: dict[str, Any] = {"w": (0, [10, 4], W), "q": (8, [32, 2], bytes(68))}
    return [gguf(tensors, values, alignment=64), gguf(tensors), gguf({}, version=2)]


def _pickles() -> list[bytes]:
    nested = b"}(" + text("layer") + b"}(" + text("w") + tensor("0", (2, 3)) + b"uu"
    tied = tensor("0", (6,), rebuild="_rebuild_tensor_v2") + b"q\1"
    return [
        state_dict({"w": tensor("0", (4, 10)), "b": tensor("1", (2,), strides=(3,), start=1)}),
        b"\x80\2" + nested + b".",
        b"\x80\2}(" + text("a") + tied + text("b") + b"h\1" + text("n") + naturals((1, 2)) + b"u.",
    ]


def _pickle(data: bytes) -> object:
    try:
        tensors, storages = statedict.read(data)
    except OddError as error:
        raise CorruptionError(str(error)) from error
    return len(tensors), len(storages)
