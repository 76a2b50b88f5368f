"""cas: git for machine-learning runs.

The public names load when they are first used, so that `cas --version` and a training script's
own start stay instant.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cas.errors import CasError, NotFoundError
    from cas.repo.retain.retention import Keep
    from cas.tracking.captured.parts import Capture
    from cas.tracking.checkpoints.strategy import Strategy
    from cas.tracking.media.audio import Audio
    from cas.tracking.media.histogram import Histogram
    from cas.tracking.media.image import Image
    from cas.tracking.media.table import Table
    from cas.tracking.privacy.redaction import Redaction
    from cas.tracking.reading import load, open_file, read_tensor
    from cas.tracking.run import Run
    from cas.tracking.settings.config import Config
    from cas.tracking.settings.configfile import config
    from cas.tracking.sinks.sink import Sink
    from cas.tracking.track import ExperimentTracker, fork, track
    from cas.tracking.view import open_run, read_metrics
    from cas.tracking.watching.watch import Watch

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
    "Capture": "cas.tracking.captured.parts",
    "CasError": "cas.errors",
    "NotFoundError": "cas.errors",
    "Config": "cas.tracking.settings.config",
    "ExperimentTracker": "cas.tracking.track",
    "Histogram": "cas.tracking.media.histogram",
    "Image": "cas.tracking.media.image",
    "Keep": "cas.repo.retain.retention",
    "Redaction": "cas.tracking.privacy.redaction",
    "Run": "cas.tracking.run",
    "Sink": "cas.tracking.sinks.sink",
    "Strategy": "cas.tracking.checkpoints.strategy",
    "Table": "cas.tracking.media.table",
    "Watch": "cas.tracking.watching.watch",
    "config": "cas.tracking.settings.configfile",
    "fork": "cas.tracking.track",
    "load": "cas.tracking.reading",
    "open_file": "cas.tracking.reading",
    "open_run": "cas.tracking.view",
    "read_metrics": "cas.tracking.view",
    "read_tensor": "cas.tracking.reading",
    "track": "cas.tracking.track",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cas' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
