"""What every codec promises, for all inputs."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cas.codec import choose
from cas.codec.base import Codec, codec_for
from cas.codec.compress import Raw, Zstd
from cas.errors import CorruptionError
from tests.support.noise import noise

CODECS = [Raw(), Zstd(), Zstd(level=1), Zstd(level=19)]
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
@given(data=st.binary(min_size=1, max_size=4096), cut=st.integers(0, 64))
def test_a_body_cut_short_is_corruption(codec: Codec, data: bytes, cut: int) -> None:
    body = codec.encode(data)
    with pytest.raises(CorruptionError):
        codec.decode(body[: min(cut, len(body) - 1)], len(data))


@every_codec
@given(data=DATA, more=st.binary(min_size=1, max_size=20))
def test_a_body_that_goes_on_is_corruption(codec: Codec, data: bytes, more: bytes) -> None:
    with pytest.raises(CorruptionError):
        codec.decode(bytes(codec.encode(data)) + more, len(data))


@every_codec
@given(data=DATA, size=st.integers(0, 5000) | st.sampled_from([1 << 40, (1 << 64) - 1]))
def test_a_body_of_another_size_is_corruption(codec: Codec, data: bytes, size: int) -> None:
    if size != len(data):
        with pytest.raises(CorruptionError):
            codec.decode(codec.encode(data), size)


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
