"""What two runs logged beside numbers: which keys differ, and at which steps.

Equal runs have equal ids here, so that comparing them reads nothing. Else a key is read only where
its columns are not the same, and of what it names nothing: contents are compared by id.
Format: docs/format/run.md.
"""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cas.errors import CorruptionError, NotFoundError
from cas.ids import ManifestId, ObjectId, blob_id
from cas.lineage.values import ADDED, CHANGED, REMOVED
from cas.objects import canonical
from cas.objects.canonical import Value
from cas.objects.commit import RUN, Commit
from cas.objects.kind import Kind
from cas.objects.manifest import State, TensorRow
from cas.objects.states import members
from cas.objects.tree import EntryKind
from cas.repo.repo import Repo

INDEX: Final = b"logged"
DATA: Final = b"logged.data"
NAMED: Final = 20  # steps of a key that a comparison names

Where = tuple[str, str]  # kind and key
Content = tuple[str, bytes, bytes]  # format, options, id
Steps = dict[int, list[Content]]


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A key under which the runs logged something else.

    `old` and `new` say how many things there are, `steps` at which of them they differ (the first
    twenty) and `differing` how many such steps there are. `note` says what could not be compared.
    """

    kind: str
    key: str
    how: str
    old: int
    new: int
    steps: tuple[int, ...] = ()
    differing: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one run logged, by kind and key, each as columns that are read when they are needed."""

    repo: Repo
    commit: Commit
    index: ObjectId | None
    packed: ObjectId | None  # None too where it was let go of with the payload
    keys: Mapping[Where, State]
    data: Mapping[Where, State]


def logged_changes(repo: Repo, old: Commit, new: Commit) -> tuple[LoggedChange, ...]:
    """Return the keys that differ between the ends of two runs, by kind and key.

    Only the end of a run says what was logged: with another commit there is nothing to compare.
    """
    if old.kind != RUN or new.kind != RUN:
        return ()
    before, after = shown(repo, old), shown(repo, new)
    if before.index == after.index and (before.packed == after.packed or _one_payload(old, new)):
        return ()
    found = (_change(before, after, where) for where in sorted({*before.keys, *after.keys}))
    return tuple(one for one in found if one is not None)


def shown(repo: Repo, commit: Commit) -> Shown:
    """Return what a run logged; raise CorruptionError where it makes no sense."""
    index, keys = _found(repo, commit, INDEX)
    packed, data = _found(repo, commit, DATA)
    return Shown(repo, commit, index, packed, keys, data)


def _found(
    repo: Repo, commit: Commit, name: bytes
) -> tuple[ObjectId | None, Mapping[Where, State]]:
    for tree in (commit.tree, commit.payload):
        try:
            entry = repo.lookup(tree, name) if tree is not None else None
        except NotFoundError:
            continue  # a payload that was let go of
        if entry is not None and entry.kind is EntryKind.STATE:
            state = repo.manifest(ManifestId(entry.id))
            return entry.id, _parts(state) if isinstance(state, State) else {}
    return None, {}


def _parts(state: State) -> dict[Where, State]:
    return {
        (kind, key): State(value, state.rows)
        for kind, below in members(state.value)
        for key, value in members(below)
    }


def _one_payload(old: Commit, new: Commit) -> bool:
    return old.payload is not None and old.payload == new.payload


def _change(old: Shown, new: Shown, where: Where) -> LoggedChange | None:
    if where not in old.keys:
        return LoggedChange(*where, ADDED, 0, _count(new.keys[where]))
    if where not in new.keys:
        return LoggedChange(*where, REMOVED, _count(old.keys[where]), 0)
    equal = _columns(old.keys[where]) == _columns(new.keys[where])
    if equal and (not _is_packed(old, where) or _data(old, where) == _data(new, where) is not None):
        return None
    before, after = _steps(old, where), _steps(new, where)
    counts = _count(old.keys[where]), _count(new.keys[where])
    if before is None or after is None:
        return _unread(where, counts, equal)
    steps = sorted(
        step for step in {*before, *after} if not _alike(before.get(step), after.get(step))
    )
    if not steps:
        return None
    return LoggedChange(*where, CHANGED, *counts, tuple(islice(steps, NAMED)), len(steps))


