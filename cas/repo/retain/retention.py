"""Retention: which checkpoints of a run a policy keeps, each with its reasons.

Pure: takes plain values, returns decisions. What several rules say is joined: a checkpoint goes
only when no rule keeps it and nothing protects it. A rule that cannot judge keeps everything, a
checkpoint that a rule cannot judge is kept by it. Nothing but a budget (`budget.py`) overrules a
rule.

What was let go of earlier does not change what is kept now, as long as no checkpoint is added in
between: a run may apply its policy after each checkpoint, or somebody to the whole run at its end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from math import isnan
from typing import Final

from cas.errors import InvalidInputError
from cas.ids import CommitId
from cas.objects.commit import Monitor
from cas.repo.retain import amounts

Reasons = tuple[str, ...]
SECOND: Final = 1_000_000  # in microseconds, as all moments here
HOUR: Final = 3600 * SECOND
DAY: Final = 24 * HOUR
EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
MONDAY: Final = 3  # days from the Monday before the epoch
MOST: Final = 10**9  # of anything that is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What to keep of each run; what any of the rules keeps stays.

    The last; the best, first what was saved as that, then by the run's monitor; the lowest (`min`)
    and highest (`max`) by a metric; the first of `every` so many steps; the newest of each hour,
    day, week, month and year (in UTC) of the last so many that have one; all `within` a span such
    as "7d"; with `tagged`, what has a tag, and of itself only that. A `budget` such as "200GB" then
    drops the worst until the rest fits.
    """

    last: int | None = None
    best: int | None = None
    min: Mapping[str, int] = field(default_factory=dict)
    max: Mapping[str, int] = field(default_factory=dict)
    every: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    within: str | None = None
    tagged: bool = False
    budget: int | str | None = None

    def __post_init__(self) -> None:
        for name in COUNTS:
            _check_count(name, getattr(self, name))
        for name in ("min", "max"):
            _check_metrics(name, getattr(self, name))
        if type(self.tagged) is not bool:
            raise InvalidInputError(f"tagged is true or false, not {self.tagged!r}")
        if self.within is not None and _read("within", self.within, amounts.span) < 1:
            raise InvalidInputError(f"within is a span of 1s or more, not {self.within!r}")
        if self.budget is not None and self.budget_bytes < 1:  # type: ignore[operator]
            raise InvalidInputError(f"budget is 1 byte or more, not {self.budget!r}")

    @property
    def within_seconds(self) -> int | None:
        """The span of `within`."""
        return None if self.within is None else amounts.span(self.within)

    @property
    def budget_bytes(self) -> int | None:
        """The budget as a number of bytes."""
        if self.budget is None or type(self.budget) is int:
            return self.budget
        return _read("budget", self.budget, amounts.size)

    @property
    def has_rules(self) -> bool:
        """Whether anything but a budget says what to keep."""
        rules = (self.min, self.max, self.within, self.tagged)
        return any(rules) or any(getattr(self, name) for name in COUNTS)

    @property
    def empty(self) -> bool:
        """Whether this says nothing, so that everything would go."""
        return not self.has_rules and self.budget is None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a policy looks at: the last value of each metric, and when it was, in microseconds.

    `given_bytes` is what it holds, `stored_bytes` what was newly stored for it; `best` says whether
    it was saved as the best.
    """

    commit: CommitId
    seq: int
    step: int | None = None
    monitor: Monitor | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    given_bytes: int = 0
    stored_bytes: int = 0
    time: int | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """One checkpoint's fate, and why: the reasons of one that goes are those of a budget."""

    checkpoint: Checkpoint
    keep: bool
    reasons: Reasons


Ordered = Sequence[Checkpoint]
Kept = tuple[str, Ordered]  # a reason, and what is kept for it


def _month(day: int) -> int:
    known = date.fromordinal(min(max(EPOCH_DAY + day, 1), date.max.toordinal()))
    return 12 * known.year + known.month


