"""The headers of very many records, read in large spans and compared with what footers say."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from cas.backend.base import Backend, Span
from cas.errors import CorruptionError
from cas.ids import Buffer, ObjectId
from cas.store.index import Place
from cas.store.pack import PackInfo, Row
from cas.store.record import MAGIC, MAX_DEPTH, MAX_WHOLE, RECIPE, VERSION
from cas.store.record import RecordHeader as Header
from cas.store.rowarray import ROW, Numbers, Rows
from cas.store.rowtable import IS_DELTA, IS_KIND, RowTable

Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

GAP: Final = 32 * 1024  # a body up to this size is read with the headers before and behind it
SPAN: Final = 4 * 1024 * 1024
AT_ONCE: Final = 256  # spans of one call
TOP: Final = Header.SIZE + ObjectId.SIZE  # a header, and the base of a delta behind it
LAYOUT: Final = np.dtype(
    {
        "names": ["magic", "version", "kind", "codec", "depth", "id", "size", "stored"],
        "formats": ["V4", "u1", "u1", "u1", "u1", f"V{ObjectId.SIZE}", "<u8", "<u4"],
        "offsets": [0, 4, 5, 6, 7, 8, 40, 48],
        "itemsize": Header.SIZE,
    }
)
SAME: Final = ("kind", "codec", "depth", "id", "size", "stored")


def tops(backend: Backend, pack: PackInfo, table: RowTable, numbers: Numbers) -> Bytes:
    """Return the first bytes of these records of one pack, which are in order of their offsets.

    Those of a delta have the id of its base behind the header. Raises CorruptionError where the
    pack ends before, and NotFoundError.
    """
    rows = table.rows[numbers]
    starts = rows["offset"].astype(np.int64)
    stops = starts + Header.SIZE + np.minimum(rows["stored"], ObjectId.SIZE)
    found = np.zeros((len(numbers), TOP), np.uint8)
    groups = _groups(starts, rows["stored"])
    for at in range(0, len(groups), AT_ONCE):
        some = groups[at : at + AT_ONCE]
        spans = [Span(int(starts[a]), int(stops[b - 1] - starts[a])) for a, b in some]
        for (low, high), raw in zip(some, backend.read(pack.key, spans), strict=True):
            _spread(np.frombuffer(raw, np.uint8), starts[low:high] - starts[low], found[low:high])
    return found


def within(raw: Buffer, offsets: Numbers) -> Bytes:
    """Return the first bytes of the records at these offsets, the last of which ends `raw`."""
    found = np.zeros((len(offsets), TOP), np.uint8)
    _spread(np.frombuffer(raw, np.uint8), offsets.astype(np.int64), found)
    return found


def odd(table: RowTable, numbers: Numbers, found: Bytes) -> Mask:
    """Return which of these records have a header that no reader takes, or not their footer's."""
    rows = table.rows[numbers]
    heads = np.ascontiguousarray(found[:, : Header.SIZE]).view(LAYOUT).ravel()
    bad: Mask = (heads["magic"] != np.void(MAGIC)) | (heads["version"] != VERSION)
    for name in SAME:
        bad |= heads[name] != rows[name]
    bad |= ~IS_KIND[rows["kind"]] | (rows["depth"] > MAX_DEPTH)
    bad |= (rows["depth"] > 0) != IS_DELTA[rows["codec"]]
    bad |= (rows["codec"] != RECIPE) & (rows["size"] > MAX_WHOLE)
    return bad


def bases(found: Bytes) -> Rows:
    """Return the ids that stand behind headers: of deltas, those of their bases."""
    ids: Rows = np.ascontiguousarray(found[:, Header.SIZE :]).view(f"V{ObjectId.SIZE}").ravel()
    return ids


def _groups(starts: Numbers, stored: npt.NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Return runs of records whose headers are read at once."""
    if not len(starts):
        return []
    far = stored[:-1] > GAP
    far |= np.diff(starts) > GAP + Header.SIZE  # where some records between are left out
    far |= np.diff(starts // SPAN) != 0
    edges = [0, *(np.flatnonzero(far) + 1).tolist(), len(starts)]
    return list(pairwise(edges))


def _spread(raw: Bytes, offsets: Numbers, target: Bytes) -> None:
    """Copy what stands at each of the offsets to a row of its own; the last may be shorter."""
    inside = offsets + TOP <= len(raw)
    target[inside] = raw[offsets[inside][:, None] + np.arange(TOP)]
    for number in np.flatnonzero(~inside).tolist():
        rest = raw[offsets[number] :]
        target[number, : len(rest)] = rest


def batches(table: RowTable, numbers: Numbers, limit: int) -> Iterator[Sequence[int]]:
    """Yield runs of records of one pack that stand side by side, about `limit` bytes each."""
    if not len(numbers):
        return
    starts = table.rows["offset"][numbers].astype(np.int64)
    ends = table.ends[numbers]
    apart = starts[1:] != ends[:-1]
    apart |= np.diff(starts // limit) != 0
    edges = [0, *(np.flatnonzero(apart) + 1).tolist(), len(numbers)]
    for low, high in pairwise(edges):
        yield numbers[low:high].tolist()


def check(raw: Buffer, row: Row) -> None:
    """Insist that a record begins with the header that its footer states."""
    header = Header.from_bytes(raw)
    stated = (header.id, header.kind, header.codec, header.depth, header.size, header.stored)
    if stated != (row.id, row.kind, row.codec, row.depth, row.size, row.stored):
        raise CorruptionError("its header does not say what the footer says")


def check_at(backend: Backend, place: Place) -> None:
    """Read a record's header, and check it."""
    (raw,) = backend.read(place.pack.key, [Span(place.row.offset, Header.SIZE)])
    check(raw, place.row)


def unaccounted(rows: Buffer, start: int) -> int | None:
    """Return from where on the rows of a footer do not say what stands in the pack, if so.

    Records follow one another from `start` on, and each is of a kind that is known.
    """
    found = np.frombuffer(rows, ROW)
    found = found[np.argsort(found["offset"], kind="stable")]
    ends = start + np.cumsum(found["stored"].astype(np.int64) + Header.SIZE)
    starts = np.concatenate([[start], ends[:-1]]) if len(ends) else ends
    wrong = (found["offset"] != starts) | ~IS_KIND[found["kind"]]
    return int(starts[np.argmax(wrong)]) if wrong.any() else None
