"""Retention: which checkpoints of a run a policy keeps, each with its reasons.

Pure: takes plain values, returns decisions. What several rules say is joined: a checkpoint goes
only when no rule keeps it and nothing protects it. A rule that cannot judge keeps everything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

from cas.errors import InvalidInputError
from cas.ids import CommitId
from cas.objects.commit import Monitor

Reasons = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """What to keep of each run: the last, the best by its monitor, the extremes of metrics."""

    last: int | None = None
    best: int | None = None
    min: Mapping[str, int] = field(default_factory=dict)
    max: Mapping[str, int] = field(default_factory=dict)
    tagged: bool = False
    every: int | None = None

    def __post_init__(self) -> None:
        counts = [self.last, self.best, self.every, *self.min.values(), *self.max.values()]
        if any(count is not None and count < 1 for count in counts):
            raise InvalidInputError("a policy keeps 1 or more of each kind, not fewer")

    @property
    def empty(self) -> bool:
        """Whether this says nothing, so that everything would go."""
        return not (self.last or self.best or self.every or self.min or self.max or self.tagged)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a policy looks at: the last value of each metric, and the bytes that were given."""

    commit: CommitId
    seq: int
    step: int | None = None
    monitor: Monitor | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    given_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """One checkpoint's fate, and why it is kept."""

    checkpoint: Checkpoint
    keep: bool
    reasons: Reasons


def plan(
    checkpoints: Sequence[Checkpoint], keep: Keep, protected: Mapping[CommitId, Reasons]
) -> tuple[Decision, ...]:
    """Decide about the checkpoints of one run, in order of their `seq`."""
    ordered = sorted(checkpoints, key=lambda item: item.seq)
    reasons: dict[CommitId, list[str]] = {
        item.commit: list(protected.get(item.commit, ())) for item in ordered
    }
    for reason, kept in _rules(ordered, keep):
        for item in kept:
            reasons[item.commit].append(reason)
    return tuple(
        Decision(item, bool(reasons[item.commit]), tuple(reasons[item.commit])) for item in ordered
    )


def _rules(ordered: Sequence[Checkpoint], keep: Keep) -> Iterator[tuple[str, Sequence[Checkpoint]]]:
    """Yield each rule's reason and what it keeps."""
    if keep.last:
        yield f"last {keep.last}", ordered[-keep.last :]
    if keep.best:
        yield _best(ordered, keep.best)
    for mode, wanted in (("min", keep.min), ("max", keep.max)):
        for metric, count in sorted(wanted.items()):
            values = [(item, item.metrics[metric]) for item in ordered if metric in item.metrics]
            word = "lowest" if mode == "min" else "highest"
            yield _judged(ordered, _extreme(values, mode, count), f"{word} {count} by {metric}")
    if keep.every:
        every = keep.every
        yield (
            f"every {every} steps",
            [item for item in ordered if item.step is not None and item.step % every == 0],
        )


def _best(ordered: Sequence[Checkpoint], count: int) -> tuple[str, Sequence[Checkpoint]]:
    """Return the best by the monitor that the run's newest checkpoint has."""
    told = [(item, item.monitor) for item in ordered if item.monitor is not None]
    if not told:
        return _judged(ordered, (), f"best {count}")
    _, newest = told[-1]
    values = [
        (item, monitor.value)
        for item, monitor in told
        if (monitor.metric, monitor.mode) == (newest.metric, newest.mode)
    ]
    best = _extreme(values, newest.mode, count)
    return _judged(ordered, best, f"best {count} by {newest.metric}")


def _judged(
    ordered: Sequence[Checkpoint], kept: Sequence[Checkpoint], reason: str
) -> tuple[str, Sequence[Checkpoint]]:
    """Return what a rule keeps: everything when it has nothing to compare."""
    return (reason, kept) if kept else (f"no value to tell the {reason}", ordered)


def _extreme(
    values: Sequence[tuple[Checkpoint, float]], mode: str, count: int
) -> Sequence[Checkpoint]:
    """Return the `count` lowest or highest; none when no value can be compared."""
    known = [(item, value) for item, value in values if not isnan(value)]
    sign = 1 if mode == "min" else -1
    # Of equal values the earlier one, as `@best` chooses.
    known.sort(key=lambda pair: (sign * pair[1], pair[0].seq))
    return [item for item, _ in known[:count]]
