"""The edges between objects: the one walk step that gc, fsck, fetch and checkout stand on."""

from collections.abc import Iterator

from cas.ids import Buffer, ObjectId
from cas.objects import canonical
from cas.objects.commit import Commit
from cas.objects.kind import ID_OF, Kind
from cas.objects.manifest import Manifest, Series, State, manifest_from_bytes
from cas.objects.node import EntryKind, Node

__all__ = ["Kind", "Object", "id_of", "parse", "references"]

# A blob is its bytes: it has no structure, and it names nothing.
Object = bytes | Manifest | Node | Commit
Edge = tuple[Kind, ObjectId]

# By the byte in a leaf's `kinds`. What is only named has bit 7 set and is not here; a link has no
# object of its own.
TARGETS = {
    int(EntryKind.FILE): Kind.BLOB,
    int(EntryKind.TREE): Kind.TREE,
    int(EntryKind.STATE): Kind.MANIFEST,
    int(EntryKind.SERIES): Kind.MANIFEST,
}


def references(obj: Object) -> Iterator[Edge]:
    """Yield every object that `obj` needs, with its kind, in stored order."""
    match obj:
        case bytes():
            return
        case State() | Series():
            yield from ((Kind.BLOB, blob) for blob in obj.blobs())
        case Node():
            yield from _below(obj)
        case Commit():
            yield from _from_commit(obj)


def parse(kind: Kind, raw: Buffer, *, strict: bool = False) -> Object:
    """Read an object of this kind; raise CorruptionError or UnsupportedError.

    `strict` also insists on canonical form, for what comes from elsewhere and for fsck.
    """
    if strict and kind != Kind.BLOB:
        canonical.check(raw)
    match kind:
        case Kind.BLOB:
            return bytes(raw)
        case Kind.MANIFEST:
            return manifest_from_bytes(raw)
        case Kind.TREE:
            return Node.from_bytes(raw)
        case Kind.COMMIT:
            return Commit.from_bytes(raw)


def id_of(kind: Kind, raw: Buffer) -> ObjectId:
    """Return the id of the object of this kind with these bytes."""
    return ID_OF[kind](raw)


def _below(node: Node) -> Iterator[Edge]:
    if node.level:
        yield from ((Kind.TREE, node.id_at(row)) for row in range(len(node.names)))
        return
    for row, byte in enumerate(node.kinds):
        target = TARGETS.get(byte)
        if target is not None:
            yield target, node.id_at(row)


def _from_commit(commit: Commit) -> Iterator[Edge]:
    yield Kind.TREE, commit.tree
    if commit.payload is not None:
        yield Kind.TREE, commit.payload
    yield from ((Kind.COMMIT, parent.commit) for parent in commit.parents)
