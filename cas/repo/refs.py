"""The refs of a root: those of a snapshot, which may be very many, under the few that moved since.

A commit moves a few refs out of perhaps a hundred thousand. So the table of a snapshot is shared by
all roots that state it, searched where it lies, and never copied; a root has only its own moves.
Format: docs/format/root.md.
"""

from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from itertools import islice
from operator import lt
from typing import Final

from cas.ids import CommitId, ObjectId

Moved = Mapping[str, CommitId | None]
SIZE: Final = ObjectId.SIZE


class RefTable:
    """The refs of a snapshot: names in ascending order, and their ids in one piece of bytes."""

    __slots__ = ("_all", "ids", "names")

    def __init__(self, names: Sequence[str], ids: bytes) -> None:
        """Take the columns of a snapshot; raise ValueError when they are none."""
        if len(ids) != SIZE * len(names) or not set(map(type, names)) <= {str}:
            raise ValueError("columns of refs that do not fit together")
        if not all(map(lt, names, islice(names, 1, None))):
            raise ValueError("names of refs that are not in order")
        self.names = names
        self.ids = ids
        self._all: dict[str, CommitId] | None = None

    @classmethod
    def of(cls, refs: Mapping[str, CommitId]) -> "RefTable":
        """Return refs as a table."""
        names = sorted(refs)
        return cls(names, b"".join(refs[name] for name in names))

    def __len__(self) -> int:
        return len(self.names)

    def get(self, name: str) -> CommitId | None:
        """Return what a ref of the snapshot points at."""
        if self._all is not None:
            return self._all.get(name)
        row = bisect_left(self.names, name)
        there = row < len(self.names) and self.names[row] == name
        return self._id(row) if there else None

    def all(self) -> Mapping[str, CommitId]:
        """Return all refs of the snapshot; the second call costs nothing."""
        if self._all is None:
            self._all = {name: self._id(row) for row, name in enumerate(self.names)}
        return self._all

    def _id(self, row: int) -> CommitId:
        return CommitId(ObjectId(self.ids[SIZE * row : SIZE * row + SIZE]))


NOTHING: Final = RefTable((), b"")


class Refs(Mapping[str, CommitId]):
    """A table, and what has moved against it; None stands for a ref that is gone."""

    __slots__ = ("_count", "moved", "table")

    def __init__(self, table: RefTable, moved: Moved, count: int) -> None:
        """Take what `against` and `after` return; `count` is how many refs there are."""
        self.table = table
        self.moved = moved
        self._count = count

    @classmethod
    def against(cls, table: RefTable, refs: Mapping[str, CommitId]) -> "Refs":
        """Return any refs as what has moved against this table."""
        if isinstance(refs, Refs) and refs.table is table:
            return refs
        moved: dict[str, CommitId | None] = dict.fromkeys(table.all().keys() - refs.keys())
        moved |= {name: id for name, id in refs.items() if table.get(name) != id}
        return cls(table, moved, len(refs))

    def after(self, changes: Iterable[tuple[str, CommitId | None]]) -> "Refs":
        """Return the refs when these have been pointed at something else, or dropped with None."""
        moved, count = dict(self.moved), self._count
        for name, new in changes:
            before = self.table.get(name)
            now = moved.pop(name, before)
            if new != before:
                moved[name] = new
            count += (new is not None) - (now is not None)
        return Refs(self.table, moved, count)

    def __getitem__(self, name: str) -> CommitId:
        id = self._find(name)
        if id is None:
            raise KeyError(name)
        return id

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def _find(self, name: str) -> CommitId | None:
        return self.moved[name] if name in self.moved else self.table.get(name)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        moved = self.moved
        yield from (name for name in self.table.names if name not in moved)
        yield from (name for name, id in moved.items() if id is not None)

    def items(self) -> ItemsView[str, CommitId]:
        """Return names with what they point at, without a search for each."""
        return _Items(self)

    def values(self) -> ValuesView[CommitId]:
        """Return what the refs point at, without a search for each."""
        return _Values(self)

    def pairs(self) -> Iterator[tuple[str, CommitId]]:
        """Yield each name with what it points at."""
        moved = self.moved
        if moved:
            yield from (pair for pair in self.table.all().items() if pair[0] not in moved)
        else:
            yield from self.table.all().items()
        for name, id in moved.items():
            if id is not None:
                yield name, id

    def __repr__(self) -> str:
        return f"Refs({dict(self)!r})"


class _Items(ItemsView[str, CommitId]):
    _mapping: Refs

    def __iter__(self) -> Iterator[tuple[str, CommitId]]:
        return self._mapping.pairs()


class _Values(ValuesView[CommitId]):
    _mapping: Refs

    def __iter__(self) -> Iterator[CommitId]:
        return (id for _, id in self._mapping.pairs())
