"""What the readers of tensor files share: a tensor that was found, and bounded reading.

A reader raises OddError for whatever it does not know to the last byte: such a file is opaque
bytes.
"""

from dataclasses import dataclass
from math import prod
from typing import BinaryIO, Final

from cas.objects.manifest import DTYPES, MAX_DIMENSIONS

MAX_HEADER: Final = 16 * 1024 * 1024
MAX_TENSORS: Final = 1_000_000
MAX_NAME: Final = 1024


class OddError(ValueError):
    """The file is none of this kind, or one that no strict reader takes; never leaves the room."""


@dataclass(frozen=True, slots=True)
class FoundTensor:
    """A tensor in a file: its row-major, little-endian bytes are those from `offset` on.

    `offset` is None for one whose elements are no whole storage of the file, or lie in it in
    another order. Tensors that are tied share their bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None
    nbytes: int


def read_exactly(file: BinaryIO, offset: int, length: int) -> bytes:
    """Return `length` bytes from `offset` on, which the caller has checked to be few."""
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise OddError(f"cut short at {offset + len(data)} bytes")
    return data


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor; refuse what no tensor is."""
    if dtype not in DTYPES:
        raise OddError(f"dtype {dtype!r}")
    if len(shape) > MAX_DIMENSIONS or not all(0 <= length < 2**63 for length in shape):
        raise OddError(f"shape {shape}")
    return prod(shape) * DTYPES[dtype]


def check_text(text: object) -> str:
    """Return a name; refuse what is no text that can be written as UTF-8."""
    if not isinstance(text, str) or len(text) > MAX_NAME:
        raise OddError("a name is not text, or too long")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OddError("a name is not Unicode") from None
    return text
