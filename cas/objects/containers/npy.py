"""The header of a .npy file, read without NumPy: magic, version, length, a line that says the rest.

Strict: exactly the line that NumPy writes for an array of plain numbers in C order and little
endian, and exactly the bytes of that array behind it.
"""

import re
from struct import Struct
from typing import BinaryIO, Final

from cas.objects.containers.found import FoundTensor, OddError, read_exactly, size_of

MAGIC: Final = b"\x93NUMPY"
# By version: how the length of the line is written.
LENGTHS: Final = {b"\x01\x00": Struct("<H"), b"\x02\x00": Struct("<I"), b"\x03\x00": Struct("<I")}
MAX_LINE: Final = 65_536
LINE: Final = re.compile(
    rb"\{'descr': '([<|][biufc][0-9]{1,2})', 'fortran_order': False, "
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


def read(file: BinaryIO, size: int) -> list[FoundTensor]:
    """Return the one array of a .npy file of `size` bytes; it has no name."""
    head = len(MAGIC) + 2
    if size < head + 2:
        raise OddError("too short")
    start = read_exactly(file, 0, head)
    layout = LENGTHS.get(start[len(MAGIC) :])
    if not start.startswith(MAGIC) or layout is None or size < head + layout.size:
        raise OddError("not a version of .npy that is known")
    (length,) = layout.unpack(read_exactly(file, head, layout.size))
    offset = head + layout.size + length
    if length > MAX_LINE or offset > size:
        raise OddError(f"a header of {length} bytes")
    dtype, shape = _line(read_exactly(file, head + layout.size, length))
    nbytes = size_of(dtype, shape)
    if offset + nbytes != size:
        raise OddError("the array does not fill the file")
    return [FoundTensor("", dtype, shape, offset, nbytes)]


def _line(raw: bytes) -> tuple[str, tuple[int, ...]]:
    match = LINE.fullmatch(raw)
    if match is None:
        raise OddError("the header is not as NumPy writes it")
    descr, lengths = (part.decode() for part in match.groups())
    if descr not in NAMES or not SHAPE.fullmatch(lengths):
        raise OddError(f"dtype {descr}, shape ({lengths})")
    shape = tuple(int(part) for part in lengths.replace(" ", "").split(",") if part)
    return NAMES[descr], shape
