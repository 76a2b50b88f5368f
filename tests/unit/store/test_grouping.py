"""Pieces that stand together are read together, and only those."""

from collections.abc import Sequence

from cas.codec.base import CodecTag
from cas.ids import BlobId, blob_id
from cas.objects.kind import Kind
from cas.store.grouping import GAP, TOGETHER, Group, Part, Wanted, grouped
from cas.store.index import Place
from cas.store.pack import PackClass, PackInfo, Row
from cas.store.record import RecordHeader

HEADER = RecordHeader.SIZE
ONE, TWO = (PackInfo(bytes([n]) * 16, 10**9, bytes(32), PackClass.DATA) for n in (1, 2))


def part(offset: int, stored: int, pack: PackInfo = ONE, *, size: int | None = None) -> Wanted:
    size = stored if size is None else size
    id = BlobId(blob_id(b"%d" % offset))
    row = Row(id, offset, stored, size, Kind.BLOB, CodecTag.RAW, 0)
    return Wanted(Part(id, size, 0, size, Place(row, pack)), memoryview(bytearray(size)))


def offsets(groups: Sequence[Group]) -> list[list[int]]:
    return [[one.part.place.row.offset for one in group.wanted] for group in groups]


def test_records_behind_one_another_are_one_read() -> None:
    parts = [part(100, 50), part(150 + HEADER, 10), part(160 + 2 * HEADER + GAP, 5)]
    (group,) = grouped(parts)
    assert group.wanted == parts
    assert (group.key, group.size) == (ONE.key, 65)
    assert group.span.offset == 100
    assert group.span.length == 65 + 3 * HEADER + GAP


def test_what_is_elsewhere_is_another_read() -> None:
    near = 150 + HEADER
    for other in (part(near + GAP + 1, 10), part(near - 1, 10), part(0, 10), part(near, 10, TWO)):
        assert offsets(list(grouped([part(100, 50), other]))) == [
            [100],
            [other.part.place.row.offset],
        ]


def test_no_read_is_larger_than_it_may_be() -> None:
    stored = TOGETHER // 4 - HEADER
    parts = [part(number * TOGETHER // 4, stored) for number in range(9)]
    groups = list(grouped(parts))
    assert [len(group.wanted) for group in groups] == [4, 4, 1]
    assert all((group.span.length or 0) <= TOGETHER for group in groups)
    large = list(grouped([part(0, 2 * TOGETHER), part(2 * TOGETHER + HEADER, 1)]))
    assert [len(group.wanted) for group in large] == [1, 1]


def test_no_group_becomes_larger_than_it_may_be_when_it_is_decoded() -> None:
    parts = [part(number * (100 + HEADER), 100, size=TOGETHER // 2) for number in range(5)]
    assert [len(group.wanted) for group in grouped(parts)] == [2, 2, 1]


def test_each_piece_gets_its_own_record() -> None:
    parts = [part(7, 50), part(57 + HEADER + 3, 10)]
    (group,) = grouped(parts)
    raw = bytes(k % 251 for k in range(1000))[7:]
    assert [(wanted, bytes(record)) for wanted, record in group.records(raw)] == [
        (parts[0], raw[: 50 + HEADER]),
        (parts[1], raw[53 + HEADER : 63 + 2 * HEADER]),
    ]


def test_nothing_wanted_is_no_read() -> None:
    assert list(grouped([])) == []
