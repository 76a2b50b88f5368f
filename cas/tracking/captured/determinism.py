"""Settings under which two equal runs give equal numbers, as far as a process can still be set."""

import os
import sys
from collections.abc import Iterator
from typing import Final

from cas.errors import InvalidInputError
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints import rng

CUBLAS: Final = "CUBLAS_WORKSPACE_CONFIG"
THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Libraries that draw or compute on their own, and that nothing here can set.
UNKNOWN: Final = ("tensorflow", "jax", "cupy", "mxnet")


def make_reproducible(
    seed: int, threads: int | None, *, warn_only: bool = False
) -> tuple[str, ...]:
    """Seed all generators, ask frameworks for deterministic algorithms; return what is left.

    `threads` also fixes how many threads compute: sums depend on it. Raises InvalidInputError.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise InvalidInputError(f"threads is a number from 1 on, not {threads!r}")
    had = os.environ.get(CUBLAS)
    os.environ.setdefault(CUBLAS, ":4096:8")
    if threads is not None:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
    rng.seed_all(seed, frameworks.loaded())
    problems = list(_problems(threads))
    for module in frameworks.loaded():
        problems += module.make_deterministic(threads, warn_only=warn_only, in_time=had is not None)
    return tuple(problems)


def _problems(threads: int | None) -> Iterator[str]:
    """Yield what cannot be set from inside of a process that runs."""
    if sys.flags.hash_randomization:
        yield (
            "PYTHONHASHSEED was not set as Python began: the order of sets of texts differs from "
            "run to run; start with PYTHONHASHSEED=0"
        )
    if threads is None and not any(name in os.environ for name in THREADS):
        yield "the number of threads is the machine's: sums may differ on another; give threads="
    for name in UNKNOWN:
        if name in sys.modules:
            yield f"{name} is in use: cas does not know how to make it deterministic"
