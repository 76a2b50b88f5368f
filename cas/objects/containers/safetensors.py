"""The header of a safetensors file: eight bytes of length, JSON, then the tensors' bytes.

Strict: the tensors lie one after another and fill the file, as the format demands.
"""

import json
from struct import Struct
from typing import Any, BinaryIO, Final

from cas.objects.containers.found import (
    MAX_HEADER,
    MAX_TENSORS,
    Contents,
    FoundTensor,
    OddError,
    check_text,
    read_exactly,
    size_of,
    spans_of,
)

KIND: Final = "safetensors"
LENGTH: Final = Struct("<Q")
# A tensor takes one object and two lists, and more than 48 bytes to say so.
DENSE: Final = 16
METADATA: Final = "__metadata__"
FIELDS: Final = frozenset({"dtype", "shape", "data_offsets"})
# Its names for dtypes; those of less than a byte are not known here, so their files stay opaque.
NAMES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}


def read(file: BinaryIO, size: int) -> Contents:
    """Return what is in a safetensors file of `size` bytes, in the order of the bytes."""
    if size < LENGTH.size + 2:
        raise OddError("too short")
    (length,) = LENGTH.unpack(read_exactly(file, 0, LENGTH.size))
    start = LENGTH.size + length
    if not 2 <= length <= MAX_HEADER or start > size:
        raise OddError(f"a header of {length} bytes")
    header = _parsed(read_exactly(file, LENGTH.size, length))
    _check_metadata(header.pop(METADATA, {}))
    if len(header) > MAX_TENSORS:
        raise OddError(f"{len(header)} tensors")
    tensors = [_tensor(name, fields, start) for name, fields in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset or 0, tensor.nbytes))
    at = start
    for tensor in tensors:
        if tensor.offset != at:
            raise OddError(f"{tensor.name} overlaps another tensor, or leaves a hole")
        at += tensor.nbytes
    if at != size:
        raise OddError("the tensors do not fill the file")
    return Contents.of(KIND, tensors, spans_of(tensors), size)


def _parsed(raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise OddError("the header is no JSON object")
    if raw.count(b"{") + raw.count(b"[") > len(raw) // DENSE + DENSE:
        raise OddError("the header has more objects than tensors could need")
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise OddError("the header is nested too deep") from None
    if not isinstance(value, dict):
        raise OddError("the header is no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise OddError("a name stands twice")
    return found


def _refuse(constant: str) -> Any:
    raise OddError(f"{constant} in the header")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise OddError("metadata is not text by name")


def _tensor(name: str, fields: object, start: int) -> FoundTensor:
    if not isinstance(fields, dict) or fields.keys() != FIELDS:
        raise OddError(f"{name!r} has missing or unknown fields")
    dtype = NAMES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    shape, offsets = _integers(fields["shape"]), _integers(fields["data_offsets"])
    if dtype is None or len(offsets) != 2:
        raise OddError(f"{name!r} has an unknown dtype, or no two offsets")
    begin, end = offsets
    nbytes = size_of(dtype, shape)
    if end - begin != nbytes:
        raise OddError(f"{name!r} has not the bytes that its shape takes")
    return FoundTensor(check_text(name), dtype, shape, start + begin, nbytes)


def _integers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise OddError("not a list of whole numbers")
    return tuple(value)
