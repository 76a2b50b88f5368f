"""What the readers of tensor files share: what they found, and bounded reading.

A reader raises OddError for whatever it does not know to the last byte: such a file is opaque
bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import BinaryIO, Final

from cas.objects.manifest import DTYPES, INLINE_LIMIT, MAX_DIMENSIONS

MAX_HEADER: Final = 16 * 1024 * 1024
MAX_TENSORS: Final = 256 * 1024
MAX_NAME: Final = 1024


class OddError(ValueError):
    """The file is none of this kind, or one that no strict reader takes; never leaves the room."""


@dataclass(frozen=True, slots=True)
class FoundTensor:
    """A tensor in a file: its row-major, little-endian bytes are those from `offset` on.

    `offset` is None for one whose elements are no whole storage of the file, or lie in it in
    another order. Tensors that are tied share their bytes. Blocks of quantised numbers have the
    name of their kind as dtype, one that no state knows.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None
    nbytes: int


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A run of bytes in a file that is numbers of `dtype`, "" when nobody says of which."""

    offset: int
    nbytes: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What a reader found: the kind of file, its tensors, and the spans to cut it at.

    Spans are in order and do not overlap. A tensor that has an offset and more bytes than stand in
    a state's row is a span; a span may be no tensor.
    """

    kind: str
    tensors: tuple[FoundTensor, ...]
    spans: tuple[Span, ...]

    @classmethod
    def of(
        cls, kind: str, tensors: Iterable[FoundTensor], spans: Iterable[Span], size: int
    ) -> "Contents":
        """Return what was found in a file of `size` bytes; equal spans are one, small ones none."""
        cuts = sorted({span for span in spans if span.nbytes > INLINE_LIMIT})
        end = 0
        for span in cuts:
            if span.offset < end:
                raise OddError(f"tensors overlap at byte {span.offset}")
            end = span.offset + span.nbytes
        if end > size:
            raise OddError(f"tensors up to byte {end} of {size}")
        return cls(kind, tuple(tensors), tuple(cuts))


def spans_of(tensors: Iterable[FoundTensor]) -> Iterable[Span]:
    """Return where tensors of known dtypes lie."""
    return (
        Span(tensor.offset, tensor.nbytes, tensor.dtype)
        for tensor in tensors
        if tensor.offset is not None
    )


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
