"""What the filter takes out meanwhile, by kind, for whoever stores a text and tells of it.

Only on the thread that asks, and never what it was.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noting() -> Iterator[Counter[str]]:
    """Count what the filter takes out on this thread until the block ends, by kind.

    Of blocks within each other the inner one counts.
    """
    before, tally = _here.tally, Counter[str]()
    _here.tally = tally
    try:
        yield tally
    finally:
        _here.tally = before


def note(kind: str) -> None:
    """Count one secret that was just taken out, where somebody asks."""
    if _here.tally is not None:
        _here.tally[kind] += 1


class _Here(threading.local):
    tally: Counter[str] | None = None


_here = _Here()
