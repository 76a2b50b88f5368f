"""What a run is told while it is open: params, and anything that it can tell the form of."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.objects.document import document
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured import frameworks
from cas.tracking.captured.capture import as_params
from cas.tracking.captured.determinism import make_reproducible
from cas.tracking.checkpoints import rng
from cas.tracking.guard import guarded
from cas.tracking.live import Live
from cas.tracking.media.audio import Audio
from cas.tracking.media.content import library
from cas.tracking.media.figure import is_figure
from cas.tracking.media.histogram import Histogram
from cas.tracking.media.image import Image
from cas.tracking.media.table import Table, is_frame
from cas.tracking.record import Items
from cas.tracking.uses import Uses
from cas.tracking.watching.modelwatch import EVERY, ModelWatch

NUMBERS: Final = frozenset({int, float, bool})
MAX_DEPTH: Final = 16


class Logs(Uses):
    """The `log` and `log_params` calls of a run, and what goes with the whole of it."""

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._watches: list[ModelWatch] = []

    @guarded
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params, nested or not; values under secret-looking names are masked."""
        with self._telling("params.json"):
            told = as_params(params)
        self._live.note({"t": "params", "params": told})

    @guarded
    def log(
        self, values: Mapping[str, Any], step: int | None = None, epoch: float | None = None
    ) -> None:
        """Record values at a step, each by what it is; without `step`, one step further.

        A number is a metric, a text a text, a figure of matplotlib or plotly a figure, a frame of
        pandas, polars or pyarrow a table, an image of PIL an image, an array or tensor of more than
        one number a histogram. `cas.Image`, `cas.Audio`, `cas.Table` and `cas.Histogram` say what
        they are. A dict in it adds its names behind a slash, a list is each of its items.
        """
        if not isinstance(values, Mapping):
            raise InvalidInputError(f"values are logged by name, not as a {type(values).__name__}")
        if NUMBERS.issuperset(map(type, values.values())):
            self._add_points(values, step, epoch)
            return
        numbers: dict[str, Any] = {}
        others: list[tuple[str, Any]] = []
        _part(values, "", numbers, others, 0)
        metrics = self._live.state.metrics
        if step is None and not numbers:
            step = metrics.last_step + 1
            metrics.go_on_after(step)
        if numbers:
            self._add_points(numbers, step, epoch)
            step = metrics.last_step if step is None else step
        for key, value in others:  # what is wrong with one costs this one alone
            self._kept("log", partial(self._log_one, key, value, step, epoch))

    @guarded
    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Record facts about the run that are no params: they are shown, and never compared."""
        with self._telling("metadata.json"):
            told = as_params(metadata)
        self._live.note({"t": "metadata", "metadata": told})

    @property
    def summary(self) -> dict[str, dict[str, Any]]:
        """Last, least, greatest and mean value and the count of each metric so far, by name."""
        return self._live.state.metrics.summary()

    @guarded
    def set_seeds(self, seed: int) -> None:
        """Seed Python, NumPy and the frameworks in use, and record it as the run's seed."""
        rng.seed_all(seed, frameworks.loaded())
        self._seeded(seed)

    @guarded
    def create_reproducible_environment(
        self, seed: int = 0, *, threads: int | None = None, warn_only: bool = False
    ) -> tuple[str, ...]:
        """Seed everything and ask for deterministic algorithms; return what cannot be had so.

        Call it before anything is computed. `threads` fixes the number of threads too. An operation
        that has no deterministic form then raises, or with `warn_only` warns.
        """
        problems = make_reproducible(seed, threads, warn_only=warn_only)
        self._seeded(seed)
        told = {"seed": seed, "threads": threads, "not_deterministic": list(problems)}
        self._live.note({"t": "metadata", "metadata": {"reproducible": told}})
        return problems

    @guarded
    def watch_model(
        self,
        model: object,
        optimizer: object = None,
        *,
        every: int = EVERY,
        histograms: bool = True,
    ) -> ModelWatch:
        """Log norms and histograms of parameters and gradients, and learning rates, every N steps.

        It looks just before each `every`-th `optimizer.step()`, counted from the newest step of the
        run; histograms come with each tenth look. Without an optimizer, call what is returned after
        `backward()`.
        """
        first = self._live.state.metrics.last_step + 1
        watch = ModelWatch(
            model, optimizer, every=every, histograms=histograms, step=first, tell=self._look
        )
        for before in [one for one in self._watches if one.same(watch)]:
            before.end()  # called again, it begins anew: one look at each step is enough
            self._watches.remove(before)
        watch.begin()
        self._watches.append(watch)
        return watch

    def _look(self, watch: ModelWatch, step: int) -> None:
        if self._ended or os.getpid() != self._pid:
            watch.end()
            return
        try:
            watch.look(step, self._beside, self.log_histogram)
        except Exception as error:  # it is called from within the optimizer's step
            self._failed("watch_model", error)

    def _beside(self, found: Mapping[str, float], step: int) -> None:
        """Take numbers that do not say how far the run is."""
        self._live.add_points(found, step, time.time(), leads=False)

    def _seeded(self, seed: int) -> None:
        def capture(tx: Transaction) -> Items:
            told = document({"seed": seed})
            return {"seeds.json": ingest.file_entry(tx.writer, b"seeds.json", told)}

        self._live.capture(capture)

    def _log_one(self, key: str, value: Any, step: int | None, epoch: float | None) -> None:
        calls: dict[str, Callable[..., None]] = {
            "text": self.log_text,
            "image": self.log_image,
            "audio": self.log_audio,
            "figure": self.log_figure,
            "table": self.log_table,
            "histogram": self.log_histogram,
        }
        calls[_kind(key, value)](key, value, step=step, epoch=epoch)


