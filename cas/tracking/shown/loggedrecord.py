"""What was logged beside numbers, as the end of a run keeps it, and back.

An index in the record has a few columns for each key, so that a list of ten thousand images is a
few reads. Packed contents stand beside it, or in the payload when they are many; files in the
payload. Wall times stand apart, as they are never compared.
Format: docs/format/run.md.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from cas.errors import CasError, CorruptionError, NotFoundError
from cas.ids import BlobId, CommitId, ManifestId, ObjectId
from cas.objects.framework import Memory
from cas.objects.kind import Kind
from cas.objects.manifest import State
from cas.objects.states import load_state, members
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.trees import ingest
from cas.store.writer import ObjectWriter
from cas.tracking.checkpoints.checkpoint import write_state
from cas.tracking.shown.logged import (
    DATA,
    INDEX,
    MEDIA,
    STATE_FORMAT,
    TIMES,
    Logged,
    Track,
    Tracks,
    Where,
    files,
    little,
    track_of,
)

LIGHT: Final = 1024 * 1024  # bytes of all packed contents that stay with the record
PRUNED: Final = "it was let go of with the payload of its commit"
Items = dict[str, Entry]


def file_entry(row: Logged, name: str = "") -> Entry:
    """Return the tree entry of a thing that is a file."""
    kind = EntryKind.STATE if row.format == STATE_FORMAT else EntryKind.FILE
    mode = 0 if kind is EntryKind.STATE else ingest.FILE_MODE
    if row.id is None:
        raise CorruptionError(f"{row.key}: step {row.step} is packed, and no file")
    return Entry(name.rpartition("/")[2].encode(), kind, row.id, row.size, mode)


def items(writer: ObjectWriter, tracks: Tracks) -> tuple[Items, Items]:
    """Write what was logged; return what joins the record, and what joins the payload."""
    rows = tracks.rows()
    if not rows:
        return {}, {}
    index, times, data = _columns(rows)
    light = {name: _state(writer, name, value) for name, value in ((INDEX, index), (TIMES, times))}
    heavy = {f"{MEDIA}/{path}": file_entry(row, path) for path, row in files(rows)}
    if data:
        few = tracks.packed_bytes <= LIGHT
        (light if few else heavy)[DATA] = _state(writer, DATA, data)
    return light, heavy


class Index:
    """What one commit's run logged, by kind and key; reads what is asked for."""

    def __init__(self, repo: Repo, id: CommitId) -> None:
        self._repo = repo
        self._id = id
        self._commit = repo.commit(id)
        self._index = _parts(self._found(INDEX))
        self._times: dict[Where, State] | None = None
        self._data: dict[Where, State] | None = None

    def counts(self) -> dict[Where, int]:
        """Return how many things each kind and key has, without reading them."""
        return {where: _length(state) for where, state in self._index.items()}

    def rows(self, where: Where) -> list[Logged]:
        """Return the things of one kind and key, in the order in which they were logged.

        Packed contents come along; raises NotFoundError when those were let go of.
        """
        if where not in self._index:
            raise NotFoundError(where[0], where[1], "`logged()` lists what there is")
        fields = _dict(self._read(self._index[where]))
        try:
            return list(self._track(where, fields).rows(where))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CasError):
                raise
            raise CorruptionError(f"{self._id.short}: {where[1]}: {error!r}") from error

    def content(self, row: Logged) -> bytes:
        """Return the bytes of a thing that is no state."""
        if row.data is not None or row.id is None:
            return row.data or b""
        try:
            return bytes(self._repo.store.read(Kind.BLOB, row.id))
        except NotFoundError as error:
            raise NotFoundError(row.kind, f"{row.key} at step {row.step}", PRUNED) from error

    def _track(self, where: Where, fields: Mapping[str, Any]) -> Track:
        steps = fields["steps"]
        packed = fields["packed"].astype("u1").tobytes()
        if self._times is None:
            self._times = _parts(self._found(TIMES))
        formats, options = fields["formats"], fields["options"]
        data = b""
        if (fields["sizes"] * fields["packed"]).any():  # of empty texts alone nothing stands there
            if self._data is None:
                self._data = _parts(self._found(DATA))
            if where not in self._data:
                raise NotFoundError(where[0], where[1], PRUNED)
            data = self._read(self._data[where]).tobytes()
        return track_of(
            {
                "steps": steps.tobytes(),
                "times": self._read(self._times[where]).tobytes(),
                "sizes": fields["sizes"].tobytes(),
                "packed": packed,
                "ids": fields["ids"].tobytes(),
                "data": data,
                "formats": [formats] * len(steps) if isinstance(formats, str) else formats,
                "options": options if options is not None else [None] * len(steps),
            }
        )

    def _found(self, name: str) -> State | None:
        for tree in (self._commit.tree, self._commit.payload):
            try:
                entry = self._repo.lookup(tree, name.encode()) if tree is not None else None
            except NotFoundError:
                continue  # a payload that was let go of
            if entry is not None and entry.kind is EntryKind.STATE:
                found = self._repo.manifest(ManifestId(entry.id))
                return found if isinstance(found, State) else None
        return None

    def _read(self, state: State) -> Any:
        def read(id: BlobId, nbytes: int) -> Memory:
            data = self._repo.store.read(Kind.BLOB, id)
            if len(data) != nbytes:
                raise CorruptionError(f"{self._id.short}: a column has {len(data)} bytes")
            return bytearray(data)

        return load_state(state, (), read)


def _columns(rows: Iterable[Logged]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the index, the wall times and the packed contents, each by kind and key."""
    index: dict[str, Any] = {}
    times: dict[str, Any] = {}
    data: dict[str, Any] = {}
    for (kind, key), group in groupby(rows, key=lambda row: row.where):
        track = Track()
        for row in group:
            track.add(row)
        index.setdefault(kind, {})[key] = _fields(track)
        times.setdefault(kind, {})[key] = _array(track.times, "<f8")
        if track.data:
            data.setdefault(kind, {})[key] = _array(track.data, "u1")
    return index, times, data


def _fields(track: Track) -> dict[str, Any]:
    formats: str | list[str] = track.formats
    if len(set(track.formats)) == 1:
        formats = track.formats[0]
    return {
        "steps": _array(track.steps, "<i8"),
        "sizes": _array(track.sizes, "<i8"),
        "packed": _array(track.packed, "u1").astype(bool),
        "ids": _array(track.ids, "u1").reshape(-1, ObjectId.SIZE),
        "formats": formats,
        "options": track.options if any(track.options) else None,
    }


def _array(column: Any, dtype: str) -> Any:
    import numpy as np

    raw = bytes(column) if isinstance(column, bytearray) else little(column).tobytes()
    return np.frombuffer(raw, dtype)


def _state(writer: ObjectWriter, name: str, value: dict[str, Any]) -> Entry:
    return write_state(writer, value, name.encode())


def _parts(state: State | None) -> dict[Where, State]:
    """Return a state of dicts in dicts, by kind and key, each a state of its own."""
    if state is None:
        return {}
    return {
        (kind, key): State(value, state.rows)
        for kind, below in members(state.value)
        for key, value in members(below)
    }


def _length(state: State) -> int:
    """Return the length of the column of steps."""
    steps = dict(members(state.value)).get("steps")
    if isinstance(steps, list) and len(steps) > 1 and isinstance(steps[1], int):
        return state.rows[steps[1]].shape[0]
    raise CorruptionError("what was logged has no column of steps")


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorruptionError("what was logged has no columns")
    return value
