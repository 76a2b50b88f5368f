"""Words are taken apart and put together again, bit for bit, as plain Python would."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cas.codec import bits
from tests.support.numbers import odd_ones, unsigned, weights


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Do everything both ways: who has no compiler must read what others wrote."""
    if request.param == "numpy":
        monkeypatch.setattr(bits, "compiled", None)
    elif bits.compiled is None:
        pytest.skip("nothing was compiled here")
    return str(request.param)


every_width = pytest.mark.parametrize("width", [1, 2, 4, 8])
wide = pytest.mark.parametrize("width", [2, 4, 8])


def words_of(data: bytes, width: int) -> bits.Words:
    return np.frombuffer(data, unsigned(width))


@every_width
def test_planes_are_the_bytes_of_the_words(width: int) -> None:
    data = odd_ones(width) + weights(100, width)
    words = words_of(data, width)
    planes = [np.empty(words.size, np.uint8) for _ in range(width)]
    bits.split(words, planes)
    assert [row.tobytes() for row in planes] == [data[k::width] for k in range(width)]
    back = np.empty_like(words)
    bits.join(planes, back)
    assert back.tobytes() == data


@wide
def test_a_rotation_moves_the_highest_bits_to_the_lower_end(width: int) -> None:
    words = words_of(odd_ones(width), width)
    size = 8 * width
    for by in (1, 3, size - 1):
        out = np.empty_like(words)
        bits.rotate(words, by, out)
        expected = [(word << by | word >> (size - by)) % (1 << size) for word in words.tolist()]
        assert out.tolist() == expected


@every_width
def test_the_step_to_the_next_float_is_one_across_zero_too(width: int) -> None:
    top = 1 << (8 * width - 1)
    row = [top + 2, top + 1, top, 0, 1, 2]  # -2 steps, -1 step, -0, +0, +1 step, +2 steps
    words = np.array(row, unsigned(width))
    steps = np.empty(5, unsigned(width))
    bits.difference(words[1:], words[:-1], steps, floating=True)
    assert steps.tolist() == [2] * 5
    bits.difference(words[:-1], words[1:], steps, floating=True)
    assert steps.tolist() == [1] * 5


@every_width
@pytest.mark.parametrize("floating", [False, True])
def test_steps_lead_back_between_any_two_words(width: int, *, floating: bool) -> None:
    words = words_of(odd_ones(width), width)
    pairs = np.array([(a, b) for a in words.tolist() for b in words.tolist()], unsigned(width))
    data, base = pairs[:, 0].copy(), pairs[:, 1].copy()
    steps, back = np.empty_like(data), np.empty_like(data)
    bits.difference(data, base, steps, floating=floating)
    assert (steps == 0).tolist() == (data == base).tolist()
    bits.restore(steps, base, back, floating=floating)
    assert back.tolist() == data.tolist()


def test_small_steps_of_either_sign_are_small_numbers() -> None:
    base = np.array([5, 5, 5, 5, 0], "<u4")
    data = np.array([5, 4, 6, 3, (1 << 32) - 1], "<u4")
    steps = np.empty_like(base)
    bits.difference(data, base, steps, floating=False)
    assert steps.tolist() == [0, 1, 2, 3, 1]


def test_spans_cover_all_words_in_order(way: str) -> None:
    for width in (1, 2, 4, 8):
        step = (bits.BLOCK_SIZE if way == "numpy" else bits.LARGE_BLOCK) // width
        for count in (0, 1, step - 1, step, step + 1, 3 * step):
            spans = list(bits.spans(count, width))
            assert [number for span in spans for number in range(*span)] == list(range(count))
            assert all(start % 8 == 0 for start, _ in spans)


def test_scratch_is_kept_but_not_when_it_is_large() -> None:
    assert bits.scratch.bytes("test", 100).base is bits.scratch.bytes("test", 50).base
    large = bits.scratch.bytes("test", bits.KEPT_SIZE + 1)
    assert bits.scratch.bytes("test", 50).base is not large
    assert bits.scratch.bytes("test", 50).base is bits.scratch.bytes("test", 100).base


def test_bytes_are_seen_not_copied() -> None:
    data = bytearray(b"abcd")
    bits.as_bytes(data)[0] = 0x7A
    assert data == b"zbcd"
    assert bits.as_bytes(b"").size == 0
    assert bits.as_bytes(memoryview(b"").cast("d")).size == 0  # type: ignore[arg-type]
    assert bits.as_words(bits.as_bytes(b"abcdefg"), 2).size == 3


@wide
@pytest.mark.parametrize("shift", [0, 1])
def test_halves_are_rotated_wherever_the_words_stand(width: int, shift: int) -> None:
    rng = np.random.default_rng(width)
    size, half = 8 * width, max(8 * width // 2, 16)
    for count in (0, 1, 31, 70_001):  # more than a block, and not a whole number of any lane
        raw = rng.integers(0, 256, shift + count * width, np.uint8)
        words = raw[shift:].view(unsigned(width))
        for turn in (1, 3, half - 1):
            planes = [np.empty(count, np.uint8) for _ in range(width)]
            bits.split(words, planes, turn)
            low, high = words.astype("u8") % 2 ** (size - half), words >> (size - half)
            turned = (high.astype("u8") << turn | high.astype("u8") >> (half - turn)) % 2**half
            wanted = (turned << (size - half) | low).astype(unsigned(width)).view(np.uint8)
            assert [row.tobytes() for row in planes] == [
                wanted[k::width].tobytes() for k in range(width)
            ]
            back = np.empty_like(words)
            bits.join(planes, back, turn)
            assert back.tobytes() == words.tobytes()


class TestCompiled:
    def test_buffers_that_do_not_agree_are_refused(self, way: str) -> None:
        if way == "numpy" or bits.compiled is None:
            pytest.skip("NumPy checks for itself")
        four, five, out = bytearray(4), bytearray(5), bytearray(4)
        calls: tuple[Callable[[Any], object], ...] = (
            lambda c: c.split(four, [bytearray(1)] * 3, 4, 0),
            lambda c: c.split(four, [bytearray(1)] * 3 + [bytearray(2)], 4, 0),
            lambda c: c.split(five, [bytearray(1)] * 4, 4, 0),
            lambda c: c.split(four, [bytearray(1)] * 3, 3, 0),
            lambda c: c.split(four, [bytearray(1)] * 4, 4, 16),
            lambda c: c.split(four, [bytearray(1)] * 4, 4, -1),
            lambda c: c.join([bytearray(2)] * 4, four, 4, 0),
            lambda c: c.join([bytearray(1)] * 2, four, 4, 0),
            lambda c: c.difference(four, five, out, 1, False),
            lambda c: c.difference(four, four, bytearray(3), 1, False),
            lambda c: c.restore(five, five, bytearray(5), 2, True),
            lambda c: c.restore(four, four, out, 5, True),
        )
        for call in calls:
            with pytest.raises(ValueError, match=r"agree|one byte for each word"):
                call(bits.compiled)

    def test_what_cannot_be_written_is_refused(self, way: str) -> None:
        if way == "numpy" or bits.compiled is None:
            pytest.skip("NumPy checks for itself")
        with pytest.raises((TypeError, BufferError)):
            bits.compiled.join([b"a"], b"a", 1, 0)
        with pytest.raises((TypeError, BufferError)):
            bits.compiled.split(b"a", [b"a"], 1, 0)
