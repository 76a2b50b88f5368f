"""Any Python value of the grammar comes back bit for bit."""

import math
import struct
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cas.objects.pystate import flatten
from tests.support.exact import same
from tests.support.states import through_bytes

# Floats from their bits, so that every payload of a NaN occurs.
FLOATS = st.floats() | st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack("<d", b)[0])
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | FLOATS
    | st.builds(complex, FLOATS, FLOATS)
    | st.text()
    | st.binary(max_size=20)
)
KEYS = st.recursive(ATOMS, lambda parts: st.lists(parts, max_size=3).map(tuple), max_leaves=3)
DTYPES = st.sampled_from([*"?bBhHiIlLefdFD", ">i4", ">f8", ">c8"])


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype == np.bool_:
        raw = bytes(byte & 1 for byte in raw)
    # A copy, because equal bytes may be one object, and arrays over one memory are one array.
    array = np.frombuffer(raw, dtype).reshape(shape).copy()
    return array if draw(st.booleans()) else array.T


@st.composite
def ordered(draw: st.DrawFn, items: st.SearchStrategy[Any]) -> OrderedDict[Any, Any]:
    value = OrderedDict(draw(st.dictionaries(KEYS, items, max_size=3)))
    if draw(st.booleans()):
        vars(value)["_metadata"] = draw(items)
    return value


def containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(items, max_size=4)
        | st.lists(items, max_size=4).map(tuple)
        | st.dictionaries(KEYS, items, max_size=4)
        | st.dictionaries(KEYS, items, max_size=3).map(Counter)
        | ordered(items)
    )


SCALARS = arrays().filter(lambda array: array.size > 0).map(lambda array: array.flat[0])
VALUES = st.recursive(ATOMS | arrays() | SCALARS, containers, max_leaves=12)


@given(VALUES)
def test_every_value_comes_back_exactly(value: Any) -> None:
    assert same(through_bytes(value), value)


@given(VALUES)
def test_what_comes_back_is_stored_the_same(value: Any) -> None:
    assert same(flatten(through_bytes(value)).value, flatten(value).value)


@given(st.lists(arrays(), min_size=1, max_size=3), st.lists(st.integers(0, 2), max_size=6))
def test_ties_come_back_as_they_were(distinct: list[Any], picks: list[int]) -> None:
    value = [distinct[pick % len(distinct)] for pick in picks]
    found = through_bytes(value)
    for i, left in enumerate(value):
        for j, right in enumerate(value):
            assert (found[i] is found[j]) == (left is right)
