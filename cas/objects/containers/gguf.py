"""The header of a GGUF file: values by key, the tensors' names, kinds, shapes and offsets.

Strict: versions 2 and 3 in little endian, tensors one after another, each from the next aligned
byte on. Values are stepped over, none is kept but the alignment. Quantised numbers lie in blocks:
such a tensor has the name of its kind as dtype, and its bytes are cut as bytes.
"""

from math import prod
from struct import Struct
from typing import BinaryIO, Final

from cas.objects.containers.found import (
    MAX_NAME,
    MAX_TENSORS,
    Contents,
    FoundTensor,
    OddError,
    Span,
    check_text,
)
from cas.objects.manifest import DTYPES

KIND: Final = "GGUF"
HEAD: Final = Struct("<4sIQQ")  # magic, version, tensors, values
MAGIC: Final = b"GGUF"
VERSIONS: Final = frozenset({2, 3})
NUMBER: Final = Struct("<I")
LONG: Final = Struct("<Q")
ALIGNMENT_KEY: Final = b"general.alignment"
ALIGNMENT: Final = 32
MAX_ALIGNMENT: Final = 1 << 20
MAX_DIMENSIONS: Final = 4
MAX_VALUES: Final = 4_000_000  # those in arrays counted
MAX_LENGTH: Final = 64 * 1024 * 1024  # of the whole header: vocabularies stand in it
WINDOW: Final = 64 * 1024
# Kinds of values: the bytes of the plain ones, and two that have a length of their own.
SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
UINT32: Final = 4
TEXT: Final = 8
ARRAY: Final = 9
PLAIN: Final = {
    0: "float32",
    1: "float16",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    30: "bfloat16",
}
# Kinds of blocks: name, numbers in one, bytes of one.
BLOCKS: Final = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
BYTES: Final = "uint8"  # what a block is cut as


def read(file: BinaryIO, size: int) -> Contents:
    """Return what is in a GGUF file of `size` bytes, in the order of the bytes."""
    header = _Header(file, size)
    magic, version, tensors, values = HEAD.unpack(header.take(HEAD.size))
    if magic != MAGIC or version not in VERSIONS or tensors > MAX_TENSORS:
        raise OddError("no version of GGUF that is known, or too many tensors")
    alignment = _alignment(header, values)
    told = [_tensor(header) for _ in range(tensors)]
    start = _aligned(header.at, alignment)
    found = [
        FoundTensor(name, dtype, shape, start + offset, nbytes)
        for name, dtype, shape, offset, nbytes in sorted(told, key=lambda row: row[3])
    ]
    if len({tensor.name for tensor in found}) != len(found):
        raise OddError("a name stands twice")
    at = start
    for tensor in found:
        if tensor.offset != at:
            raise OddError(f"{tensor.name} overlaps another tensor, or leaves a hole")
        at = _aligned(at + tensor.nbytes, alignment)
    plain = PLAIN.values()
    spans = [
        Span(tensor.offset or 0, tensor.nbytes, tensor.dtype if tensor.dtype in plain else BYTES)
        for tensor in found
    ]
    end = max((span.offset + span.nbytes for span in spans), default=start)
    if not end <= size <= at:
        raise OddError("the tensors do not fill the file")
    return Contents.of(KIND, found, spans, size)


class _Header:
    """The bytes at the start of a file, window by window, up to a limit."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.at = 0
        self.values = 0
        self._file = file
        self._end = min(size, MAX_LENGTH)
        self._window = b""
        self._start = 0

    def take(self, length: int) -> bytes:
        """Return the next bytes, which are few."""
        begin = self.at - self._start
        self.skip(length)
        if not 0 <= begin <= len(self._window) - length:
            self._start, begin = self.at - length, 0
            self._file.seek(self._start)
            self._window = self._file.read(max(WINDOW, length))
            if len(self._window) < length:
                raise OddError("cut short")
        return self._window[begin : begin + length]

    def skip(self, length: int) -> None:
        """Step over bytes without a look at them."""
        if length > self._end - self.at:
            raise OddError("the header leaves the file, or is too long")
        self.at += length

    def number(self) -> int:
        """Return the next number of 32 bits."""
        (value,) = NUMBER.unpack(self.take(NUMBER.size))
        return int(value)

    def long(self) -> int:
        """Return the next number of 64 bits."""
        (value,) = LONG.unpack(self.take(LONG.size))
        return int(value)

    def text(self) -> bytes:
        """Return the next name."""
        length = self.long()
        if length > MAX_NAME:
            raise OddError(f"a name of {length} bytes")
        return self.take(length)

    def count(self, values: int) -> int:
        """Return how many values come, after a look at how many came before."""
        self.values += values
        if self.values > MAX_VALUES:
            raise OddError("too many values")
        return values


def _alignment(header: _Header, values: int) -> int:
    """Step over all values; return the alignment that one of them may state."""
    alignment = ALIGNMENT
    keys: set[bytes] = set()
    for _ in range(header.count(values)):
        key, kind = header.text(), header.number()
        if key in keys:
            raise OddError(f"{key!r} stands twice")
        keys.add(key)
        if key == ALIGNMENT_KEY:
            if kind != UINT32:
                raise OddError("the alignment is of another kind")
            alignment = header.number()
        else:
            _skip(header, kind)
    if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise OddError(f"an alignment of {alignment}")
    return alignment


def _skip(header: _Header, kind: int) -> None:
    """Step over one value."""
    count = 1
    if kind == ARRAY:
        kind, count = header.number(), header.long()
    if kind in SIZES:
        header.skip(SIZES[kind] * count)
    elif kind == TEXT:
        for _ in range(header.count(count)):
            header.skip(header.long())
    else:
        raise OddError(f"a value of kind {kind}")


def _tensor(header: _Header) -> tuple[str, str, tuple[int, ...], int, int]:
    """Return a tensor's name, dtype, shape, offset among the tensors, and bytes."""
    name, dimensions = check_text(header.text().decode()), header.number()
    if dimensions > MAX_DIMENSIONS:
        raise OddError(f"{name!r} has {dimensions} dimensions")
    # The innermost comes first there.
    shape = tuple(header.long() for _ in range(dimensions))[::-1]
    kind, offset = header.number(), header.long()
    if kind in PLAIN:
        dtype, numbers, nbytes = PLAIN[kind], 1, DTYPES[PLAIN[kind]]
    elif kind in BLOCKS:
        dtype, numbers, nbytes = BLOCKS[kind]
    else:
        raise OddError(f"{name!r} is of kind {kind}")
    if not all(0 < length < 2**63 for length in shape) or (shape or (1,))[-1] % numbers:
        raise OddError(f"{name!r} has shape {shape}")
    return name, dtype, shape, offset, prod(shape) // numbers * nbytes


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
