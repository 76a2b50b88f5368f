"""What may happen to stored files: bits flip, ends and whole files go, blocks become zeros.

A damage says which files are other bytes, and what: `None` stands for a file that is gone.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

Files = Mapping[str, bytes]
Changed = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Damage:
    """What happened, in words, and the files as they are then."""

    what: str
    changed: Changed


@contextmanager
def damaged(folder: Path, files: Files, damage: Damage) -> Iterator[None]:
    """Do a damage to the files of a folder, and undo it afterwards."""
    try:
        for key, data in damage.changed.items():
            _put(folder / key, data)
        yield
    finally:
        for key in damage.changed:
            _put(folder / key, files[key])


def _put(path: Path, data: bytes | None) -> None:
    # In place: a file that is open stays the one that is read.
    if data is None:
        path.unlink(missing_ok=True)
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def flip(rng: random.Random, files: Files, key: str) -> Damage:
    """One bit is another one."""
    raw = bytearray(files[key])
    at, bit = rng.randrange(len(raw)), rng.randrange(8)
    raw[at] ^= 1 << bit
    return Damage(f"bit {bit} of byte {at} of {key}", {key: bytes(raw)})


def burst(rng: random.Random, files: Files, key: str) -> Damage:
    """A few bytes after one another are noise."""
    raw = bytearray(files[key])
    at, length = rng.randrange(len(raw)), rng.randint(2, 64)
    raw[at : at + length] = rng.randbytes(min(length, len(raw) - at))
    return Damage(f"{length} bytes of noise at {at} in {key}", {key: bytes(raw)})


def zeros(rng: random.Random, files: Files, key: str) -> Damage:
    """A run of bytes is zero: a block that was never written."""
    raw = bytearray(files[key])
    block = rng.choice([1, 16, 512, 4096])
    at = rng.randrange(len(raw)) // block * block
    raw[at : at + block] = bytes(min(block, len(raw) - at))
    return Damage(f"{block} zeros at {at} in {key}", {key: bytes(raw)})


def cut(rng: random.Random, files: Files, key: str) -> Damage:
    """The end is gone."""
    length = rng.randrange(len(files[key]))
    return Damage(f"{key} is cut to {length} bytes", {key: files[key][:length]})


def hole(rng: random.Random, files: Files, key: str) -> Damage:
    """A run of bytes is left out, so that what is behind it moved."""
    raw = files[key]
    at = rng.randrange(len(raw))
    length = rng.randint(1, 64)
    return Damage(f"{length} bytes at {at} left out of {key}", {key: raw[:at] + raw[at + length :]})


def tail(rng: random.Random, files: Files, key: str) -> Damage:
    """Something was appended: zeros, noise, or what is there already."""
    more = rng.choice([bytes(rng.randint(1, 64)), rng.randbytes(rng.randint(1, 64)), files[key]])
    return Damage(f"{len(more)} bytes more in {key}", {key: files[key] + more})


def gone(rng: random.Random, files: Files, key: str) -> Damage:
    """A file is deleted."""
    return Damage(f"{key} is gone", {key: None})


def swap(rng: random.Random, files: Files, key: str) -> Damage:
    """Two files have each other's content; of one folder mostly, where they are alike."""
    other = _other(rng, files, key)
    return Damage(f"{key} and {other} are swapped", {key: files[other], other: files[key]})


def copy(rng: random.Random, files: Files, key: str) -> Damage:
    """A file has the content of another one."""
    other = _other(rng, files, key)
    return Damage(f"{key} is {other}", {key: files[other]})


def _other(rng: random.Random, files: Files, key: str) -> str:
    folder = key.rpartition("/")[0]
    alike = [name for name in files if name.rpartition("/")[0] == folder and name != key]
    others = [name for name in files if name != key]
    return rng.choice(alike if alike and rng.random() < 0.9 else others)


KINDS: Final[Mapping[Callable[[random.Random, Files, str], Damage], int]] = {
    flip: 12, burst: 3, zeros: 3, cut: 3, hole: 1, tail: 1, gone: 1, swap: 2, copy: 1,
}  # fmt: skip


def damages(seed: int, files: Files, count: int) -> Iterator[Damage]:
    """Yield damages: one of each kind to each file first, then as chance has it."""
    rng = random.Random(seed)
    told: set[bytes] = set()
    every = [(kind, key) for kind in KINDS for key in files]
    rng.shuffle(every)
    # Long files have more to damage; short ones must not be left out.
    weights = [len(data) + 500 for data in files.values()]
    while len(told) < count:
        if every:
            kind, key = every.pop()
        else:
            (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
            (key,) = rng.choices(list(files), weights)
        found = kind(rng, files, key)
        told_by = sha256(repr(sorted(found.changed.items())).encode()).digest()
        if told_by in told or all(files[key] == data for key, data in found.changed.items()):
            continue
        told.add(told_by)
        yield found
