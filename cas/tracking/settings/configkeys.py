"""The keys that a config may have, and what each accepts.

A check takes a value and the place where it stands, and returns the value in its one form; it
raises InvalidInputError that names the place and what would be right.
Format: docs/format/runconfig.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import InvalidInputError, no_such
from cas.repo.annotations import check_label
from cas.repo.retain.vocabulary import as_policy, as_words
from cas.tracking.captured.parts import Capture
from cas.tracking.checkpoints.strategy import as_strategy
from cas.tracking.names import check_name
from cas.tracking.privacy.redaction import Redaction
from cas.tracking.settings.place import Place
from cas.tracking.sinks.sink import KINDS as SINKS
from cas.tracking.watching.watch import as_watch

PARAMS: Final = "params"
# Where things are written of which a config says only that it wants them.
EXPORT_FOLDER: Final = "cas-export"
SINK_FILE: Final = "cas.jsonl"

Check = Callable[[Any, Place], Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a config: what it means, and how its value is checked."""

    about: str
    check: Check


def shown(value: object) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong(path: Place, accepted: str, value: object) -> InvalidInputError:
    return InvalidInputError(f"{path} is {accepted}, not {shown(value)}")


def _text(value: Any, path: Place) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(path, "text", value)
    return value


def _named(what: str) -> Check:
    def check(value: Any, path: Place) -> str:
        try:
            return check_name(value, what)
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from error

    return check


def _switch(value: Any, path: Place) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "true or false", value)
    return value


def _whole(value: Any, path: Place) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**64:
        raise _wrong(path, "a whole number", value)
    return value


def _count(value: Any, path: Place) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 10**12:
        raise _wrong(path, "a whole number from 1", value)
    return value


def _seconds(value: Any, path: Place) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        raise _wrong(path, "a number of seconds above 0", value)
    return float(value)


def _one_of(*words: str) -> Check:
    def check(value: Any, path: Place) -> str:
        if value not in words:
            raise _wrong(path, f"one of {', '.join(words)}", value)
        return str(value)

    return check


def _list_of(one: Check) -> Check:
    """Return a check of a list; a value that is none stands for a list of it alone."""

    def check(value: Any, path: Place) -> list[Any]:
        items = value if isinstance(value, list) else [value]
        return [one(item, path.at(number)) for number, item in enumerate(items)]

    return check


def _map_of(keys: Mapping[str, Check], *, needs: str = "") -> Check:
    def check(value: Any, path: Place) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong(path, f"a map with keys among {', '.join(keys)}", value)
        for name in value:
            if name not in keys:
                raise no_such(f"{path.on((*path.keys, name))}: no key", name, keys)
        if needs and value.get(needs) is None:
            raise InvalidInputError(f"{path}: {needs} is missing")
        told = ((name, item) for name, item in value.items() if item is not None)
        return {name: keys[name](item, path.at(name)) for name, item in told}

    return check


def _params(value: Any, path: Place) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(path, "a map of names to values", value)
    return dict(value)


def _label(value: Any, path: Place) -> str:
    try:
        return check_label(value)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def _by(make: Callable[[Any], object]) -> Check:
    """Return a check of a map that something can be made of, which names its own keys."""

    def check(value: Any, path: Place) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong(path, "a map", value)
        try:
            make(value)
        except InvalidInputError as error:
            keys = path.keys + _blamed(make, value, str(error))
            place = path.top if str(error).startswith(path.keys[-1]) else path
            raise InvalidInputError(f"{place.on(keys)}: {error}") from error
        return dict(value)

    return check


def _blamed(
    make: Callable[[Any], object], value: Mapping[str, Any], problem: str
) -> tuple[str, ...]:
    """Return the key of a map that is wrong by itself, where it is one key."""
    for name, item in value.items():
        try:
            make({name: item})
        except InvalidInputError as error:
            if str(error) == problem:
                return (name,)
    return ()


def _watch(value: Any, path: Place) -> Any:
    return value if isinstance(value, bool) else _by(as_watch)(value, path)


def _every(value: Any, path: Place) -> Any:
    if isinstance(value, Mapping):
        return {name: _count(item, path.at(name)) for name, item in value.items()}
    return _count(value, path)


def _interval(value: Any, path: Place) -> Any:
    return value if isinstance(value, bool) else _seconds(value, path)


def _retention(value: Any, path: Place) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(path, "a map of rules such as {last: 3, best: 1}", value)
    keep = as_policy(_by(as_policy)(value, path))
    return {} if keep is None else as_words(keep)


def _sink(value: Any, path: Place) -> dict[str, Any]:
    return dict(
        _map_of(SINK, needs="kind")({"kind": value} if isinstance(value, str) else value, path)
    )


SINK: Final[Mapping[str, Check]] = {"kind": _one_of(*SINKS), "path": _text}
EXPORT: Final[Mapping[str, Check]] = {"to": _one_of("json", "yaml"), "folder": _text}

KEYS: Final[Mapping[str, Key]] = {
    "experiment": Key("The experiment of the run.", _named("experiment")),
    "name": Key("The run's name.", _named("run")),
    "group": Key("A word that runs of one purpose share.", _text),
    "labels": Key("Words to find the run by.", _list_of(_label)),
    "notes": Key("What the run is for.", _text),
    "seed": Key("Seeds Python, NumPy and the frameworks.", _whole),
    "total": Key("How many steps the run will take.", _count),
    "resume": Key("Whether an unfinished run of this name goes on.", _one_of("never", "auto")),
    PARAMS: Key("The program's own values, nested as it likes.", _params),
    "strategy": Key("When checkpoints are saved.", _by(as_strategy)),
    "retention": Key("Which checkpoints are kept.", _retention),
    "capture": Key("What is recorded of code and environment.", _by(Capture.of)),
    "redaction": Key("What is taken out, or left, beside known secrets.", _by(Redaction.of)),
    "watch": Key("What to look out for.", _watch),
    "log_every": Key("How many steps lie between two points that are kept.", _every),
    "system_metrics": Key("How often the machine is looked at, in seconds.", _interval),
    "sinks": Key(
        "Where metrics go as well, as they come.",
        _list_of(_sink),
    ),
    "export": Key("A copy of the whole record at the end.", _map_of(EXPORT, needs="to")),
}
