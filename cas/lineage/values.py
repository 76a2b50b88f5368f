"""Two nested documents (params, environment, seeds) value by value, by dotted path."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

ADDED: Final = "added"
REMOVED: Final = "removed"
CHANGED: Final = "changed"


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value that is not what it was; `old` or `new` is None where `how` says it is absent."""

    path: str
    how: str
    old: Any = None
    new: Any = None


def changes(old: object, new: object) -> tuple[ValueChange, ...]:
    """Return what differs between two nested values, in order of the paths.

    Maps are compared key by key, all else as one value. 1 and 1.0 are the same, NaN is itself.
    """
    return tuple(_changes(_mapping(old), _mapping(new), ""))


def same(left: object, right: object) -> bool:
    """Say whether two plain values mean the same."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right or (_is_nan(left) and _is_nan(right))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> Iterator[ValueChange]:
    for key in sorted(old.keys() | new.keys()):
        path = f"{at}.{key}" if at else str(key)
        if key not in new:
            yield from _leaves(old[key], path, REMOVED)
        elif key not in old:
            yield from _leaves(new[key], path, ADDED)
        else:
            before, after = old[key], new[key]
            if isinstance(before, Mapping) and isinstance(after, Mapping):
                yield from _changes(before, after, path)
            elif not same(before, after):
                yield ValueChange(path, CHANGED, before, after)


def _leaves(value: object, path: str, how: str) -> Iterator[ValueChange]:
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from _leaves(value[key], f"{path}.{key}", how)
    elif how == ADDED:
        yield ValueChange(path, how, new=value)
    else:
        yield ValueChange(path, how, old=value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124 - NaN alone differs so
