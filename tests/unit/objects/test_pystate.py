"""Python values and NumPy arrays as states: what is kept, what is refused, and in which words."""

import struct
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
import pytest

from cas.codec.element import Element
from cas.errors import CasError, CorruptionError, UnstorableError, UnsupportedError
from cas.ids import BlobId, blob_id
from cas.objects.canonical import Value
from cas.objects.elements import element_of
from cas.objects.manifest import State, TensorRow
from cas.objects.pystate import MAX_NESTING, flatten, readable, tags, unflatten
from cas.objects.states import build_state, load_state
from tests.support.exact import same
from tests.support.states import Blobs, through_bytes

NAN = struct.unpack("<d", bytes.fromhex("efbeadde0000f87f"))[0]
Point = namedtuple("Point", "x y")


class Half(np.float16):
    pass


class Level(IntEnum):
    LOW = 1


def state_dict() -> OrderedDict[str, object]:
    state: OrderedDict[str, object] = OrderedDict(weight=1.0, bias=2.0)
    vars(state)["_metadata"] = OrderedDict({"": {"version": 1}})
    return state


def self_holding() -> list[object]:
    value: list[object] = []
    value.append({"again": (value,)})
    return value


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


KEPT: dict[str, object] = {
    "none": None,
    "truth is no number": [True, 1, 1.0, False, 0, 0.0],
    "integers": [0, -1, 2**63, 2**64 - 1, -(2**63)],
    "integers beyond 64 bits": [2**64, -(2**63) - 1, 2**1000, -(2**1000), 2**71 - 1, 2**72],
    "floats": [0.0, -0.0, float("inf"), float("-inf"), NAN, 5e-324],
    "complex": [1 + 2j, complex(-0.0, NAN), complex(NAN, -0.0)],
    "text": ["", "ascii", "größer", "\x00", "🧪"],
    "bytes": [b"", b"\x00\xff"],
    "sequences": [[], (), [[]], ((),), ([1], (2, [3]))],
    "dict with order": {"b": 1, "a": 2, "": 3},
    "dict with other keys": {1: "a", (2, "x"): "b", None: "c", 1.5: "d", b"k": "e", True + 1: "f"},
    "true as a key": {True: 1},
    "keys of nan": {float("nan"): 1, NAN: 2},
    "keys of big integers": {2**80: 1, (2**80, 1j): 2},
    "ordered dict": OrderedDict([("b", 1), ("a", 2)]),
    "state dict": state_dict(),
    "counter": Counter({"b": 2, "a": -1, 3: 0}),
    "equal containers": [[1], [1], {}, {}],
    "numpy scalars": [np.float32(1.5), np.int8(-3), np.bool(True), np.complex64(1 - 2j)],
    "a numpy scalar as a key": {np.int64(3): 1},
    "a list of many kinds": [None, 1, "x", 2**70, (1,)],
    "deepest": nested(MAX_NESTING),
}


@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT)
def test_comes_back_exactly(value: object) -> None:
    assert same(through_bytes(value), value)


@pytest.mark.parametrize(
    "dtype",
    [*"?bBhHiIqQefdFD", ">i2", ">i4", ">u8", ">f2", ">f4", ">f8", ">c8", ">c16"],
)
@pytest.mark.parametrize(
    "shape", [(), (0,), (3, 0, 2), (1,), (4, 1), (7,), (5, 6), (2, 3, 4)], ids=str
)
@pytest.mark.parametrize("layout", ["rows", "columns", "strided", "reversed", "read-only"])
def test_arrays_come_back_exactly(dtype: str, shape: tuple[int, ...], layout: str) -> None:
    array = make_array(np.dtype(dtype), shape, layout)

    found = through_bytes({"array": array})["array"]

    assert same(found, array)
    assert found.flags.writeable


def make_array(dtype: np.dtype[Any], shape: tuple[int, ...], layout: str) -> Any:
    """Return an array of random bits, NaNs with payload among them."""
    doubled = tuple(2 * length for length in shape)
    raw = np.random.default_rng(1).bytes(int(np.prod(doubled)) * dtype.itemsize)
    if dtype == np.bool_:
        raw = bytes(byte & 1 for byte in raw)
    whole: Any = np.frombuffer(raw, dtype).reshape(doubled)
    every_other: Any = whole[(..., *(slice(None, None, 2) for _ in shape))]
    match layout:
        case "columns":
            return np.array(every_other, order="F")
        case "strided":
            return every_other
        case "reversed":
            return every_other.copy()[(..., *(slice(None, None, -1) for _ in shape))]
        case "read-only":
            copy = np.array(every_other)
            copy.flags.writeable = False
            return copy
    return np.array(every_other)


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "complex64"])
def test_scalars_keep_the_payload_of_a_nan(name: str) -> None:
    dtype = np.dtype(name)
    scalar = np.frombuffer(b"\x01\xfe\xa0\x7f" * 2, dtype)[0]
    assert same(through_bytes([scalar]), [scalar])


