"""Records of very many objects, read in large spans, pack by pack.

For who opens all containers there are: look-ups one by one would take ten times as long.
"""

from collections.abc import Iterator
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Final

from cas.backend.base import Span
from cas.codec.base import codec_for
from cas.errors import CorruptionError
from cas.ids import ObjectId
from cas.objects.kind import ID_OF, Kind
from cas.store.pinned import PinnedStore
from cas.store.record import MAGIC, VERSION, RecordHeader

if TYPE_CHECKING:
    from cas.store.rowarray import Numbers
    from cas.store.rowtable import RowTable

SIZE: Final = ObjectId.SIZE
GAP: Final = 32 * 1024  # what is read though nobody wants it, when it is no more than this
SPAN: Final = 4 * 1024 * 1024
FRONT: Final = Struct(RecordHeader.LAYOUT.format.removesuffix("8s").rstrip())
AT_ONCE: Final = 1024  # spans of one call


class BulkReader:
    """Reads records by their numbers; every method takes them as `in_place` returns them."""

    def __init__(self, store: PinnedStore, table: "RowTable") -> None:
        self._store = store
        self._table = table

    def in_place(self, numbers: "Numbers") -> "Numbers":
        """Return these records in the order in which they stand."""
        import numpy as np

        rows = self._table.rows
        return numbers[np.lexsort((rows["offset"][numbers], self._table.pack[numbers]))]

    def id(self, number: int) -> ObjectId:
        """Return the id of one record."""
        return ObjectId(self._table.rows["id"][number].tobytes())

    def objects(self, numbers: "Numbers", kind: Kind) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of objects that are stored whole, checked against their ids."""
        identify = ID_OF[kind]
        for number, row, record in self._records(numbers):
            id, size, codec = row
            data = codec_for(codec).decode(record[RecordHeader.SIZE :], size)
            if identify(data) != id:
                raise CorruptionError(f"the bytes stored for {id.hex()} are not its bytes")
            yield number, bytes(data)

    def bodies(self, numbers: "Numbers") -> Iterator[tuple[int, memoryview]]:
        """Yield the bodies of records as they are stored, their checksums compared."""
        for number, row, record in self._records(numbers):
            header, body = RecordHeader.from_bytes(record), record[RecordHeader.SIZE :]
            if header.checksum(body) != header.check:
                raise CorruptionError(f"the record of {row[0].hex()} is damaged")
            yield number, body

    def bases(self, numbers: "Numbers") -> Iterator[tuple[int, ObjectId]]:
        """Yield the bases of deltas."""
        for pack, own in self._by_pack(numbers):
            for at in range(0, len(own), AT_ONCE):
                some = own[at : at + AT_ONCE]
                starts = self._table.rows["offset"][some].tolist()
                spans = [Span(start + RecordHeader.SIZE, SIZE) for start in starts]
                raws = self._store.backend.read(self._table.packs[pack].key, spans)
                yield from zip(some.tolist(), map(ObjectId, raws), strict=True)

    def _records(
        self, numbers: "Numbers"
    ) -> Iterator[tuple[int, tuple[bytes, int, int], memoryview]]:
        """Yield records in large spans, each with its id, size and codec; headers are compared."""
        import numpy as np

        table = self._table
        for pack, own in self._by_pack(numbers):
            starts = table.rows["offset"][own].astype(np.int64)
            ends = table.ends[own]
            apart = (starts[1:] - ends[:-1] > GAP) | (np.diff(starts // SPAN) != 0)
            edges = [0, *(np.flatnonzero(apart) + 1).tolist(), len(own)]
            for low, high in pairwise(edges):
                first = int(starts[low])
                span = Span(first, int(ends[high - 1]) - first)
                (raw,) = self._store.backend.read(table.packs[pack].key, [span])
                view = memoryview(raw)
                rows = table.rows[own[low:high]].tolist()
                for number, row in zip(own[low:high].tolist(), rows, strict=True):
                    id, _, offset, stored, size, kind, codec, depth, _ = row
                    at = offset - first
                    record = view[at : at + RecordHeader.SIZE + stored]
                    front = FRONT.pack(MAGIC, VERSION, kind, codec, depth, id, size, stored)
                    if record[: FRONT.size] != front:
                        raise CorruptionError(f"the record of {id.hex()} is not what its row says")
                    yield number, (id, size, codec), record

    def _by_pack(self, numbers: "Numbers") -> "Iterator[tuple[int, Numbers]]":
        """Yield the records of each pack, of records that stand pack by pack."""
        import numpy as np

        packs = self._table.pack[numbers]
        edges = [0, *(np.flatnonzero(np.diff(packs)) + 1).tolist(), len(numbers)]
        for low, high in pairwise(edges):
            if low < high:
                yield int(packs[low]), numbers[low:high]
