"""What a run was shown beside numbers: texts, images, tables, histograms and their like, by key.

Small contents stand packed, one after another, as the points of metrics do; large ones are files.
A million histograms are a few columns, and a list of all images reads none of them.
Format: docs/format/run.md.
"""

import re
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.ids import ObjectId
from cas.repo.trees.names import refusal

PACKED: Final = 4096  # bytes of a content that is packed at most
PACKED_TOTAL: Final = 64 * 1024 * 1024  # of one run; beyond it every content is a file
FRAME_BYTES: Final = 4 * 1024 * 1024
FRAME_ROWS: Final = 10_000
MAX_KEY: Final = 256
MAX_DEPTH: Final = 32
MAX_PART: Final = 200  # bytes of a name in a key, so that every file system takes it
INDEX: Final = "logged"
TIMES: Final = "logged.times"
DATA: Final = "logged.data"
MEDIA: Final = "media"
STATE_FORMAT: Final = "state"  # the content is a state, not a file

_KIND: Final = re.compile(r"[a-z][a-z_]{0,31}")
_FORMAT: Final = re.compile(r"[a-z][a-z0-9.]{0,15}")
# A file of one key could stand where another key has a folder: such a key is refused.
_FILE: Final = re.compile(
    r"-?\d+(?:-\d+)?\.(?:txt|md|html|png|jpg|jpeg|gif|webp|svg|wav|mp3|flac|ogg|json|plotly\.json"
    r"|parquet|csv|state|hist|mp4|pdf)"
)

Where = tuple[str, str]  # kind and key


@dataclass(frozen=True, slots=True)
class Logged:
    """One thing that was logged; it is packed where `data` is there, else a file with this id."""

    kind: str
    key: str
    step: int
    time: float
    format: str
    size: int
    id: ObjectId | None = None
    data: bytes | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> Where:
        """The kind and the key."""
        return self.kind, self.key


class Track:
    """All that was logged under one kind and key, in the order in which it was."""

    __slots__ = ("data", "formats", "ids", "options", "packed", "sizes", "steps", "times")

    def __init__(self) -> None:
        self.steps = array("q")
        self.times = array("d")
        self.sizes = array("q")
        self.packed = bytearray()
        self.ids = bytearray()
        self.data = bytearray()
        self.formats: list[str] = []
        self.options: list[dict[str, Any] | None] = []

    def add(self, row: Logged) -> None:
        """Take one thing more."""
        self.steps.append(row.step)
        self.times.append(row.time)
        self.sizes.append(row.size)
        self.packed.append(row.data is not None)
        self.formats.append(row.format)
        self.options.append(dict(row.options) or None)
        if row.data is not None:
            self.data += row.data
        elif row.id is not None:
            self.ids += row.id

    def rows(self, where: Where) -> Iterator[Logged]:
        """Yield what stands here; raise ValueError and its like where columns disagree."""
        ids, data = memoryview(bytes(self.ids)), memoryview(bytes(self.data))
        at_id = at_data = 0
        columns = (self.steps, self.times, self.sizes, self.packed, self.formats, self.options)
        for step, time, size, packed, format, options in zip(*columns, strict=True):
            id = content = None
            if packed:
                content = bytes(data[at_data : at_data + size])
                at_data += size
            else:
                id = ObjectId(bytes(ids[at_id : at_id + ObjectId.SIZE]))
                at_id += ObjectId.SIZE
            yield Logged(*where, step, time, format, size, id, content, options or {})
        if at_id != len(ids) or at_data != len(data):
            raise ValueError(f"columns of {where[1]} differ in length")


class Tracks:
    """Everything that a run was shown; safe to use from several threads."""

    def __init__(self, rows: Iterable[Logged] = ()) -> None:
        self._tracks: dict[Where, Track] = {}
        self._packed = 0
        self._lock = threading.Lock()
        self._add(rows)

    def __bool__(self) -> bool:
        return bool(self._tracks)

    @property
    def packed_bytes(self) -> int:
        """The bytes of all packed contents."""
        return self._packed

    def replay(self, frame: Mapping[str, Any]) -> None:
        """Take the things of one frame of a journal; raise ValueError and its like for damage."""
        self._add(list(rows_of(frame)))

    def rows(self) -> list[Logged]:
        """Return everything, by kind and key, each in the order in which it was logged."""
        with self._lock:
            return [
                row for where in sorted(self._tracks) for row in self._tracks[where].rows(where)
            ]

    def counts(self) -> dict[Where, int]:
        """Return how many things each kind and key has."""
        with self._lock:
            return {where: len(track.steps) for where, track in self._tracks.items()}

    def frames(self) -> Iterator[dict[str, Any]]:
        """Yield frames that tell everything."""
        return frames(self.rows())

    def only(self, has: Callable[[ObjectId], bool]) -> "Tracks":
        """Return what is packed, and the files whose content is still there."""
        return Tracks(row for row in self.rows() if row.id is None or has(row.id))

    def _add(self, rows: Iterable[Logged]) -> None:
        with self._lock:
            for row in rows:
                self._tracks.setdefault(row.where, Track()).add(row)
                self._packed += row.size if row.data is not None else 0


