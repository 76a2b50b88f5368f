"""Trees: directories of any size as nodes that change little when the directory does.

Where a node ends is decided by the names alone, so that one set of entries has one root id however
it came about, and one changed entry among a million writes a few nodes. Building and scanning keep
one node per level in memory.

Format: docs/format/tree.md.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cas.errors import CorruptionError, InvalidInputError
from cas.ids import TreeId, digest
from cas.objects.node import (
    MAX_ENTRIES,
    NAMED_ONLY,
    Child,
    Entry,
    EntryKind,
    Node,
    stored_name,
)

__all__ = ["Child", "Entry", "EntryKind", "Node", "TreeSummary", "build", "find", "scan"]

BOUNDARY = 1024

Read = Callable[[TreeId], Node]
Write = Callable[[bytes], TreeId]


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """A directory that was written: its root, the bytes below it and the entries in it."""

    id: TreeId
    size: int
    count: int


def build(entries: Iterable[Entry], write: Write) -> TreeSummary:
    """Write a directory's nodes, children first, and return its root.

    The entries come in strict raw-byte order of their names; InvalidInputError otherwise.
    """
    builder = _Builder(write)
    for entry in entries:
        builder.add(entry)
    return builder.finish()


def scan(root: TreeId, read: Read) -> Iterator[Entry]:
    """Yield all entries of one directory in order; raise CorruptionError where nodes disagree."""
    top = read(root)
    after = b""
    pending = [(top, iter(()) if top.level == 0 else top.children())]
    while pending:
        node, children = pending[-1]
        child = next(children, None)
        if node.level and child:
            below = _checked(node, child, read)
            pending.append((below, below.children() if below.level else iter(())))
            continue
        pending.pop()
        if node.level == 0:
            for entry in node.entries():
                if entry.name <= after:
                    raise CorruptionError(f"tree {root}: nodes overlap at {entry.name!r}")
                yield entry
                after = entry.name


def find(root: TreeId, name: bytes, read: Read) -> Entry | None:
    """Return the entry with this name, None when there is none; reads one node per level."""
    node = read(root)
    while node.level:
        row = node.row_of(name)
        if row == len(node.names):
            return None
        node = _checked(node, node.child_at(row), read)
    return node.find(name)


def _checked(node: Node, child: Child, read: Read) -> Node:
    """Read a child and hold it to what its parent says of it."""
    below = read(child.id)
    found = (below.last, below.size, below.count)
    if below.level >= node.level or found != (child.last, child.size, child.count):
        raise CorruptionError(f"tree {child.id} is not what its parent node says")
    return below


class _Builder:
    """Cuts a stream of entries into nodes, one open node per level."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._last = b""
        self._leaf = _Leaf()
        self._inner: list[_Inner] = []

    def add(self, entry: Entry) -> None:
        name = entry.name
        if name <= self._last:
            raise InvalidInputError(
                f"{name!r} cannot follow {self._last!r}: a tree is in strict raw-byte order"
            )
        self._last = name
        self._leaf.add(entry)
        if len(self._leaf.names) == MAX_ENTRIES or _ends(name):
            self._close_leaf()

    def finish(self) -> TreeSummary:
        if self._leaf.names or not self._last:
            self._close_leaf()
        level = 0
        # A level that passed nothing on holds everything: its node, or its only child, is the root.
        while self._inner[level].passed:
            self._close(level)
            level += 1
        root = self._inner[level].take(self._write)
        return TreeSummary(root.id, root.size, root.count)

    def _close_leaf(self) -> None:
        node = self._leaf.node()
        self._leaf = _Leaf()
        id = self._write(node.to_bytes())
        self._push(0, Child(self._last, id, node.size, node.count))

    def _push(self, level: int, child: Child) -> None:
        if level == len(self._inner):
            self._inner.append(_Inner(level + 1))
        inner = self._inner[level]
        inner.children.append(child)
        if len(inner.children) == MAX_ENTRIES or _ends(child.last, bytes([level + 1])):
            self._close(level)

    def _close(self, level: int) -> None:
        inner = self._inner[level]
        if inner.children:
            self._push(level + 1, inner.take(self._write))
            inner.passed = True


class _Leaf:
    """The columns of the leaf that is being filled."""

    def __init__(self) -> None:
        self.names: list[str | bytes] = []
        self.kinds = bytearray()
        self.modes: list[int] = []
        self.sizes: list[int] = []
        self.ids = bytearray()
        self.links: list[bytes] = []

    def add(self, entry: Entry) -> None:
        if (entry.kind == EntryKind.LINK) != (entry.link is not None):
            raise InvalidInputError(f"{entry.name!r}: a link has a target, nothing else has one")
        self.names.append(stored_name(entry.name))
        self.kinds.append(entry.kind if entry.stored else entry.kind | NAMED_ONLY)
        self.modes.append(entry.mode)
        self.sizes.append(entry.size)
        self.ids += entry.id
        if entry.link is not None:
            self.links.append(entry.link)

    def node(self) -> Node:
        return Node(
            level=0,
            names=self.names,
            ids=bytes(self.ids),
            sizes=self.sizes,
            kinds=bytes(self.kinds),
            modes=self.modes,
            links=self.links,
        )


class _Inner:
    """The children of the inner node that is being filled; `passed` once it gave one upwards."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.children: list[Child] = []
        self.passed = False

    def take(self, write: Write) -> Child:
        """Write the node and start the next; a node with one child is replaced by it."""
        children, self.children = self.children, []
        if len(children) == 1:
            return children[0]
        node = Node(
            level=self.level,
            names=[stored_name(child.last) for child in children],
            ids=b"".join(child.id for child in children),
            sizes=[child.size for child in children],
            counts=[child.count for child in children],
        )
        return Child(children[-1].last, write(node.to_bytes()), node.size, node.count)


def _ends(name: bytes, suffix: bytes = b"") -> bool:
    """Say whether a node ends after this name."""
    return int.from_bytes(digest(name, suffix, size=4), "little") % BOUNDARY == 0
