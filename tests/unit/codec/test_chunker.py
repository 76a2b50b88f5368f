"""The cuts of format 1, for ever: other cuts would store everything a second time.

The values stand in docs/format/cutting.md too.
"""

import threading
from typing import cast

import pytest

from cas.codec.chunker import BLOCK_SIZE, ContentDefined, Fixed
from cas.errors import InvalidInputError
from tests.support.noise import noise

NOISE_CUTS = [
    171730, 173792, 51295, 78629, 244750, 148805, 61352, 93272, 253721, 183607, 168769, 145576,
    83725, 191998, 214325, 174192, 187872, 228331, 201945, 198835, 92383, 62692, 197662, 209129,
    164674, 141552, 69691,
]  # fmt: skip
TEXT_CUTS = [
    254410, 35083, 160034, 136700, 142450, 300390, 146881, 206252, 172143, 44720, 161849, 197079,
    174837, 133504,
]  # fmt: skip
TEXT = b"".join(b"%d,%d\n" % (n, n * n % 9973) for n in range(200_000))


def cuts(data: bytes) -> list[int]:
    return ContentDefined().cut(memoryview(data), final=True)


def test_golden_cuts_of_noise() -> None:
    assert cuts(noise("cas cut test 1", 4 << 20)) == NOISE_CUTS


def test_golden_cuts_of_text() -> None:
    assert cuts(TEXT) == TEXT_CUTS


def test_golden_cuts_of_zeros() -> None:
    assert cuts(bytes((2 << 20) + 5)) == [512 << 10] * 4 + [5]


def test_the_table_of_the_library_is_the_one_of_its_plain_python_form() -> None:
    from pyfastcdc.py import FastCDC

    slow = FastCDC(128 << 10, min_size=32 << 10, max_size=512 << 10, normalized_chunking=1, seed=0)
    data = noise("cas cut test 1", 300_000)
    assert [chunk.length for chunk in slow.cut_buf(data)] == cuts(data)


def test_small_bytes_are_one_chunk() -> None:
    assert cuts(b"") == []
    assert cuts(b"x") == [1]
    assert cuts(bytes(32 << 10)) == [32 << 10]
    assert ContentDefined().cut(memoryview(b"x"), final=False) == []


def test_a_chunk_of_full_length_cannot_grow() -> None:
    assert ContentDefined().cut(memoryview(bytes(512 << 10)), final=False) == [512 << 10]
    assert ContentDefined().cut(memoryview(bytes((512 << 10) - 1)), final=False) == []


def test_views_count_in_bytes() -> None:
    data = cast("memoryview[int]", memoryview(bytes(1 << 20)).cast("d"))
    assert ContentDefined().cut(data, final=True) == [512 << 10] * 2
    assert Fixed(1_000_000).cut(data, final=True) == [1_000_000, 48_576]


def test_fixed_blocks_are_aligned_to_the_start() -> None:
    assert BLOCK_SIZE == 4 << 20
    assert Fixed().cut(memoryview(bytes((8 << 20) + 1)), final=True) == [4 << 20, 4 << 20, 1]
    assert Fixed().cut(memoryview(bytes((8 << 20) + 1)), final=False) == [4 << 20, 4 << 20]
    with pytest.raises(InvalidInputError):
        Fixed(0)


def test_threads_may_share_one() -> None:
    chunker = ContentDefined()
    data = memoryview(noise("cas cut test 1", 4 << 20))
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(chunker.cut(data, final=True)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [NOISE_CUTS] * 8
