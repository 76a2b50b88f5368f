"""Rows in order, in memory and as a file: what is read is checked, all of it or block by block."""

from collections.abc import Callable

import pytest

from cas.backend.memory import MemoryBackend
from cas.codec.base import CodecTag
from cas.errors import CasError, CorruptionError, UnsupportedError
from cas.ids import ObjectId
from cas.objects.kind import Kind
from cas.store import merge as merging
from cas.store.indexfile import IndexFile, UnreadableError
from cas.store.joined import Joined
from cas.store.merge import agree, merge, merged
from cas.store.pack import Row
from cas.store.segment import BLOCK, COUNTS, HEADER, TRAILER, Segment, key_of
from tests.support.noise import noise

BOTH = pytest.mark.parametrize("many", [10**9, 0], ids=["python", "numpy"])
PACK = b"p" * 16


def row(id: bytes, pack: int = 0, offset: int = 24) -> Row:
    whole = id * 32 if len(id) == 1 else id.ljust(32, b"\0")
    return Row(ObjectId(whole), offset, 1, 1, Kind.BLOB, CodecTag.RAW, 0, pack)


def segment(rows: list[Row], packs: tuple[bytes, ...] = (PACK,)) -> Segment:
    return Segment(b"".join(sorted(row.to_bytes() for row in rows)), packs)


def large(seed: int = 1, blocks: int = 5) -> Segment:
    """A segment of some blocks and a bit, with runs of equal keys longer than a block."""
    count = blocks * 128 + 3
    raw = noise(f"tails {seed}", 24 * count)
    heads = noise(f"heads {seed}", 8 * 7)
    ids = [
        heads[8 * (number % 7) : 8 * (number % 7) + 8] + raw[24 * number : 24 * number + 24]
        for number in range(count)
    ]
    return segment([row(id, offset=24 + number) for number, id in enumerate(ids)])


def opened(raw: bytes) -> IndexFile:
    backend = MemoryBackend()
    backend.put_new("index/a.idx", raw)
    return IndexFile.open(backend, "index/a.idx", len(raw))


