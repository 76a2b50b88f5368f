"""What a run is told while it is open: params, numbers, files, inputs."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cas.ids import CommitId
from cas.objects.commit import DATASET
from cas.repo import ingest
from cas.tracking.capture import as_params
from cas.tracking.guard import Guarded, guarded
from cas.tracking.inputs import dataset_name, edge_attrs, input_edge

Scalar = Any  # anything with a number in it: int, float, bool, a 0-d array or tensor


class Logs(Guarded):
    """The `log_*` and `track_*` calls of a run."""

    @guarded
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params, nested or not; values under secret-looking names are masked."""
        self._live.note({"t": "params", "params": as_params(params)})

    @guarded
    def log(self, metrics: Mapping[str, Scalar], step: int | None = None) -> None:
        """Record numbers at a step; without `step`, one step further than the last."""
        self._live.add_points(metrics, step, time.time())

    @guarded
    def log_metrics(self, metrics: Mapping[str, Scalar], step: int | None = None) -> None:
        """Record numbers at a step; the same as `log`."""
        self._live.add_points(metrics, step, time.time())

    @guarded
    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """Store a file or directory as the run's artifact, under its own name or `name`."""
        source = Path(os.path.abspath(path))
        stored_as = (name or source.name).strip("/")
        self._live.add_artifact(stored_as, lambda tx: ingest.add(tx.writer, source, follow=True))

    @guarded
    def track_dataset(
        self,
        data: object,
        name: str | None = None,
        *,
        split: str | None = None,
        role: str = DATASET,
        metadata: Mapping[str, Any] | None = None,
    ) -> CommitId:
        """Store a file, directory, or arrays as an input of this run; return its commit.

        Equal data is one commit for all runs; split, role and metadata stand on the edge.
        """
        known = dataset_name(data, name)
        attrs = edge_attrs(data, self._live.top, split, as_params(metadata or {}))
        return self._live.add_input(
            f"dataset {known}", lambda tx: input_edge(tx, data, known, role, attrs)
        )
