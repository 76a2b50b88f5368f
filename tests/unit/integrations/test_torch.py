"""torch's tensors and small values as states: each dtype, shape and layout, and what is refused."""

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cas.errors import CasError, CorruptionError, UnstorableError, UnsupportedError  # noqa: E402
from cas.ids import blob_id  # noqa: E402
from cas.integrations.torch import ADAPTER  # noqa: E402
from cas.objects.canonical import Value  # noqa: E402
from cas.objects.manifest import DTYPES, State, TensorRow  # noqa: E402
from cas.objects.pystate import flatten  # noqa: E402
from cas.objects.states import build_state, load_state  # noqa: E402
from tests.support.exact import same  # noqa: E402
from tests.support.states import Blobs, through_bytes  # noqa: E402

NAMES = [name for name in DTYPES if hasattr(torch, name)]
SHAPES = [(), (0,), (3, 0, 2), (1,), (4, 1), (40,), (5, 6), (2, 3, 4)]
LAYOUTS = ["rows", "transposed", "strided", "expanded", "offset"]


def through(value: object) -> Any:
    return through_bytes(value, [ADAPTER])


def make_tensor(name: str, shape: tuple[int, ...], layout: str) -> Any:
    """Return a tensor of random bits, NaNs with payload among them."""
    dtype = getattr(torch, name)
    size = 1
    for length in shape:
        size *= length
    raw = torch.randint(0, 256, ((size + 1) * dtype.itemsize,), dtype=torch.uint8)
    if dtype == torch.bool:
        raw = raw & 1
    offset = 1 if layout == "offset" else 0
    whole = raw.view(dtype)[offset : size + offset]
    match layout:
        case "transposed":
            return whole.reshape(shape[::-1]).permute(tuple(range(len(shape))[::-1]))
        case "strided":
            doubled = torch.cat([raw.view(dtype.itemsize, -1)] * 2).view(-1).view(dtype)
            return doubled[:: 2 if size else 1][:size].reshape(shape)
        case "expanded":
            return whole.reshape(shape).unsqueeze(0).expand(3, *shape)
    return whole.reshape(shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_tensors_come_back_exactly(name: str, shape: tuple[int, ...], layout: str) -> None:
    tensor = make_tensor(name, shape, layout)

    found = through({"t": tensor})["t"]

    assert same(found, tensor)
    assert type(found) is torch.Tensor
    assert found.is_contiguous()


@pytest.mark.parametrize("name", ["complex64", "complex128", "complex32"])
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_lazy_conjugates_and_negatives_come_back_as_what_they_show(name: str) -> None:
    tensor = torch.tensor([1 + 2j, 3 - 0.5j, complex("nan")]).to(getattr(torch, name))
    conjugate = tensor.conj()
    negative = conjugate.imag
    assert conjugate.is_conj()
    assert negative.is_neg()

    found = through([conjugate, negative, tensor])

    assert same(found, [conjugate, negative, tensor])
    assert not found[0].is_conj()
    assert not found[1].is_neg()


def test_tensors_of_memory_formats_and_gradients_come_back_plain() -> None:
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    weight = torch.randn(3, requires_grad=True)
    found = through([images, weight, weight * 2])
    assert same(found, [images, weight, weight * 2])
    assert not any(tensor.requires_grad for tensor in found)


def test_nothing_is_said_about_experimental_dtypes() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rare = torch.zeros(12, dtype=torch.uint8).view(torch.complex32)
        through([rare, rare.view(3, 1).t(), rare[::2], rare[:0]])
    assert not caught


def test_contiguous_tensors_are_not_copied() -> None:
    tensor = torch.zeros(100)
    data = flatten([tensor], [ADAPTER]).views[0][1].buffer()
    tensor[0] = 1.0
    assert bytes(data[:4]) == bytes.fromhex("0000803f")


def test_loaded_tensors_take_over_the_memory_they_were_read_into() -> None:
    memory = bytearray(400)
    state = build_state(torch.zeros(100), [ADAPTER], Blobs().write)
    found: Any = load_state(state, [ADAPTER], lambda _id, _nbytes: memory)
    found[0] = 1.0
    assert memory[:4] == bytes.fromhex("0000803f")


def test_tied_tensors_come_back_tied_and_other_overlaps_apart() -> None:
    weight = torch.randn(10, 10)
    value = {
        "embedding": weight,
        "head": weight.detach(),
        "view": weight.view(10, 10),
        "turned": weight.t(),
        "row": weight[0],
        "bits": weight.view(torch.int32),
        "copy": weight.clone(),
        "array": weight.numpy(),
    }
    blobs = Blobs()

    state = build_state(value, [ADAPTER], blobs.write)
    found: Any = load_state(state, [ADAPTER], blobs.read)

    names = ["embedding", "turned", "row", "bits", "copy", "array"]
    assert [row.path for row in state.rows] == [(name,) for name in names]
    assert len({row.id for row in state.rows}) == 3  # the weight, turned, its first row
    assert found["embedding"] is found["head"] is found["view"]
    found["embedding"].zero_()
    for name in ("turned", "row", "bits", "copy", "array"):
        assert same(found[name], value[name]), name


def test_tied_parameters_of_a_module_share_a_row() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 6, bias=False), torch.nn.Linear(6, 6))
    model[1].weight = model[0].weight
    state = build_state(model.state_dict(), [ADAPTER], Blobs().write)
    assert [row.path for row in state.rows] == [("0.weight",), ("1.bias",)]


