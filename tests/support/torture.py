"""How much a torture test does: short in the normal suite, long with `make torture`.

`CAS_TORTURE=1` selects the long form; another number scales it, so `CAS_TORTURE=0.1` does a tenth.
What a test did is told to the file that `CAS_TORTURE_RESULTS` names, for docs/reliability.md.
"""

import os
from typing import Final

VARIABLE: Final = "CAS_TORTURE"
RESULTS: Final = "CAS_TORTURE_RESULTS"


def scale() -> float:
    """Return what the long form is multiplied by; 0 stands for the short form."""
    text = os.environ.get(VARIABLE, "")
    return float(text) if text else 0.0


def amount(short: int, long: int) -> int:
    """Return how many of something to do."""
    factor = scale()
    # A scaled long form is never less than the short one.
    return max(short, round(long * factor)) if factor else short


def seconds(short: float, long: float) -> float:
    """Return for how long to do something."""
    factor = scale()
    return max(short, long * factor) if factor else short


def tell(what: str) -> None:
    """Note down in one line how much was done."""
    path = os.environ.get(RESULTS)
    if path:
        with open(path, "a") as file:
            file.write(f"{what}\n")
