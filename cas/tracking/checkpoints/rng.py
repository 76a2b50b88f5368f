"""The random number generators of a process: captured, restored and seeded together.

Python's generator, NumPy's global one and those of frameworks, which are passed in as the modules
that know them.
"""

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from cas.errors import InvalidInputError

MAX_SEED = 2**32 - 1


class Generators(Protocol):
    """A module that knows the generators of one framework (`cas/integrations/torch.py`)."""

    NAME: str

    def rng_state(self) -> dict[str, object]:
        """Return the states of all generators in use."""

    def set_rng_state(self, state: dict[str, Any]) -> None:
        """Set the generators to what `rng_state` returned."""

    def set_seeds(self, seed: int) -> None:
        """Seed all generators."""


def capture(frameworks: Sequence[Generators] = ()) -> dict[str, object]:
    """Return the states of Python's generator, NumPy's if that is loaded, and the frameworks'."""
    import random  # noqa: TID251 - the global generator is what this is about

    state: dict[str, object] = {"python": random.getstate()}
    np = sys.modules.get("numpy")
    if np is not None:
        state["numpy"] = np.random.get_state(legacy=False)
    return state | {framework.NAME: framework.rng_state() for framework in frameworks}


def restore(state: dict[str, Any], frameworks: Sequence[Generators] = ()) -> None:
    """Set the generators to what `capture` returned; raise InvalidInputError for another value.

    What a framework that is not among `frameworks` had is left alone.
    """
    import random  # noqa: TID251 - as above

    try:
        random.setstate(state["python"])
        if "numpy" in state:
            import numpy as np

            np.random.set_state(state["numpy"])
        for framework in frameworks:
            if framework.NAME in state:
                framework.set_rng_state(state[framework.NAME])
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"not a state of random number generators: {error}") from error


def seed_all(seed: int, frameworks: Sequence[Generators] = ()) -> None:
    """Seed Python's generator, NumPy's and the frameworks'; `seed` goes from 0 to MAX_SEED.

    NumPy is loaded for it: a seed that a later import forgets would be none.
    """
    import random  # noqa: TID251 - as above

    import numpy as np

    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise InvalidInputError(f"a seed is an integer from 0 to {MAX_SEED}, not {seed!r}")
    random.seed(seed)
    np.random.seed(seed)
    for framework in frameworks:
        framework.set_seeds(seed)
