"""Deltas of both forms come back, are small where steps are, and refuse what cannot be."""

import struct

import numpy as np
import pytest

from cas.codec import delta, sparse
from cas.codec.base import DeltaCodec
from cas.codec.bits import as_bytes
from cas.codec.delta import DELTA
from cas.codec.element import Element
from cas.codec.grouped import CHUNK, Groups
from cas.codec.sparse import SPARSE_DELTA
from cas.codec.steps import Form, all_steps
from cas.errors import CorruptionError, InvalidInputError
from cas.ids import Buffer
from tests.support.numbers import ELEMENTS, odd_ones, stepped, unsigned, weights

KIB = 1 << 10
SIZES = [0, 1, 7, 8, 9, 15, 17, 64, 64 * KIB - 1, 128 * KIB + 2, 256 * KIB - 1, 256 * KIB + 17]
HALF = Element(2, floating=True)

both = pytest.mark.parametrize("codec", [DELTA, SPARSE_DELTA], ids=repr)
every_element = pytest.mark.parametrize("element", ELEMENTS, ids=repr)


def decoded(codec: DeltaCodec, body: Buffer, base: bytes) -> bytes:
    target = bytearray(len(base) + 2)
    codec.decode_into(body, base, memoryview(target)[1:-1])
    assert (target[0], target[-1]) == (0, 0)
    return bytes(target[1:-1])


def grouped_body(codec: DeltaCodec, data: bytes, base: bytes) -> memoryview:
    form = Form(2, floating=True, grouped=True)
    steps = all_steps(as_bytes(data), as_bytes(base), form)
    if codec is DELTA:
        return delta.encode(data, base, delta.plan(steps, form))
    return sparse.encode(data, base, sparse.plan(steps, form))


@both
@every_element
@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_every_limit_come_back(codec: DeltaCodec, element: Element, size: int) -> None:
    width = element.width
    base = (odd_ones(width) + weights(size // width + 1, width))[:size]
    for data in (base, stepped(base, width), stepped(base, width, share=0.1), base[::-1]):
        assert decoded(codec, codec.encode(data, base, element), base) == data


@both
@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_groups_come_back(codec: DeltaCodec, count: int) -> None:
    base = odd_ones(2) + weights(count, 2) + b"x"
    data = stepped(base, 2)[:-1] + b"y"
    body = grouped_body(codec, data, base)
    assert body[1] == 3
    assert decoded(codec, body, base) == data


def test_groups_are_the_order_of_the_magnitude_of_the_base() -> None:
    base = np.frombuffer(weights(2 * CHUNK + 100, 2), unsigned(2))
    places = np.arange(base.size, dtype=np.uint32)
    grouped = np.empty_like(places)
    groups = Groups(base)
    for chunk, (start, stop) in enumerate(groups.chunks()):
        groups.gather(chunk, places[start:stop], grouped)
    expected = sorted(range(base.size), key=lambda place: (int(base[place]) >> 7) & 255)
    assert grouped.tolist() == expected


def test_groups_make_the_steps_of_bfloat16_smaller() -> None:
    base = weights(1 << 19, 2)
    floats = np.frombuffer(base, "<u2").astype("<u4") << 16
    moved = floats.view("<f4") + np.random.default_rng(2).standard_normal(1 << 19) * 1e-4
    data = (moved.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    assert len(grouped_body(DELTA, data, base)) < 0.93 * len(DELTA.encode(data, base, HALF))


@both
def test_a_base_that_is_the_same_costs_next_to_nothing(codec: DeltaCodec) -> None:
    data = weights(1 << 20, 4)
    assert len(codec.encode(data, data, Element(4, floating=True))) < 1000


def test_few_changes_are_smaller_by_a_mask() -> None:
    base = weights(1 << 19, 2)
    data = stepped(base, 2, share=0.05, most=1)
    thin, dense = (len(codec.encode(data, base, HALF)) for codec in (SPARSE_DELTA, DELTA))
    assert thin < 0.03 * len(data)
    assert thin < 0.8 * dense


@both
def test_a_base_of_another_size_is_refused(codec: DeltaCodec) -> None:
    with pytest.raises(InvalidInputError, match="against"):
        codec.encode(bytes(8), bytes(9), HALF)
    body = codec.encode(bytes(8), bytes(8), HALF)
    with pytest.raises(InvalidInputError, match="against"):
        codec.decode_into(body, bytes(9), memoryview(bytearray(8)))


@both
@pytest.mark.parametrize(
    "front", [b"\x03\x00", b"\x04\x04", b"\x08\x03", b"\x02\x02", b"\x01", b""]
)
def test_a_form_that_cannot_be_is_corruption(codec: DeltaCodec, front: bytes) -> None:
    base = weights(1000, 4)
    body = bytes(codec.encode(stepped(base, 4), base, Element(4, floating=True)))
    lying = front + body[2:] if len(front) == 2 else front
    with pytest.raises(CorruptionError):
        decoded(codec, lying, base)


@pytest.mark.parametrize("change", [-1, 1, 1 << 20])
def test_a_count_that_is_not_the_mask_is_corruption(change: int) -> None:
    base = weights(1003, 4)
    body = bytearray(SPARSE_DELTA.encode(stepped(base, 4), base, Element(4, floating=True)))
    (count,) = struct.unpack_from("<I", body, 6)
    struct.pack_into("<I", body, 6, count + change)
    with pytest.raises(CorruptionError):
        decoded(SPARSE_DELTA, body, base)


def sparse_body(mask: bytes, values: bytes) -> bytes:
    """A body of one-byte words with a raw mask."""
    return b"\x01\0" + struct.pack("<2I3I", 10, len(values), 0, 0, 0) + mask + values


def test_a_mask_marks_as_many_words_as_there_are_values() -> None:
    base = bytes(10)
    assert decoded(SPARSE_DELTA, sparse_body(b"\x01\x02", b"\x01\x00"), base) == (
        b"\x01" + bytes(8) + b"\xff"
    )
    for mask, values in (
        (b"\x01\x06", b"\x01\x01\x01"),  # marks a word behind the last
        (b"\x03\x02", b"\x01\x01"),
        (b"\x01\x00", b"\x01\x01"),
    ):
        with pytest.raises(CorruptionError, match="mask"):
            decoded(SPARSE_DELTA, sparse_body(mask, values), base)
