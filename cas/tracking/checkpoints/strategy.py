"""When a run saves checkpoints, and how: what the user asked for, and what is due.

`Strategy` is plain and says nothing of any run; `Schedule` remembers what one run has saved. What
is kept of what was saved is another matter: see `retention`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from cas.errors import InvalidInputError, no_such
from cas.repo.retain import amounts
from cas.repo.retain.retention import Keep
from cas.tracking.numbers.monitor import monitor

WAIT: Final = "wait"
SKIP: Final = "skip"
COUNTS: Final = ("save_steps", "save_epochs", "save_total_limit")
SWITCHES: Final = ("save_best_only", "on_exception", "on_signal", "wait")
SIZES: Final = ("staging", "min_free")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """When to save: every so many steps, epochs or seconds, whichever comes first.

    With `save_best_only` a checkpoint is due when `monitor` is better than at any before, `mode`
    being `min` or `max`; it is what `should_save` is given, or else what was logged last. With
    `on_exception` one more is saved when the `with` block of the run is left by an exception, with
    `on_signal` after SIGTERM or SIGUSR1. `save_total_limit=N` keeps the last N and the best.

    A save is copied and goes on behind the loop; with `wait` it is done when the call returns.
    While one save is stored and another waits, a further one waits too, or with `busy="skip"` is
    left out. `staging` bounds the memory for copies (default: a quarter of what is free), such as
    "2GB" or bytes; a save that would leave the disk less than `min_free` is left out (default: a
    hundredth of the disk, at most 1 GiB).
    """

    save_steps: int | None = None
    save_epochs: int | None = None
    save_seconds: float | None = None
    save_best_only: bool = False
    save_total_limit: int | None = None
    monitor: str | None = None
    mode: str | None = None
    on_exception: bool = False
    on_signal: bool = False
    wait: bool = False
    busy: str = WAIT
    staging: int | str | None = None
    min_free: int | str | None = None

    def __post_init__(self) -> None:
        for name in COUNTS:
            _check(name, getattr(self, name), _is_count, "a whole number from 1")
        for name in SWITCHES:
            _check(name, getattr(self, name), lambda it: type(it) is bool, "True or False")
        _check("save_seconds", self.save_seconds, _is_span, "a number of seconds above 0")
        _check("monitor", self.monitor, lambda it: isinstance(it, str) and it, "a metric's name")
        _check("mode", self.mode, lambda it: it in {"min", "max"}, "'min' or 'max'")
        _check("busy", self.busy, lambda it: it in {WAIT, SKIP}, "'wait' or 'skip'")
        for name in SIZES:
            _check(name, getattr(self, name), _is_size, "bytes, or a size such as '2GB'")
        if self.save_best_only and self.monitor is None:
            raise InvalidInputError("save_best_only needs monitor=, the metric that says the best")

    @property
    def staging_bytes(self) -> int | None:
        """The bound of the memory for copies; None where it goes by what is free."""
        return None if self.staging is None else _bytes(self.staging)

    @property
    def min_free_bytes(self) -> int | None:
        """What a save must leave of the disk; None where it goes by the size of that."""
        return None if self.min_free is None else _bytes(self.min_free)

    @property
    def keep(self) -> Keep | None:
        """What `save_total_limit` means as a retention policy."""
        return None if self.save_total_limit is None else Keep(last=self.save_total_limit, best=1)

    @property
    def as_words(self) -> dict[str, Any]:
        """The strategy as plain data: what it says, and nothing of what it does not."""
        default = Strategy()
        names = (field.name for field in fields(self))
        told = {name: getattr(self, name) for name in names}
        return {name: it for name, it in told.items() if it != getattr(default, name)}


class Schedule:
    """What a run has saved so far, and what its strategy says is due."""

    def __init__(self, strategy: Strategy, now: float, mode: str | None = None) -> None:
        self.strategy = strategy
        name = strategy.monitor
        found = monitor([name], name, strategy.mode or mode) if name is not None else None
        self.mode = found[1] if found is not None else "min"
        self._step: int | None = None
        self._epoch: int | None = None
        self._at = now
        self._best: float | None = None
        self.blind = 0  # how often a best-only strategy was asked before it had any value

    @property
    def wanted(self) -> str | None:
        """The metric that says whether a checkpoint is due; None where none does."""
        return self.strategy.monitor if self.strategy.save_best_only else None

    def due(
        self, step: int | None, epoch: int | None, metrics: Mapping[str, Any], now: float
    ) -> bool:
        """Say whether to save; what is better than all before counts from now on.

        Of a time axis that the strategy names, only what is given can be due: without a `step`
        none is. Where it names none, a checkpoint is due whenever it is the best, or is asked for.
        """
        said = self.strategy
        value = _number(metrics.get(said.monitor)) if said.monitor else None
        better = self._is_better(value)
        self.blind += said.save_best_only and value is None and self._best is None
        intervals = [
            said.save_steps and _passed(step, self._step, said.save_steps),
            # Epochs are counted from 0, and a checkpoint is of one that is over.
            said.save_epochs and _passed(_next(epoch), _next(self._epoch), said.save_epochs),
            said.save_seconds and now - self._at >= said.save_seconds,
        ]
        named = [bool(one) for one in intervals if one is not None]
        due = any(named) if named else said.save_best_only
        if said.save_best_only:
            due = due and better
        if due:
            self.saved(step, epoch, metrics, now)
        return due

    def saved(
        self, step: int | None, epoch: int | None, metrics: Mapping[str, Any], now: float
    ) -> None:
        """Take note of a checkpoint, whoever asked for it."""
        self._step = step if step is not None else self._step
        self._epoch = epoch if epoch is not None else self._epoch
        self._at = now
        value = _number(metrics.get(self.strategy.monitor or ""))
        if self._is_better(value):
            self._best = value

    def _is_better(self, value: float | None) -> bool:
        if value is None or math.isnan(value):
            return False
        if self._best is None:
            return True
        return value < self._best if self.mode == "min" else value > self._best


def as_strategy(told: "Strategy | Mapping[str, Any] | None") -> Strategy:
    """Return what a user gave as a strategy; raise InvalidInputError naming what is wrong."""
    if told is None:
        return Strategy()
    if isinstance(told, Strategy):
        return told
    if not isinstance(told, Mapping):
        raise InvalidInputError(
            f"strategy is a cas.Strategy or a map such as {{'save_steps': 100}}, not {told!r}"
        )
    known = [field.name for field in fields(Strategy)]
    for name in told:
        if name not in known:
            raise no_such("strategy has no", name, known)
    return Strategy(**{name: value for name, value in told.items() if value is not None})


def _passed(now: int | None, last: int | None, every: int) -> bool:
    """Say whether a counter has reached or passed a multiple since the last checkpoint."""
    if now is None or now == last:
        return False
    return now // every > (last // every if last is not None and last <= now else 0)


def _next(number: int | None) -> int | None:
    return None if number is None else number + 1


def _number(value: object) -> float | None:
    item = getattr(value, "item", None)
    try:
        return None if value is None else float(item() if callable(item) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def _check(name: str, value: object, holds: Any, accepted: str) -> None:
    if value is not None and not holds(value):
        raise InvalidInputError(f"strategy: {name} is {accepted}, not {value!r}")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_span(value: object) -> bool:
    return type(value) in {int, float} and 0 < value < math.inf  # type: ignore[operator]


def _is_size(value: object) -> bool:
    try:
        return _bytes(value) >= 0
    except ValueError:
        return False


def _bytes(value: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str):
        return amounts.size(value)
    raise ValueError("a size such as 2GB, or bytes")
