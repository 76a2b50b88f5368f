"""What a power failure may leave: a model of a file system that promises only what POSIX does.

A `Recorder` writes down the file operations of a program. `Disk` replays them and knows at each
point what was synced. Everything else may be there, or not, or in part, each thing by itself:

- a name (created, linked, renamed, removed, a folder) until its folder is synced: the old value,
  the new one, or any in between, whatever became of other names; without a folder all in it is
  gone;
- bytes until their file is synced: nothing, all, a part up to some sector, some sectors and zeros
  in place of the others, or the size alone.
"""

import os
import random
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cas.backend.files import FileOps
from cas.ids import Buffer

T = TypeVar("T")
SECTOR = 512
PAGE = 4096
FOLDER = -1
Value = int | None  # a file's number, FOLDER, or None for nothing
# What may have become of the bytes of one file: see `_content`.
ALL, NONE, ZEROS, TORN, HOLES = range(5)
FATES = (NONE, ZEROS, TORN, HOLES)


@dataclass(frozen=True, slots=True)
class Event:
    """One operation on the disk: `path` is that of the name, or of the file that was opened."""

    kind: str  # name, write, truncate, sync, syncdir
    path: str
    value: Value = None  # of the name; the number of the file
    at: int = 0
    data: bytes = b""


class Recorder(FileOps):
    """File operations that write down what they did below `top`, in the order of their ends."""

    def __init__(self, top: Path) -> None:
        self.events: list[Event] = []
        self._top = os.fspath(top)
        self._lock = threading.RLock()
        self._files: dict[int, int] = {}  # by descriptor
        self._paths: dict[int, str] = {}
        self._ends: dict[int, int] = {}  # by descriptor, where the next write goes
        self._numbers: dict[tuple[int, int], int] = {}  # by inode
        for number, path in enumerate(_files(top)):
            state = path.stat()
            self._numbers[state.st_dev, state.st_ino] = -2 - number

    def open_new(self, path: str, mode: int) -> int:
        return self._opened(path, lambda: FileOps.open_new(self, path, mode))

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        with self._lock:
            written = FileOps.write(self, fd, buffers)
            data = b"".join(map(bytes, buffers))[:written]
            at = self._ends[fd]
            self._ends[fd] += written
            self._tell(Event("write", self._paths[fd], self._files[fd], at, data))
            return written

    def truncate(self, fd: int, size: int) -> None:
        with self._lock:
            FileOps.truncate(self, fd, size)
            self._ends[fd] = size
            self._tell(Event("truncate", self._paths[fd], self._files[fd], size))

    def fsync(self, fd: int) -> None:
        # The disk itself is not what is tested.
        self._tell(Event("sync", self._paths[fd], self._files[fd]))

    def fsync_dir(self, path: str) -> None:
        FileOps.stat(self, path)
        self._tell(Event("syncdir", path))

    def link(self, source: str, target: str) -> None:
        with self._lock:
            FileOps.link(self, source, target)
            self._tell(Event("name", target, self._number(target)))

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            FileOps.rename(self, source, target)
            self._tell(Event("name", target, self._number(target)))
            self._tell(Event("name", source))

    def unlink(self, path: str) -> None:
        with self._lock:
            FileOps.unlink(self, path)
            self._tell(Event("name", path))

    def mkdir(self, path: str, mode: int) -> None:
        with self._lock:
            FileOps.mkdir(self, path, mode)
            self._tell(Event("name", path, FOLDER))

    def rmdir(self, path: str) -> None:
        with self._lock:
            FileOps.rmdir(self, path)
            self._tell(Event("name", path))

    def _opened(self, path: str, run: Callable[[], int]) -> int:
        with self._lock:
            known = os.path.exists(path)
            fd = run()
            number = self._number(path) if known else self._new(path)
            self._files[fd], self._paths[fd], self._ends[fd] = number, path, 0
            if not known:
                self._tell(Event("name", path, number))
            return fd

    def _number(self, path: str) -> int:
        state = os.stat(path)
        return self._numbers[state.st_dev, state.st_ino]

    def _new(self, path: str) -> int:
        # The number of a file that is gone may be given to another one.
        state = os.stat(path)
        self._numbers[state.st_dev, state.st_ino] = number = len(self._numbers) + len(self.events)
        return number

    def _tell(self, event: Event) -> None:
        with self._lock:
            assert event.path.startswith(self._top), event.path
            self.events.append(event)


