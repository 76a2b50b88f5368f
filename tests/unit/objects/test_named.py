"""Tensors by name: every place in a state where one stands, and only exact names."""

from collections import Counter, OrderedDict

import numpy as np
import pytest

from cas.errors import AmbiguousError, CorruptionError, NotFoundError
from cas.objects.manifest import State
from cas.objects.named import named_tensors, pick
from cas.objects.states import build_state, load_state
from tests.support.states import Blobs

W = np.arange(100, dtype=np.float32)
B = np.arange(3, dtype=np.int64)


def state_of(value: object) -> State:
    return build_state(value, (), Blobs().write)


def labels(value: object) -> list[str]:
    return [one.label for one in named_tensors(state_of(value))]


def test_every_place_has_a_name() -> None:
    ordered: OrderedDict[str, object] = OrderedDict({"fc.weight": W})
    vars(ordered)["_metadata"] = {"kept": B}
    value = {
        "model": ordered,
        "optimizer": {"state": {0: {"m": B + 1}}, "groups": [1, 2.5, (B + 2, "x")]},
        ("a", 1): B + 3,
        "none": None,
        "numbers": list(range(5)),
        "counted": Counter({"x": 1}),
    }
    assert labels(value) == [
        *("model._metadata.kept", "model.fc.weight", "optimizer.state.0.m"),
        *("optimizer.groups.2.0", "('a', 1)"),
    ]
    assert labels(W) == ["tensor"]
    assert labels({}) == labels(5) == []


def test_tied_tensors_have_all_their_names() -> None:
    state = state_of({"wte": W, "head": {"weight": W}})
    assert len(state.rows) == 1
    assert [one.label for one in named_tensors(state)] == ["wte", "head.weight"]


@pytest.mark.parametrize("array", [W, B, W.astype(">f4"), W[:0]], ids=str)
def test_a_tensor_alone_is_a_state_that_loads(array: np.ndarray) -> None:
    blobs = Blobs()
    state = build_state({"a": B + 9, "b": [array]}, (), blobs.write)
    alone = pick(named_tensors(state), "b.0").alone
    found = load_state(State.from_bytes(alone.to_bytes()), (), blobs.read)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())


def test_names_are_taken_with_dots_or_as_they_are_listed() -> None:
    known = list(named_tensors(state_of({"m": {"fc.weight": W, "b": {3: B}}})))
    for name in ("m.fc.weight", "m['fc.weight']"):
        assert pick(known, name).row.shape == (100,)
    for name in ("m.b.3", "m.b[3]"):
        assert pick(known, name).row.shape == (3,)


def test_what_is_near_is_told() -> None:
    known = list(named_tensors(state_of({"model": {"fc.weight": W, "fc.bias": B}})))
    with pytest.raises(NotFoundError, match=r"fc.bias not found: did you mean model.fc.bias\?"):
        pick(known, "fc.bias")
    with pytest.raises(NotFoundError, match=r"did you mean model.fc.weight\?|did you mean model"):
        pick(known, "model.fc.wieght")
    with pytest.raises(NotFoundError, match="there are 2 others: `cas ls` lists them"):
        pick(known, "qqqq")
    with pytest.raises(NotFoundError, match=r"did you mean model\.fc\.weight or model\.fc\.bias"):
        pick(known, "model.fc")
    with pytest.raises(NotFoundError, match="the only one is w"):
        pick(named_tensors(state_of({"w": W})), "qqqq")
    with pytest.raises(NotFoundError, match="there are none"):
        pick([], "w")


def test_a_name_of_two_tensors_is_ambiguous() -> None:
    known = list(named_tensors(state_of({"a": {"b.c": W}, "a.b": {"c": B}})))
    with pytest.raises(AmbiguousError, match=r"it could be \['a.b'\].c, a\['b.c'\]"):
        pick(known, "a.b.c")
    assert pick(known, "['a.b'].c").row.shape == (3,)
    tied = list(named_tensors(state_of({"a": {"b.c": W}, "a.b": {"c": W}})))
    assert pick(tied, "a.b.c").row.shape == (100,)


def test_what_is_listed_under_a_name_has_it() -> None:
    known = list(named_tensors(state_of({"a": {"b": W}, "a.b": B})))
    assert pick(known, "a.b").row.shape == (100,)
    assert pick(known, "['a.b']").row.shape == (3,)


@pytest.mark.parametrize("value", [["tensor"], ["tensor", 1], ["tensor", "x"], ["ndarray", -1]])
def test_a_reference_to_no_row_is_corruption(value: list[object]) -> None:
    state = State(["list", value], state_of(W).rows)  # type: ignore[list-item]  # as a bad file has
    with pytest.raises(CorruptionError, match="names no row"):
        list(named_tensors(state))
