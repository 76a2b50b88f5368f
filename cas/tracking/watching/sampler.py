"""System metrics: what the machine, its GPUs and this process use, as Linux and NVML tell it.

Nothing here fails: what a system does not tell is left out. In a container, memory is counted
against the limit of its cgroup.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from cas.tracking.captured import frameworks
from cas.tracking.watching.nvml import Gpus

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMORY: Final = re.compile(r"^(MemTotal|MemAvailable): +(\d+) kB$", re.MULTILINE)
_IO: Final = re.compile(r"^(read|write)_bytes: (\d+)$", re.MULTILINE)

Numbers = dict[str, float]


class Sampler:
    """Reads system metrics; rates are over the time since the call before."""

    def __init__(
        self, disk: Path, *, machine: bool = True, process: bool = True, proc: Path = PROC
    ) -> None:
        self._disk = disk
        self._proc = proc
        self._machine = machine
        self._own = process
        self._gpus = Gpus.open() if machine else None
        self._before: dict[str, float] = {}
        self._at = 0.0

    def sample(self, now: float) -> Numbers:
        """Return what is known at the moment `now` of a steady clock; rates from the second on."""
        took, self._at = now - self._at, now
        parts: list[Callable[[float], Numbers]] = []
        if self._own:
            parts += [self._process, self._allocators]
        if self._machine:
            parts += [self._cpu, self._memory, self._of_disk, self._of_gpus]
        found: Numbers = {}
        for part in parts:
            with suppress(Exception):  # a strange system ends no run, nor the other numbers
                found |= part(took)
        return found

    def free_bytes(self) -> float | None:
        """Return what is free on the repository's disk, None when nobody says."""
        try:
            told = os.statvfs(self._disk)
        except OSError:
            return None
        return float(told.f_bavail * told.f_frsize)

    def close(self) -> None:
        """Let go of the GPUs."""
        if self._gpus is not None:
            self._gpus.close()

    def _rate(self, name: str, value: float, took: float) -> Iterator[float]:
        """Yield how fast a counter grew since the call before, nothing at the first."""
        before = self._before.get(name)
        self._before[name] = value
        if before is not None and took > 0:
            yield max(value - before, 0.0) / took

    def _cpu(self, took: float) -> Numbers:
        """Return the share of the processors' time that was not idle."""
        first = (self._proc / "stat").read_text().split("\n", 1)[0]
        times = [float(word) for word in first.split()[1:9]]
        idle, whole = times[3] + times[4], sum(times)
        found: Numbers = {}
        spent = list(self._rate("idle", idle, 1.0)) + list(self._rate("whole", whole, 1.0))
        if len(spent) == 2 and spent[1] > 0:
            found["cpu_percent"] = 100 * (1 - spent[0] / spent[1])
        return found

    def _process(self, took: float) -> Numbers:
        """Return what this process uses; 100 percent are one processor."""
        pages = int((self._proc / "self" / "statm").read_text().split()[1])
        found: Numbers = {"process_memory_bytes": float(pages * os.sysconf("SC_PAGE_SIZE"))}
        times = os.times()
        for rate in self._rate("process", sum(times[:4]), took):
            found["process_cpu_percent"] = 100 * rate
        with suppress(OSError):  # not everywhere is one allowed to read it
            for word, count in _IO.findall((self._proc / "self" / "io").read_text()):
                for rate in self._rate(word, float(count), took):
                    found[f"process_{word}_bytes_per_second"] = rate
        return found

    def _memory(self, took: float) -> Numbers:
        told = {
            name: 1024.0 * int(count)
            for name, count in _MEMORY.findall((self._proc / "meminfo").read_text())
        }
        used, most = told["MemTotal"] - told["MemAvailable"], told["MemTotal"]
        limit = _cgroup(self._proc)
        if limit is not None and limit[1] < most:
            used, most = limit
        return {"memory_used_bytes": used, "memory_percent": 100 * used / most}

    def _of_disk(self, took: float) -> Numbers:
        told = os.statvfs(self._disk)
        most = told.f_blocks * told.f_frsize
        free = float(told.f_bavail * told.f_frsize)
        return {"disk_free_bytes": free, "disk_percent": 100 * (1 - free / most)}

    def _of_gpus(self, took: float) -> Numbers:
        return self._gpus.sample() if self._gpus is not None else {}

    def _allocators(self, took: float) -> Numbers:
        """Return what the frameworks in use have taken of the memory of their devices."""
        found: Numbers = {}
        for module in frameworks.loaded():
            told = getattr(module, "allocated", None)
            if told is not None:
                found |= told()
        return found


def _cgroup(proc: Path) -> tuple[float, float] | None:
    """Return what the processes of this cgroup use and may use of the memory, None for no limit."""
    with suppress(OSError, ValueError):
        line = (proc / "self" / "cgroup").read_text().strip().rpartition("\n")[2]
        own = CGROUPS / line.rpartition(":")[2].lstrip("/")
        folder = own if (own / "memory.max").exists() else CGROUPS
        limit = (folder / "memory.max").read_text().strip()
        if limit != "max":
            return float((folder / "memory.current").read_text()), float(limit)
    return None
