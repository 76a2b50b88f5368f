"""One loop for all parsers: many inputs, and what none of them may do."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from cas.errors import CasError
from tests.support.limits import memory
from tests.support.mutation import Inputs

MEMORY = 512 << 20  # beside what the process has already
SECONDS = 10.0  # for one input of at most 64 KiB, on a machine that others use too
MOST = 1 << 20  # bytes that an input may say it decodes to, for a fuzzer's purposes
NUMBERS = re.compile(r"[0-9]+|'[^']*'|b\"[^\"]*\"")


@dataclass(frozen=True)
class Target:
    """A parser: inputs that it takes, what it does with one, and words that occur in them."""

    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    tokens: Sequence[bytes] = ()


class BrokenError(AssertionError):
    """A parser did with an input what it must not."""


def fuzz(name: str, target: Target, count: int, seed: int = 0) -> dict[object, int]:
    """Give a parser `count` inputs; return how often it said what.

    It may only return, or raise a CasError, in bounded memory and time.
    """
    rng = random.Random(f"{name} {seed}")
    inputs = Inputs(target.seeds, rng, tokens=target.tokens)
    told: dict[object, int] = {}
    for data in target.seeds:
        target.run(data)  # what is valid is taken
    with memory(MEMORY):
        for number in range(count):
            data = inputs.next()
            outcome = _outcome(name, target, data, number)
            told[outcome] = told.get(outcome, 0) + 1
            inputs.learn(data, outcome)
    return told


def _outcome(name: str, target: Target, data: bytes, number: int) -> object:
    began = perf_counter()
    try:
        outcome: object = repr(target.run(data))
    except CasError as error:
        outcome = type(error).__name__, NUMBERS.sub("#", str(error))[:80]
    except BaseException as error:
        raise BrokenError(f"{name}, input {number}: {error!r} from {data!r}") from error
    took = perf_counter() - began
    if took > SECONDS:
        raise BrokenError(f"{name}, input {number}: {took:.1f} s for {data!r}")
    return outcome
