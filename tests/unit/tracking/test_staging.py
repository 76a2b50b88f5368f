"""Staging memory holds what was, and no more of it than it may."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cas.ids import BlobId, blob_id
from cas.objects.manifest import State
from cas.objects.pystate import flatten
from cas.objects.states import assemble
from cas.tracking.captured import frameworks
from cas.tracking.captured.frameworks import adapters
from cas.tracking.checkpoints import staging
from cas.tracking.checkpoints.memory import free_bytes
from cas.tracking.checkpoints.staging import Staging, stage, staged_bytes
from tests.support.runs import eventually


def blobs(flat: Any) -> list[bytes]:
    """The bytes of all tensors, as they would be stored."""
    return [bytes(view.buffer()) for _, view in flat.views]


def assembled(flat: Any) -> tuple[State, list[bytes]]:
    """The state, and the bytes that are stored for it."""
    stored: list[bytes] = []

    def write(data: memoryview, _: object) -> BlobId:
        stored.append(bytes(data))
        return blob_id(data)

    return assemble(flat, write), stored


def copied(value: object) -> Any:
    flat = flatten(value, adapters())
    return stage(flat, np.full(staged_bytes(flat), 255, np.uint8).data)


DTYPES = st.sampled_from(["bool", "int8", "uint16", "int64", "float16", "float32", "complex128"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(st.lists(arrays.arrays(DTYPES, SHAPES), max_size=5), st.booleans())
def test_a_copy_is_stored_as_the_state_would_be(values: list[Any], turned: bool) -> None:
    state = {"a": [value.T if turned else value for value in values], "again": values[:1]}
    flat = flatten(state)
    assert assembled(flat) == assembled(copied(state))


def test_nothing_that_comes_later_reaches_a_copy() -> None:
    weights, counts = np.arange(1000.0), {"n": [1, 2]}
    flat = copied({"w": weights, "view": weights[::2], "counts": counts})
    before = blobs(flat), flat.value
    weights[:] = -1
    counts["n"].append(3)
    counts["more"] = []
    assert (blobs(flat), flat.value) == before
    assert "more" not in str(flat.value)


def test_tensors_of_torch_in_any_layout() -> None:
    torch: Any = pytest.importorskip("torch")
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),
        "part": whole[:, 1:, ::2],
        "half": whole.to(torch.bfloat16),
        "small": whole.to(torch.float8_e4m3fn),
        "scalar": torch.tensor(3),
        "none": torch.empty(0, 3),
        "conjugate": torch.complex(whole, whole).conj(),
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "parameter": torch.nn.Linear(2, 2).state_dict(),
    }
    flat = flatten(state, adapters())
    assert blobs(copied(state)) == blobs(flat)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_large_and_odd_ones_among_many_small_ones(kind: str) -> None:
    torch: Any = pytest.importorskip("torch")
    as_kind = torch.from_numpy if kind == "torch" else np.asarray
    rng = np.random.default_rng(5)
    large = rng.integers(0, 2**31, (3000, 4001), np.int32)
    state = {"large": as_kind(large), "odd": as_kind(large)[:, 1:77], "turned": as_kind(large).T}
    state |= {f"small{n}": as_kind(large[n, : n + 1]) for n in range(50)}
    flat = flatten(state, adapters())
    assert blobs(copied(state)) == blobs(flat)


def test_what_lies_in_memory_as_it_is_stored_says_where() -> None:
    torch: Any = pytest.importorskip("torch")
    whole = torch.arange(6.0).reshape(2, 3)
    known = {"t": whole, "part": whole[1:], "n": np.arange(3)}
    turned = {"t": whole.T, "n": np.arange(6).reshape(2, 3).T, "big": np.arange(3, dtype=">i4")}
    for path, view in flatten(known, adapters()).views:
        assert view.address is not None, path
        assert view.address == np.frombuffer(view.buffer(), np.uint8).ctypes.data
    assert [view.address for _, view in flatten(turned, adapters()).views] == [None] * 3


def test_tensors_of_a_device_are_there_when_the_copy_is_made() -> None:
    torch: Any = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    weights = torch.rand(1000, 1000, device="cuda")
    flat = flatten({"w": weights, "turned": weights.T, "half": weights.half()}, adapters())
    before = blobs(flat)
    memory = frameworks.staging(staged_bytes(flat))
    assert torch.frombuffer(memory, dtype=torch.uint8).is_pinned()
    copy = stage(flat, memory)
    weights.zero_()
    assert blobs(copy) == before


def test_a_nan_keeps_its_bits() -> None:
    torch: Any = pytest.importorskip("torch")
    bits = np.array([0x7FA00001, 0xFFC12345, 0x80000000], np.uint32)
    for value in (bits.view(np.float32), torch.from_numpy(bits.view(np.float32))):
        assert blobs(copied({"w": value})) == [bits.tobytes()]


def test_memory_is_used_again() -> None:
    held = Staging(1000)
    first = held.take(800)
    assert first is not None
    held.give_back(first)
    assert held.take(700) is first


def test_one_more_waits_and_a_third_is_told_so() -> None:
    held = Staging(1000)
    first, second = held.take(400), held.take(400)
    assert second is not first
    assert held.take(1, wait=False) is None
    assert first is not None
    held.give_back(first)
    assert held.take(400, wait=False) is first


def test_who_waits_gets_memory_when_it_is_free() -> None:
    held = Staging(1000)
    first = held.take(900)
    assert first is not None
    assert held.take(900, wait=False) is None
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(held.take(900)))
    thread.start()
    assert got == []
    held.give_back(first)
    eventually(lambda: got == [first])
    thread.join()


def test_a_quarter_of_what_is_free_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "FEW", 10)
    free = {"bytes": 4000}
    held = Staging(free=lambda: free["bytes"])
    assert held.fits(1000)
    assert not held.fits(1001)
    memory = held.take(1000)
    assert memory is not None
    free["bytes"] -= 1000  # what is held already is not counted as lost
    assert held.fits(1000)
    held.give_back(memory)
    assert held.fits(1000)
    assert Staging(free=lambda: None).fits(2**60)


def test_memory_of_machine_and_groups(tmp_path: Any) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    inner = groups / "slice" / "job"
    inner.mkdir(parents=True)
    assert free_bytes(proc, groups) is None
    (proc / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    (proc / "self" / "cgroup").write_text("0::/slice/job\n")
    assert free_bytes(proc, groups) == 50 * 1024
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("1000\n")
    assert free_bytes(proc, groups) == 50 * 1024
    (groups / "slice" / "memory.max").write_text("9000\n")
    (groups / "slice" / "memory.current").write_text("8000\n")
    (groups / "slice" / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    assert free_bytes(proc, groups) == 1500


def test_memory_of_groups_of_the_first_version(tmp_path: Any) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (groups / "memory").mkdir(parents=True)
    # In a container the path is the host's, and is not there.
    (proc / "self" / "cgroup").write_text("5:cpu,memory:/docker/abc\n4:pids:/docker/abc\n")
    (groups / "memory" / "memory.limit_in_bytes").write_text("7000\n")
    (groups / "memory" / "memory.usage_in_bytes").write_text("3000\n")
    assert free_bytes(proc, groups) == 4000


def test_this_machine_tells() -> None:
    found = free_bytes()
    assert found is None or 0 <= found < 2**50


def test_memory_that_is_held_already_is_used_however_little_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staging, "FEW", 10)
    free = {"bytes": 4000}
    held = Staging(free=lambda: free["bytes"])
    memory = held.take(1000)
    assert memory is not None
    held.give_back(memory)
    free["bytes"] = 0
    assert held.fits(900)
    assert held.take(900, wait=False) is memory
    assert not held.fits(900)


def test_what_no_memory_is_large_enough_for_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        frameworks.staging(2**62)
