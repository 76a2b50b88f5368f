"""What every delta codec promises, for all inputs and all bases."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cas.codec import choose
from cas.codec.base import DeltaCodec, delta_for
from cas.codec.delta import DELTA
from cas.codec.element import Element
from cas.codec.sparse import SPARSE_DELTA
from cas.errors import CorruptionError
from cas.ids import Buffer
from tests.support.numbers import ELEMENTS, stepped, weights

every_codec = pytest.mark.parametrize("codec", [DELTA, SPARSE_DELTA], ids=repr)
ELEMENT = st.sampled_from(ELEMENTS)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Bytes and a base of the same size: unrelated, equal, or a few bytes apart."""
    base = draw(st.binary(max_size=2000))
    data = bytearray(base)
    for place in draw(st.lists(st.integers(0, 1 << 16), max_size=20)):
        if data:
            data[place % len(data)] = place >> 8 & 255
    unrelated = draw(st.booleans())
    return (base[::-1] if unrelated else bytes(data)), base


def decoded(codec: DeltaCodec, body: Buffer, base: Buffer) -> bytes:
    target = bytearray(len(base))
    codec.decode_into(body, base, memoryview(target))
    return bytes(target)


@every_codec
@given(pair=pairs(), element=ELEMENT)
def test_decoding_returns_the_input(
    codec: DeltaCodec, pair: tuple[bytes, bytes], element: Element
) -> None:
    data, base = pair
    body = codec.encode(data, base, element)
    assert decoded(codec, body, base) == data
    assert decoded(delta_for(codec.tag), memoryview(bytes(body)), bytearray(base)) == data


@every_codec
@given(pair=pairs(), element=ELEMENT, cut=st.integers(0, 64))
def test_a_body_cut_short_is_corruption(
    codec: DeltaCodec, pair: tuple[bytes, bytes], element: Element, cut: int
) -> None:
    data, base = pair
    body = codec.encode(data, base, element)
    for part in (body[: min(cut, len(body) - 1)], body[: len(body) - 1 - cut % len(body)]):
        with pytest.raises(CorruptionError):
            decoded(codec, part, base)


@every_codec
@given(pair=pairs(), element=ELEMENT, more=st.binary(min_size=1, max_size=20))
def test_a_body_that_goes_on_is_corruption(
    codec: DeltaCodec, pair: tuple[bytes, bytes], element: Element, more: bytes
) -> None:
    data, base = pair
    with pytest.raises(CorruptionError):
        decoded(codec, bytes(codec.encode(data, base, element)) + more, base)


@every_codec
@given(pair=pairs(), element=ELEMENT, size=st.integers(0, 5000))
def test_a_body_of_another_size_is_corruption(
    codec: DeltaCodec, pair: tuple[bytes, bytes], element: Element, size: int
) -> None:
    data, base = pair
    if size != len(data):
        with pytest.raises(CorruptionError):
            decoded(codec, codec.encode(data, base, element), bytes(size))


@every_codec
@given(body=st.binary(max_size=200), size=st.integers(0, 300), element=ELEMENT)
@example(body=bytes(30), size=0, element=Element(1))
def test_noise_is_corruption_or_a_result(
    codec: DeltaCodec, body: bytes, size: int, element: Element
) -> None:
    front = bytes([element.width, int(element.floating)])
    sizes = size.to_bytes(4, "little") + bytes(4)
    for framed in (body, front + body, front + bytes(40) + body, front + sizes + body):
        try:
            assert len(decoded(codec, framed, bytes(size))) == size
        except CorruptionError:
            continue


@every_codec
@given(
    element=ELEMENT,
    count=st.integers(0, 2000),
    share=st.sampled_from([0.05, 0.5, 1.0]),
    flip=st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)),
)
def test_a_flipped_bit_is_corruption_or_other_bytes(
    codec: DeltaCodec, element: Element, count: int, share: float, flip: tuple[int, int]
) -> None:
    base = weights(count, element.width) + b"tail"
    data = stepped(base, element.width, share=share)
    body = bytearray(codec.encode(data, base, element))
    place, bit = flip
    body[place % len(body)] ^= 1 << bit
    try:
        assert len(decoded(codec, body, base)) == len(data)
    except CorruptionError:
        return


@given(
    element=ELEMENT,
    count=st.integers(0, 40_000),
    share=st.sampled_from([0.0, 0.03, 0.4, 1.0]),
    most=st.sampled_from([1, 5, 1000]),
    tail=st.binary(max_size=7),
)
def test_what_is_chosen_comes_back_and_is_smaller(
    element: Element, count: int, share: float, most: int, tail: bytes
) -> None:
    base = weights(count, element.width) + tail
    data = stepped(base, element.width, share=share, most=most)
    found = choose.encode_delta(data, base, element)
    if found is None:
        return
    tag, body = found
    assert len(body) <= 0.97 * len(data)
    assert decoded(delta_for(tag), body, base) == data
