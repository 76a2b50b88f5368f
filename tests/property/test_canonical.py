"""Canonical bytes: one form per value, and nothing but CorruptionError for anything else."""

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cas.errors import CorruptionError, InvalidInputError
from cas.objects import canonical

WIDTHS = [0, 5, 7, 8, 15, 16, 31, 32, 63, 64]
EDGES = sorted(
    {
        sign * 2**width + step
        for width in WIDTHS
        for sign in (-1, 1)
        for step in (-1, 0, 1)
        if canonical.MIN_INT <= sign * 2**width + step <= canonical.MAX_INT
    }
)


def float_of(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value


# Every pattern of 64 bits: quiet and signalling NaNs with payloads, both zeros, subnormals.
floats = st.integers(0, 2**64 - 1).map(float_of) | st.floats()
integers = st.sampled_from(EDGES) | st.integers(canonical.MIN_INT, canonical.MAX_INT)
scalars = st.none() | st.booleans() | integers | floats | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=30,
)


def head(size: int, fixed: tuple[int, int] | None, forms: list[tuple[int, str]]) -> bytes:
    """The head of a string, bin or container: the shortest that can say its size."""
    if fixed and size < fixed[1]:
        return bytes([fixed[0] | size])
    for tag, layout in forms:
        if size < 256 ** struct.calcsize(layout):
            return bytes([tag]) + struct.pack(f">{layout}", size)
    raise AssertionError(size)


