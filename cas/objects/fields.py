"""The fields of one decoded object, asked for by name and type.

Every object is a map with a version `v` and exactly the fields of that version: what is missing or
unknown is refused, what has another type is corruption. Nothing that was read is trusted before it
came through here.

Format: docs/format/objects.md.
"""

from typing import Any, TypeVar

from cas.errors import CorruptionError, UnsupportedError
from cas.ids import Buffer, ObjectId
from cas.objects import canonical

T = TypeVar("T")


class Fields:
    """A decoded map whose fields are typed when they are taken."""

    __slots__ = ("_map", "what")

    def __init__(self, what: str, raw: Buffer, version: int) -> None:
        """Decode `raw`; raise CorruptionError for no map, UnsupportedError for a newer version."""
        self.what = what
        value = canonical.decode(raw)
        if not isinstance(value, dict):
            raise CorruptionError(f"a {what} is a map, not a {type(value).__name__}")
        self._map: dict[str, Any] = value
        found = self.take("v", int)
        if found > version:
            raise UnsupportedError(f"{what} version {found}; this cas reads up to {version}")
        if found < 1:
            raise CorruptionError(f"{what} has version {found}")

    def expect(self, names: frozenset[str]) -> None:
        """Refuse a map that has not exactly these fields."""
        if self._map.keys() != names:
            wrong = ", ".join(repr(name) for name in sorted(self._map.keys() ^ names)[:5])
            raise CorruptionError(f"{self.what} has missing or unknown fields: {wrong}")

    def take(self, name: str, kind: type[T]) -> T:
        """Return the field `name`, which is exactly of type `kind`."""
        value = self._map.get(name)
        if type(value) is not kind:
            raise CorruptionError(
                f"{self.what}: {name} is {type(value).__name__}, not {kind.__name__}"
            )
        return value

    def maybe(self, name: str, kind: type[T]) -> T | None:
        """Return the field `name`, or None when it is nil."""
        return None if self._map.get(name) is None else self.take(name, kind)

    def any(self, name: str) -> Any:
        """Return the field `name` as it was decoded, of whatever type."""
        return self._map.get(name)

    def natural(self, name: str) -> int:
        """Return the integer field `name`, which is not negative."""
        value = self.take(name, int)
        if value < 0:
            raise CorruptionError(f"{self.what}: {name} is negative")
        return value

    def column(self, name: str, kinds: frozenset[type], count: int | None = None) -> list[Any]:
        """Return the list `name`: `count` long when given, every item exactly of one of `kinds`."""
        items = self.take(name, list)
        if count is not None and len(items) != count:
            raise CorruptionError(f"{self.what}: {name} has {len(items)} rows, not {count}")
        if not set(map(type, items)) <= kinds:
            raise CorruptionError(f"{self.what}: {name} holds something of another type")
        return items

    def packed(self, name: str, width: int, count: int) -> bytes:
        """Return the bin `name`, which holds `count` values of `width` bytes each."""
        raw = self.take(name, bytes)
        if len(raw) != width * count:
            raise CorruptionError(f"{self.what}: {name} has {len(raw)} bytes, not {width * count}")
        return raw

    def ids(self, name: str, count: int) -> list[ObjectId]:
        """Return the `count` ids of the bin `name`."""
        return split_ids(self.packed(name, ObjectId.SIZE, count))


def split_ids(packed: bytes) -> list[ObjectId]:
    """Return the ids that stand one after another in `packed`."""
    size = ObjectId.SIZE
    return [ObjectId(packed[at : at + size]) for at in range(0, len(packed), size)]
