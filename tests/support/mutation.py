"""Inputs for parsers: valid ones, changed where it hurts.

What made a parser say something new is changed further, so that the inputs find their way past one
check after the other. Everything follows from the seed.
"""

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from cas.errors import CasError
from cas.objects import canonical

MAX_INPUT: Final = 1 << 16
KEPT: Final = 400  # inputs that are changed further, beside the valid ones
NUMBERS: Final = (
    0, 1, 2, 3, 7, 8, 16, 31, 32, 63, 64, 65, 127, 128, 255, 256, 1023, 4095, 4096, 65535, 65536,
    2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1,
    2**63, 2**64 - 2, 2**64 - 1,
)  # fmt: skip
WIDTHS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, float("nan"),
    float("inf"), "", "x", "\0", "é", "a" * 300, b"", b"\0", b"\xff" * 16, bytes(32), bytes(31),
    [], {}, [[]], [None], {"v": 1}, {"": None}, [0] * 20,
)  # fmt: skip


class Inputs:
    """An endless supply of inputs for one parser."""

    def __init__(
        self, seeds: Sequence[bytes], rng: random.Random, *, tokens: Sequence[bytes] = ()
    ) -> None:
        self._seeds = list(seeds)
        self._kept: list[bytes] = []
        self._told: set[object] = set()
        self._rng = rng
        self._tokens = list(tokens)

    def next(self) -> bytes:
        """Return another input."""
        rng = self._rng
        pool = self._kept if self._kept and rng.random() < 0.5 else self._seeds
        data = bytearray(rng.choice(pool))
        for _ in range(1 + int(rng.expovariate(0.7))):
            rng.choice(CHANGES)(self, data)
        return bytes(data[:MAX_INPUT])

    def learn(self, data: bytes, outcome: object) -> None:
        """Take note of what a parser made of an input."""
        if outcome not in self._told:
            self._told.add(outcome)
            if len(self._kept) < KEPT:
                self._kept.append(data)
            else:
                self._kept[self._rng.randrange(KEPT)] = data

    def _place(self, data: bytearray) -> int:
        return self._rng.randrange(len(data) + 1)

    def flip(self, data: bytearray) -> None:
        if data:
            data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)

    def set(self, data: bytearray) -> None:
        if data:
            data[self._rng.randrange(len(data))] = self._rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x41))

    def number(self, data: bytearray) -> None:
        """A length, a count or an offset is another one."""
        rng = self._rng
        width = rng.choice(tuple(WIDTHS))
        if len(data) < width:
            return
        at = rng.randrange(len(data) - width + 1)
        order = "<" if rng.random() < 0.7 else ">"
        code = f"{order}{WIDTHS[width]}"
        (was,) = struct.unpack_from(code, data, at)
        near = was + rng.choice((-2, -1, 1, 2, len(data), -len(data)))
        value = rng.choice((near, rng.choice(NUMBERS), len(data), len(data) - at))
        struct.pack_into(code, data, at, value % (1 << 8 * width))

    def drop(self, data: bytearray) -> None:
        at = self._place(data)
        del data[at : at + self._rng.choice((1, 1, 2, 4, 8, 32, 100))]

    def cut(self, data: bytearray) -> None:
        if self._rng.random() < 0.3:
            del data[self._place(data) :]

    def insert(self, data: bytearray) -> None:
        rng, at = self._rng, self._place(data)
        length = rng.choice((1, 1, 2, 4, 8, 16, 64))
        data[at:at] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))

    def again(self, data: bytearray) -> None:
        """A part stands there twice, or a hundred times."""
        rng, at = self._rng, self._place(data)
        part = data[at : at + rng.choice((1, 2, 8, 40, 200))]
        data[at:at] = part * rng.choice((1, 1, 2, 100))

    def move(self, data: bytearray) -> None:
        a, b = self._place(data), self._place(data)
        length = self._rng.choice((1, 4, 8, 32, 64))
        data[a : a + length] = data[b : b + length]

    def cross(self, data: bytearray) -> None:
        """The rest is that of another input."""
        other = self._rng.choice(self._seeds + self._kept)
        at = self._place(data)
        data[at:] = (
            other[at:] if self._rng.random() < 0.5 else other[self._place(bytearray(other)) :]
        )

    def token(self, data: bytearray) -> None:
        if self._tokens:
            at, token = self._place(data), self._rng.choice(self._tokens)
            data[at : at + (len(token) if self._rng.random() < 0.5 else 0)] = token

    def value(self, data: bytearray) -> None:
        """What is a value in canonical bytes is another value."""
        try:
            value = canonical.decode(bytes(data))
            data[:] = canonical.encode(changed(self._rng, value))
        except (CasError, ValueError):
            self.number(data)


CHANGES: Final[tuple[Callable[[Inputs, bytearray], None], ...]] = (
    Inputs.flip, Inputs.set, Inputs.number, Inputs.number, Inputs.number, Inputs.drop, Inputs.cut,
    Inputs.insert, Inputs.again, Inputs.move, Inputs.cross, Inputs.token, Inputs.token,
    Inputs.value, Inputs.value,
)  # fmt: skip


def changed(rng: random.Random, value: Any) -> Any:
    """Return a value that differs from this one somewhere."""
    deeper = rng.random() < 0.85
    if isinstance(value, dict) and value and deeper:
        return _changed_map(rng, value)
    if isinstance(value, list) and value and deeper:
        return _changed_list(rng, value)
    if isinstance(value, bytes) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        return rng.choice((value[:at], value + value, value[:at] + b"\0" + value[at + 1 :]))
    if type(value) is int and rng.random() < 0.6:
        return rng.choice((value + 1, value - 1, -value, *NUMBERS))
    return rng.choice(ODD_VALUES)


def _changed_map(rng: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    key, kind = rng.choice(list(value)), rng.random()
    if kind < 0.1:
        return {name: item for name, item in value.items() if name != key}
    if kind < 0.2:
        return {**value, rng.choice(("", "x", f"{key}x", "v")): rng.choice(ODD_VALUES)}
    return {**value, key: changed(rng, value[key])}


def _changed_list(rng: random.Random, value: list[Any]) -> list[Any]:
    at, kind = rng.randrange(len(value)), rng.random()
    if kind < 0.15:
        return value[:at] + value[at + 1 :]
    if kind < 0.3:
        return value[:at] + value[at : at + 1] * rng.choice((2, 3, 50)) + value[at + 1 :]
    return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
