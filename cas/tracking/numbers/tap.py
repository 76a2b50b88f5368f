"""What comes into a log, for whoever looks at it now and then: of too much the last is kept."""

import threading
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MOST: Final = 1_000_000  # numbers between two looks


@dataclass(frozen=True, slots=True)
class Chunk:
    """Calls with the same metrics: a step and a time of each, a column of values of each metric."""

    names: tuple[str, ...]
    steps: "array[int]"
    times: "array[float]"
    columns: "tuple[array[float], ...]"

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.steps) * (2 + len(self.names))


class Tap:
    """Where a log also puts what was logged; one thread puts, another takes."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._size = 0
        self._chunks: deque[Chunk] = deque()
        self._lock = threading.Lock()

    def put(self, chunk: Chunk) -> None:
        """Add calls; the oldest go when there are too many."""
        with self._lock:
            self._chunks.append(chunk)
            self._size += chunk.size
            while self._size > self._most and len(self._chunks) > 1:
                self._size -= self._chunks.popleft().size

    def take(self) -> Sequence[Chunk]:
        """Return what has come since the last call of this."""
        with self._lock:
            chunks, self._chunks, self._size = self._chunks, deque(), 0
        return chunks


def in_order(chunks: Sequence[Chunk], most: int) -> Iterator[tuple[str, int, float]]:
    """Yield metric, step and value of each point of the last `most` calls, as they were logged."""
    calls = [(chunk, row) for chunk in chunks for row in range(len(chunk.steps))]
    if len(chunks) > 1:  # the points of one metric are in order, by time those of several are too
        calls.sort(key=lambda call: call[0].times[call[1]])
    for chunk, row in calls[-most:]:
        for name, column in zip(chunk.names, chunk.columns, strict=True):
            yield name, chunk.steps[row], column[row]
