"""Whatever a file of tensors holds, it comes back, and each tensor is known by its bytes."""

import io
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.ids import blob_id
from cas.objects.containers.safetensors import NAMES
from cas.objects.manifest import DTYPES, INLINE_LIMIT
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.repo.trees.cutting import LEAST, store_tensors
from cas.repo.trees.tensors import tensors_of
from tests.support.builders import repository
from tests.support.tensorfiles import archive, gguf, npz, safetensors, state_dict, tensor

BLOCK: Final = 4 * 1024 * 1024
SIZES: Final = (0, 1, 63, 64, 65, 128, 1000, LEAST - 1, LEAST, LEAST + 1)
LARGE: Final = (BLOCK - 16, BLOCK, BLOCK + 16, 2 * BLOCK + 16)
# NaNs with payloads, negative zero, denormals, infinities: as float32, as bytes of anything else.
PATTERN: Final = np.array(
    [0x7FC00001, 0xFF800001, 0x80000000, 1, 0x807FFFFF, 0x7F800000, 0x3F8CCCCD], "<u4"
).tobytes()

kinds = st.sampled_from(sorted(NAMES))
sizes = st.one_of(st.sampled_from(SIZES), st.integers(0, 3000))
first = st.one_of(*[sizes] * 3, st.sampled_from(LARGE))


def content(seed: int, size: int) -> bytes:
    if seed % 3 == 0:
        return (PATTERN * (size // len(PATTERN) + 1))[:size]
    return np.random.default_rng(seed).bytes(size)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, tuple[str, list[int], bytes]]:
    made: dict[str, tuple[str, list[int], bytes]] = {}
    for number in range(draw(st.integers(1, 6))):
        kind = draw(kinds)
        count = draw(sizes if number else first) // DTYPES[NAMES[kind]]
        data = content(draw(st.integers(0, 9)), count * DTYPES[NAMES[kind]])
        made[f"t{number}"] = (kind, [count], data)
    return made


def stored(repo: Repo, data: bytes) -> bool:
    """Store a file, insist that it comes back, and say whether it was cut."""
    found = transact(repo, "test", lambda tx: store_tensors(tx.writer, io.BytesIO(data), len(data)))
    if found is None:
        return False
    assert found == (blob_id(data), len(data))
    assert b"".join(repo.store.pieces(found[0])) == data
    return True


@settings(max_examples=60)
@given(rows())
def test_any_safetensors_file_comes_back(tensors: Any) -> None:
    data = safetensors(tensors)
    with tempfile.TemporaryDirectory() as folder:
        repo = repository(Path(folder))
        cut = stored(repo, data)
        large = any(len(raw) > INLINE_LIMIT for _, _, raw in tensors.values())
        assert cut == (large and len(data) > LEAST)
        if not cut:
            return
        listing = tensors_of(repo, blob_id(data))
        assert listing is not None
        assert {t.name: (t.dtype, list(t.shape), t.id) for t in listing.tensors} == {
            name: (NAMES[kind], shape, blob_id(raw)) for name, (kind, shape, raw) in tensors.items()
        }


@settings(max_examples=20)
@given(rows())
def test_a_tensor_is_the_same_in_every_container(tensors: Any) -> None:
    floats = {name: raw[: len(raw) // 4 * 4] for name, (_, _, raw) in tensors.items()}
    counts = {name: len(raw) // 4 for name, raw in floats.items()}
    arrays = {name: np.frombuffer(raw, "<f4") for name, raw in floats.items()}
    pushed = {name: tensor(name, (count,)) for name, count in counts.items()}
    solid = {name: (0, [counts[name]], raw) for name, raw in floats.items() if raw}
    files = [
        safetensors({name: ("F32", [counts[name]], raw) for name, raw in floats.items()}),
        archive(state_dict(pushed), floats),
        npz(arrays),
        gguf(solid),
    ]
    with tempfile.TemporaryDirectory() as folder:
        repo = repository(Path(folder))
        for data in files:
            if not stored(repo, data):
                continue
            listing = tensors_of(repo, blob_id(data))
            assert listing is not None
            told = {t.name: (t.dtype, t.id) for t in listing.tensors if t.nbytes}
            assert told == {n: ("float32", blob_id(raw)) for n, raw in floats.items() if raw}


@settings(max_examples=60)
@given(
    rows(),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    st.sampled_from(["safetensors", "torch", "npz", "gguf"]),
)
def test_a_file_that_lies_comes_back_too(
    tensors: Any, damage: list[tuple[int, int]], kind: str
) -> None:
    floats = {name: raw[: len(raw) // 4 * 4] for name, (_, _, raw) in tensors.items()}
    if kind == "torch":
        pushed = {name: tensor(name, (len(raw) // 4,)) for name, raw in floats.items()}
        whole = archive(state_dict(pushed), floats)
    elif kind == "npz":
        whole = npz({name: np.frombuffer(raw, "<f4") for name, raw in floats.items()})
    elif kind == "gguf":
        whole = gguf({n: (0, [len(raw) // 4], raw) for n, raw in floats.items() if raw})
    else:
        whole = safetensors({n: ("F32", [len(raw) // 4], raw) for n, raw in floats.items()})
    data = bytearray(whole)
    for at, byte in damage:
        # The headers: at the front, and in archives at the end.
        data[at % len(data) if at % 2 else -1 - at % len(data)] = byte
    with tempfile.TemporaryDirectory() as folder:
        stored(repository(Path(folder)), bytes(data))
