"""What a run is told in numbers: metrics, and what is made of them while it is open."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cas.errors import InvalidInputError
from cas.tracking.guard import Guarded, guarded
from cas.tracking.live import Live
from cas.tracking.numbers.pace import Progress
from cas.tracking.observer import Observer
from cas.tracking.watching.events import ALERT, event
from cas.tracking.watching.watch import Watch, as_watch

if TYPE_CHECKING:
    from cas.tracking.numbers.curve import Curve

Scalar = Any  # anything with a number in it: int, float, bool, a 0-d array or tensor
SYSTEM_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Observing:
    """How a run is looked at from outside, and which of its points are kept.

    `system` are the seconds between two samples of system metrics, None for none; `total` how many
    steps there will be; `every` how many steps lie between two points that are kept.
    """

    watch: Watch = field(default_factory=Watch)
    system: float | None = SYSTEM_SECONDS
    total: int | None = None
    every: int | Mapping[str, int] = 1


OBSERVING: Final = Observing()


class Measures(Guarded):
    """The metrics of a run."""

    def __init__(self, live: Live) -> None:
        super().__init__(live)
        self._observer: Observer | None = None
        self._derived: dict[str, tuple[frozenset[str], Callable[[Any], Scalar]]] = {}

    def log_metrics(
        self,
        metrics: Mapping[str, Scalar],
        step: int | None = None,
        epoch: float | None = None,
        *,
        samples: int | None = None,
    ) -> None:
        """Record numbers at a step; without `step`, one step further than the last.

        Numbers of an `epoch` are also added up for it. `samples` is how many were processed since
        the last call that said so; `progress` then knows how many a second.
        """
        # `guarded` written out: a fifth of the time of the one call that every step pays for.
        if not self._usable("log_metrics"):
            return
        try:
            self._add_points(metrics, step, epoch)
            if samples is not None and self._observer is not None:
                self._observer.samples += int(samples)
        except Exception as error:
            self._failed("log_metrics", error)

    @guarded
    def define_metric(
        self, name: str, function: Callable[[Mapping[str, Any]], Scalar], of: Sequence[str]
    ) -> None:
        """Make a metric of others: `function` gets each call's metrics that has all of `of`.

        `run.define_metric("ppl", lambda m: math.exp(m["loss"]), of=["loss"])`. Those defined before
        it count as logged too. What it raises costs the new metric alone.
        """
        if isinstance(of, str) or not of or not callable(function):
            raise InvalidInputError("define_metric takes a function and the names it is made of")
        self._derived[name] = (frozenset(of), function)

    @guarded
    def curve(self, name: str) -> "Curve | None":
        """Return a metric as it is so far: its points, best, mean, moving averages, epochs."""
        from cas.tracking.numbers.curve import of_log

        return of_log(self._live.state.metrics, name)

    @guarded
    def alert(self, title: str, text: str = "") -> None:
        """Write down that something happened, say it, and tell whom the run's watch names."""
        step = self._live.state.metrics.last_step
        with self._telling("events.json"):
            told = event(
                self._live.clock() / 1e6, ALERT, title, text, step=step if step >= 0 else None
            )
        if self._observer is not None:
            self._observer.announce(told)
        else:
            self._live.note(told.frame())

    @guarded
    def import_metrics(self, path: str | os.PathLike[str]) -> None:
        """Add the points of a .csv, .json or .parquet file, as `cas metrics --to` writes them."""
        from cas.tracking.numbers.exchange import frames, read

        for frame in frames(read(Path(path), time.time())):
            self._live.note(frame)

    @property
    def progress(self) -> Progress:
        """How far the run is, how fast it goes, and, given `total`, how long it still takes."""
        if self._observer is None:
            return Progress(self._live.state.metrics.last_step, None, None, None)
        return self._observer.progress()

    @property
    def should_stop(self) -> bool:
        """Whether a rule of the watch that was named in `stop` has spoken."""
        return self._observer is not None and "stop" in self._observer.asked

    @property
    def should_checkpoint(self) -> bool:
        """Whether a rule named in `checkpoint` has spoken since this was last asked."""
        if self._observer is None or "checkpoint" not in self._observer.asked:
            return False
        self._observer.asked.discard("checkpoint")
        return True

    def _observe(self, observing: Observing) -> None:
        """Begin to look at the run from outside; called once, as it begins."""
        self._live.state.metrics.every = observing.every
        observer = Observer(
            self._live,
            observing.watch,
            every=observing.system,
            total=observing.total,
            clock=lambda: self._live.clock() / 1e6,
        )
        self._live.beside(observer)
        self._observer = observer

    def _add_points(
        self, metrics: Mapping[str, Scalar], step: int | None, epoch: float | None = None
    ) -> None:
        """Take numbers, and the metrics that are made of them; raise InvalidInputError."""
        if self._derived:
            metrics = self._with_derived(metrics)
        self._live.add_points(metrics, step, time.time(), epoch)

    def _with_derived(self, metrics: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
        found = dict(metrics)
        for name, (of, function) in self._derived.items():
            if of <= found.keys():
                try:
                    found[name] = function(found)
                except Exception as error:  # it costs its own metric, not the others
                    self._failed(f"define_metric {name}", error)
        return found


def as_observing(
    watch: Watch | Mapping[str, Any] | bool | None,
    system_metrics: object,
    total: object,
    log_every: int | Mapping[str, int],
) -> Observing:
    """Return how a run is looked at, from what `cas.track` was given; raise InvalidInputError."""
    for number in log_every.values() if isinstance(log_every, Mapping) else [log_every]:
        if type(number) is not int or number < 1:
            raise InvalidInputError(f"log_every is a whole number from 1 on, not {number!r}")
    if total is not None and (type(total) is not int or total < 1):
        raise InvalidInputError(f"total is how many steps there will be, not {total!r}")
    return Observing(as_watch(watch), _interval(system_metrics), total, log_every)


def watch_over(live: Live, words: Mapping[str, Any]) -> None:
    """Look at the run of another program from outside, as its config says; it may track itself."""
    watch = as_watch(words.get("watch"))
    only = replace(watch, not_finite=False, jump=None, patience=None, gap=None, stalled=None)
    every = _interval(words.get("system_metrics", True))
    live.beside(Observer(live, only, every=every, total=None, clock=time.time, process=False))


def _interval(given: object) -> float | None:
    if isinstance(given, bool):
        return SYSTEM_SECONDS if given else None
    if not isinstance(given, int | float) or not given > 0:
        raise InvalidInputError(f"system_metrics is True, False or seconds, not {given!r}")
    return float(given)
