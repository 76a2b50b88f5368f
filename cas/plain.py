"""Any of our values as plain JSON data, and sizes and lists as people read them."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from cas.ids import ObjectId

UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def human_bytes(count: int) -> str:
    """Return a size such as `12.3 MB`."""
    size = float(count)
    for unit in UNITS:
        if abs(size) < 999.95 or unit == UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def human_share(stored: int, given: int) -> str:
    """Return what was stored of what was given, such as `3.0 MB of 12.0 MB given (25 %)`.

    Of little that was given, what a store writes about each object takes more than is saved: then
    it is `4.1 kB: 3.0 kB given, the rest is bookkeeping`, as a share of 137 % says nothing.
    """
    percent = round(100 * stored / given) if given else 0
    if percent > 100:
        return f"{human_bytes(stored)}: {human_bytes(given)} given, the rest is bookkeeping"
    share = f" ({percent} %)" if given else ""
    return f"{human_bytes(stored)} of {human_bytes(given)} given{share}"


def few(items: Sequence[str], most: int) -> str:
    """Return the first of some names, and how many more there are: `a, b and 3 more`."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def plain(value: object) -> Any:
    """Return `value` as dicts, lists, strings, numbers, booleans and None.

    Ids become hex, other bytes text with surrogate escapes, enums their lower-case names, frozen
    values dicts of their fields.
    """
    if isinstance(value, Enum):
        return value.name.lower()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return str(value) if isinstance(value, ObjectId) else _text(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    return _fields(value)


def _fields(value: object) -> Any:
    from dataclasses import fields, is_dataclass

    if not is_dataclass(value):
        return str(value)
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}


def _key(key: object) -> str:
    text = plain(key)
    return text if isinstance(text, str) else str(text)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
