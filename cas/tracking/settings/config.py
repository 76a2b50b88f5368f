"""What a config of runs may say, and what it says in effect.

A config is plain data with the keys of `configkeys`. A named environment overrides what stands
beside it; what a program is given (`-p`) overrides its params. A wrong key or value is named with
what would be right, in every environment, chosen or not. Reading files: `configfile`.
Format: docs/format/runconfig.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cas.errors import InvalidInputError, NotFoundError
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import as_policy
from cas.tracking.settings.configkeys import KEYS, PARAMS, shown

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
) -> Config:
    """Return what a config says in one environment, with some params replaced.

    Without `environment` it is the config's own key of that name, if any. The names of `params` are
    joined by dots. Raises InvalidInputError that names the key and what is accepted.
    """
    if not isinstance(told, Mapping):
        raise InvalidInputError(f"{source} is a map of settings, not {shown(told)}")
    plain = _plain(told, source, [0])
    known = plain.pop(ENVIRONMENTS, None) or {}
    default = plain.pop(ENVIRONMENT, None)
    if not isinstance(known, dict):
        raise InvalidInputError(f"{source}: {ENVIRONMENTS} are maps by name, not {shown(known)}")
    checked: dict[str | None, dict[str, Any]] = {None: _checked(plain, source)}
    for name, over in known.items():
        where = f"{source}: {ENVIRONMENTS}.{name}"
        if not isinstance(over, Mapping):
            raise InvalidInputError(f"{where} is a map of settings, not {shown(over)}")
        checked[name] = _checked(_merged(plain, over), where)
    chosen = environment or default
    if chosen is not None and (not isinstance(chosen, str) or chosen not in checked):
        there = f"there are {', '.join(known)}" if known else f"it has no {ENVIRONMENTS}"
        raise InvalidInputError(f"{source}: no environment {shown(chosen)}; {there}")
    words = dict(checked[chosen]) | ({} if chosen is None else {ENVIRONMENT: chosen})
    if params:
        words[PARAMS] = replaced(words.get(PARAMS, {}), params)
    return Config(words, source)


def in_effect(words: Any, source: str) -> Config:
    """Return a config that `resolve` has made before, as it was passed on or recorded."""
    if not isinstance(words, Mapping):
        raise InvalidInputError(f"{source} is a map of settings, not {shown(words)}")
    plain = _plain(words, source, [0])
    chosen = plain.pop(ENVIRONMENT, None)
    return Config(
        _checked(plain, source) | ({} if chosen is None else {ENVIRONMENT: chosen}), source
    )


def replaced(params: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return params with some replaced, whose names are joined by dots: `training.lr`.

    Raises InvalidInputError for a name below something that is no map.
    """
    found = dict(params)
    for name, value in over.items():
        found = _with(found, name.split("."), value, name)
    return found


def _checked(words: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the words with every value checked; what is null is not said."""
    found = {}
    for name, value in words.items():
        if name not in KEYS:
            there = ", ".join([*KEYS, ENVIRONMENT, ENVIRONMENTS])
            raise InvalidInputError(
                f"{source}: no key {name!r}; there are {there}: "
                f"a program's own values stand below {PARAMS}"
            )
        if value is not None:
            found[name] = KEYS[name].check(value, f"{source}: {name}")
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


def _plain(value: Any, source: str, count: list[int], depth: int = 0) -> Any:
    """Return plain data of the given value, bounded; raise InvalidInputError."""
    count[0] += 1
    if count[0] > MAX_VALUES or depth > MAX_DEPTH:
        raise InvalidInputError(
            f"{source} has more than {MAX_VALUES:,} values or {MAX_DEPTH} levels: that is data"
        )
    if isinstance(value, Mapping):
        found = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInputError(f"{source}: the key {key!r} is no text: put it in quotes")
            found[key] = _plain(item, source, count, depth + 1)
        return found
    if isinstance(value, list | tuple):
        return [_plain(item, source, count, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "isoformat"):  # TOML has dates and times
        return value.isoformat()
    raise InvalidInputError(f"{source}: {shown(value)} is no text, number, truth value or list")
