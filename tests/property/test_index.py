"""The index finds what a dict would, however the rows are spread over files and footers."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.backend.memory import MemoryBackend
from cas.codec.base import CodecTag
from cas.ids import ObjectId
from cas.objects.kind import Kind
from cas.store import index as indexes
from cas.store import indexfile
from cas.store import joined as joining
from cas.store import merge as merging
from cas.store.index import Index, Place, Segments, consolidate
from cas.store.joined import Joined
from cas.store.merge import merge
from cas.store.pack import Footer, PackClass, PackInfo, Row
from cas.store.record import RECIPE
from cas.store.segment import Searched, Segment

# Few keys, so that equal ones come often, at the edges of blocks and of packs too.
HEADS = [b"\0" * 8, b"\0" * 7 + b"\1", b"k" * 8, b"\xff" * 8]
TAILS = [b"\0" * 24, b"t" * 23 + b"\0", b"t" * 24, b"\xff" * 24]
FEW = [ObjectId(head + tail) for head in HEADS for tail in TAILS]

ids = st.sampled_from(FEW) | st.binary(min_size=32, max_size=32).map(ObjectId)
rows = st.builds(
    Row,
    ids,
    st.integers(0, 3),
    st.just(1),
    st.just(1),
    st.just(int(Kind.BLOB)),
    st.sampled_from([int(CodecTag.RAW), RECIPE]),
    st.integers(0, 2),
)


@dataclass(frozen=True)
class Layout:
    """Rows of packs; which of the packs are listed, and which index files cover which packs."""

    packs: list[list[Row]]
    listed: list[int]
    files: list[list[int]]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    packs = draw(st.lists(st.lists(rows, max_size=12, unique=True), min_size=1, max_size=6))
    if draw(st.booleans()):
        # More than a block, around keys that others have as well.
        start = draw(st.integers(0, 2**16))
        many = [(HEADS[2] + (start + n).to_bytes(24, "big")) for n in range(300)]
        packs[0] = [Row(ObjectId(id), n, 1, 1, Kind.BLOB, 0, 0) for n, id in enumerate(many)]
    numbers = st.integers(0, len(packs) - 1)
    listed = draw(st.lists(numbers, unique=True))
    files = draw(st.lists(st.lists(numbers, min_size=1, unique=True), max_size=4))
    return Layout(packs, listed, files)


def info(number: int) -> PackInfo:
    return PackInfo(bytes([number]) * 16, 0, b"", PackClass.DATA)


class Given(Segments):
    """Footers that are given, in place of packs."""

    def __init__(self, backend: MemoryBackend, layout: Layout) -> None:
        super().__init__(backend)
        self.made = {
            info(number).name: Segment(Footer.of(found).rows, (info(number).name,))
            for number, found in enumerate(layout.packs)
        }

    def _footer(self, info: PackInfo) -> Segment:
        return self.made[info.name]


class Pinned(Given):
    """The same as PinnedStore has it."""

    def files(self) -> Sequence[Searched]:
        return [Joined((name, part.rows) for name, part in self.made.items())]


def model(layout: Layout) -> dict[ObjectId, list[tuple[int, bool, int, int]]]:
    """What there is of each id, the first to be taken."""
    found: dict[ObjectId, list[tuple[int, bool, int, int]]] = {}
    for order, number in enumerate(layout.listed):
        for row in layout.packs[number]:
            rank = (row.depth, row.codec == RECIPE, order, row.offset)
            found.setdefault(row.id, []).append(rank)
    return {id: sorted(ranks) for id, ranks in found.items()}


def rank(place: Place, layout: Layout) -> tuple[int, bool, int, int]:
    row = place.row
    order = layout.listed.index(place.pack.name[0])
    return row.depth, row.codec == RECIPE, order, row.offset


def check(index: Index, layout: Layout) -> None:
    expected = model(layout)
    asked = [*expected, *FEW, *list(expected)[:3]]
    for id in asked:
        assert [rank(place, layout) for place in index.find(id)] == expected.get(id, [])
        assert all(place.row.id == id for place in index.find(id))
    firsts = [rank(place, layout) if place else None for place in index.find_many(asked)]
    assert firsts == [expected[id][0] if id in expected else None for id in asked]
    for prefix in {b"", b"\0", *(head[:7] for head in HEADS), *(id[:9] for id in FEW)}:
        found = sorted((p.row.id, rank(p, layout)) for p in index.starting(prefix))
        under = [(id, one) for id, ranks in expected.items() for one in ranks]
        assert found == sorted(pair for pair in under if pair[0].startswith(prefix))


@pytest.mark.parametrize("many", [10**9, 0], ids=["python", "numpy"])
@given(layout=layouts())
@settings(max_examples=60, deadline=None)
def test_every_look_up_agrees_with_a_dict(many: int, layout: Layout) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes, "MANY", many)
        patch.setattr(merging, "MANY", many)
        patch.setattr(joining, "MANY", many)
        patch.setattr(indexfile, "BATCH", 5)
        backend = MemoryBackend()
        segments = Given(backend, layout)
        for at, numbers in enumerate(layout.files):
            covered = [segments.made[info(number).name] for number in numbers]
            backend.put_new(f"index/{at}.idx", merge(covered).to_bytes())
        packs = [info(number) for number in layout.listed]
        check(Index(segments, packs), layout)
        check(Index(Pinned(backend, layout), packs), layout)

        patch.setattr(indexes, "UNCOVERED", 1)
        consolidate(backend, Index(segments, packs), b"n" * 16)
        check(Index(segments, packs), layout)
        check(Index(Given(backend, layout), packs), layout)
