"""JSON documents have one form, and what is no JSON is corruption."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptionError, InvalidInputError
from cas.objects.document import document, read_document

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(plain)
def test_plain_data_comes_back(value: Any) -> None:
    raw = document(value)
    assert read_document(raw) == value
    assert document(read_document(raw)) == raw


def test_the_form_is_sorted_readable_and_ends_with_a_newline() -> None:
    assert document({"b": [1, "é"], "a": None}) == (
        '{\n "a": null,\n "b": [\n  1,\n  "é"\n ]\n}\n'.encode()
    )


def test_numbers_that_are_not_finite_are_kept() -> None:
    raw = document([math.nan, math.inf, -math.inf])
    back = read_document(raw)
    assert math.isnan(back[0])
    assert back[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize("value", [b"a", {1, 2}, object(), {"a": b""}, {b"a": 1}, "\ud800"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError):
        document(value)


def test_a_cycle_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInputError):
        document(loop)


@pytest.mark.parametrize("raw", [b"", b"{", b"{]}", b"\xff", b"1 2", b"[" * 100_000])
def test_what_is_no_json_is_corruption(raw: bytes) -> None:
    with pytest.raises(CorruptionError):
        read_document(raw)
