"""cas: git for machine-learning runs.

The public names load when they are first used, so that `cas --version` and a training script's
own start stay instant.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cas.errors import CasError, NotFoundError
    from cas.repo.retention import Keep
    from cas.tracking.config import Config
    from cas.tracking.configfile import config
    from cas.tracking.curve import read_metrics
    from cas.tracking.media.audio import Audio
    from cas.tracking.media.histogram import Histogram
    from cas.tracking.media.image import Image
    from cas.tracking.media.table import Table
    from cas.tracking.parts import Capture
    from cas.tracking.reading import load, open_file, read_tensor
    from cas.tracking.redaction import Redaction
    from cas.tracking.run import Run
    from cas.tracking.sinks import Sink
    from cas.tracking.strategy import Strategy
    from cas.tracking.track import ExperimentTracker, fork, track
    from cas.tracking.view import open_run
    from cas.tracking.watch import Watch

__all__ = [
    "Audio",
    "Capture",
    "CasError",
    "Config",
    "ExperimentTracker",
    "Histogram",
    "Image",
    "Keep",
    "NotFoundError",
    "Redaction",
    "Run",
    "Sink",
    "Strategy",
    "Table",
    "Watch",
    "__version__",
    "config",
    "fork",
    "load",
    "open_file",
    "open_run",
    "read_metrics",
    "read_tensor",
    "track",
]

_HOMES = {
    "Audio": "cas.tracking.media.audio",
    "Capture": "cas.tracking.parts",
    "CasError": "cas.errors",
    "NotFoundError": "cas.errors",
    "Config": "cas.tracking.config",
    "ExperimentTracker": "cas.tracking.track",
    "Histogram": "cas.tracking.media.histogram",
    "Image": "cas.tracking.media.image",
    "Keep": "cas.repo.retention",
    "Redaction": "cas.tracking.redaction",
    "Run": "cas.tracking.run",
    "Sink": "cas.tracking.sinks",
    "Strategy": "cas.tracking.strategy",
    "Table": "cas.tracking.media.table",
    "Watch": "cas.tracking.watch",
    "config": "cas.tracking.configfile",
    "fork": "cas.tracking.track",
    "load": "cas.tracking.reading",
    "open_file": "cas.tracking.reading",
    "open_run": "cas.tracking.view",
    "read_metrics": "cas.tracking.curve",
    "read_tensor": "cas.tracking.reading",
    "track": "cas.tracking.track",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cas' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
