"""What is known of the bytes of a tensor: how wide its numbers are, and whether they are floats."""

from dataclasses import KW_ONLY, dataclass
from typing import Final

from cas.errors import InvalidInputError

WIDTHS: Final = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Element:
    """One number, little-endian: `width` bytes, a sign bit first when it is `floating`.

    A complex number is two floats. Of opaque bytes nothing is known: they have no element.
    """

    width: int
    _: KW_ONLY
    floating: bool = False

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            raise InvalidInputError(f"an element of {self.width} bytes is not one of {WIDTHS}")
