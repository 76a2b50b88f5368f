"""Fakes of the medium: file operations that fail by script, and records of what was touched."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from cas.backend.base import Backend, KeyInfo, Sink, Span
from cas.backend.files import OPS, FileOps
from cas.ids import Buffer

T = TypeVar("T")
# The operations that change the disk.
NAMES = frozenset({"open_new", "link", "rename", "unlink", "mkdir", "rmdir"})
CHANGES = NAMES | {"write", "truncate", "fsync", "fsync_dir"}
HINTS = frozenset({"write_out", "set_direct"})  # whose failure is none


def operations() -> frozenset[str]:
    """Return the names of all file operations but hints."""
    return frozenset(name for name in vars(FileOps) if not name.startswith("_")) - HINTS


@contextmanager
def everywhere(ops: FileOps) -> Iterator[None]:
    """Let all that is opened without file operations of its own use these, as programs do."""
    names = [name for name in vars(FileOps) if not name.startswith("_")]
    for name in names:
        setattr(OPS, name, getattr(ops, name))
    try:
        yield
    finally:
        for name in names:
            delattr(OPS, name)


class Crash(BaseException):
    """The process dies here: nothing after it reaches the disk."""


class WatchedOps(FileOps):
    """File operations that go through `watch`, with the path also where only a descriptor is."""

    def __init__(self) -> None:
        self.paths: dict[int, str] = {}
        self.opened: dict[int, str] = {}

    def watch(self, operation: str, path: str, run: Callable[[], T]) -> T:
        return run()

    def open_new(self, path: str, mode: int) -> int:
        fd = self.watch("open_new", path, lambda: FileOps.open_new(self, path, mode))
        self.paths[fd] = self.opened[fd] = path
        return fd

    def open_read(self, path: str) -> int:
        fd = self.watch("open_read", path, lambda: FileOps.open_read(self, path))
        self.paths[fd] = self.opened[fd] = path
        return fd

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        return self.watch("write", self._named(fd), lambda: FileOps.write(self, fd, buffers))

    def open_direct(self, path: str) -> int:
        fd = self.watch("open_direct", path, lambda: FileOps.open_direct(self, path))
        self.paths[fd] = self.opened[fd] = path
        return fd

    def pread_into(self, fd: int, memory: memoryview, offset: int) -> int:
        path = self._named(fd)
        return self.watch("pread_into", path, lambda: FileOps.pread_into(self, fd, memory, offset))

    def truncate(self, fd: int, size: int) -> None:
        self.watch("truncate", self._named(fd), lambda: FileOps.truncate(self, fd, size))

    def lock(self, fd: int, how: int) -> None:
        self.watch("lock", self._named(fd), lambda: FileOps.lock(self, fd, how))

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        path = self._named(fd)
        return self.watch("pread", path, lambda: FileOps.pread(self, fd, length, offset))

    def fsync(self, fd: int) -> None:
        self.watch("fsync", self._named(fd), lambda: FileOps.fsync(self, fd))

    def fsync_dir(self, path: str) -> None:
        self.watch("fsync_dir", path, lambda: FileOps.fsync_dir(self, path))

    def close(self, fd: int) -> None:
        def run() -> None:
            self.opened.pop(fd, None)  # before another thread may get its number
            FileOps.close(self, fd)

        if fd in self.paths:
            self.watch("close", self._named(fd), run)
        else:
            # What a command before left to the garbage collector is closed at any time, and is no
            # operation of this one: counted, it would make their number a matter of chance.
            run()

    def link(self, source: str, target: str) -> None:
        self.watch("link", target, lambda: FileOps.link(self, source, target))

    def rename(self, source: str, target: str) -> None:
        self.watch("rename", target, lambda: FileOps.rename(self, source, target))

    def unlink(self, path: str) -> None:
        self.watch("unlink", path, lambda: FileOps.unlink(self, path))

    def mkdir(self, path: str, mode: int) -> None:
        self.watch("mkdir", path, lambda: FileOps.mkdir(self, path, mode))

    def rmdir(self, path: str) -> None:
        self.watch("rmdir", path, lambda: FileOps.rmdir(self, path))

    def chmod(self, target: int | str, mode: int) -> None:
        self.watch("chmod", self._named(target), lambda: FileOps.chmod(self, target, mode))

    def chown(self, target: int | str, group: int) -> None:
        self.watch("chown", self._named(target), lambda: FileOps.chown(self, target, group))

    def stat(self, path: str) -> os.stat_result:
        return self.watch("stat", path, lambda: FileOps.stat(self, path))

    def fstat(self, fd: int) -> os.stat_result:
        return self.watch("fstat", self._named(fd), lambda: FileOps.fstat(self, fd))

    def scandir(self, path: str) -> list["os.DirEntry[str]"]:
        return self.watch("scandir", path, lambda: FileOps.scandir(self, path))

    def _named(self, target: int | str) -> str:
        if isinstance(target, str):
            return target
        # Somebody may let go of what was opened before these file operations took over.
        return self.paths.get(target) or "opened before"


class RecordingOps(WatchedOps):
    """File operations that write down what they were asked for, as (operation, path)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def watch(self, operation: str, path: str, run: Callable[[], T]) -> T:
        self.calls.append((operation, path))
        return run()

    def count(self, *operations: str) -> int:
        """How often these operations were asked for; all of them when none is named."""
        return sum(1 for name, _ in self.calls if not operations or name in operations)