# The number of the hour, day, … that a moment is in. UTC, so that everybody decides alike wherever
# they sit; weeks begin on Monday, as in ISO 8601.
PERIODS: Final[Mapping[str, Callable[[int], int]]] = {
    "hourly": lambda time: time // HOUR,
    "daily": lambda time: time // DAY,
    "weekly": lambda time: (time // DAY + MONDAY) // 7,
    "monthly": lambda time: _month(time // DAY),
    "yearly": lambda time: (_month(time // DAY) - 1) // 12,
}
COUNTS: Final = ("last", "best", "every", *PERIODS)


def plan(
    checkpoints: Sequence[Checkpoint],
    keep: Keep,
    protected: Mapping[CommitId, Reasons],
    *,
    now: int,
) -> tuple[Decision, ...]:
    """Decide about the checkpoints of one run, in order of their `seq`; a budget comes after."""
    ordered = sorted(checkpoints, key=lambda item: item.seq)
    reasons: dict[CommitId, list[str]] = {
        item.commit: list(protected.get(item.commit, ())) for item in ordered
    }
    for reason, kept in _rules(ordered, keep, now):
        for item in kept:
            reasons[item.commit].append(reason)
    return tuple(
        Decision(item, bool(reasons[item.commit]), tuple(reasons[item.commit])) for item in ordered
    )


def _rules(ordered: Ordered, keep: Keep, now: int) -> Iterator[Kept]:
    """Yield each rule's reason and what it keeps."""
    if keep.last:
        yield f"last {keep.last}", ordered[-keep.last :]
    if keep.best:
        yield from _best(ordered, keep.best)
    for mode, wanted in (("min", keep.min), ("max", keep.max)):
        for metric, count in sorted(wanted.items()):
            values = [(item, item.metrics[metric]) for item in ordered if metric in item.metrics]
            word = "lowest" if mode == "min" else "highest"
            yield _judged(ordered, _extreme(values, mode, count), f"{word} {count} by {metric}")
    if keep.every:
        yield from _every(ordered, keep.every)
    yield from _by_time(ordered, keep, now)
    if keep.budget is not None and not keep.has_rules:
        yield f"within the budget of {keep.budget}", ordered


def _best(ordered: Ordered, count: int) -> Iterator[Kept]:
    """Yield what was said to be the best, the newest first, then the best by the monitor."""
    said = [item for item in reversed(ordered) if item.best][:count]
    yield f"best {count}, as was said", said
    if len(said) < count:
        others = [item for item in ordered if not item.best]
        yield _best_by_monitor(others, count - len(said), f"best {count}")


def _best_by_monitor(ordered: Ordered, count: int, reason: str) -> Kept:
    """Return the best by the monitor that the newest of these checkpoints has."""
    told = [(item, item.monitor) for item in ordered if item.monitor is not None]
    if not told:
        return _judged(ordered, (), reason)
    _, newest = told[-1]
    values = [
        (item, monitor.value)
        for item, monitor in told
        if (monitor.metric, monitor.mode) == (newest.metric, newest.mode)
    ]
    best = _extreme(values, newest.mode, count)
    return _judged(ordered, best, f"{reason} by {newest.metric}")


def _every(ordered: Ordered, every: int) -> Iterator[Kept]:
    """Yield the first of each so many steps: where steps are multiples of it, just those."""
    first: dict[int, Checkpoint] = {}
    for item in ordered:
        if item.step is not None:
            first.setdefault(item.step // every, item)
    yield f"every {every} steps", list(first.values())
    yield "no step to tell every which it is", [item for item in ordered if item.step is None]


def _by_time(ordered: Ordered, keep: Keep, now: int) -> Iterator[Kept]:
    known = [(item, item.time) for item in ordered if item.time is not None]
    wanted = {name: count for name in PERIODS if (count := getattr(keep, name))}
    for name, count in wanted.items():
        newest = {PERIODS[name](time): item for item, time in known}
        yield f"{name} {count}", [newest[number] for number in sorted(newest)[-count:]]
    if (span := keep.within_seconds) is not None:
        since = now - span * SECOND
        yield f"within {keep.within}", [item for item, time in known if time >= since]
    if wanted or span is not None:
        yield "no time to tell how old it is", [item for item in ordered if item.time is None]


def _judged(ordered: Ordered, kept: Ordered, reason: str) -> Kept:
    """Return what a rule keeps: everything when it has nothing to compare."""
    return (reason, kept) if kept else (f"no value to tell the {reason}", ordered)


def _extreme(values: Sequence[tuple[Checkpoint, float]], mode: str, count: int) -> Ordered:
    """Return the `count` lowest or highest; none when no value can be compared."""
    known = [(item, value) for item, value in values if not isnan(value)]
    sign = 1 if mode == "min" else -1
    # Of equal values the earlier one, as `@best` chooses.
    known.sort(key=lambda pair: (sign * pair[1], pair[0].seq))
    return [item for item, _ in known[:count]]


def _check_count(name: str, value: object) -> None:
    if value is not None and (type(value) is not int or not 1 <= value <= MOST):
        raise InvalidInputError(f"{name} is a whole number from 1, not {value!r}")


def _check_metrics(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} maps metrics to numbers, as {{'loss': 2}}, not {value!r}")
    for metric, count in value.items():
        if not isinstance(metric, str) or not metric:
            raise InvalidInputError(f"{name} takes the name of a metric, not {metric!r}")
        if count is None:
            raise InvalidInputError(f"{name} of {metric} is a whole number from 1, not None")
        _check_count(f"{name} of {metric}", count)


def _read(name: str, value: object, read: Callable[[str], int]) -> int:
    if not isinstance(value, str):
        form = "text such as 7d" if name == "within" else "a size such as 200GB, or bytes"
        raise InvalidInputError(f"{name} is {form}, not {value!r}")
    try:
        return read(value)
    except ValueError as error:
        raise InvalidInputError(f"{name} is {error}, not {value!r}") from error
