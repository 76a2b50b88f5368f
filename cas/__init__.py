"""cas: git for machine-learning runs.

The public names load when they are first used, so that `cas --version` and a training script's
own start stay instant.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cas.errors import CasError
    from cas.repo.retention import Keep
    from cas.tracking.reading import load, open_file, read_tensor
    from cas.tracking.run import Run
    from cas.tracking.track import fork, track

__all__ = [
    "CasError",
    "Keep",
    "Run",
    "__version__",
    "fork",
    "load",
    "open_file",
    "read_tensor",
    "track",
]

_HOMES = {
    "CasError": "cas.errors",
    "Keep": "cas.repo.retention",
    "Run": "cas.tracking.run",
    "fork": "cas.tracking.track",
    "load": "cas.tracking.reading",
    "open_file": "cas.tracking.reading",
    "read_tensor": "cas.tracking.reading",
    "track": "cas.tracking.track",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cas' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