@dataclass(slots=True)
class File:
    """The bytes of a file that are durable, and what was done to it since."""

    durable: bytes = b""
    since: list[Event] = field(default_factory=list)


Fate = tuple[int, int]  # what became of something; for the bytes of a file, and which sectors
State = dict[str, bytes | None]  # by path below the top; None for a folder


class Disk:
    """What is on the disk for sure, and what may be, after some operations."""

    def __init__(self, top: Path, before: Mapping[str, bytes | None] | None = None) -> None:
        self._top = os.fspath(top)
        self._names: dict[str, Value] = {}
        self._since: dict[str, list[Value]] = {}
        self._files: dict[int, File] = {}
        for path, data in (before or {}).items():
            self._names[path] = FOLDER if data is None else -2 - len(self._files)
            if data is not None:
                self._files[-2 - len(self._files)] = File(data)

    def apply(self, event: Event) -> None:
        """Go on by one operation."""
        path = event.path[len(self._top) + 1 :]
        match event.kind:
            case "name":
                self._since.setdefault(path, []).append(event.value)
                if event.value is not None and event.value != FOLDER:
                    self._files.setdefault(event.value, File())
            case "write" | "truncate":
                assert event.value is not None
                self._files[event.value].since.append(event)
            case "sync":
                assert event.value is not None
                file = self._files[event.value]
                self._files[event.value] = File(_content(file, (ALL, 0)))
            case "syncdir":
                for name in [name for name in self._since if os.path.dirname(name) == path]:
                    self._names[name] = self._since.pop(name)[-1]

    def open(self) -> list[str | int]:
        """Return what the next moment may still lose: names, and numbers of files."""
        named = {value for values in self._since.values() for value in values}
        named |= set(self._names.values())
        files = (n for n, file in self._files.items() if file.since and n in named)
        return [*self._since, *files]

    def fates(self, thing: str | int) -> Iterator[Fate]:
        """Yield what may become of one such thing, apart from nothing and all of it."""
        if isinstance(thing, int):
            yield from ((fate, salt) for fate in FATES[1:] for salt in (0, 1))
        else:
            yield from ((before, 0) for before in range(1, len(self._since[thing])))

    def last(self, thing: str | int) -> Fate:
        """Return the fate of a thing that is there as it was left."""
        return (ALL, 0) if isinstance(thing, int) else (len(self._since[thing]), 0)

    def first(self, thing: str | int) -> Fate:
        """Return the fate of a thing that is there as it was last synced."""
        return (NONE, 0) if isinstance(thing, int) else (0, 0)

    def state(self, fates: Mapping[str | int, Fate]) -> State:
        """Return what is there when this became of what is open."""
        values = dict(self._names)
        for name, since in self._since.items():
            chosen = fates[name][0]
            if chosen:
                values[name] = since[chosen - 1]
        found: State = {}
        for name in sorted(name for name, value in values.items() if value is not None):
            parent = os.path.dirname(name)
            if parent and found.get(parent, b"") is not None:
                continue  # its folder is not there
            number = values[name]
            assert number is not None
            if number == FOLDER:
                found[name] = None
            else:
                file = self._files[number]
                found[name] = _content(file, fates[number]) if file.since else file.durable
        return found


