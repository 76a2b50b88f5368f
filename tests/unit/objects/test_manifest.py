"""A manifest is refused unless everything it says agrees."""

from typing import Any

import pytest

from cas.errors import CasError, CorruptionError, InvalidInputError, UnsupportedError
from cas.ids import blob_id
from cas.objects import canonical
from cas.objects.manifest import (
    DTYPES,
    INLINE_LIMIT,
    Column,
    Series,
    SeriesRow,
    State,
    TensorRow,
    manifest_from_bytes,
)

SMALL = bytes(range(8))
LARGE = blob_id(b"large")
STATE = State(
    {"model": [1, 0]},
    (
        TensorRow(("w", 0), "float32", (2,), blob_id(SMALL), SMALL),
        TensorRow(("w", 1), "bfloat16", (100, 100), LARGE, None),
    ),
)
SERIES = Series(
    (
        SeriesRow("acc", 1, Column.of(SMALL), Column.of(SMALL)),
        SeriesRow("loss", 9, Column.of(bytes(72)), Column.of(bytes(72))),
    )
)


def edited(manifest: State | Series, **changes: Any) -> bytes:
    fields = canonical.decode(manifest.to_bytes())
    assert isinstance(fields, dict)
    return canonical.encode({**fields, **changes})


STATE_DAMAGE: dict[str, dict[str, Any]] = {
    "one path too few": {"paths": [["w", 0]]},
    "one dtype too many": {"dtypes": ["float32"] * 3},
    "an id cut short": {"ids": bytes(63)},
    "an id too many": {"ids": bytes(96)},
    "an unknown dtype": {"dtypes": ["float32", "float128"]},
    "a dtype that is no text": {"dtypes": ["float32", 1]},
    "a path that is no list": {"paths": [["w", 0], "w"]},
    "a bool in a path": {"paths": [["w", 0], ["w", True]]},
    "a negative length": {"shapes": [[2], [-100, -100]]},
    "a bool as a length": {"shapes": [[2], [True, 10_000]]},
    "a float as a length": {"shapes": [[2], [100.0, 100]]},
    "more bytes than 2^63": {"shapes": [[2], [2**32, 2**31]]},
    "more dimensions than 64": {"shapes": [[2], [10_000] + [1] * 64]},
    "inline data of another size": {"data": [SMALL[:4], None]},
    "inline data of another id": {"data": [SMALL[::-1], None]},
    "small data that is not inline": {"data": [None, None]},
    "large data that is inline": {"data": [SMALL, bytes(20_000)]},
    "data that is text": {"data": ["12345678", None]},
    "an unknown field": {"notes": ""},
    "version 0": {"v": 0},
    "a version that is a bool": {"v": True},
    "a kind that is no text": {"kind": 1},
    "the other kind": {"kind": "series"},
}
SERIES_DAMAGE: dict[str, dict[str, Any]] = {
    "names out of order": {"names": ["loss", "acc"]},
    "a name twice": {"names": ["acc", "acc"]},
    "a negative count": {"counts": [1, -9]},
    "a count that disagrees": {"counts": [2, 9]},
    "a count beyond all bytes": {"counts": [1, 2**62]},
    "one count too many": {"counts": [1, 9, 9]},
    "steps cut short": {"steps": bytes(32)},
    "values that are no bin": {"values": ["a", "b"]},
    "inline data of another id": {"values_data": [SMALL[::-1], None]},
    "small data that is not inline": {"steps_data": [None, None]},
    "an unknown field": {"notes": ""},
}


@pytest.mark.parametrize("changes", STATE_DAMAGE.values(), ids=STATE_DAMAGE)
def test_a_damaged_state_is_corruption(changes: dict[str, Any]) -> None:
    for read in (State.from_bytes, manifest_from_bytes):
        with pytest.raises(CorruptionError):
            read(edited(STATE, **changes))


@pytest.mark.parametrize("changes", SERIES_DAMAGE.values(), ids=SERIES_DAMAGE)
def test_a_damaged_series_is_corruption(changes: dict[str, Any]) -> None:
    for read in (Series.from_bytes, manifest_from_bytes):
        with pytest.raises(CorruptionError):
            read(edited(SERIES, **changes))


def test_a_missing_field_is_corruption() -> None:
    for manifest in (STATE, SERIES):
        fields = canonical.decode(manifest.to_bytes())
        assert isinstance(fields, dict)
        for name in fields:
            kept = {key: value for key, value in fields.items() if key != name}
            with pytest.raises(CorruptionError):
                manifest_from_bytes(canonical.encode(kept))


@pytest.mark.parametrize("raw", [b"", b"\x90", b"\x80", b"\xc0", b"\xff", b"\x81\xa1v\x01"])
def test_what_is_no_manifest_is_corruption(raw: bytes) -> None:
    with pytest.raises(CorruptionError):
        manifest_from_bytes(raw)


@pytest.mark.parametrize("changes", [{"v": 2}, {"v": 2, "new": 1}, {"kind": "table"}])
def test_what_a_newer_cas_wrote_is_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        manifest_from_bytes(edited(STATE, **changes))


def test_the_damage_above_is_the_only_thing_wrong() -> None:
    assert State.from_bytes(edited(STATE)) == STATE
    assert Series.from_bytes(edited(SERIES)) == SERIES


def test_a_state_is_not_read_as_a_series() -> None:
    with pytest.raises(CorruptionError):
        Series.from_bytes(STATE.to_bytes())


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_is_inline_up_to_the_limit(dtype: str) -> None:
    length = INLINE_LIMIT // DTYPES[dtype]
    data = bytes(length * DTYPES[dtype])
    assert TensorRow((), dtype, (length,), blob_id(data), data).nbytes == INLINE_LIMIT
    assert TensorRow((), dtype, (length + 1,), LARGE, None).nbytes > INLINE_LIMIT
    with pytest.raises(InvalidInputError):
        TensorRow((), dtype, (length,), blob_id(data), None)


def test_a_scalar_and_an_empty_tensor_have_bytes() -> None:
    assert TensorRow((), "float64", (), blob_id(SMALL), SMALL).nbytes == 8
    assert TensorRow((), "float64", (0, 2**62), blob_id(b""), b"").nbytes == 0


def test_a_length_beyond_int64_is_refused_even_where_nothing_is_stored() -> None:
    with pytest.raises(InvalidInputError, match="out of range"):
        TensorRow((), "float64", (0, 2**63), blob_id(b""), b"")


def test_an_error_names_the_tensor() -> None:
    with pytest.raises(InvalidInputError, match=r"layers\.0\.weight"):
        TensorRow(("layers", 0, "weight"), "float32", (2,), LARGE, None)


def test_size_counts_inline_data_too() -> None:
    assert STATE.size == 8 + 20_000
    assert SERIES.size == 2 * 8 + 2 * 72
    assert list(STATE.blobs()) == [LARGE]
    assert list(SERIES.blobs()) == [blob_id(bytes(72))] * 2


def test_equal_states_have_one_id_whatever_the_order_of_their_maps() -> None:
    one, two = State({"a": 1, "b": 2}, ()), State({"b": 2, "a": 1}, ())
    assert one.id == two.id
    assert one.id != State({"a": 1, "b": 2.0}, ()).id


def test_a_value_that_has_no_canonical_form_is_refused() -> None:
    value: Any = {"a": (1,)}
    with pytest.raises(CasError):
        State(value, ()).to_bytes()