def _unread(where: Where, counts: tuple[int, int], equal: bool) -> LoggedChange | None:
    """Return what can be said of contents that were let go of with a payload."""
    note = "the contents were pruned and are not compared"
    return None if equal else LoggedChange(*where, CHANGED, *counts, note=note)


def _alike(left: list[Content] | None, right: list[Content] | None) -> bool:
    # Of several processes, what comes first at one step is chance.
    return left is not None and right is not None and sorted(left) == sorted(right)


def _columns(state: State) -> tuple[object, ...]:
    """Return what tells a key's columns from others without reading them."""
    fields = dict(members(state.value))
    rows = (_row(state, fields, name) for name in ("steps", "sizes", "packed", "ids"))
    return (*((row.id, row.shape) for row in rows), fields.get("formats"), fields.get("options"))


def _count(state: State) -> int:
    return _row(state, dict(members(state.value)), "steps").shape[0]


def _is_packed(side: Shown, where: Where) -> bool:
    state = side.keys[where]
    return any(_bytes(side.repo, _row(state, dict(members(state.value)), "packed")))


def _data(side: Shown, where: Where) -> ObjectId | None:
    return _data_row(side.data[where]).id if where in side.data else None


def _data_row(state: State) -> TensorRow:
    return _row(state, {"data": state.value}, "data")


def _row(state: State, fields: Mapping[str, Value], name: str) -> TensorRow:
    """Return the row that a column is."""
    told = fields.get(name)
    if isinstance(told, list) and len(told) > 1 and isinstance(told[1], int):
        number = told[1]
        if 0 <= number < len(state.rows) and state.rows[number].shape:
            return state.rows[number]
    raise CorruptionError(f"what was logged has no column {name!r}")


def _bytes(repo: Repo, row: TensorRow) -> bytes:
    data = row.data if row.data is not None else repo.store.read(Kind.BLOB, row.id)
    if len(data) != row.nbytes:
        raise CorruptionError(f"what was logged: a column has {len(data)} bytes, not {row.nbytes}")
    return bytes(data)


def _steps(side: Shown, where: Where) -> Steps | None:
    """Return the contents of a key by step, None where packed ones were let go of."""
    state = side.keys[where]
    fields = dict(members(state.value))
    steps, sizes = (_whole(_bytes(side.repo, _row(state, fields, n))) for n in ("steps", "sizes"))
    packed = _bytes(side.repo, _row(state, fields, "packed"))
    ids = _bytes(side.repo, _row(state, fields, "ids"))
    data = b""
    if any(packed):
        if where not in side.data:
            return None
        data = _bytes(side.repo, _data_row(side.data[where]))
    if not len(steps) == len(sizes) == len(packed) or min(sizes, default=0) < 0:
        raise CorruptionError(f"what was logged as {where[1]} has columns of different lengths")
    found: Steps = {}
    at_id = at_data = 0
    told = (_each(fields, "formats"), _each(fields, "options"))  # these may have no end
    columns = zip(steps, sizes, packed, *told, strict=False)
    for step, size, inside, format, options in columns:
        if inside:
            id = bytes(blob_id(data[at_data : at_data + size]))
            at_data += size
        else:
            id = ids[at_id : at_id + ObjectId.SIZE]
            at_id += ObjectId.SIZE
        found.setdefault(step, []).append((str(format), canonical.encode(options), id))
    return found


def _each(fields: Mapping[str, Value], name: str) -> Iterator[Value]:
    """Yield a column of the value itself: one for all of them, or a list with one for each."""
    told = fields.get(name)
    if isinstance(told, list) and told[:1] == ["list"]:
        yield from told[1:]
        return
    while True:
        yield told


def _whole(data: bytes) -> "array[int]":
    import sys

    try:
        column = array("q", data)
    except ValueError as error:
        raise CorruptionError(f"what was logged has a torn column: {error}") from error
    if sys.byteorder == "big":
        column.byteswap()
    return column
