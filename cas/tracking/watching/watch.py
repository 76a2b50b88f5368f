"""What to look out for while a run goes on, what to do then, and whom to tell."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from cas.errors import InvalidInputError, no_such

RULES: Final = ("not_finite", "jump", "patience", "gap", "stalled", "disk_full")


@dataclass(frozen=True, slots=True)
class Watch:
    """The rules that watch over a run; a rule that is None or False is off.

    - `not_finite`: a metric is NaN or infinite.
    - `jump`: a loss lies so many standard deviations above the mean of its last 100 values.
    - `patience`: the monitored metric was not improved for so many steps.
    - `gap`: training and validation moved apart at so many validations in a row.
    - `stalled`: no metric was logged for so many seconds.
    - `disk_full`: the repository's disk will be full within so many seconds.

    Each time that a rule begins to hold it writes an event, and `command` is run and `webhook` is
    called with it; one that comes again and again is told less and less often. `monitor` and `mode`
    say what to improve, the run's own by default. A rule named in `checkpoint` asks for a
    checkpoint, one in `stop` for the end of training: see `Run.should_checkpoint` and
    `Run.should_stop`.
    """

    not_finite: bool = True
    jump: float | None = None
    patience: int | None = None
    gap: int | None = None
    stalled: float | None = None
    disk_full: float | None = 3600.0
    monitor: str | None = None
    mode: str | None = None
    checkpoint: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    webhook: str | None = None

    def __post_init__(self) -> None:
        for name in ("jump", "patience", "gap", "stalled", "disk_full"):
            _check_limit(name, getattr(self, name))
        if type(self.not_finite) is not bool:
            raise InvalidInputError(f"watch: not_finite is True or False, not {self.not_finite!r}")
        for name in ("monitor", "webhook"):
            text = getattr(self, name)
            if text is not None and not isinstance(text, str):
                raise InvalidInputError(f"watch: {name} is text, not a {type(text).__name__}")
        if self.mode not in {None, "min", "max"}:
            raise InvalidInputError(f"watch: mode is 'min' or 'max', not {self.mode!r}")
        for name in ("checkpoint", "stop", "command"):
            object.__setattr__(self, name, _words(name, getattr(self, name)))
        _check_rules("checkpoint", self.checkpoint)
        _check_rules("stop", self.stop)
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            raise InvalidInputError("watch: webhook is an http:// or https:// address")


def as_watch(given: Watch | Mapping[str, Any] | bool | None) -> Watch:
    """Return rules as they were given, also as a mapping from a file; False is none at all.

    A rule that is `false` is off. Raises InvalidInputError, which names the key and what it takes.
    """
    if isinstance(given, Watch):
        return given
    if given is None or given is True:
        return Watch()
    if given is False:
        return NOTHING
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"watch is a cas.Watch or a mapping, not {given!r}")
    names = [field.name for field in fields(Watch)]
    for name in given:
        if name not in names:
            raise no_such("watch: no rule", name, names)
    return Watch(**{name: _value(name, value) for name, value in given.items()})


def _value(name: str, value: Any) -> Any:
    """Return a value of a mapping as `Watch` wants it."""
    return None if value is False and name in RULES[1:] else value


def _words(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    words: object = value
    if isinstance(value, str):
        try:
            words = shlex.split(value) if name == "command" else [value]
        except ValueError as error:
            raise InvalidInputError(f"watch: {name} cannot be read: {error}") from error
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise InvalidInputError(f"watch: {name} is a list of words, not {value!r}")
    return tuple(words)


def _check_limit(name: str, limit: Any) -> None:
    if limit is None:
        return
    if not _is_positive(limit):
        raise InvalidInputError(f"watch: {name} is a number above 0, not {limit!r}")
    if name in {"patience", "gap"} and limit != int(limit):
        raise InvalidInputError(f"watch: {name} is a whole number, not {limit!r}")


def _check_rules(action: str, rules: tuple[str, ...]) -> None:
    for rule in rules:
        if rule not in RULES:
            raise InvalidInputError(f"watch: {action} takes {', '.join(RULES)}, not {rule!r}")


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value > 0 and math.isfinite(value)


NOTHING: Final = Watch(not_finite=False, disk_full=None)
