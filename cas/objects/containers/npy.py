"""The header of a .npy file, read without NumPy: magic, version, length, a line that says the rest.

Strict: exactly the line that NumPy writes for an array of plain little-endian numbers, and exactly
the bytes of that array behind it. One in Fortran's order has no place as a tensor, but is numbers.
"""

import re
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Final

from cas.objects.containers.found import (
    Contents,
    FoundTensor,
    OddError,
    Span,
    read_exactly,
    size_of,
)

KIND: Final = "npy"

MAGIC: Final = b"\x93NUMPY"
# By version: how the length of the line is written.
LENGTHS: Final = {b"\x01\x00": Struct("<H"), b"\x02\x00": Struct("<I"), b"\x03\x00": Struct("<I")}
MAX_LINE: Final = 65_536
LINE: Final = re.compile(
    rb"\{'descr': '([<|][biufc][0-9]{1,2})', 'fortran_order': (False|True), "
    rb"'shape': \(([0-9, ]*)\), \} *\n"
)
SHAPE: Final = re.compile(r"(?:|[0-9]{1,19},|[0-9]{1,19}(?:, [0-9]{1,19})+)")
NAMES: Final = {
    "|b1": "bool",
    "|u1": "uint8",
    "<u2": "uint16",
    "<u4": "uint32",
    "<u8": "uint64",
    "|i1": "int8",
    "<i2": "int16",
    "<i4": "int32",
    "<i8": "int64",
    "<f2": "float16",
    "<f4": "float32",
    "<f8": "float64",
    "<c8": "complex64",
    "<c16": "complex128",
}


@dataclass(frozen=True, slots=True)
class Array:
    """An array as a tensor, and where its numbers lie."""

    tensor: FoundTensor
    span: Span


def read(file: BinaryIO, size: int) -> Contents:
    """Return the one array of a .npy file of `size` bytes; it has no name."""
    array = array_in(file, 0, size, "")
    return Contents.of(KIND, [array.tensor], [array.span], size)


def array_in(file: BinaryIO, start: int, size: int, name: str) -> Array:
    """Return the array of a .npy file that lies in another file, `size` bytes from `start` on."""
    head = len(MAGIC) + 2
    if size < head + 2:
        raise OddError("too short")
    magic = read_exactly(file, start, head)
    layout = LENGTHS.get(magic[len(MAGIC) :])
    if not magic.startswith(MAGIC) or layout is None or size < head + layout.size:
        raise OddError("not a version of .npy that is known")
    (length,) = layout.unpack(read_exactly(file, start + head, layout.size))
    front = head + layout.size + length
    if length > MAX_LINE or front > size:
        raise OddError(f"a header of {length} bytes")
    dtype, shape, fortran = _line(read_exactly(file, start + front - length, length))
    nbytes = size_of(dtype, shape)
    if front + nbytes != size:
        raise OddError("the array does not fill the file")
    offset = start + front
    tensor = FoundTensor(name, dtype, shape, None if fortran else offset, nbytes)
    return Array(tensor, Span(offset, nbytes, dtype))


def _line(raw: bytes) -> tuple[str, tuple[int, ...], bool]:
    match = LINE.fullmatch(raw)
    if match is None:
        raise OddError("the header is not as NumPy writes it")
    descr, fortran, lengths = (part.decode() for part in match.groups())
    if descr not in NAMES or not SHAPE.fullmatch(lengths):
        raise OddError(f"dtype {descr}, shape ({lengths})")
    shape = tuple(int(part) for part in lengths.replace(" ", "").split(",") if part)
    return NAMES[descr], shape, fortran == "True"
