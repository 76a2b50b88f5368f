"""The chunker seam: where a long run of bytes is cut. The only home of `pyfastcdc`.

The cuts decide which parts of two files are stored once, so the constants here belong to format 1
and never change: other ones would be other chunkers.
Format: docs/format/cutting.md.
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from cas.errors import InvalidInputError

BLOCK_SIZE: Final = 4 << 20

FASTCDC_MIN: Final = 32 << 10
FASTCDC_AVG: Final = 128 << 10
FASTCDC_MAX: Final = 512 << 10
FASTCDC_NORMALIZATION: Final[Literal[1]] = 1
FASTCDC_SEED: Final = 0


class Chunker(Protocol):
    """A rule that cuts bytes into chunks.

    Every chunker promises:

    - the lengths of all chunks add up to the bytes, and none is 0;
    - the cuts depend on the bytes alone: whoever cuts a stream window by window, and puts what a
      call left out in front of the next window, gets the cuts of the whole at once.

    `tests/property/test_chunkers.py` holds each implementation to these promises.
    """

    @property
    def max_size(self) -> int:
        """The length that no chunk exceeds. Windows should be several times as long."""

    def cut(self, data: memoryview, *, final: bool) -> list[int]:
        """Return the lengths of the complete chunks at the start of `data`.

        With `final`, `data` ends where the bytes end and is cut up to there; otherwise a tail that
        could still grow is left out.
        """


@dataclass(frozen=True, slots=True)
class Fixed:
    """Chunks of one size, for data whose parts do not shift: the blocks of a tensor."""

    size: int = BLOCK_SIZE

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InvalidInputError(f"chunks of {self.size} bytes cannot be cut")

    @property
    def max_size(self) -> int:
        """The length of all chunks but the last."""
        return self.size

    def cut(self, data: memoryview, *, final: bool) -> list[int]:
        """Return the lengths of the complete chunks at the start of `data`."""
        whole, rest = divmod(data.nbytes, self.size)
        lengths = [self.size] * whole
        if final and rest:
            lengths.append(rest)
        return lengths


@dataclass(frozen=True, slots=True)
class ContentDefined:
    """FastCDC 2020, for opaque bytes: an insertion moves only the cuts near it."""

    @property
    def max_size(self) -> int:
        """The length that no chunk exceeds."""
        return FASTCDC_MAX

    def cut(self, data: memoryview, *, final: bool) -> list[int]:
        """Return the lengths of the complete chunks at the start of `data`."""
        from pyfastcdc import FastCDC

        # One for each call: it keeps state that threads cannot share.
        cutter = FastCDC(
            FASTCDC_AVG,
            min_size=FASTCDC_MIN,
            max_size=FASTCDC_MAX,
            normalized_chunking=FASTCDC_NORMALIZATION,
            seed=FASTCDC_SEED,
        )
        lengths = [chunk.length for chunk in cutter.cut_buf(data.cast("B"))] if data.nbytes else []
        # Whether the last chunk ends by its content or because `data` does, only its full length
        # tells; a cut further in front depends on bytes that are all here.
        if lengths and not final and lengths[-1] < FASTCDC_MAX:
            lengths.pop()
        return lengths
