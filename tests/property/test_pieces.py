"""Cutting what comes in buffers, and reading a part of what was cut."""

from hypothesis import given
from hypothesis import strategies as st

from cas.codec.chunker import FASTCDC_MIN, ContentDefined, Fixed
from cas.codec.element import Element
from cas.store.pieces import cut
from tests.support.noise import noise
from tests.support.stores import Shelf

KIB = 1024
STREAM = noise("pieces", 3 * KIB * KIB)
buffers = st.lists(
    st.sampled_from([0, 1, 100, FASTCDC_MIN, 128 * KIB, 512 * KIB, 513 * KIB, 1 << 20])
    | st.integers(0, 700 * KIB),
    max_size=12,
)
chunkers = st.sampled_from([ContentDefined(), Fixed(100_000), Fixed(1000)])


@given(sizes=buffers, chunker=chunkers)
def test_the_cuts_do_not_depend_on_the_buffers(
    sizes: list[int], chunker: ContentDefined | Fixed
) -> None:
    data = STREAM[: sum(sizes)]
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    chunks = [bytes(chunk) for chunk in cut(parts, chunker)]
    assert b"".join(chunks) == data
    assert [len(chunk) for chunk in chunks] == chunker.cut(memoryview(data), final=True)


@given(
    size=st.sampled_from([0, 1, 600 * KIB, 2 << 20]),
    start=st.integers(0, 2 << 20),
    length=st.integers(0, 1 << 20),
    element=st.sampled_from([None, Element(4, floating=True)]),
)
def test_a_slice_is_that_of_the_whole(
    size: int, start: int, length: int, element: Element | None
) -> None:
    shelf = Shelf()
    writer = shelf.writer()
    id = writer.blob(STREAM[:size], element)
    shelf.publish(writer)
    found = b"".join(shelf.store.slice(id, start, start + length))
    assert found == STREAM[:size][start : start + length]
    given_out: list[bytearray] = []

    def room(length: int) -> memoryview:
        given_out.append(bytearray(length))
        return memoryview(given_out[-1])

    assert list(shelf.store.pour(id, room)) == [len(part) for part in given_out]
    assert b"".join(given_out) == STREAM[:size]