def test_empty_tensors_are_told_apart() -> None:
    one, other = torch.empty(0), torch.empty(0)
    found = through([one, other, one])
    assert found[0] is found[2]
    assert found[0] is not found[1]


def test_a_state_dict_keeps_its_metadata() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    model(torch.randn(4, 3))
    state = model.state_dict()

    found = through(state)

    assert type(found) is OrderedDict
    assert vars(found)["_metadata"]["1"] == {"version": 2}
    assert same(found, state)
    model.load_state_dict(found)


def test_small_values_come_back_exactly() -> None:
    every_dtype = {
        dtype for name in dir(torch) if isinstance(dtype := getattr(torch, name), torch.dtype)
    }
    value = [
        torch.Size([]),
        torch.Size([2, 3]),
        {torch.float32: torch.device("cpu"), torch.device("cuda:1"): torch.device("cuda")},
        *every_dtype,
        torch.device("meta"),
    ]
    assert same(through(value), value)


def test_the_example_of_the_format_page_is_the_value_it_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "format" / "state.md").read_text()
    text = page.partition("```hex State\n")[2].partition("```")[0]
    raw = bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))
    weight = torch.tensor([[0.5, -0.5], [1.0, -2.0]])
    model = OrderedDict(head=weight, tied=weight)
    vars(model)["_metadata"] = OrderedDict({"": {"version": 1}})
    value = {
        "model": model,
        "betas": (0.9, 0.999),
        7: 2**64,
        "scale": np.float16(0.5),
        "mean": np.array([1, 2], ">i2"),
        "dtype": torch.bfloat16,
    }

    assert build_state(value, [ADAPTER], Blobs().write).to_bytes() == raw
    assert same(load_state(State.from_bytes(raw), [ADAPTER], Blobs().read), value)


class Subclass(torch.Tensor):  # type: ignore[misc, name-defined]  # torch is Any here
    pass


REFUSED: dict[str, tuple[Any, str]] = {
    "parameter": (torch.nn.Parameter(torch.zeros(1)), "detach"),
    "subclass": (torch.zeros(1).as_subclass(Subclass), "Subclass is a subclass"),
    "sparse": (torch.eye(2).to_sparse(), "layout sparse_coo"),
    "meta": (torch.zeros(1, device="meta"), "meta device"),
    "module": (torch.nn.Linear(1, 1), "state_dict()"),
    "generator": (torch.Generator(), "get_state()"),
    "layout": (torch.strided, "torch.layout"),
    "size beyond torch's integers": (torch.Size([2**63]), "subclass of tuple"),
    "sub-byte": (torch.empty(2, dtype=torch.uint4), "dtype uint4"),
    "storage": (torch.zeros(1).untyped_storage(), "UntypedStorage"),
}


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_path_and_reason(value: Any, reason: str) -> None:
    with pytest.raises(UnstorableError) as caught:
        flatten({"model": [value]}, [ADAPTER])
    assert caught.value.path == "model[0]"
    assert reason in caught.value.reason


@pytest.mark.filterwarnings("ignore")
def test_quantized_and_nested_tensors_are_refused() -> None:
    quantized = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)
    nested = torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])
    for value, word in ((quantized, "quantized"), (nested, "nested")):
        with pytest.raises(UnstorableError, match=word):
            flatten(value, [ADAPTER])


def test_a_tensor_is_no_key() -> None:
    with pytest.raises(UnstorableError, match="part of a key"):
        flatten({"state": {(1, torch.zeros(1)): 2}}, [ADAPTER])


FORGED: dict[str, tuple[Value, type[CasError]]] = {
    "size of text": (["torch.Size", "1"], CorruptionError),
    "size beyond torch's integers": (["torch.Size", 2**64 - 1], CorruptionError),
    "size of truth": (["torch.Size", True], CorruptionError),
    "dtype of nothing": (["torch.dtype"], CorruptionError),
    "dtype of a number": (["torch.dtype", 1], CorruptionError),
    "dtype that is a module": (["torch.dtype", "nn"], UnsupportedError),
    "device of another torch": (["torch.device", "warp"], UnsupportedError),
    "device of bytes": (["torch.device", b"cpu"], CorruptionError),
    "tensor with arguments": (["tensor", 0, ">"], CorruptionError),
    "tensor of impossible shape": (["tensor", 1], CorruptionError),
    "tensor of no row": (["tensor", 2], CorruptionError),
}


@pytest.mark.parametrize(("value", "error"), FORGED.values(), ids=FORGED)
def test_what_encode_never_writes_is_an_error(value: Value, error: type[CasError]) -> None:
    data = bytes(8)
    rows = (
        TensorRow(("a",), "float32", (2,), blob_id(data), data),
        TensorRow(("b",), "float32", (2**62, 2**62, 0), blob_id(b""), b""),
    )
    with pytest.raises(error):
        load_state(State(["list", value], rows), [ADAPTER], Blobs().read)


def test_a_dtype_that_this_torch_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    state = build_state([torch.zeros(2)], [ADAPTER], Blobs().write)
    monkeypatch.setattr("cas.integrations.torch._DTYPES", {})
    with pytest.raises(UnsupportedError, match="dtype float32, which torch"):
        load_state(state, [ADAPTER], Blobs().read)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_tensors_on_a_device_come_back_on_the_cpu(name: str) -> None:
    tensor = make_tensor(name, (5, 6), "transposed")
    on_device = tensor.cuda()
    found = through([on_device, on_device.detach(), on_device.t()])
    assert same(found, [tensor, tensor, tensor.t()])
    assert found[0] is found[1]