class TestMerge:
    @BOTH
    def test_packs_are_numbered_anew_and_equal_rows_are_one(
        self, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(merging, "MANY", many)
        one = segment([row(b"a"), row(b"c", 1)], (b"1" * 16, b"2" * 16))
        two = segment([row(b"b"), row(b"c")], (b"2" * 16,))
        made = merge([one, two])
        names = [(found.id[:1], made.packs[found.pack]) for found in made]
        assert names == [(b"a", b"1" * 16), (b"b", b"2" * 16), (b"c", b"2" * 16)]

    @BOTH
    def test_rows_of_no_pack_and_of_packs_that_are_not_wanted_are_left_out(
        self, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(merging, "MANY", many)
        one = segment([row(b"a"), row(b"b", 1), row(b"c", 2)], (b"1" * 16, b"2" * 16))
        names, parts = merged([one], {b"2" * 16})
        assert names == (b"2" * 16,)
        assert b"".join(parts) == row(b"b").to_bytes()

    @BOTH
    def test_parts_make_no_difference(self, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(merging, "MANY", many)
        segments: list[Segment | IndexFile] = [
            large(1),
            opened(large(2).to_bytes()),
            large(2),
            segment([row(b"a")]),
        ]
        whole = merge(segments)
        monkeypatch.setattr(merging, "AT_ONCE", 50)
        assert merge(segments) == whole
        rows = [whole.rows[at : at + Row.SIZE] for at in range(0, len(whole.rows), Row.SIZE)]
        assert rows == sorted({bytes(row) for row in rows})
        assert len(whole) == 2 * len(large(1)) + 1

    def test_nothing_is_nothing(self) -> None:
        assert len(merge([])) == 0
        assert Segment.from_bytes(merge([]).to_bytes()) == Segment(memoryview(b""), ())
        assert list(opened(merge([]).to_bytes())) == []


FOOTERS = {name * 16: segment([row(b"a"), row(name)], (name * 16,)) for name in (b"1", b"2")}


class TestAgree:
    @BOTH
    def test_the_same_rows_agree_whatever_else_is_there(
        self, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(merging, "MANY", many)
        file = opened(merge([segment([row(b"x")]), *FOOTERS.values()]).to_bytes())
        assert agree(file, FOOTERS)
        assert agree(file, {b"2" * 16: FOOTERS[b"2" * 16]})
        assert agree(file, {**FOOTERS, b"9" * 16: segment([row(b"9")], (b"9" * 16,))})
        assert agree(file, {})

    @pytest.mark.parametrize(
        "other",
        [[row(b"a")], [row(b"a"), row(b"2"), row(b"3")], [row(b"a"), row(b"2", offset=25)], []],
    )
    def test_others_do_not(self, other: list[Row]) -> None:
        file = opened(merge(list(FOOTERS.values())).to_bytes())
        changed = {**FOOTERS, b"2" * 16: segment(other, (b"2" * 16,))}
        assert not agree(file, changed)


class TestSegment:
    def test_finds_by_prefix(self) -> None:
        rows = [row(letter) for letter in (b"a", b"b", b"c")]
        for found in (segment(rows), opened(segment(rows).to_bytes())):
            assert list(found.starting(b"b")) == [rows[1]]
            assert list(found.starting(b"b" * 32)) == [rows[1]]
            assert list(found.starting(b"bz")) == []
            assert list(found.starting(b"")) == rows
            assert found.find(b"b" * 32, key_of(b"b" * 32)) == [rows[1]]

    def test_a_file_finds_what_memory_finds(self) -> None:
        memory = large()
        file = opened(memory.to_bytes())
        rows = list(memory)
        assert list(file) == rows
        for found in rows[:: len(rows) // 50]:
            assert file.find(found.id, key_of(found.id)) == [found]
            assert memory.find(found.id, key_of(found.id)) == [found]
            assert list(file.starting(found.id[:9])) == list(memory.starting(found.id[:9]))
        for low in (b"", rows[100].id[:8], rows[300].id):
            for high in (rows[500].id[:8], rows[600].id, None):
                assert file.between(low, high) == memory.between(low, high)


TRAILING = TRAILER.size
RAW = large().to_bytes()


def forged(rows: int, packs: int, table: bytes, body: bytes) -> bytes:
    """An index file with a right digest, whatever it says."""
    from cas.ids import digest

    check = digest(table, COUNTS.pack(rows, packs))
    end = TRAILER.pack(rows, packs, check, b"CASI", 2)
    return HEADER.pack(b"CASI", 2) + body + table + end


def refused(raw: bytes, why: str) -> None:
    """Insist that who checks all of it, in memory or in place, finds this wrong."""
    with pytest.raises(CorruptionError, match=why):
        Segment.from_bytes(raw)
    with pytest.raises(CorruptionError, match=why):
        opened(raw).check()


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "error"),
        [
            (lambda raw: raw[:-TRAILING] + b"X" * TRAILING, CorruptionError),
            (lambda raw: raw[:10], CorruptionError),
            (lambda raw: raw[1:], CorruptionError),
            (lambda raw: raw + b"\0", CorruptionError),
            (lambda raw: raw[:-4] + b"\3\0\0\0", UnsupportedError),
            (lambda raw: raw[:-4] + b"\1\0\0\0", CorruptionError),
            (lambda raw: raw[:-TRAILING] + b"\xff" * 12 + raw[12 - TRAILING :], CorruptionError),
            (lambda raw: raw[: -TRAILING - 1] + b"\0" + raw[-TRAILING:], CorruptionError),
        ],
    )
    def test_of_the_end_is_told_at_once(
        self, damage: Callable[[bytes], bytes], error: type[CasError]
    ) -> None:
        with pytest.raises(error):
            opened(damage(RAW))
        with pytest.raises(error):
            Segment.from_bytes(damage(RAW))

    def test_of_a_block_is_told_by_who_reads_it(self) -> None:
        rows = list(large())
        at = HEADER.size + 3 * BLOCK + 100
        file = opened(RAW[:at] + bytes([RAW[at] ^ 8]) + RAW[at + 1 :])
        first, fourth = rows[0], rows[3 * 128 + 60]
        assert file.find(first.id, key_of(first.id)) == [first]
        with pytest.raises(UnreadableError, match=r"index/a.idx: block 3 of an index is damaged"):
            file.find(fourth.id, key_of(fourth.id))

    def test_a_file_that_goes_is_told(self) -> None:
        backend = MemoryBackend()
        backend.put_new("index/a.idx", RAW)
        file = IndexFile.open(backend, "index/a.idx", len(RAW))
        backend.delete("index/a.idx")
        with pytest.raises(UnreadableError, match="not found"):
            file.find(b"x" * 32, key_of(b"x" * 32))

    def test_rows_that_are_not_in_order_are_no_index(self) -> None:
        rows = b"".join(row(letter).to_bytes() for letter in (b"b", b"a"))
        refused(Segment(rows, (PACK,)).to_bytes(), "not in order")

    def test_nor_are_rows_that_come_twice_or_are_of_no_pack(self) -> None:
        refused(Segment(row(b"a").to_bytes() * 2, (PACK,)).to_bytes(), "not in order")
        refused(segment([row(b"a", 1)]).to_bytes(), "names a pack that is not there")

    def test_order_is_checked_across_what_is_read_at_once(self) -> None:
        memory = large(blocks=70)
        opened(memory.to_bytes()).check()
        middle = 64 * BLOCK
        turned = bytes(memory.rows[middle:]) + bytes(memory.rows[:middle])
        refused(Segment(turned, (PACK,)).to_bytes(), "order")

    def test_keys_that_are_not_those_of_the_rows_are_no_index(self) -> None:
        body = row(b"b").to_bytes()
        check = Segment(body, ()).to_bytes()[-TRAILING - 8 : -TRAILING]
        raw = forged(1, 0, b"a" * 8 + check, body)
        refused(raw, "other keys")
        # Who searches it finds nothing wrong, only nothing.
        assert list(opened(forged(1, 0, b"c" * 8 + check, body)).find(b"b" * 32, 0)) == []


@pytest.mark.parametrize("count", [3, 20_000], ids=["python", "numpy"])
def test_joined_footers_find_what_each_has(count: int) -> None:
    heads = noise("heads", 8 * 50)
    rows = [
        row(heads[8 * (at % 50) :][:8] + at.to_bytes(24, "big"), offset=at) for at in range(count)
    ]
    footers = [segment(rows[: count // 2]), segment([]), segment(rows[count // 2 :] + rows[:1])]
    names = [bytes([number]) * 16 for number in range(3)]
    joined = Joined((name, part.rows) for name, part in zip(names, footers, strict=True))
    assert [joined.part(number).rows for number in range(3)] == [part.rows for part in footers]
    assert joined.packs == tuple(names)
    assert len(joined) == count + 1
    assert [
        (found.offset, found.pack) for found in joined.find(rows[0].id, key_of(rows[0].id))
    ] == [
        (0, 0),
        (0, 2),
    ]
    last = rows[-1]
    (found,) = joined.find(last.id, key_of(last.id))
    assert (found.id, found.offset, found.pack) == (last.id, last.offset, 2)
    head = rows[1].id[:8]
    starting = {found.id for found in joined.starting(head[:7])}
    assert starting == {row.id for row in rows if row.id.startswith(head[:7])}
    assert joined.find(b"\xff" * 32, key_of(b"\xff" * 32)) == []
