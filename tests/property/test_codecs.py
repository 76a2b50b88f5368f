"""What every codec promises, for all inputs."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cas.codec import choose
from cas.codec.base import Codec, codec_for
from cas.codec.compress import Raw, Zstd
from cas.codec.element import Element
from cas.codec.planes import PLANES, Planes
from cas.errors import CorruptionError
from tests.support.noise import noise
from tests.support.numbers import ELEMENTS, odd_ones, weights

CODECS = [
    Raw(),
    Zstd(),
    Zstd(level=1),
    Zstd(level=1, entropy=True),
    Zstd(level=19),
    *map(Planes, ELEMENTS),
]
every_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)
# Bytes that compress, and bytes that do not.
DATA = st.binary(max_size=4096) | st.builds(
    lambda unit, times: unit * times, st.binary(min_size=1, max_size=20), st.integers(1, 300)
)


@every_codec
@given(data=DATA)
def test_decoding_returns_the_input(codec: Codec, data: bytes) -> None:
    assert codec.decode(codec.encode(data), len(data)) == data
    assert codec_for(codec.tag).decode(memoryview(codec.encode(bytearray(data))), len(data)) == data


@every_codec
@given(data=DATA)
def test_decoding_fills_the_target_and_nothing_else(codec: Codec, data: bytes) -> None:
    target = bytearray(len(data) + 2)
    codec.decode_into(codec.encode(data), memoryview(target)[1:-1])
    assert target == b"\0" + data + b"\0"


@every_codec
@given(data=st.binary(min_size=1, max_size=4096), cut=st.integers(0, 64))
def test_a_body_cut_short_is_corruption(codec: Codec, data: bytes, cut: int) -> None:
    body = codec.encode(data)
    for part in (body[: min(cut, len(body) - 1)], body[: len(body) - 1 - cut % len(body)]):
        with pytest.raises(CorruptionError):
            codec.decode(part, len(data))
        with pytest.raises(CorruptionError):
            codec.decode_into(part, memoryview(bytearray(len(data))))


@every_codec
@given(data=DATA, more=st.binary(min_size=1, max_size=20))
def test_a_body_that_goes_on_is_corruption(codec: Codec, data: bytes, more: bytes) -> None:
    body = bytes(codec.encode(data)) + more
    with pytest.raises(CorruptionError):
        codec.decode(body, len(data))
    with pytest.raises(CorruptionError):
        codec.decode_into(body, memoryview(bytearray(len(data))))


@every_codec
@given(data=DATA, size=st.integers(0, 5000) | st.sampled_from([1 << 40, (1 << 64) - 1]))
def test_a_body_of_another_size_is_corruption(codec: Codec, data: bytes, size: int) -> None:
    if size != len(data):
        with pytest.raises(CorruptionError):
            codec.decode(codec.encode(data), size)
        with pytest.raises(CorruptionError):
            codec.decode_into(codec.encode(data), memoryview(bytearray(min(size, 9000))))


@given(body=st.binary(max_size=200), size=st.integers(0, 300))
@example(body=b"", size=0)
@example(body=b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00", size=0)
def test_noise_is_corruption_or_of_the_size_asked_for(body: bytes, size: int) -> None:
    for framed in (body, b"\x28\xb5\x2f\xfd" + body):
        try:
            data = Zstd().decode(framed, size)
        except CorruptionError:
            continue
        assert len(data) == size


@given(data=DATA, place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flipped_bit_never_changes_the_size(data: bytes, place: int, bit: int) -> None:
    body = bytearray(Zstd().encode(data))
    body[place % len(body)] ^= 1 << bit
    try:
        decoded = Zstd().decode(body, len(data))
    except CorruptionError:
        return
    assert len(decoded) == len(data)  # the record's checksum and the id tell the rest


@given(data=DATA, noisy=st.integers(0, 60_000), plain=st.integers(0, 60_000))
def test_what_is_chosen_comes_back_and_never_grows(data: bytes, noisy: int, plain: int) -> None:
    data += noise("chosen", noisy) + b"plain " * (plain // 6)
    tag, body = choose.encode(data)
    assert len(body) <= len(data)
    assert codec_for(tag).decode(body, len(data)) == data


@given(body=st.binary(max_size=200), size=st.integers(0, 300), width=st.sampled_from([1, 2, 4, 8]))
@example(body=bytes(4), size=0, width=1)
def test_noise_is_no_planes_or_of_the_size_asked_for(body: bytes, size: int, width: int) -> None:
    for framed in (body, bytes([width, 0]) + body, bytes([width, 0]) + bytes(4 * width + 4) + body):
        try:
            data = PLANES.decode(framed, size)
        except CorruptionError:
            continue
        assert len(data) == size


@given(
    element=st.sampled_from(ELEMENTS),
    count=st.integers(0, 2000),
    place=st.integers(0, 1 << 20),
    bit=st.integers(0, 7),
)
def test_a_flipped_bit_of_planes_never_changes_the_size(
    element: Element, count: int, place: int, bit: int
) -> None:
    data = weights(count, element.width) + b"tail"
    body = bytearray(Planes(element).encode(data))
    body[place % len(body)] ^= 1 << bit
    try:
        decoded = PLANES.decode(body, len(data))
    except CorruptionError:
        return
    assert len(decoded) == len(data)


@given(
    element=st.sampled_from(ELEMENTS),
    picks=st.lists(st.integers(0, 1 << 16), max_size=300),
    count=st.integers(0, 30_000),
    repeats=st.integers(1, 3),
    tail=st.binary(max_size=7),
)
def test_numbers_of_any_kind_come_back_and_never_grow(
    element: Element, picks: list[int], count: int, repeats: int, tail: bytes
) -> None:
    width = element.width
    odd = odd_ones(width)
    strange = b"".join(odd[pick % len(odd) // width * width :][:width] for pick in picks)
    data = (strange + weights(count, width)) * repeats + tail
    tag, body = choose.encode(data, element)
    assert len(body) <= len(data)
    assert codec_for(tag).decode(body, len(data)) == data