SHORT = "short"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: the `at`-th call (from 1) of `operation`, of any when that is None.

    `raises` is an errno, a Crash, or SHORT for a read or write of half of what was asked for; with
    `after`, the operation is done first and fails then; with `onwards`, so does every later one.
    """

    at: int
    raises: "int | type[Crash] | str"
    operation: str | None = None
    after: bool = False
    onwards: bool = False


class FaultyOps(RecordingOps):
    """File operations that fail by script; after a Crash everything else crashes too."""

    def __init__(self, *faults: Fault, max_write: int | None = None) -> None:
        super().__init__()
        self.faults = faults
        self.max_write = max_write
        self.happened: list[tuple[str, str]] = []
        self._dead = False
        self._short = False
        self._seen: Counter[str | None] = Counter()

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        if self.max_write is not None:
            buffers = [memoryview(buffers[0])[: self.max_write]]

        def run() -> int:
            if self._short:
                first = memoryview(buffers[0]).cast("B")
                return FileOps.write(self, fd, [first[: max(1, len(first) // 2)]])
            return FileOps.write(self, fd, buffers)

        return self.watch("write", self._named(fd), run)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        def run() -> bytes:
            some = max(1, length // 2) if self._short else length
            return FileOps.pread(self, fd, some, offset)

        return self.watch("pread", self._named(fd), run)

    def pread_into(self, fd: int, memory: memoryview, offset: int) -> int:
        def run() -> int:
            some = memory[: max(1, len(memory) // 2)] if self._short else memory
            return FileOps.pread_into(self, fd, some, offset)

        return self.watch("pread_into", self._named(fd), run)

    def watch(self, operation: str, path: str, run: Callable[[], T]) -> T:
        if self._dead:
            if operation == "close":  # the kernel does that for the dead
                return run()
            raise Crash(f"{operation} after the crash")
        self.calls.append((operation, path))
        self._seen.update((operation, None))
        fault = self._due(operation)
        if fault is None:
            return run()
        self.happened.append((operation, path))
        if fault.raises == SHORT:
            return self._shortly(run)
        if fault.after or operation == "close":  # a close that fails closes all the same
            run()
        if isinstance(fault.raises, int):
            raise OSError(fault.raises, os.strerror(fault.raises), path)
        assert not isinstance(fault.raises, str)
        self._dead = True
        raise fault.raises(f"{operation} {path}")

    def _shortly(self, run: Callable[[], T]) -> T:
        self._short = True
        try:
            return run()
        finally:
            self._short = False

    def _due(self, operation: str) -> Fault | None:
        for fault in self.faults:
            if fault.operation not in {operation, None}:
                continue
            seen = self._seen[fault.operation]
            if seen == fault.at or (fault.onwards and seen > fault.at):
                return fault
        return None


class RecordingBackend:
    """A backend that counts which keys were touched how often, as (operation, key)."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.touched: Counter[tuple[str, str]] = Counter()
        self.spans = 0
        self.bytes_read = 0

    def count(self, operation: str, prefix: str = "") -> int:
        """How often the operation was asked for keys that start with `prefix`."""
        return sum(
            times
            for (name, key), times in self.touched.items()
            if name == operation and key.startswith(prefix)
        )

    def create(self, key: str) -> Sink:
        self.touched["create", key] += 1
        return self._backend.create(key)

    def put_new(self, key: str, data: Buffer) -> None:
        self.touched["put_new", key] += 1
        self._backend.put_new(key, data)

    def read(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        self.touched["read", key] += 1
        self.spans += len(spans)
        parts = self._backend.read(key, spans)
        self.bytes_read += sum(map(len, parts))
        return parts

    def delete(self, key: str) -> None:
        self.touched["delete", key] += 1
        self._backend.delete(key)

    def scan(self, prefix: str) -> Iterator[KeyInfo]:
        self.touched["scan", prefix] += 1
        return self._backend.scan(prefix)

    def sync(self, prefix: str) -> None:
        self.touched["sync", prefix] += 1
        self._backend.sync(prefix)
