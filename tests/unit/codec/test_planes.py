"""Planes keep what does not compress as it is, and everything of what it was."""

import tracemalloc

import pytest

from cas.codec import planes
from cas.codec.bits import as_bytes
from cas.codec.compress import Zstd
from cas.codec.element import Element
from cas.codec.planes import Planes
from cas.errors import CorruptionError
from tests.support.noise import noise
from tests.support.numbers import ELEMENTS, odd_ones, weights

FLOAT = Element(4, floating=True)
KIB = 1 << 10
SIZES = [0, 1, 3, 7, 8, 9, 63, 64, 65, 48 * KIB - 1, 48 * KIB, 64 * KIB - 1, 64 * KIB + 3,
         256 * KIB - 1, 256 * KIB + 5, 512 * KIB + 1]  # fmt: skip

every_element = pytest.mark.parametrize("element", ELEMENTS, ids=repr)


@every_element
@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_every_limit_come_back(element: Element, size: int) -> None:
    width = element.width
    data = (odd_ones(width) + weights(size // width + 1, width))[:size]
    codec = Planes(element)
    body = codec.encode(data)
    assert codec.decode(body, size) == data
    target = bytearray(size + 2)
    codec.decode_into(body, memoryview(target)[1 : size + 1])
    assert target == b"\0" + data + b"\0"


@pytest.mark.parametrize("more", [-1, 0, 1, 3])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_a_whole_block_comes_back(width: int, more: int) -> None:
    data = weights((4 << 20) // width + 1, width)[: (4 << 20) + more]
    codec = Planes(Element(width, floating=True))
    body = codec.encode(data)
    assert len(body) < 0.9 * len(data)
    assert codec.decode(body, len(data)) == data


def test_weights_become_as_small_as_their_exponents_allow() -> None:
    size = 1 << 20
    for width, most in ((2, 0.665), (4, 0.835), (8, 0.88)):
        body = Planes(Element(width, floating=True)).encode(weights(size // width, width))
        assert len(body) < most * size


def test_the_mantissa_is_raw_and_the_exponent_coded() -> None:
    made = planes.plan(as_bytes(weights(10_000, 4)), FLOAT)
    assert made.rotation == 1
    assert [coder is not None for coder in made.coders] == [False, False, False, True]


def test_whole_numbers_are_not_rotated() -> None:
    made = planes.plan(as_bytes(weights(10_000, 4)), Element(4))
    assert made.rotation == 0


@every_element
def test_what_is_all_the_same_collapses(element: Element) -> None:
    data = noise("one", element.width) * ((1 << 20) // element.width)
    assert len(Planes(element).encode(data)) < 1000


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (b"\x03\x00", "words of 3"),
        (b"\x00\x00", "words of 0"),
        (b"\x04\x20", "rotated by 32"),
        (b"\x04", "cut short"),
        (b"", "cut short"),
        (b"\x08\x00", "rows"),
        (b"\x02\x01", "rows"),
    ],
)
def test_a_front_that_cannot_be_is_corruption(front: bytes, message: str) -> None:
    data = weights(1000, 4)
    body = bytes(Planes(FLOAT).encode(data))
    lying = front + body[2:] if len(front) == 2 else front
    with pytest.raises(CorruptionError, match=message):
        Planes().decode(lying, len(data))


def test_views_of_wider_items_are_taken_by_their_bytes() -> None:
    data = memoryview(weights(1000, 8)).cast("d")
    body = Planes(Element(8, floating=True)).encode(data)  # type: ignore[arg-type]
    assert Planes().decode(body, 8000) == data.cast("B")


def test_bytes_at_odd_addresses_come_back() -> None:
    data = memoryview(b"x" + weights(10_000, 4))[1:]
    body = memoryview(b"x" + bytes(Planes(FLOAT).encode(data)))[1:]
    target = bytearray(40_001)
    Planes().decode_into(body, memoryview(target)[1:])
    assert target[1:] == data


def test_lengths_that_promise_much_cost_no_memory() -> None:
    size = 64 << 20
    short = bytes(Planes(FLOAT).encode(weights(1000, 4)))
    frame = bytes(Zstd(level=1).encode(bytes(size // 4)))
    lying = b"\x04\x00" + len(frame).to_bytes(4, "little") * 4 + bytes(4) + frame * 4
    tracemalloc.start()
    try:
        for body, promised in ((short, size), (lying, size // 2), (lying, size + 4)):
            with pytest.raises(CorruptionError):
                Planes().decode(body, promised)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert Planes().decode(lying, size) == bytes(size)
