"""Generators are captured, restored and seeded together."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cas.errors import InvalidInputError
from cas.tracking.checkpoints import rng
from tests.support.exact import same
from tests.support.states import through_bytes


class Dice:
    """A framework whose generator is a number that counts up."""

    NAME = "dice"

    def __init__(self) -> None:
        self.next = 0

    def rng_state(self) -> dict[str, object]:
        return {"next": self.next}

    def set_rng_state(self, state: dict[str, Any]) -> None:
        self.next = state["next"]

    def set_seeds(self, seed: int) -> None:
        self.next = seed


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = rng.capture()
    yield
    rng.restore(before)


def draw() -> tuple[float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.normal())


def test_restored_generators_go_on_where_they_were() -> None:
    dice = Dice()
    dice.next = 6
    draw()  # leaves a second Gaussian number waiting in both
    state = rng.capture([dice])
    expected = draw()
    dice.next = 1

    rng.restore(through_bytes(state), [dice])

    assert same(draw(), expected)
    assert dice.next == 6


def test_a_state_of_an_absent_framework_is_left_alone() -> None:
    state = rng.capture([Dice()])
    expected = draw()
    rng.restore(state)
    assert same(draw(), expected)


def test_seeds_fix_every_sequence() -> None:
    dice = Dice()
    rng.seed_all(5, [dice])
    first = draw()
    rng.seed_all(5)
    assert same(draw(), first)
    assert dice.next == 5


@pytest.mark.parametrize("seed", [-1, 2**32, True, 1.0, "5"])
def test_seeds_out_of_range_are_refused_before_any_is_set(seed: Any) -> None:
    state = rng.capture()
    with pytest.raises(InvalidInputError, match="a seed is an integer"):
        rng.seed_all(seed)
    assert same(rng.capture(), state)


@pytest.mark.parametrize(
    "state",
    [None, {}, {"python": None}, {"python": (3, (1,), None)}, {"python": ()}],
    ids=repr,
)
def test_what_is_no_state_is_refused(state: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a state of random number generators"):
        rng.restore(state)