def test_a_long_long_is_an_int64() -> None:
    assert same(through_bytes([np.longlong(5)]), [np.int64(5)])


def test_contiguous_arrays_are_not_copied() -> None:
    array = np.arange(100.0)
    flat = flatten([array])
    array[3] = -1.0
    assert bytes(flat.views[0][1].buffer()) == array.tobytes()
    assert np.shares_memory(np.frombuffer(flat.views[0][1].buffer()), array)


def test_the_same_array_is_one_row_and_comes_back_as_one() -> None:
    array = np.arange(100.0)
    value = {"a": array, "b": array[:], "c": array[1:], "d": array.copy(), "e": array.view("i8")}
    blobs = Blobs()

    state = build_state(value, (), blobs.write)
    found: Any = load_state(state, (), blobs.read)

    assert [row.path for row in state.rows] == [("a",), ("c",), ("d",), ("e",)]
    assert found["a"] is found["b"]
    found["a"][5] = -1.0
    assert found["c"][4] == found["d"][5] == 5.0
    assert same(state, build_state(found | value, (), blobs.write))


def test_empty_arrays_are_told_apart() -> None:
    left, right = np.empty(0), np.empty(0)
    found = through_bytes([left, right, left])
    assert found[0] is found[2]
    assert found[0] is not found[1]


def test_rows_stand_in_order_of_first_sight_with_their_paths() -> None:
    big, small = np.arange(9.0), np.arange(8.0)
    value = {"x": [small, {(1, 2): big}], 7: big, "y": np.float32(1), 2**70: small + 1}
    blobs = Blobs()

    state = build_state(value, (), blobs.write)

    assert [row.path for row in state.rows] == [("x", 0), ("x", 1, "(1, 2)"), (str(2**70),)]
    assert [row.data is None for row in state.rows] == [False, True, False]
    assert blobs.written == [(blob_id(big.tobytes()), Element(8, floating=True))]
    assert state.rows[0].id == blob_id(small.tobytes())
    assert list(state.blobs()) == [blob_id(big.tobytes())]


def test_a_complex_number_is_as_wide_as_its_parts() -> None:
    widths = [
        element_of(name).width for name in ("complex32", "complex64", "complex128", "float64")
    ]
    assert widths == [2, 4, 8, 8]


REFUSED: dict[str, tuple[object, str, str]] = {
    "set": ({"a": [1, {2}]}, "a[1]", "builtins.set"),
    "function": ({"scheduler": {"fn": len}}, "scheduler.fn", "builtin_function"),
    "object": (object(), "the value", "builtins.object"),
    "type": ([int], "[0]", "builtins.type"),
    "subclass of tuple": ({"p q": Point(1, 2)}, "['p q']", "Point is a subclass of tuple"),
    "subclass of dict": ([defaultdict(list)], "[0]", "defaultdict is a subclass of dict"),
    "subclass of int": ({0: Level.LOW}, "[0]", "Level is a subclass of int"),
    "cycle": (self_holding(), "[0].again[0]", "contains itself"),
    "too deep": (nested(MAX_NESTING + 1), "[0]" * MAX_NESTING, "deeper than 60 levels"),
    "surrogate": (["\udc80"], "[0]", "surrogate"),
    "surrogate in a key": ({"x": {"\udc80": 1}}, "x['a key']", "surrogate"),
    "surrogate above": ({"x": {b"\xff": {1, 2}}}, "x[b'\\xff']", "builtins.set"),
    "frozen set as a key": ({"x": {frozenset(): 1}}, "x['a key']", "frozenset"),
    "object array": ([np.array([None])], "[0]", "dtype object"),
    "text array": ([np.array(["x"])], "[0]", "dtype <U1"),
    "structured array": ([np.zeros(2, "i4,f4")], "[0]", "portable form"),
    "datetime": ([np.datetime64("2030-01-01")], "[0]", "datetime64[D]"),
    "long double": ([np.zeros(2, np.longdouble)], "[0]", "portable form"),
    "subclass of a scalar": ([Half(1.0)], "[0]", "Half is a subclass of a NumPy scalar"),
    "masked array": ([np.ma.masked_array([1.0])], "[0]", "MaskedArray is a subclass"),
    "dtype": ([np.dtype("f4")], "[0]", "store its name"),
    "dtype with metadata": ([np.zeros(1, np.dtype("f4", metadata={"a": 1}))], "[0]", "portable"),
}


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_path_and_reason(value: object, path: str, reason: str) -> None:
    with pytest.raises(UnstorableError) as caught:
        flatten(value)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value).isprintable()


def test_attributes_of_an_ordered_dict_or_counter_are_not_lost() -> None:
    ordered, counter = OrderedDict[str, int](), Counter[str]()
    vars(ordered)["mark"] = vars(counter)["_metadata"] = 1
    for value in (ordered, counter):
        with pytest.raises(UnstorableError, match="attribute"):
            flatten(value)


def test_what_typing_leaves_on_a_value_is_not_its_own() -> None:
    assert same(through_bytes(Counter[str](a=1)), Counter(a=1))


