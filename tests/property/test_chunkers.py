"""What every chunker promises, for all inputs."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.codec.chunker import FASTCDC_MAX, FASTCDC_MIN, Chunker, ContentDefined, Fixed
from tests.support.noise import noise

CHUNKERS = [ContentDefined(), Fixed(100_000)]
every_chunker = pytest.mark.parametrize("chunker", CHUNKERS, ids=repr)
STREAM = noise("chunkers", 3 << 20)
# Noise, a long run without cuts, and noise again.
PIECES = st.lists(
    st.tuples(st.sampled_from(["noise", "zeros"]), st.integers(0, 900_000)), max_size=3
)
# Small ones near the start, then always the last.
WINDOWS = st.tuples(
    st.lists(st.integers(1, 300_000), max_size=6), st.integers(50_000, 1_200_000)
).map(lambda sizes: [*sizes[0], sizes[1]])


def build(pieces: list[tuple[str, int]]) -> bytes:
    return b"".join(STREAM[:size] if kind == "noise" else bytes(size) for kind, size in pieces)


def cut_in_windows(chunker: Chunker, data: bytes, windows: list[int]) -> list[int]:
    """Cut as a reader of a stream does: what is left out goes in front of the next window."""
    lengths: list[int] = []
    start = end = turn = 0
    while True:
        end = min(end + windows[min(turn, len(windows) - 1)], len(data))
        turn += 1
        final = end == len(data)
        found = chunker.cut(memoryview(data)[start:end], final=final)
        lengths += found
        start += sum(found)
        if final:
            return lengths


@every_chunker
@given(pieces=PIECES, windows=WINDOWS)
def test_windows_give_the_cuts_of_the_whole(
    chunker: Chunker, pieces: list[tuple[str, int]], windows: list[int]
) -> None:
    data = build(pieces)
    whole = chunker.cut(memoryview(data), final=True)
    assert sum(whole) == len(data)
    assert all(0 < length <= chunker.max_size for length in whole)
    assert cut_in_windows(chunker, data, windows) == whole


@every_chunker
@given(size=st.integers(0, 1_500_000))
def test_what_could_still_grow_is_left_out_and_nothing_else(chunker: Chunker, size: int) -> None:
    data = memoryview(STREAM)[:size]
    whole = chunker.cut(data, final=True)
    complete = chunker.cut(data, final=False)
    assert complete == whole[: len(complete)]
    assert len(whole) - len(complete) <= 1
    assert complete == chunker.cut(memoryview(STREAM), final=True)[: len(complete)]


@given(place=st.integers(0, 3 << 20), inserted=st.binary(min_size=1, max_size=50))
def test_an_insertion_moves_only_the_cuts_near_it(place: int, inserted: bytes) -> None:
    changed = STREAM[:place] + inserted + STREAM[place:]
    before = ends(STREAM)
    after = {end - len(inserted) for end in ends(changed) if end > place + len(inserted)}
    assert {end for end in before if end < place} <= ends(changed)
    # Cuts meet again soon: those from a few chunks on are all shared.
    far = {end for end in before if end > place + 4 * FASTCDC_MAX}
    assert far <= after


@given(size=st.integers(1, 1_000_000))
def test_only_the_last_chunk_is_shorter_than_the_minimum(size: int) -> None:
    lengths = ContentDefined().cut(memoryview(STREAM)[:size], final=True)
    assert all(length >= FASTCDC_MIN for length in lengths[:-1])


def ends(data: bytes) -> set[int]:
    return set(accumulate(ContentDefined().cut(memoryview(data), final=True)))