def _content(file: File, fate: Fate) -> bytes:
    """Return the bytes of a file of which this became."""
    how, salt = fate
    if how == NONE:
        return file.durable
    data = bytearray(file.durable)
    for event in file.since:
        if event.kind == "truncate":
            del data[event.at :]
        else:
            end = event.at + len(event.data)
            data.extend(bytes(max(0, end - len(data))))
            data[event.at : end] = event.data if how != ZEROS else bytes(len(event.data))
    start = min((event.at for event in file.since), default=0)
    rng = random.Random(salt * 1_000_003 + len(data))
    if how == TORN and len(data) > start:
        step = rng.choice((SECTOR, PAGE))
        borders = [*range(start // step * step + step, len(data), step)] or [start]
        del data[rng.choice(borders) :]
    if how == HOLES:
        step = rng.choice((SECTOR, PAGE))
        for at in range(start // step * step, len(data), step):
            if rng.random() < 0.5:
                low, high = max(at, start), min(at + step, len(data))
                data[low:high] = bytes(high - low)
    return bytes(data)


Choice = tuple[tuple[str | int, Fate], ...]


def choices(
    disk: Disk, rng: random.Random, more: int, ignore: Collection[str] = ()
) -> Iterator[Choice]:
    """Yield what may have become of all that is open, in the most telling ways and `more` others.

    All is there, or nothing, or one thing is not, or in part, or is the only one, or any of it.
    Names in the folders `ignore` alone differ only among the others.
    """
    things = disk.open()
    telling = [
        thing
        for thing in things
        if isinstance(thing, int) or os.path.basename(os.path.dirname(thing)) not in ignore
    ]
    for base, other in ((disk.last, disk.first), (disk.first, disk.last)):
        fates = {thing: base(thing) for thing in things}
        yield tuple(fates.items())
        for thing in telling:
            for fate in (other(thing), *disk.fates(thing)):
                yield tuple((fates | {thing: fate}).items())
    if not telling:
        return
    for _ in range(more):
        weight = rng.choice((0.2, 0.5, 0.8))
        fates = {}
        for thing in things:
            some = [fate for fate, _ in disk.fates(thing)]
            ends = [disk.last(thing)[0], disk.first(thing)[0]]
            how = ends[rng.random() < weight] if rng.random() < 0.7 else rng.choice(some + ends)
            fates[thing] = (how, rng.randrange(1 << 30))
        yield tuple(fates.items())


@dataclass(frozen=True, slots=True)
class Crash:
    """A power failure after so many operations, and what became of what was not synced."""

    after: int
    choice: Choice


def crashes(
    top: Path,
    before: State,
    events: Sequence[Event],
    rng: random.Random,
    *,
    more: int,
    ignore: tuple[str, ...] = (),
    at: Collection[int] | None = None,
    told: Sequence[int] = (),
) -> list[Crash]:
    """Return crashes with distinct outcomes, at each operation or after so many of them alone.

    What differs below the folders `ignore` alone is not distinct. The same state is another outcome
    when more was acknowledged, which was after so many operations as stand in `told`.
    """
    seen: set[tuple[int, int]] = set()
    found: list[Crash] = []
    disk = Disk(top, before)
    for after in range(len(events) + 1):
        if after:
            disk.apply(events[after - 1])
        if at is not None and after not in at:
            continue
        for choice in choices(disk, rng, more, ignore):
            key = _key(disk.state(dict(choice)), ignore), bisect_right(told, after)
            if key not in seen:
                seen.add(key)
                found.append(Crash(after, choice))
    return found


def _key(state: State, ignore: tuple[str, ...]) -> int:
    return hash(
        frozenset(
            item
            for item in state.items()
            if os.path.basename(os.path.dirname(item[0])) not in ignore
        )
    )


def outcomes(
    top: Path, before: State, events: Sequence[Event], some: Iterable[Crash]
) -> Iterator[tuple[Crash, State]]:
    """Yield what each of these crashes leaves, in the order of time."""
    disk, done = Disk(top, before), 0
    for crash in sorted(some, key=lambda crash: crash.after):
        for event in events[done : crash.after]:
            disk.apply(event)
        done = crash.after
        yield crash, disk.state(dict(crash.choice))


def write_state(state: State, folder: Path) -> None:
    """Write what a crash leaves into an empty folder."""
    base = os.fspath(folder)
    for path, data in state.items():
        if data is None:
            os.mkdir(f"{base}/{path}")
        else:
            fd = os.open(f"{base}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, data)
            os.close(fd)


def read_state(folder: Path) -> State:
    """Return what is in a folder."""
    found: State = {}
    for path in sorted(folder.rglob("*")):
        found[path.relative_to(folder).as_posix()] = None if path.is_dir() else path.read_bytes()
    return found


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, in the order of `read_state`."""
    return [path for path in sorted(folder.rglob("*")) if not path.is_dir()]


def without(events: Iterable[Event], kind: str, where: str) -> list[Event]:
    """Return a trace in which one kind of step is left out: a bug."""
    return [event for event in events if not (event.kind == kind and where in event.path)]


def later(
    events: Iterable[Event], kind: str, where: str, until: Callable[[Event], bool]
) -> list[Event]:
    """Return a trace in which one kind of step comes only after another: a bug."""
    waiting: list[Event] = []
    told: list[Event] = []
    for event in events:
        if event.kind == kind and where in event.path:
            waiting.append(event)
            continue
        told.append(event)
        if until(event):
            told.extend(waiting)
            waiting.clear()
    return told + waiting
