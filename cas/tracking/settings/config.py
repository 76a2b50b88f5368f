"""What a config of runs may say, and what it says in effect.

A config is plain data with the keys of `configkeys`. A named environment overrides what stands
beside it; what a program is given (`-p`) overrides its params. A wrong key or value is named with
what would be right, in every environment, chosen or not. Reading files: `configfile`.
Format: docs/format/runconfig.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cas.errors import InvalidInputError, NotFoundError, no_such
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import as_policy
from cas.tracking.settings.configkeys import EXPORT_FOLDER, KEYS, PARAMS, SINK_FILE, shown
from cas.tracking.settings.lines import Lines
from cas.tracking.settings.place import NO_LINES, Place

ENVIRONMENT: Final = "environment"
ENVIRONMENTS: Final = "environments"
MAX_VALUES: Final = 100_000  # in a config, what YAML repeats by a name counted each time
MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Config:
    """A config in effect: the environment applied, every value checked.

    `config["training.lr"]` is a param, `config.params` all of them as nested maps; `words` is all
    that the config says, and `source` where it stood.
    """

    words: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def params(self) -> dict[str, Any]:
        """The values that the program itself works with."""
        return dict(self.words.get(PARAMS, {}))

    @property
    def retention(self) -> Keep | None:
        """The retention policy, None for none."""
        return as_policy(self.words.get("retention"))

    def __getitem__(self, name: str) -> Any:
        """Return the param with this name, parts joined by dots; raise NotFoundError."""
        found = _looked_up(self.words.get(PARAMS, {}), name)
        if found is MISSING:
            raise NotFoundError("param", name, f"{self.source or 'the config'} does not say it")
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return the param with this name, parts joined by dots, else the default."""
        found = _looked_up(self.words.get(PARAMS, {}), name)
        return default if found is MISSING else found


MISSING: Final = object()


def resolve(
    told: Any,
    source: str = "the config",
    *,
    environment: str | None = None,
    params: Mapping[str, Any] | None = None,
    lines: Callable[[], Lines] = NO_LINES,
) -> Config:
    """Return what a config says in one environment, with some params replaced.

    Without `environment` it is the config's own key of that name, if any. The names of `params` are
    joined by dots, and `lines` tells the lines of the file. Raises InvalidInputError that names the
    key, its line and what is accepted.
    """
    top = Place(source, lines=lines)
    plain = _plain(told, top)
    known = plain.pop(ENVIRONMENTS, None) or {}
    default = plain.pop(ENVIRONMENT, None)
    if not isinstance(known, dict):
        raise InvalidInputError(f"{top.at(ENVIRONMENTS)} are maps by name, not {shown(known)}")
    checked: dict[str | None, dict[str, Any]] = {None: _checked(plain, top)}
    for name, over in known.items():
        where = replace(top, within=(ENVIRONMENTS, name))
        if not isinstance(over, Mapping):
            raise InvalidInputError(f"{where} is a map of settings, not {shown(over)}")
        checked[name] = _checked(_merged(plain, over), where)
    chosen = environment or default
    if chosen is not None and (not isinstance(chosen, str) or chosen not in checked):
        place = f"{top if environment else top.on((ENVIRONMENT,))}: no environment"
        if known:
            raise no_such(place, chosen, known)
        raise InvalidInputError(f"{place} {shown(chosen)}; it has no {ENVIRONMENTS}")
    words = dict(checked[chosen]) | ({} if chosen is None else {ENVIRONMENT: chosen})
    if params:
        words[PARAMS] = replaced(words.get(PARAMS, {}), params)
    return Config(words, source)


def in_effect(words: Any, source: str) -> Config:
    """Return a config that `resolve` has made before, as it was passed on or recorded."""
    plain = _plain(words, Place(source))
    chosen = plain.pop(ENVIRONMENT, None)
    checked = _checked(plain, Place(source))
    return Config(checked | ({} if chosen is None else {ENVIRONMENT: chosen}), source)


def written(words: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Yield where a run with this config writes beside the repository, or one by default would."""
    yield folder / (words.get("export") or {}).get("folder", EXPORT_FOLDER)
    yield folder / SINK_FILE
    yield from (folder / sink["path"] for sink in words.get("sinks", ()) if "path" in sink)


def replaced(params: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return params with some replaced, whose names are joined by dots: `training.lr`.

    Raises InvalidInputError for a name below something that is no map.
    """
    found = dict(params)
    for name, value in over.items():
        found = _with(found, name.split("."), value, name)
    return found


def _checked(words: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return the words with every value checked; what is null is not said."""
    found = {}
    for name, value in words.items():
        if name not in KEYS:
            known = [*KEYS, ENVIRONMENT, ENVIRONMENTS]
            error = no_such(f"{place.on((name,))}: no key", name, known)
            raise InvalidInputError(f"{error} (a program's own values stand below {PARAMS})")
        if value is not None:
            found[name] = KEYS[name].check(value, place.at(name))
    return found


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` overridden: maps key by key, everything else as a whole."""
    found = dict(base)
    for name, value in over.items():
        before = found.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            found[name] = _merged(before, value)
        else:
            found[name] = value
    return found


def _with(params: Mapping[str, Any], parts: list[str], value: Any, name: str) -> dict[str, Any]:
    """Return params with one replaced that stands below as many maps as its name has dots."""
    first, *rest = parts
    if not first:
        raise InvalidInputError(f"-p {name}: a name is parts joined by single dots")
    if not rest:
        return {**params, first: value}
    below = params.get(first, {})
    if not isinstance(below, Mapping):
        raise InvalidInputError(f"-p {name}: {first} is {shown(below)} in the config, not a map")
    return {**params, first: _with(below, rest, value, name)}


def _looked_up(params: Any, name: str) -> Any:
    if isinstance(params, Mapping) and name in params:
        return params[name]
    first, _, rest = name.partition(".")
    if not rest or not isinstance(params, Mapping) or first not in params:
        return MISSING
    return _looked_up(params[first], rest)


def _plain(told: Any, top: Place) -> dict[str, Any]:
    """Return plain data of a map of settings, bounded; raise InvalidInputError."""
    if not isinstance(told, Mapping):
        raise InvalidInputError(f"{top} is a map of settings, not {shown(told)}")
    found: dict[str, Any] = _copied(told, top, [0])
    return found


def _copied(value: Any, place: Place, count: list[int]) -> Any:
    count[0] += 1
    if count[0] > MAX_VALUES or len(place.keys) > MAX_DEPTH:
        raise InvalidInputError(
            f"{place.source} has more than {MAX_VALUES:,} values or {MAX_DEPTH} levels: "
            "that is data"
        )
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                where = place.on((*place.keys, str(key)))
                raise InvalidInputError(f"{where}: the key {key!r} is no text: put it in quotes")
        return {key: _copied(item, place.at(key), count) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item, place.at(number), count) for number, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "isoformat"):  # TOML has dates and times
        return value.isoformat()
    raise InvalidInputError(f"{place}: {shown(value)} is no text, number, truth value or list")
