"""The recipe: a large blob as the blobs that make it up, in order.

An encoding, not an object: its record has the whole blob's id and size. A piece is a blob stored
whole or again as a recipe, `MAX_LEVELS` deep at most. A part is vouched for by the pieces' ids and
the recipe's own digest; the whole by its id.
Format: docs/format/recipe.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from cas.errors import CorruptionError
from cas.ids import BlobId, Buffer, ObjectId, digest

MAX_PIECES = 64 * 1024
MAX_LEVELS = 3
ID = ObjectId.SIZE


@dataclass(frozen=True, slots=True)
class Recipe:
    """The pieces of one blob: sizes, and ids one after another."""

    sizes: tuple[int, ...]
    ids: bytes

    HEAD: ClassVar[Struct] = Struct("<32s I")

    def __post_init__(self) -> None:
        if not 1 <= len(self.sizes) <= MAX_PIECES or len(self.ids) != ID * len(self.sizes):
            raise CorruptionError(f"a recipe of {len(self.sizes)} pieces and {len(self.ids)} bytes")

    @property
    def size(self) -> int:
        """The size of the blob, in bytes."""
        return sum(self.sizes)

    def pieces(self) -> Iterator[tuple[BlobId, int]]:
        """Yield the id and the size of each piece, in order."""
        for number, size in enumerate(self.sizes):
            yield BlobId(ObjectId(self.ids[number * ID : (number + 1) * ID])), size

    def to_bytes(self) -> bytes:
        """Return the recipe as it stands in a record's body."""
        columns = Struct(f"<{len(self.sizes)}Q").pack(*self.sizes) + self.ids
        return self.HEAD.pack(digest(columns), len(self.sizes)) + columns

    @classmethod
    def from_bytes(cls, raw: Buffer, size: int) -> Self:
        """Read a recipe of a blob of `size` bytes; raise CorruptionError when it is not one."""
        if len(raw) < cls.HEAD.size:
            raise CorruptionError(f"recipe cut short at {len(raw)} bytes")
        check, count = cls.HEAD.unpack_from(raw)
        columns = memoryview(raw)[cls.HEAD.size :]
        if not 1 <= count <= MAX_PIECES or len(columns) != count * (8 + ID):
            raise CorruptionError(f"a recipe of {count} pieces in {len(raw)} bytes")
        if digest(columns) != check:
            raise CorruptionError("a recipe does not match its digest")
        recipe = cls(Struct(f"<{count}Q").unpack_from(columns), bytes(columns[8 * count :]))
        if recipe.size != size:
            raise CorruptionError(f"a recipe makes {recipe.size} bytes of a blob of {size}")
        return recipe
