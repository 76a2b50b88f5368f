"""Merging segments: the rows of all, in order, a bounded number of them at a time."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from cas.ids import BlobHasher, BlobId, Buffer
from cas.store.pack import Row
from cas.store.segment import KEY, PACK, Segment

MANY: Final = 16384  # rows from which on NumPy is worth loading
AT_ONCE: Final = 262_144  # rows: memory while merging is a small multiple of what they take
REST: Final = Row.SIZE - PACK.size


class Ordered(Protocol):
    """Sorted rows that are read range by range."""

    @property
    def packs(self) -> tuple[bytes, ...]:
        """The names of the packs that the rows' numbers mean."""

    def __len__(self) -> int: ...

    def between(self, low: bytes, high: bytes | None) -> Buffer:
        """Return the rows whose ids are not below `low`, and below `high`."""


def merge(segments: Sequence[Ordered]) -> Segment:
    """Return one segment with the rows of all, in order."""
    names, parts = merged(segments)
    return Segment(b"".join(parts), names)


def merged(
    segments: Sequence[Ordered], listed: Collection[bytes] | None = None
) -> tuple[tuple[bytes, ...], Iterator[bytes]]:
    """Return the names of the packs, and the rows in order, part by part.

    Where `listed` is given, rows of other packs are left out.
    """
    names: dict[bytes, int] = {}
    numbers = [
        [
            names.setdefault(name, len(names)) if listed is None or name in listed else -1
            for name in segment.packs
        ]
        for segment in segments
    ]
    return tuple(names), _parts(segments, numbers)


def agree(one: Ordered, footers: Mapping[bytes, Ordered]) -> bool:
    """Say whether `one` has just these rows of the packs that both have."""
    # In one order, so that packs get the same numbers.
    others = [footers[name] for name in one.packs if name in footers]
    _, own = merged([one], footers.keys())
    _, theirs = merged(others)
    return _digest(own) == _digest(theirs)


def _digest(parts: Iterable[bytes]) -> BlobId:
    hasher = BlobHasher()
    for part in parts:
        hasher.update(part)
    return hasher.id()


def _parts(segments: Sequence[Ordered], numbers: Sequence[Sequence[int]]) -> Iterator[bytes]:
    total = sum(map(len, segments))
    # Ids are digests: equal ranges of them have about equally many rows.
    count = -(-total // AT_ONCE)
    for number in range(count):
        low, high = _edge(number, count), _edge(number + 1, count)
        parts = [
            (segment.between(low or b"", high), own)
            for segment, own in zip(segments, numbers, strict=True)
        ]
        if total < MANY:
            yield _few(parts)
        else:
            from cas.store import rowarray

            yield rowarray.merged(parts)


def _edge(number: int, count: int) -> bytes | None:
    return None if number == count else ((number << 8 * KEY) // count).to_bytes(KEY, "big")


def _few(parts: Sequence[tuple[Buffer, Sequence[int]]]) -> bytes:
    """Return the rows of all parts in order, each once, their packs numbered anew."""
    rows: set[bytes] = set()
    for raw, numbers in parts:
        view = bytes(raw)
        for at in range(0, len(view), Row.SIZE):
            (own,) = PACK.unpack_from(view, at + REST)
            if own < len(numbers) and numbers[own] >= 0:
                rows.add(view[at : at + REST] + PACK.pack(numbers[own]))
    return b"".join(sorted(rows))
