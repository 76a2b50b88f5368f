"""The one encoding that ids are computed over: a subset of msgpack in exactly one form.

The only home of `msgpack`. `encode` writes the canonical form; `decode` is fast and safe but takes
any form; `check` insists on the canonical one. Local reads have the id to vouch and use `decode`,
what comes from elsewhere goes through `check`.

Format: docs/format/objects.md.
"""

from typing import TypeAlias

from msgpack import packb, unpackb  # type: ignore[import-untyped]

from cas.errors import CasError, CorruptionError, InvalidInputError
from cas.ids import Buffer

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | dict[str, Value] | None"

MAX_DEPTH = 64
# An empty array is one byte, and fifty times that in memory.
MAX_CONTAINERS = 8 * 1024 * 1024
UNCOUNTED = 4 * 1024 * 1024  # so few bytes hold no more of them than memory bears
MIN_INT = -(2**63)
MAX_INT = 2**64 - 1

TYPES = frozenset({type(None), bool, int, float, str, bytes, list, dict})
CONTAINERS = frozenset({list, dict})
TEXT = frozenset({str})


def encode(value: object) -> bytes:
    """Return the canonical bytes of `value`.

    Takes exactly the types of `Value`, no subclasses; raises InvalidInputError for anything else,
    for an integer out of range, text that is not Unicode, nesting beyond MAX_DEPTH, and more than
    MAX_CONTAINERS arrays and maps.
    """
    try:
        packed: bytes = packb(_ordered([value], 0)[0], strict_types=True)
    except OverflowError as error:
        raise InvalidInputError(f"integers go from {MIN_INT} to {MAX_INT}") from error
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"text is not valid Unicode: {error.object!r}") from error
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"value has no canonical form: {error}") from error
    if len(packed) > UNCOUNTED:
        _unpacked_and_counted(packed, InvalidInputError)  # what is written must be read again
    return packed


def decode(data: Buffer) -> Value:
    """Return the value of `data`, canonical or not; raise CorruptionError.

    No container is made larger than the bytes could fill, and no more than MAX_CONTAINERS are.
    """
    try:
        if len(data) > UNCOUNTED:
            value = _unpacked_and_counted(data, CorruptionError)
        else:
            value = unpackb(data, strict_map_key=True)
    except (ValueError, OverflowError) as error:
        raise CorruptionError(
            f"not canonical bytes: {str(error) or type(error).__name__}"
        ) from error
    _inspect(value)
    return value


def check(data: Buffer) -> Value:
    """Return the value of `data`; raise CorruptionError unless it is in canonical form."""
    value = decode(data)
    if encode(value) != data:
        raise CorruptionError("bytes are not in canonical form")
    return value


def _unpacked_and_counted(data: Buffer, refusal: type[CasError]) -> Value:
    left = MAX_CONTAINERS

    def count(container: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise refusal(f"more than {MAX_CONTAINERS} arrays and maps in one value")
        return container

    value: Value = unpackb(data, strict_map_key=True, list_hook=count, object_hook=count)
    return value


def _ordered(items: list[object], depth: int) -> list[object]:
    """Return `items` with every map below sorted; check types and nesting."""
    # One look at the set of types is all that a column of a million scalars costs.
    kinds = set(map(type, items))
    if not kinds <= TYPES:
        strange = sorted(kind.__name__ for kind in kinds - TYPES)
        raise InvalidInputError(f"canonical bytes hold no {', '.join(strange)}")
    if kinds.isdisjoint(CONTAINERS):
        return items
    if depth == MAX_DEPTH:
        raise InvalidInputError(f"nesting goes beyond {MAX_DEPTH} levels")
    return [_ordered_one(item, depth + 1) for item in items]


def _ordered_one(item: object, depth: int) -> object:
    if isinstance(item, list):
        return _ordered(item, depth)
    if isinstance(item, dict):
        if not set(map(type, item)) <= TEXT:
            raise InvalidInputError("the keys of a map are text")
        # Code points sort as their UTF-8 bytes do.
        keys = sorted(item)
        return dict(zip(keys, _ordered([item[key] for key in keys], depth), strict=True))
    return item


def _inspect(value: Value) -> None:
    """Refuse types, keys and nesting that msgpack lets through."""
    level: list[list[Value]] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        below: list[list[Value]] = []
        for items in level:
            kinds = set(map(type, items))
            if not kinds <= TYPES:
                raise CorruptionError("canonical bytes hold no extension types")
            if not kinds.isdisjoint(CONTAINERS):
                below.extend(_contents(item) for item in items if type(item) in CONTAINERS)
        if not below:
            return
        level = below
    raise CorruptionError(f"nesting goes beyond {MAX_DEPTH} levels")


def _contents(container: Value) -> list[Value]:
    if isinstance(container, list):
        return container
    assert isinstance(container, dict)
    if not set(map(type, container)) <= TEXT:
        raise CorruptionError("the keys of a map are text")
    return list(container.values())
