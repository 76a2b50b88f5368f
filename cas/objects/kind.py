"""The kinds of object, as a record states them, and how each is named."""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from cas.ids import Buffer, ObjectId, blob_id, commit_id, manifest_id, tree_id


class Kind(IntEnum):
    """What an object is; the number stands in stored headers."""

    BLOB = 1
    MANIFEST = 2
    TREE = 3
    COMMIT = 4


# The id of an object of each kind, from its bytes; canonical ones but for a blob.
ID_OF: Final[dict[Kind, Callable[[Buffer], ObjectId]]] = {
    Kind.BLOB: blob_id,
    Kind.MANIFEST: manifest_id,
    Kind.TREE: tree_id,
    Kind.COMMIT: commit_id,
}