def check_key(key: object) -> str:
    """Return the key of something logged; raise InvalidInputError when it can be none."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise InvalidInputError(f"a key is text of up to {MAX_KEY} characters, not {key!r}")
    parts = key.split("/")
    if len(parts) > MAX_DEPTH:
        raise InvalidInputError(f"the key {key!r} has more than {MAX_DEPTH} parts")
    for part in parts:
        name = part.encode()
        reason = refusal(name) or ("it is too long" if len(name) > MAX_PART else None)
        if reason is None and _FILE.fullmatch(part):
            reason = "so are files of a step named"
        if reason is not None:
            raise InvalidInputError(f"the key {key!r} cannot have {part!r} in it: {reason}")
    return key


def frames(rows: Iterable[Logged]) -> Iterator[dict[str, Any]]:
    """Yield frames of a journal that tell of things, of bounded size."""
    for _, group in groupby(rows, key=lambda row: row.where):
        held: list[Logged] = []
        size = 0
        for row in group:
            if held and (size + row.size > FRAME_BYTES or len(held) == FRAME_ROWS):
                yield _frame(held)
                held, size = [], 0
            held.append(row)
            size += row.size if row.data is not None else 0
        yield _frame(held)


def files(rows: Iterable[Logged]) -> Iterator[tuple[str, Logged]]:
    """Yield the path of each thing that is a file, below MEDIA, and the thing.

    A second one of the same step has `-2` behind the step.
    """
    seen: dict[tuple[str, str, int, str], int] = {}
    for row in rows:
        if row.id is not None:
            same = (*row.where, row.step, row.format)
            seen[same] = number = seen.get(same, 0) + 1
            name = f"{row.step}-{number}" if number > 1 else str(row.step)
            yield f"{row.kind}/{row.key}/{name}.{row.format}", row


def _frame(rows: list[Logged]) -> dict[str, Any]:
    track = Track()
    for row in rows:
        track.add(row)
    return {"t": "logged", "kind": rows[0].kind, "key": rows[0].key} | columns(track)


def columns(track: Track) -> dict[str, Any]:
    """Return the columns of a track as canonical data."""
    return {
        "steps": little(track.steps).tobytes(),
        "times": little(track.times).tobytes(),
        "sizes": little(track.sizes).tobytes(),
        "packed": bytes(track.packed),
        "ids": bytes(track.ids),
        "data": bytes(track.data),
        "formats": list(track.formats),
        "options": list(track.options),
    }


def track_of(fields: Mapping[str, Any]) -> Track:
    """Return the track of these columns; raise ValueError and its like for what makes no sense."""
    track = Track()
    track.steps = little(array("q", fields["steps"]))
    track.times = little(array("d", fields["times"]))
    track.sizes = little(array("q", fields["sizes"]))
    track.packed = bytearray(fields["packed"])
    track.ids = bytearray(fields["ids"])
    track.data = bytearray(fields["data"])
    track.formats = [_matching(_FORMAT, format) for format in fields["formats"]]
    track.options = [None if one is None else dict(one) for one in fields["options"]]
    if min(track.sizes, default=0) < 0:
        raise ValueError("a size is below zero")
    return track


def little(column: "array[Any]") -> "array[Any]":
    """Return a column with its bytes in little-endian order, or from it."""
    import sys

    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


def rows_of(frame: Mapping[str, Any]) -> Iterator[Logged]:
    """Return the things of one frame of a journal; raise ValueError and its like for damage."""
    where = _matching(_KIND, frame["kind"]), check_key(frame["key"])
    return track_of(frame).rows(where)


def _matching(form: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not form.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a kind or format")
    return text
