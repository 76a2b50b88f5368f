"""Segments: sorted rows of some packs, and their form as an index file.

The rows of an index file stand in blocks. Its end has each block's first key and its check, and
one digest over all that: who has read the end can check every block that it reads, one by one.
A key is the first eight bytes of an id as a number.
Format: docs/format/index.md.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol, Self

from cas.errors import CorruptionError
from cas.ids import Buffer, digest
from cas.store.pack import PackInfo, Row
from cas.store.record import check_version

if TYPE_CHECKING:
    from cas.store.rowarray import Found, Ids

MAGIC: Final = b"CASI"
VERSION: Final = 2
HEADER: Final = Struct("<4s B 3x")
COUNTS: Final = Struct("<Q I")
TRAILER: Final = Struct("<Q I 32s 4s B 3x")
NAME: Final = PackInfo.NAME_SIZE
KEY: Final = 8
CHECK: Final = 8
BLOCK: Final = 128 * Row.SIZE  # bytes: what one look-up reads and checks
MANY: Final = 1024  # rows from which on NumPy is worth it
PACK: Final = Struct("<I")  # the last of a row
FIRST: Final = Struct(f">Q {Row.SIZE - KEY}x")


class Searched(Protocol):
    """Sorted rows that can be looked through; row numbers of packs count in `packs`."""

    @property
    def packs(self) -> tuple[bytes, ...]:
        """The names of the packs that the rows' numbers mean."""

    def __len__(self) -> int: ...

    def find(self, id: bytes, key: int) -> Sequence[Row]:
        """Return the rows of one id, whose key is `key`."""

    def starting(self, prefix: bytes) -> Iterator[Row]:
        """Yield the rows whose ids begin with `prefix`."""

    def matches(self, ids: "Ids") -> "Found":
        """Return the rows of many ids."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Sorted rows in memory, and the pack that each row's number means."""

    rows: Buffer
    packs: tuple[bytes, ...]
    _keys: "array[int] | None" = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows) // Row.SIZE

    @property
    def keys(self) -> "array[int]":
        """The key of each row, so that a search compares numbers; made when first asked for."""
        keys = self._keys
        if keys is None:
            keys = array("Q", [key for (key,) in FIRST.iter_unpack(self.rows)])
            object.__setattr__(self, "_keys", keys)
        return keys

    def find(self, id: bytes, key: int) -> Sequence[Row]:
        """Return the rows of one id, whose key is `key`."""
        keys, found = self.keys, []
        number = bisect_left(keys, key)
        while number < len(keys) and keys[number] == key:
            if self.rows[number * Row.SIZE : number * Row.SIZE + len(id)] == id:
                found.append(row_at(self.rows, number))
            number += 1
        return found

    def starting(self, prefix: bytes) -> Iterator[Row]:
        """Yield the rows whose ids begin with `prefix`."""
        return starting(self.rows, prefix)

    def __iter__(self) -> Iterator[Row]:
        return starting(self.rows, b"")

    def between(self, low: bytes, high: bytes | None) -> Buffer:
        """Return the rows whose ids are not below `low`, and below `high`."""
        return between(self.rows, low, high)

    def matches(self, ids: "Ids") -> "Found":
        """Return the rows of many ids."""
        from cas.store import rowarray

        return rowarray.matches(self.rows, ids)

    def to_bytes(self) -> bytes:
        """Return the segment as an index file."""
        return b"".join(encoded(self.packs, [self.rows]))

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read an index file and check all of it; raise CorruptionError or UnsupportedError."""
        view = memoryview(raw)
        if len(view) < HEADER.size + TRAILER.size:
            raise CorruptionError(f"index cut short at {len(view)} bytes")
        check_start(view[: HEADER.size])
        extent = Extent.from_bytes(view[-TRAILER.size :], len(view))
        table = extent.table(view[extent.table_at : -TRAILER.size])
        rows = view[HEADER.size : extent.table_at]
        table.check(rows, 0)
        table.check_rows(rows, 0, b"")
        return cls(rows, table.packs)


@dataclass(frozen=True, slots=True)
class Extent:
    """How many rows and packs an index file has, by its last bytes."""

    rows: int
    packs: int
    check: bytes

    @classmethod
    def from_bytes(cls, raw: Buffer, size: int) -> Self:
        """Read the last bytes of a file that is `size` long, which the counts must agree with."""
        rows, packs, check, magic, version = TRAILER.unpack(raw)
        if magic != MAGIC:
            raise CorruptionError("an index does not end as one")
        _check_version(version)
        self = cls(rows, packs, check)
        if self.table_at + self.table_size + TRAILER.size != size:
            raise CorruptionError(f"an index of {rows} rows and {packs} packs has {size} bytes")
        return self

    @property
    def blocks(self) -> int:
        """The number of blocks; the last may be a shorter one."""
        return -(-self.rows * Row.SIZE // BLOCK)

    @property
    def table_at(self) -> int:
        """Where the rows end and the table starts."""
        return HEADER.size + self.rows * Row.SIZE

    @property
    def table_size(self) -> int:
        """The size of the table in bytes."""
        return self.packs * NAME + self.blocks * (KEY + CHECK)

    def table(self, raw: Buffer) -> "Table":
        """Read the table; raise CorruptionError unless it is the one that the digest is of."""
        if digest(raw, COUNTS.pack(self.rows, self.packs)) != self.check:
            raise CorruptionError("an index does not match its digest")
        names, keys = self.packs * NAME, self.packs * NAME + self.blocks * KEY
        packs = tuple(bytes(raw[at : at + NAME]) for at in range(0, names, NAME))
        return Table(packs, _numbers(raw[names:keys]), bytes(raw[keys:]))


@dataclass(frozen=True, slots=True)
class Table:
    """The end of an index file: what its blocks are found and checked by."""

    packs: tuple[bytes, ...]
    firsts: "array[int]"  # the key of each block's first row, the smallest in it
    checks: bytes

    def check(self, rows: Buffer, first: int) -> None:
        """Insist that these rows are the blocks from number `first` on."""
        for number, at in enumerate(range(0, len(rows), BLOCK), first):
            check = digest(rows[at : at + BLOCK], size=CHECK)
            if check != self.checks[number * CHECK : (number + 1) * CHECK]:
                raise CorruptionError(f"block {number} of an index is damaged")

    def check_rows(self, rows: Buffer, first: int, before: bytes) -> bytes:
        """Insist that the rows of these blocks are what look-ups presume; return the last.

        The blocks are those from number `first` on, and `before` is the row that comes before.
        """
        keys = _firsts(rows)
        if keys != self.firsts[first : first + len(keys)]:
            raise CorruptionError("an index states other keys than its rows have")
        if len(rows) >= MANY * Row.SIZE:
            from cas.store import rowarray

            # Faster than one by one, and it says only whether all is well.
            if rowarray.are_in_order(rows, before, len(self.packs)):
                return bytes(rows[-Row.SIZE :])
        for at in range(0, len(rows), Row.SIZE):
            row = bytes(rows[at : at + Row.SIZE])
            if row <= before:
                raise CorruptionError("the rows of an index are not in order")
            (pack,) = PACK.unpack_from(row, Row.SIZE - PACK.size)
            if pack >= len(self.packs):
                raise CorruptionError("a row of an index names a pack that is not there")
            before = row
        return before


def check_start(raw: Buffer) -> None:
    """Insist that a file begins as an index file."""
    magic, version = HEADER.unpack(raw)
    if magic != MAGIC:
        raise CorruptionError(f"not an index: starts with {magic!r}")
    _check_version(version)


def encoded(packs: Sequence[bytes], parts: Iterable[Buffer]) -> Iterator[bytes]:
    """Yield an index file of the rows that come, in order, in parts of whole rows."""
    yield HEADER.pack(MAGIC, VERSION)
    firsts, checks, rows = array("Q"), bytearray(), 0
    for blocks in _in_blocks(parts):
        firsts += _firsts(blocks)
        for at in range(0, len(blocks), BLOCK):
            checks += digest(memoryview(blocks)[at : at + BLOCK], size=CHECK)
        rows += len(blocks) // Row.SIZE
        yield blocks
    table = b"".join(packs) + _big_endian(firsts).tobytes() + checks
    check = digest(table, COUNTS.pack(rows, len(packs)))
    yield table + TRAILER.pack(rows, len(packs), check, MAGIC, VERSION)


def starting(rows: Buffer, prefix: bytes) -> Iterator[Row]:
    """Yield the rows whose ids begin with `prefix`."""
    for number in range(_position(rows, prefix), len(rows) // Row.SIZE):
        if rows[number * Row.SIZE : number * Row.SIZE + len(prefix)] != prefix:
            return
        yield row_at(rows, number)


def having(rows: bytes, id: bytes) -> Iterator[Row]:
    """Yield the rows of one id, of a block: in one, looking at all bytes beats halving it."""
    at = rows.find(id)
    while at >= 0:
        if at % Row.SIZE == 0:
            yield Row.from_bytes(rows[at : at + Row.SIZE])
        at = rows.find(id, at + 1)


def between(rows: Buffer, low: bytes, high: bytes | None) -> Buffer:
    """Return the rows whose ids are not below `low`, and below `high`."""
    stop = len(rows) if high is None else _position(rows, high) * Row.SIZE
    return memoryview(rows)[_position(rows, low) * Row.SIZE : stop]


def row_at(rows: Buffer, number: int) -> Row:
    """Return one of the rows."""
    return Row.from_bytes(rows[number * Row.SIZE : (number + 1) * Row.SIZE])


def key_of(id: bytes) -> int:
    """Return the key of an id."""
    return int.from_bytes(id[:KEY], "big")


def _position(rows: Buffer, prefix: bytes) -> int:
    """Return the number of the first row whose id is not below `prefix`."""

    def head(number: int) -> bytes:
        return bytes(rows[number * Row.SIZE : number * Row.SIZE + len(prefix)])

    return bisect_left(range(len(rows) // Row.SIZE), prefix, key=head)


def _in_blocks(parts: Iterable[Buffer]) -> Iterator[bytes]:
    """Yield the parts as whole blocks, and last the rest."""
    rest = bytearray()
    for part in parts:
        rest += part
        whole = len(rest) - len(rest) % BLOCK
        if whole:
            yield bytes(memoryview(rest)[:whole])
            rest = rest[whole:]
    if rest:
        yield bytes(rest)


def _firsts(rows: Buffer) -> "array[int]":
    return array("Q", [FIRST.unpack_from(rows, at)[0] for at in range(0, len(rows), BLOCK)])


def _numbers(raw: Buffer) -> "array[int]":
    numbers = array("Q")
    numbers.frombytes(raw)
    return _big_endian(numbers)


def _big_endian(numbers: "array[int]") -> "array[int]":
    """Turn numbers of this machine into those that have the order of ids, or back."""
    if sys.byteorder == "little":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


def _check_version(version: int) -> None:
    check_version("index", version, VERSION)
    if version < VERSION:
        raise CorruptionError(f"index version {version} is no longer read")
