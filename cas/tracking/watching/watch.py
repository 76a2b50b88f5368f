"""What to look out for while a run goes on, what to do then, and whom to tell."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from cas.errors import InvalidInputError

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
    called with it. `monitor` and `mode` say what to improve, the run's own by default. A rule named
    in `checkpoint` asks for a checkpoint, one in `stop` for the end of training: see
    `Run.should_checkpoint` and `Run.should_stop`.
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
            limit = getattr(self, name)
            if limit is not None and not _is_positive(limit):
                raise InvalidInputError(f"watch: {name} is a number above 0, not {limit!r}")
        if self.mode not in {None, "min", "max"}:
            raise InvalidInputError(f"watch: mode is 'min' or 'max', not {self.mode!r}")
        for action in ("checkpoint", "stop"):
            for rule in getattr(self, action):
                if rule not in RULES:
                    known = ", ".join(RULES)
                    raise InvalidInputError(f"watch: {action} takes {known}, not {rule!r}")
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            raise InvalidInputError("watch: webhook is an http:// or https:// address")


NOTHING: Final = Watch(not_finite=False, disk_full=None)


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
            raise InvalidInputError(f"watch: no rule {name!r}; there are {', '.join(names)}")
    return Watch(**{name: _value(name, value) for name, value in given.items()})


def _value(name: str, value: Any) -> Any:
    """Return a value of a mapping as `Watch` wants it."""
    if name == "command" and isinstance(value, str):
        return tuple(shlex.split(value))
    if name in {"checkpoint", "stop", "command"}:
        return _words(name, value)
    return None if value is False and name in RULES[1:] else value


def _words(name: str, value: object) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if words is None:
        return ()
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise InvalidInputError(f"watch: {name} is a list of words, not {value!r}")
    return tuple(words)


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value > 0 and math.isfinite(value)