def _part(
    values: Mapping[str, Any],
    above: str,
    numbers: dict[str, Any],
    others: list[tuple[str, Any]],
    depth: int,
) -> None:
    """Part what was logged into numbers and all else, with the names of nested dicts in a row."""
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"values nest deeper than {MAX_DEPTH} dicts")
    for name, value in values.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping):
            _part(value, f"{key}/", numbers, others, depth + 1)
        elif isinstance(value, list | tuple) and value and all(map(_stands_alone, value)):
            others += [(key, item) for item in value]
        elif _is_number(value):
            numbers[key] = value
        else:
            others.append((key, value))


def _is_number(value: Any) -> bool:
    if type(value) in NUMBERS:
        return True
    if is_frame(value):
        return False
    shape = getattr(value, "shape", None)
    if shape is None:
        return callable(getattr(value, "item", None)) or isinstance(value, int | float)
    size = 1
    for length in shape:
        size *= length
    return size == 1


def _stands_alone(value: Any) -> bool:
    """Say whether an item of a list is logged by itself."""
    wrapped = isinstance(value, Image | Audio | Table | Histogram | str)
    return wrapped or is_figure(value) or library(value) == "PIL"


def _kind(key: str, value: Any) -> str:
    """Return as what a value is logged that is no number."""
    for kind, types in {
        "text": str, "image": Image, "audio": Audio, "table": Table, "histogram": Histogram
    }.items():  # fmt: skip
        if isinstance(value, types):
            return kind
    if is_figure(value):
        return "figure"
    if library(value) == "PIL":
        return "image"
    if is_frame(value):
        return "table"
    rows = isinstance(value, Sequence) and value and all(isinstance(row, Mapping) for row in value)
    if rows:
        return "table"
    if hasattr(value, "__array__") or (
        isinstance(value, Sequence) and not isinstance(value, bytes)
    ):
        return "histogram"
    kind = type(value).__name__
    raise InvalidInputError(
        f"{key}: what is a {kind}? Say it with log_text, log_image, log_table …"
    )
