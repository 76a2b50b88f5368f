"""What suits numbers is found by a sample, and nothing ever grows."""

import threading

import numpy as np
import pytest

from cas.codec import choose, numbers
from cas.codec.base import CodecTag, codec_for, delta_for
from cas.codec.element import Element
from cas.codec.grouped import Groups
from cas.errors import InvalidInputError
from cas.ids import Buffer
from tests.support.noise import noise
from tests.support.numbers import ELEMENTS, stepped, weights

FLOAT = Element(4, floating=True)
BFLOAT = Element(2, floating=True)
DOUBLE = Element(8, floating=True)
LONG = Element(8)
BYTE = Element(1)
RNG = np.random.default_rng(3)
HALVES = RNG.normal(0, 0.02, 1 << 18).astype("<f2").tobytes()


def tag(data: Buffer, element: Element) -> CodecTag:
    return choose.encode(data, element)[0]


@pytest.mark.parametrize(
    ("name", "data", "element", "expected", "most"),
    [
        ("weights", weights(1 << 18, 4), FLOAT, CodecTag.PLANES, 0.835),
        ("bfloat16", weights(1 << 18, 2), BFLOAT, CodecTag.PLANES, 0.665),
        ("float64", weights(1 << 17, 8), DOUBLE, CodecTag.PLANES, 0.88),
        ("float16", HALVES, BFLOAT, CodecTag.PLANES, 0.86),
        ("zeros", bytes(1 << 20), FLOAT, CodecTag.ZSTD, 0.001),
        ("equal rows", weights(1024, 4) * 200, FLOAT, CodecTag.PLANES, 0.01),
        ("noise", noise("numbers", 1 << 20), FLOAT, CodecTag.RAW, 1),
        ("noise of ints", noise("numbers", 1 << 20), LONG, CodecTag.RAW, 1),
        ("noise of bytes", noise("numbers", 1 << 20), BYTE, CodecTag.RAW, 1),
        ("counting", np.arange(1 << 17, dtype="<i8").tobytes(), LONG, CodecTag.PLANES, 0.01),
        ("small ints", RNG.integers(0, 1000, 1 << 17).tobytes(), LONG, CodecTag.PLANES, 0.17),
        ("a mask", (RNG.random(1 << 18) < 0.1).tobytes(), BYTE, CodecTag.ZSTD, 0.13),
        ("float8", RNG.normal(60, 5, 1 << 18).astype("u1").tobytes(), BYTE, CodecTag.ZSTD, 0.56),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_choice(
    name: str, data: bytes, element: Element, expected: CodecTag, most: float
) -> None:
    chosen, body = choose.encode(data, element)
    assert chosen is expected, name
    assert len(body) <= most * len(data)
    assert codec_for(chosen).decode(body, len(data)) == data


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100, 1000, 49_152, 65_536, 65_537, 1 << 20])
def test_nothing_ever_grows(element: Element, size: int) -> None:
    for data in (noise("grow", size), weights(size, 1)[:size], bytes(size)):
        chosen, body = choose.encode(data, element)
        assert len(body) <= size
        assert codec_for(chosen).decode(body, size) == data


def test_a_sample_that_compresses_does_not_keep_a_body_that_does_not() -> None:
    data = bytearray(noise("numbers", 4 << 20))
    count, size = numbers.WINDOWS
    for start in numbers.window_starts(len(data), count, size):
        data[start : start + size] = bytes(size)
    assert tag(data, FLOAT) is CodecTag.RAW


@pytest.mark.parametrize("element", ELEMENTS, ids=repr)
def test_a_delta_is_taken_where_steps_are_small(element: Element) -> None:
    base = weights((1 << 20) // element.width, element.width, seed=4)
    data = stepped(base, element.width)
    found = choose.encode_delta(data, base, element)
    assert found is not None
    chosen, body = found
    assert len(body) < 0.97 * len(choose.encode(data, element)[1])
    target = bytearray(len(data))
    delta_for(chosen).decode_into(body, base, memoryview(target))
    assert target == data


def test_bfloat16_at_close_steps_is_a_sparse_delta() -> None:
    base = weights(1 << 20, 2)
    found = choose.encode_delta(stepped(base, 2, share=0.05, most=1), base, BFLOAT)
    assert found is not None
    assert found[0] is CodecTag.SPARSE_DELTA
    assert len(found[1]) < 0.03 * len(base)


def test_a_delta_that_gains_nothing_is_not_made() -> None:
    data = weights(1 << 18, 4, seed=5)
    assert choose.encode_delta(data, weights(1 << 18, 4, seed=6), FLOAT) is None
    assert choose.encode_delta(noise("a", 1 << 18), noise("b", 1 << 18), FLOAT) is None
    assert choose.encode_delta(bytes(1 << 20), data, FLOAT) is None
    assert choose.encode_delta(b"a" * 63, b"b" * 63, FLOAT) is None


def test_rows_that_changed_are_not_mixed_with_those_that_did_not() -> None:
    base = weights(1 << 20, 2)
    data = bytearray(base)
    for start in range(0, len(base), 64 << 10):  # an eighth of the rows, all of their numbers
        data[start : start + (8 << 10)] = stepped(base[start : start + (8 << 10)], 2, most=50)
    found = choose.encode_delta(data, base, BFLOAT)
    assert found is not None
    assert found[1][1] == 1  # as they stand
    assert len(found[1]) < 0.06 * len(base)


def test_opaque_bytes_may_be_a_delta_too() -> None:
    base = noise("opaque", 200_000)
    data = bytearray(base)
    data[5000:5010] = b"0123456789"
    found = choose.encode_delta(data, base)
    assert found is not None
    assert len(found[1]) < 200
    target = bytearray(len(data))
    delta_for(found[0]).decode_into(found[1], base, memoryview(target))
    assert target == data


def test_a_base_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="against"):
        choose.encode_delta(bytes(100), bytes(101), FLOAT)


def test_wide_floats_are_grouped_only_when_it_is_to_be_thorough() -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(0, 0.02, 400_000).astype("<f4")
    # As an optimizer steps: by about as much for all, whatever their size.
    data = (base + rng.normal(0, 1e-5, base.size).astype("<f4")).tobytes()
    element = Element(4, floating=True)
    made = [choose.encode_delta(data, base.tobytes(), element, thorough=t) for t in (False, True)]
    (quick_tag, quick), (tag, body) = [each for each in made if each is not None]
    assert (quick_tag, tag) == (CodecTag.DELTA, CodecTag.DELTA)
    assert [quick[1], body[1]] == [1, 3]  # floats; floats in groups
    assert len(body) < 0.98 * len(quick)
    target = bytearray(len(data))
    delta_for(tag).decode_into(body, base.tobytes(), memoryview(target))
    assert target == data


def test_groups_need_not_be_many() -> None:
    groups = Groups(np.zeros(0, "<u2"))
    assert list(groups.chunks()) == []


def test_threads_may_work_at_once() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        width = (2, 4, 8)[number % 3]
        element = Element(width, floating=True)
        base = weights(100_000 + number, width, seed=number)
        data = stepped(base, width, seed=number)
        target = bytearray(len(data))
        for _ in range(5):
            chosen, body = choose.encode(base, element)
            codec_for(chosen).decode_into(body, memoryview(target))
            wrong.extend([number] * (target != base))
            found = choose.encode_delta(data, base, element)
            if found is None:
                wrong.append(number)
            else:
                delta_for(found[0]).decode_into(found[1], base, memoryview(target))
                wrong.extend([number] * (target != data))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
