"""The kinds of object, as a record states them."""

from enum import IntEnum


class Kind(IntEnum):
    """What an object is; the number stands in stored headers."""

    BLOB = 1
    MANIFEST = 2
    TREE = 3
    COMMIT = 4
