"""Checking the bytes of a batch of records that stand side by side: one job of fsck."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from cas.backend.base import Backend, Span
from cas.codec.base import codec_for, delta_for
from cas.errors import CasError, CorruptionError
from cas.ids import Buffer, ObjectId, digest
from cas.objects.edges import parse
from cas.objects.kind import ID_OF, Kind
from cas.repo import headers
from cas.repo.reach import needs
from cas.store.packed import PackedStore
from cas.store.recipe import Recipe
from cas.store.record import DELTAS, KINDS, RECIPE, RecordHeader, base_of
from cas.store.rowtable import RowTable

SIZE: Final = RecordHeader.SIZE
FRONT: Final = SIZE - RecordHeader.CHECK_SIZE


@dataclass(slots=True)
class Outcome:
    """What became of one batch; records are numbers in its table."""

    records: int = 0
    read: int = 0
    bad: list[tuple[int, CasError]] = field(default_factory=list)
    bases: dict[int, ObjectId] = field(default_factory=dict)  # of each delta
    blocked: list[int] = field(default_factory=list)  # deltas whose base cannot be read
    names: list[tuple[int, bytes]] = field(default_factory=list)  # ids that metadata needs
    pieces: list[tuple[int, Buffer]] = field(default_factory=list)  # what was asked for


class BodyCheck:
    """Checks checksums, ids and canonical form; for any thread."""

    def __init__(
        self, backend: Backend, store: PackedStore, table: RowTable, asked: headers.Mask
    ) -> None:
        """Decode on bases in `store`; give back the bytes of the records that are `asked` for."""
        self._backend = backend
        self._store = store
        self._table = table
        self._asked = asked

    def check(self, batch: Sequence[int]) -> Outcome:
        """Check records of one pack that stand side by side."""
        table = self._table
        key = table.packs[int(table.pack[batch[0]])].key
        rows = table.rows[batch]
        start = int(rows["offset"][0])
        length = int(table.ends[batch[-1]]) - start
        try:
            (raw,) = self._backend.read(key, [Span(start, length)])
        except CasError as error:
            return self._unreadable(batch, error)
        done = Outcome(len(batch), length)
        odd = headers.odd(table, np.asarray(batch), headers.within(raw, rows["offset"] - start))
        fields = zip(batch, odd.tolist(), rows.tolist(), strict=True)
        view = memoryview(raw)
        for number, is_odd, (id, _, offset, stored, size, kind, codec, _, _) in fields:
            record = view[offset - start : offset - start + SIZE + stored]
            try:
                if is_odd:
                    headers.check(record, table.place(number).row)
                self._record(done, number, (ObjectId(id), size, kind, codec), record)
            except CasError as error:
                done.bad.append((number, error))
        return done

    def _unreadable(self, batch: Sequence[int], error: CasError) -> Outcome:
        """Read records one by one where not all can be read."""
        if len(batch) == 1:
            return Outcome(1, 0, [(batch[0], error)])
        done = Outcome()
        for number in batch:
            one = self.check([number])
            done.records += one.records
            done.read += one.read
            done.bad += one.bad
            done.bases |= one.bases
            done.blocked += one.blocked
            done.names += one.names
            done.pieces += one.pieces
        return done

    def _record(
        self,
        done: Outcome,
        number: int,
        header: tuple[ObjectId, int, int, int],
        record: memoryview,
    ) -> None:
        id, size, kind, codec = header
        body = record[SIZE:]
        if digest(record[:FRONT], body, size=RecordHeader.CHECK_SIZE) != record[FRONT:SIZE]:
            raise CorruptionError(f"the record of {id} is damaged")
        if codec == RECIPE:
            Recipe.from_bytes(body, size)
            return
        if codec in DELTAS:
            done.bases[number] = base_of(body)
            data = self._on_base(done, number, size, codec, body)
            if data is None:
                return
        else:
            data = codec_for(codec).decode(body, size)
        if ID_OF[KINDS[kind]](data) != id:
            told = "decoded on its base" if codec in DELTAS else "stored"
            raise CorruptionError(f"the bytes {told} are not what the id names")
        if kind != Kind.BLOB:
            obj = parse(KINDS[kind], data, strict=True)
            done.names.append((number, b"".join(below for _, below in needs(obj))))
        if self._asked[number]:
            done.pieces.append((number, data))

    def _on_base(
        self, done: Outcome, number: int, size: int, codec: int, body: memoryview
    ) -> Buffer | None:
        try:
            base = self._store.whole(base_of(body))
        except CasError:
            done.blocked.append(number)  # what is wrong is with the base, and told of that
            return None
        data = bytearray(size)
        delta_for(codec).decode_into(body[ObjectId.SIZE :], base, memoryview(data))
        return data