def test_what_is_refused_is_refused_before_anything_is_written() -> None:
    blobs = Blobs()
    with pytest.raises(UnstorableError):
        build_state([np.zeros(100), object()], (), blobs.write)
    assert not blobs.written


def test_lists_that_multiply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cas.objects.pystate.MAX_CONTAINERS", 1000)
    value: object = []
    for _ in range(40):
        value = [value, value]
    with pytest.raises(UnstorableError, match="more than 1000"):
        flatten(value)


def test_paths_read_as_python_does() -> None:
    assert readable(["optimizer", "state", 0, "exp_avg"]) == "optimizer.state[0].exp_avg"
    assert readable(["model", "layer.0.weight"]) == "model['layer.0.weight']"
    assert readable([]) == "the value"
    assert len(readable([tuple(range(1000))])) < 100


def test_tags_of_a_value() -> None:
    value = {"a": [np.zeros(1), 2**70], "b": (np.float32(1), "list")}
    assert tags(flatten(value).value) == {"dict", "list", "ndarray", "int", "tuple", "numpy"}


def test_no_framework_is_imported_for_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy")
    with pytest.raises(UnstorableError, match="is no state"):
        flatten({"a": np.zeros(1)})  # it cannot be one of NumPy's while NumPy is not loaded
    assert "numpy" not in sys.modules
    assert flatten({"a": [1]}).value == ["dict", "a", ["list", 1]]
    assert "numpy" not in sys.modules


FORGED: dict[str, tuple[Value, type[CasError]]] = {
    "a map": ({}, CorruptionError),
    "no tag": ([], CorruptionError),
    "a tag that is no text": ([1, 2], CorruptionError),
    "unknown tag": (["jax.Array", 1], UnsupportedError),
    "tensor without torch": (["tensor", 0], UnsupportedError),
    "key without value": (["dict", 1], CorruptionError),
    "key twice": (["dict", 1, 2, 1, 3], CorruptionError),
    "equal keys": (["dict", 1, 2, 1.0, 3], CorruptionError),
    "list as a key": (["odict", ["list"], 1], CorruptionError),
    "array as a key": (["counter", ["ndarray", 0], 1], CorruptionError),
    "no metadata": (["state_dict"], CorruptionError),
    "int of text": (["int", "1"], CorruptionError),
    "int of nothing": (["int"], CorruptionError),
    "int that is small": (["int", b"\x01"], CorruptionError),
    "int that is long": (["int", bytes(9) + b"\x01\x00"], CorruptionError),
    "complex of ints": (["complex", 1, 2], CorruptionError),
    "complex of one": (["complex", 1.0], CorruptionError),
    "scalar without bytes": (["numpy", "float32"], CorruptionError),
    "scalar cut short": (["numpy", "float32", b"123"], CorruptionError),
    "scalar of objects": (["numpy", "object", b"12345678"], CorruptionError),
    "scalar of a list": (["numpy", ["list"], b"12345678"], CorruptionError),
    "no row": (["ndarray"], CorruptionError),
    "row of text": (["ndarray", "0"], CorruptionError),
    "row of truth": (["ndarray", False], CorruptionError),
    "row out of range": (["ndarray", 3], CorruptionError),
    "row below zero": (["ndarray", -1], CorruptionError),
    "array with a list": (["ndarray", 0, ["list"]], CorruptionError),
    "array of unknown order": (["ndarray", 0, "<"], CorruptionError),
    "array of bfloat16": (["ndarray", 1], CorruptionError),
    "array of impossible shape": (["ndarray", 2], CorruptionError),
}


@pytest.mark.parametrize(("value", "error"), FORGED.values(), ids=FORGED)
def test_what_the_grammar_does_not_know_is_an_error(value: Value, error: type[CasError]) -> None:
    data = bytes(8)
    rows = (
        TensorRow(("a",), "float32", (2,), blob_id(data), data),
        TensorRow(("b",), "bfloat16", (4,), blob_id(data), data),
        TensorRow(("c",), "float32", (2**62, 2**62, 0), blob_id(b""), b""),
    )
    with pytest.raises(error):
        load_state(State(["list", value], rows), (), Blobs().read)


def test_a_blob_of_another_size_is_corruption() -> None:
    state = build_state(np.zeros(100), (), Blobs().write)
    read: Callable[[BlobId, int], bytearray] = lambda _, nbytes: bytearray(nbytes - 1)  # noqa: E731
    with pytest.raises(CorruptionError, match="799 bytes, not 800"):
        load_state(state, (), read)


def test_each_row_is_made_once() -> None:
    made: list[int] = []

    def make(_framework: object, row: int, _extra: tuple[str, ...]) -> object:
        made.append(row)
        return object()

    found: Any = unflatten(["list", ["ndarray", 4], ["ndarray", 4], ["ndarray", 4, ">"]], make)
    assert made == [4, 4]
    assert found[0] is found[1]
    assert found[0] is not found[2]
