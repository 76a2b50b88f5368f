"""What was just logged and nobody has looked at yet: the part of a log that a loop waits for.

A call only checks its numbers and puts them behind those of the calls before, all at once: that
needs no lock, an interruption leaves the whole of it or nothing, and no object is left over that
Python's garbage collector would have to look at, which took a third of the time.
"""

import math
import operator
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.tracking.numbers.columns import checked

MAX_STEP: Final = 2**63 - 1
# So many numbers wait at most; the call after takes them in, in a few milliseconds.
WAITING: Final = 16_384
KEYS: Final = 10_000  # so many are known at most

Key = tuple[tuple[str, ...], int | None]  # the metrics of a call, and the epoch
Calls = list[Any]  # of each call the step, the time, the key, and a value for each metric
HEAD: Final = 3  # what stands before the values


class Intake(ABC):
    """Takes calls, from several threads; `take_in` is for whoever wants to know what came."""

    def __init__(self) -> None:
        self._last_step = -1
        self._calls: Calls = []
        self._keys: dict[Key, Key] = {}  # that were found to be in order
        self._lock = threading.Lock()  # of who asks for the next step

    def add(
        self,
        points: Mapping[str, object],
        step: object,
        time: float,
        epoch: object = None,
        *,
        leads: bool = True,
    ) -> int:
        """Take one point for each metric, all or none; return the step.

        Without a step it is one further than the furthest so far. A value is a number, also one of
        NumPy or a tensor of one element; infinities and NaN are kept. Points of an epoch, which may
        be a fraction further than its whole number, are also added up for it. Points that do not
        lead leave the step of the others as it is.
        """
        try:
            values: tuple[Any, ...] = (*points.values(),)
        except AttributeError as error:
            kind = type(points).__name__
            raise InvalidInputError(f"metrics are numbers by name, not a {kind}") from error
        for value in values:
            if type(value) is not float:
                values = tuple([_number(name, value) for name, value in points.items()])
                break
        named = tuple(points), None if epoch is None else _epoch(epoch)
        key = self._keys.get(named) or self._new_key(named)
        if len(values) != len(key[0]):
            raise InvalidInputError("the metrics were changed while they were logged")
        if type(step) is not int or not -MAX_STEP <= step <= MAX_STEP:
            step = self._next(leads=leads) if step is None else _step(step)
        if step > self._last_step and leads:
            self._last_step = step
        self._calls.extend((step, time, key, *values))
        if len(self._calls) >= WAITING:
            self.take_in()
        return step

    @property
    def last_step(self) -> int:
        """The furthest step so far, -1 before the first."""
        return self._last_step

    def go_on_after(self, step: int) -> None:
        """Let the next point without a step be one further than this, or than the furthest."""
        with self._lock:
            self._last_step = max(self._last_step, step)

    @abstractmethod
    def take_in(self) -> None:
        """Move what waits to where it is looked at."""

    def _waiting(self) -> list[tuple[Key, Calls]]:
        """Return what waits, and let go of it; the points of one metric are in order."""
        count = len(self._calls)  # not what is added meanwhile: that could go on for ever
        calls = self._calls[:count]
        del self._calls[:count]
        return alike(calls)

    def _next(self, *, leads: bool) -> int:
        with self._lock:
            step = self._last_step + 1
            if step > MAX_STEP:
                raise InvalidInputError(f"there is no step after {MAX_STEP}: name the step")
            if leads:
                self._last_step = step
            return step

    def _new_key(self, key: Key) -> Key:
        for name in key[0]:
            _check_name(name)
        if len(self._keys) >= KEYS:
            self._keys.clear()
        self._keys[key] = key
        return key


def alike(calls: Calls) -> list[tuple[Key, Calls]]:
    """Return calls of the same metrics and epoch together; those of one metric stay in order."""
    if not calls:
        return []
    first: Key = calls[2]
    stride = HEAD + len(first[0])
    if stride * calls[2::stride].count(first) == len(calls):
        return [(first, calls)]  # as nearly always
    runs = list(_runs(calls))
    groups: dict[Key, Calls] = {}
    for key, part in runs:
        groups.setdefault(key, []).extend(part)
    names = [name for names, _ in groups for name in names]
    return list(groups.items()) if len(names) == len(set(names)) else runs


def columns(key: Key, calls: Calls) -> tuple[list[int], list[float], list[list[float]]]:
    """Return steps and times of calls of one key, and a column of values for each metric."""
    stride = HEAD + len(key[0])
    values = [calls[place::stride] for place in range(HEAD, stride)]
    return calls[0::stride], calls[1::stride], values


def _runs(calls: Calls) -> Iterator[tuple[Key, Calls]]:
    """Yield calls one after the other that have the same key."""
    key: Key = calls[2]
    start = at = 0
    while at < len(calls):
        other: Key = calls[at + 2]
        if other is not key:
            yield key, calls[start:at]
            start, key = at, other
        at += HEAD + len(other[0])
    yield key, calls[start:at]


def _number(name: str, value: object) -> float:
    # NumPy and torch scalars: asked by what they can do, so that neither has to be imported.
    item = getattr(value, "item", None)
    try:
        number = item() if callable(item) else value
        if isinstance(number, int | float):
            return float(number)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InvalidInputError(f"metric {name!r} is not one number: {error}") from error
    kind = type(value).__name__
    raise InvalidInputError(f"metric {name!r} is a {kind}; metrics are numbers, one at a time")


def _step(step: object) -> int:
    given: Any = step
    is_whole = getattr(given, "is_integer", None)  # 3.0 is, and it is what many a counter gives
    try:
        at = int(given) if is_whole is not None and is_whole() else operator.index(given)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        hint = "" if is_whole is None else "; a fraction of an epoch goes into epoch="
        raise InvalidInputError(f"a step is a whole number, not {step!r}{hint}") from error
    if not -MAX_STEP - 1 <= at <= MAX_STEP:
        raise InvalidInputError(f"step {at} is out of range: it has 64 bits")
    return at


def _epoch(epoch: object) -> int:
    if type(epoch) is int and -MAX_STEP - 1 <= epoch <= MAX_STEP:
        return epoch
    number = _number("epoch", epoch)
    if not abs(number) < MAX_STEP:
        raise InvalidInputError(f"an epoch is a finite number, not {epoch!r}")
    return math.floor(number)


def _check_name(name: object) -> None:
    try:
        checked(name)
    except ValueError as error:
        raise InvalidInputError(str(error)) from error
