"""Bounds on what a piece of code may take: what goes beyond fails there and then."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PAGE: Final = resource.getpagesize()


@contextmanager
def memory(limit: int) -> Iterator[None]:
    """Let this process have so many bytes more than it has now; else it gets MemoryError."""
    had = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (now + limit, had[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, had)
