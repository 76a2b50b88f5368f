"""A body of rows is full of them: every length that does not agree is found."""

import struct

import numpy as np
import pytest

from cas.codec.compress import Zstd
from cas.codec.rows import QUICK, RowWriter, coder_for, read_rows
from cas.errors import CorruptionError
from tests.support.noise import noise

ROWS = [noise("rows", 300), bytes(1000), b"", b"ab" * 300]
SIZES = [len(row) for row in ROWS]


def body() -> bytearray:
    writer = RowWriter(b"front", SIZES, [None, QUICK, None, Zstd()])
    for place, row in zip(writer.rows, ROWS, strict=True):
        place[:] = np.frombuffer(row, np.uint8)
    return bytearray(writer.finish())


def test_rows_come_back() -> None:
    made = body()
    assert made[:5] == b"front"
    reader = read_rows(memoryview(made)[5:], SIZES)
    assert [row.tobytes() for row in reader.rows()] == ROWS


def test_raw_rows_stand_first_and_lengths_of_frames_alone_are_stored() -> None:
    made = body()
    lengths = struct.unpack_from("<4I", made, 5)
    assert (lengths[0], lengths[2]) == (0, 0)
    assert 5 + 16 + 300 + lengths[1] + lengths[3] == len(made)
    assert made[21:321] == ROWS[0]
    assert Zstd().decode(made[321 : 321 + lengths[1]], 1000) == ROWS[1]


@pytest.mark.parametrize("number", range(4))
def test_a_length_that_lies_is_corruption(number: int) -> None:
    made = body()
    place = 5 + 4 * number
    for change in (1, 1 << 31):
        lying = made[:]
        (length,) = struct.unpack_from("<I", made, place)
        struct.pack_into("<I", lying, place, length ^ change)
        with pytest.raises(CorruptionError):
            read_rows(memoryview(lying)[5:], SIZES).rows()


def test_rows_of_other_sizes_are_corruption() -> None:
    made = memoryview(body())[5:]
    for sizes in ([301, *SIZES[1:]], [300, 1001, *SIZES[2:]], [1 << 40, *SIZES[1:]]):
        with pytest.raises(CorruptionError):
            read_rows(made, sizes).rows()
    with pytest.raises(CorruptionError, match="cut short"):
        read_rows(made[:15], SIZES)


def test_a_row_that_gains_nothing_stays_raw() -> None:
    random = np.frombuffer(noise("row", 4000), np.uint8)
    assert coder_for(random) == (None, 4000)
    assert coder_for(random[:0]) == (None, 0)
    coder, size = coder_for(np.zeros(4000, np.uint8))
    assert coder is QUICK
    assert size < 40


def test_rows_that_grow_when_coded_still_come_back() -> None:
    data = noise("grows", 1 << 20)
    writer = RowWriter(b"", [len(data), 3], [QUICK, QUICK])
    writer.rows[0][:] = np.frombuffer(data, np.uint8)
    writer.rows[1][:] = 7
    made = writer.finish()
    assert len(made) > len(data) + 3
    big, small = read_rows(made, [len(data), 3]).rows()
    assert (big.tobytes(), small.tobytes()) == (data, b"\x07" * 3)
