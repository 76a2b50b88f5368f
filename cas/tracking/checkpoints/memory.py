"""How much memory there is to use: what the machine has free, and what the control group lets us.

Reads `/proc` and `/sys`; a system that has neither tells nothing, and then nobody is bounded by it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

PROC: Final = Path("/proc")
GROUPS: Final = Path("/sys/fs/cgroup")
# Of the second version, then of the first: the limit, what is in use, and the word for what of that
# are pages of files that the kernel drops when memory is wanted.
FILES: Final = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes(proc: Path = PROC, groups: Path = GROUPS) -> int | None:
    """Return the bytes that this process could still take; None where nothing tells."""
    told = [_of_machine(proc), *(_of_group(folder) for folder in _groups(proc, groups))]
    return min((known for known in told if known is not None), default=None)


def _of_machine(proc: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _groups(proc: Path, groups: Path) -> Iterator[Path]:
    """Yield the folders of this process's control group and of all above it."""
    with suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = groups / "memory" if controllers else groups
            # In a container the path may be the host's, and the group is mounted at the top.
            inner = PurePosixPath(path.lstrip("/"))
            yield from (top / part for part in (inner, *inner.parents))


def _of_group(folder: Path) -> int | None:
    for limit, used, cached in FILES:
        with suppress(OSError, ValueError):
            most = int((folder / limit).read_text())  # `max` is none
            return max(0, most - int((folder / used).read_text()) + _cached(folder, cached))
    return None


def _cached(folder: Path, word: str) -> int:
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == word:
                return int(number)
    return 0