def reference_int(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack(">b", value)
    layouts = [(0xCC, "B"), (0xCD, "H"), (0xCE, "I"), (0xCF, "Q")]
    if value < 0:
        layouts = [(0xD0, "b"), (0xD1, "h"), (0xD2, "i"), (0xD3, "q")]
    for tag, layout in layouts:
        try:
            return bytes([tag]) + struct.pack(f">{layout}", value)
        except struct.error:
            continue
    raise AssertionError(value)


def reference(value: Any) -> bytes:  # noqa: PLR0911 - one line per type, as on the format page
    """The canonical form as docs/format/objects.md states it, written a second time."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return reference_int(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        return head(len(raw), (0xA0, 32), [(0xD9, "B"), (0xDA, "H"), (0xDB, "I")]) + raw
    if isinstance(value, bytes):
        return head(len(value), None, [(0xC4, "B"), (0xC5, "H"), (0xC6, "I")]) + value
    if isinstance(value, list):
        start = head(len(value), (0x90, 16), [(0xDC, "H"), (0xDD, "I")])
        return start + b"".join(map(reference, value))
    rows = sorted(value.items(), key=lambda row: row[0].encode())
    start = head(len(value), (0x80, 16), [(0xDE, "H"), (0xDF, "I")])
    return start + b"".join(reference(key) + reference(item) for key, item in rows)


@given(values)
def test_the_bytes_are_the_documented_ones_and_come_back(value: Any) -> None:
    raw = canonical.encode(value)
    assert raw == reference(value)
    # Equal bytes, because NaN is not equal to itself and 1 is equal to 1.0.
    assert reference(canonical.decode(raw)) == raw
    assert reference(canonical.check(raw)) == raw


@pytest.mark.parametrize("value", EDGES)
def test_every_width_of_integer_is_the_smallest(value: int) -> None:
    raw = canonical.encode(value)
    assert raw == reference_int(value)
    back = canonical.check(raw)
    assert back == value
    assert type(back) is int


@pytest.mark.parametrize("bits", [1 << 63, 0x7FF0000000000001, 0x7FF8000000000123, 0xFFF8 << 48])
def test_floats_keep_their_bits(bits: int) -> None:
    back = canonical.check(canonical.encode(float_of(bits)))
    assert struct.pack("<d", back) == struct.pack("<Q", bits)


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_every_head_is_the_shortest(size: int) -> None:
    for value in ("a" * size, b"a" * size, [None] * size, {f"{n:05}": n for n in range(size)}):
        raw = canonical.encode(value)
        assert raw == reference(value)
        assert canonical.check(raw) == value


@given(st.binary())
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xd6\xff\0\0\0\0")
@example(b"\x91" * 2000)
@example(b"\x81" * 2000)
def test_arbitrary_bytes_are_a_value_or_corruption(raw: bytes) -> None:
    try:
        value = canonical.decode(raw)
    except CorruptionError:
        return
    canonical.encode(value)


@given(values, st.data())
def test_damaged_bytes_are_a_value_or_corruption(value: Any, data: st.DataObject) -> None:
    raw = bytearray(canonical.encode(value))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        back = canonical.check(raw)
    except CorruptionError:
        return
    assert canonical.encode(back) == raw


@given(values, st.integers(0, 100))
def test_bytes_cut_short_are_corruption(value: Any, cut: int) -> None:
    raw = canonical.encode(value)
    with pytest.raises(CorruptionError):
        canonical.decode(raw[: min(cut, len(raw) - 1)])


@given(values, st.binary(min_size=1, max_size=4))
def test_trailing_bytes_are_corruption(value: Any, tail: bytes) -> None:
    with pytest.raises(CorruptionError):
        canonical.decode(canonical.encode(value) + tail)


OTHER_FORMS = {
    "a byte for a fixed int": "cc01",
    "two bytes for one": "cd00ff",
    "four bytes for two": "ce0000ffff",
    "eight bytes for four": "cf00000000ffffffff",
    "a signed form of a positive int": "d001",
    "a longer negative int": "d1ffff",
    "float32": "ca3f800000",
    "a long head of a short text": "d90161",
    "a longer head of a text": "da0001" + "61",
    "a long head of a bin": "c5000161",
    "a long head of a list": "dc0001c0",
    "a long head of a map": "de0001a161c0",
    "unsorted keys": "82a162c0a161c0",
    "keys sorted by length": "82a17ac0a2" + "6161c0",
    "a duplicate key": "82a161c0a161c0",
    "a duplicate key in another form": "82a161c0d90161c0",
}
NO_VALUES = {
    "nothing": "",
    "the unused tag": "c1",
    "fixext": "d40000",
    "an empty ext": "c70005",
    "a timestamp": "d6ff00000000",
    "a timestamp as a key": "81d6ff00000000c0",
    "a bin key": "81c40161c0",
    "an int key": "8101c0",
    "a nil key": "81c0c0",
    "text that is not UTF-8": "a1ff",
    "text that is a surrogate": "a3eda080",
    "a list that is longer than the bytes": "ddffffffff",
    "a bin that is longer than the bytes": "c6ffffffff00",
    "65 levels": "91" * 65 + "c0",
    "65 levels of maps": "81a161" * 65 + "c0",
    "deeper than the decoder": "91" * 5000 + "c0",
}


@pytest.mark.parametrize("raw", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_another_form_of_a_value_does_not_pass_the_check(raw: str) -> None:
    canonical.decode(bytes.fromhex(raw))
    with pytest.raises(CorruptionError):
        canonical.check(bytes.fromhex(raw))


@pytest.mark.parametrize("raw", NO_VALUES.values(), ids=NO_VALUES)
def test_what_is_no_value_is_corruption(raw: str) -> None:
    for read in (canonical.decode, canonical.check):
        with pytest.raises(CorruptionError):
            read(bytes.fromhex(raw))


class Text(str):
    __slots__ = ()


class Number(int):
    __slots__ = ()


LOOP: list[Any] = []
LOOP.append(LOOP)
REFUSED = {
    "tuple": (1,),
    "set": {1},
    "bytearray": bytearray(b"a"),
    "memoryview": memoryview(b"a"),
    "object": object(),
    "subclass of str": Text("a"),
    "subclass of int": Number(1),
    "below int64": -(2**63) - 1,
    "beyond uint64": 2**64,
    "lone surrogate": "\ud800",
    "surrogate in a key": {"\udcff": 1},
    "int key": {1: 1},
    "bytes key": {b"a": 1},
    "subclass as a key": {Text("a"): 1},
    "cycle": LOOP,
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    for wrapped in (value, [value], {"deep": [0, value]}):
        with pytest.raises(InvalidInputError):
            canonical.encode(wrapped)


def test_nesting_ends_at_the_same_depth_in_both_directions() -> None:
    deep: Any = None
    for _ in range(canonical.MAX_DEPTH):
        deep = [deep]
    assert canonical.check(canonical.encode(deep)) == deep
    with pytest.raises(InvalidInputError):
        canonical.encode([deep])


def test_equal_maps_have_equal_bytes_and_an_int_is_not_a_float() -> None:
    assert canonical.encode({"b": 1, "a": 2}) == canonical.encode({"a": 2, "b": 1})
    assert canonical.encode(1) != canonical.encode(1.0)
    assert canonical.encode(0.0) != canonical.encode(-0.0)
    assert canonical.encode("a") != canonical.encode(b"a")
