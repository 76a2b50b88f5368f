"""Two trees into the paths that differ.

Descends only into what differs: equal directories have equal ids, and of two large directories the
nodes that both have are passed over, so that one changed file among a million costs a few nodes.
Format: docs/format/tree.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cas.errors import CorruptionError
from cas.ids import TreeId
from cas.objects.tree import Entry, EntryKind, Node
from cas.repo.repo import Repo
from cas.repo.trees.names import MAX_NESTING, shown

_Leaf = tuple[TreeId, Node | None]  # the node where it is read already


@dataclass(frozen=True, slots=True)
class Change:
    """A path whose entry differs; None stands for absent."""

    path: bytes
    old: Entry | None
    new: Entry | None


def diff(repo: Repo, old: TreeId | None, new: TreeId | None) -> Iterator[Change]:
    """Yield every path that is in one tree only or differs, parents before children.

    A directory in both is itself a change only when its permission bits differ; what differs below
    it follows. A file that became a directory, or the reverse, is one change of that path; what was
    or is below follows.
    """
    return _diff(repo, b"", old, new)


def _diff(repo: Repo, path: bytes, old: TreeId | None, new: TreeId | None) -> Iterator[Change]:
    if old == new:
        return
    if path.count(b"/") > MAX_NESTING:
        raise CorruptionError(f"{shown(path)} is nested more than {MAX_NESTING} folders deep")
    for change in _pairs(repo, path, old, new):
        left, right = _directory(change.old), _directory(change.new)
        if left is None or right is None or _mode(change.old) != _mode(change.new):
            yield change
        yield from _diff(repo, change.path, left, right)


def _pairs(repo: Repo, path: bytes, old: TreeId | None, new: TreeId | None) -> Iterator[Change]:
    """Yield the entries of two directories that differ, side by side, in order."""
    front = path + b"/" if path else b""
    befores, afters = (_entries(repo, leaves) for leaves in _leaves(repo, old, new))
    before, after = next(befores, None), next(afters, None)
    while before is not None or after is not None:
        if after is None or (before is not None and before.name < after.name):
            assert before is not None
            yield Change(front + before.name, before, None)
            before = next(befores, None)
        elif before is None or after.name < before.name:
            yield Change(front + after.name, None, after)
            after = next(afters, None)
        else:
            if before != after:
                yield Change(front + after.name, before, after)
            before, after = next(befores, None), next(afters, None)


def _leaves(repo: Repo, old: TreeId | None, new: TreeId | None) -> tuple[list[_Leaf], list[_Leaf]]:
    """Return the leaves of two directories, in order, without those that both have."""
    sides = [[] if id is None else [(id, repo.node(id))] for id in (old, new)]
    left, right = list[_Leaf](sides[0]), list[_Leaf](sides[1])
    while any(node is not None and node.level for _, node in left + right):
        # The highest first, so that both sides come to the same level together.
        level = max(node.level for _, node in left + right if node is not None)
        left, right = _lowered(repo, left, level), _lowered(repo, right, level)
        common = {id for id, _ in left} & {id for id, _ in right}
        left = [leaf for leaf in left if leaf[0] not in common]
        right = [leaf for leaf in right if leaf[0] not in common]
    return left, right


def _lowered(repo: Repo, nodes: list[_Leaf], level: int) -> list[_Leaf]:
    """Replace the nodes of one level by their children; read these unless they must be leaves."""
    lower: list[_Leaf] = []
    for id, node in nodes:
        if node is None or node.level < level:
            lower.append((id, node))
        else:
            ids = (child.id for child in node.children())
            lower += ((child, repo.node(child) if level > 1 else None) for child in ids)
    return lower


def _entries(repo: Repo, leaves: list[_Leaf]) -> Iterator[Entry]:
    last = b""
    for id, node in leaves:
        for entry in (node or repo.node(id)).entries():
            if entry.name <= last:
                raise CorruptionError(f"tree {id}: nodes overlap at {shown(entry.name)}")
            yield entry
            last = entry.name


def _directory(entry: Entry | None) -> TreeId | None:
    stored = entry is not None and entry.stored and entry.kind is EntryKind.TREE
    return TreeId(entry.id) if entry is not None and stored else None


def _mode(entry: Entry | None) -> int | None:
    return None if entry is None else entry.mode
