"""Which base a piece takes, by what reading it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cas.ids import BlobId, ObjectId, blob_id
from cas.objects.kind import Kind
from cas.repo.repacking.forms import Family, Forms
from cas.store.index import Place
from cas.store.pack import PackClass, PackInfo, Row
from cas.store.record import MAX_DEPTH, RecordHeader
from cas.store.segment import Segment

PACK = PackInfo(b"p" * 16, 0, b"", PackClass.DATA)
RAW, DELTA = 0, 3


def name(text: str) -> BlobId:
    return blob_id(text.encode())


@dataclass
class FakeStore:
    """A store of records that are told: name → (bytes, depth, base)."""

    told: Mapping[str, tuple[int, int, str | None]]
    packs: Sequence[PackInfo] = (PACK,)
    found: dict[ObjectId, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, (key, (stored, depth, base)) in enumerate(self.told.items()):
            codec = RAW if base is None else DELTA
            row = Row(name(key), number, stored, 1000, Kind.BLOB, codec, depth)
            self.found[row.id] = row

    def rows(self, _: PackInfo) -> Segment:
        return Segment(b"".join(row.to_bytes() for row in self.found.values()), (PACK.name,))

    def places(self, id: ObjectId) -> list[Place]:
        return [Place(self.found[id], PACK)] if id in self.found else []

    def base(self, place: Place) -> BlobId | None:
        (base,) = (base for key, (_, _, base) in self.told.items() if name(key) == place.row.id)
        return None if base is None else name(base)


def forms(**told: tuple[int, int, str | None]) -> Forms:
    return Forms(FakeStore(told))  # type: ignore[arg-type]


def options(known: Forms, id: str, *bases: str, smallest: bool = False) -> list[tuple[str, int]]:
    """Return the bases to try and the most that each may take, with readable names."""
    texts = {name(text): text for text in "abcdefghijkl"}
    found = known.options(name(id), map(name, bases), smallest=smallest)
    return [(texts[option.base.id], option.most) for option in found]


def decide(known: Forms, id: str, base: str, stored: int) -> None:
    under = known.of(name(base))
    assert under is not None
    body = name(base) + bytes(stored - 32)
    header = RecordHeader.of(Kind.BLOB, DELTA, name(id), 1000, body, depth=under.depth + 1)
    known.decided(header, body)


def test_a_full_form_may_be_the_base_of_what_is_smaller() -> None:
    known = forms(a=(1000, 0, None), b=(1000, 0, None))
    assert options(known, "b", "a") == [("a", 970)]


def test_nothing_without_a_base_that_is_there() -> None:
    known = forms(a=(1000, 0, None))
    assert options(known, "a") == []
    assert options(known, "a", "z", "a") == []
    assert options(known, "z", "a") == []


def test_reading_takes_at_most_twice_the_full_form() -> None:
    known = forms(a=(1000, 0, None), b=(300, 1, "a"), c=(300, 2, "b"), d=(1000, 0, None))
    assert options(known, "d", "c") == [("c", 400), ("a", 970)]
    assert options(known, "d", "b") == [("b", 700), ("a", 533)]


def test_a_base_after_which_no_room_can_be_hoped_for_is_not_tried() -> None:
    known = forms(a=(1000, 0, None), b=(800, 1, "a"), c=(1000, 0, None))
    assert [base for base, _ in options(known, "c", "b")] == ["a"]


def test_a_key_frame_is_left_when_deltas_take_more_than_its_family_on_average() -> None:
    known = forms(a=(1000, 0, None), b=(700, 1, "a"), c=(760, 1, "a"), d=(1000, 0, None))
    assert options(known, "d", "c") == [("a", 820)]  # (1000 + 700 + 760) / 3


def test_siblings_on_one_base_are_not_held_to_the_average() -> None:
    known = forms(a=(1000, 0, None), b=(700, 1, "a"), c=(1000, 0, None))
    assert options(known, "c", "a") == [("a", 970)]


def test_smallest_asks_for_no_cost_and_stops_at_the_depth_of_readers() -> None:
    told: dict[str, tuple[int, int, str | None]] = {"a": (1000, 0, None)}
    letters = "abcdefghi"
    for depth in range(1, MAX_DEPTH + 1):
        told[letters[depth]] = (900, depth, letters[depth - 1])
    known = forms(**told, l=(1000, 0, None))
    assert options(known, "l", "h", smallest=True) == [("h", 970), ("a", 970)]
    assert options(known, "l", "i", smallest=True) == [("a", 970)]


def test_a_base_of_others_stays_as_it_is() -> None:
    known = forms(a=(1000, 0, None), b=(1000, 0, None), c=(300, 1, "b"))
    assert options(known, "b", "a") == []
    assert options(known, "b", "a", smallest=True) == []


def test_a_delta_stays_one_and_by_smallest_takes_a_better_base() -> None:
    known = forms(a=(1000, 0, None), b=(700, 1, "a"), c=(700, 1, "a"))
    assert options(known, "c", "b") == []
    assert options(known, "c", "b", smallest=True) == [("b", 679)]
    assert options(known, "b", "a", smallest=True) == []  # it has it


def test_what_was_decided_counts_for_what_comes_after() -> None:
    known = forms(a=(1000, 0, None), b=(1000, 0, None), c=(1000, 0, None))
    decide(known, "b", "a", 300)
    form = known.of(name("b"))
    assert form is not None
    assert (form.depth, form.cost, form.key) == (1, 1300, name("a"))
    assert options(known, "c", "b") == [("b", 700), ("a", 650)]
    assert options(known, "a", "c") == []


def test_what_was_not_listed_is_forgotten() -> None:
    known = forms(a=(1000, 0, None), b=(1000, 0, None))
    decide(known, "b", "a", 300)
    known.undo([name("b"), name("a")])
    form = known.of(name("b"))
    assert form is not None
    assert form.depth == 0
    assert known._families[name("a")] == Family(1, 1000)


def test_a_base_that_is_no_less_deep_is_no_form(tmp_path: Path) -> None:
    known = forms(a=(700, 1, "b"), b=(700, 1, "a"), c=(1000, 0, None))
    assert known.of(name("a")) is None
    assert options(known, "c", "a") == []


@pytest.mark.parametrize("smallest", [False, True])
def test_bases_come_in_the_order_of_the_roles(smallest: bool) -> None:
    known = forms(a=(1000, 0, None), b=(1000, 0, None), c=(1000, 0, None))
    assert [base for base, _ in options(known, "c", "b", "a", smallest=smallest)] == ["b", "a"]
