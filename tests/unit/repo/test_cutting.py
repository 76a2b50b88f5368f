"""Files of tensors are cut at their tensors, and come back as they were whatever they say."""

import io
import os
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cas.ids import BlobId, blob_id
from cas.objects.commit import COMMIT, Commit
from cas.objects.manifest import DTYPES
from cas.objects.states import build_state
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.check import fsck
from cas.repo.layout import MAIN
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import cutting
from cas.repo.trees.cutting import LEAST, store_tensors
from cas.store.record import RECIPE
from tests.support.builders import noise, reopened, repository
from tests.support.tensorfiles import archive, gguf, npz, safetensors, state_dict, tensor

BLOCK = 4 * 1024 * 1024


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def store(repo: Repo, data: bytes, size: int | None = None) -> BlobId | None:
    """Store a file, insist that it comes back, and return its id; None when it is not cut."""
    file = io.BytesIO(data)
    claimed = len(data) if size is None else size
    found = transact(repo, "test", lambda tx: store_tensors(tx.writer, file, claimed))
    if found is None:
        assert file.tell() == 0
        return None
    assert found == (blob_id(data), len(data))
    assert b"".join(reopened(repo).store.pieces(found[0])) == data
    return found[0]


def pieces(repo: Repo, id: BlobId) -> list[tuple[BlobId, int]]:
    _, recipe = repo.store.shape(id)
    assert recipe is not None
    return list(recipe.pieces())


def whole(repo: Repo) -> bool:
    """Commit all that is stored under recipes, and say whether every piece of it is in order."""
    rows = [place.row for place in repo.store.index.starting(b"") if place.row.codec == RECIPE]

    def commit(tx: Transaction) -> None:
        entries = [
            Entry(b"%04d" % number, EntryKind.FILE, row.id, row.size, 0o644)
            for number, row in enumerate(rows)
        ]
        tree = build(entries, tx.writer.tree)
        tx.set_ref(MAIN, tx.record(Commit(kind=COMMIT, tree=tree.id)))

    transact(repo, "commit", commit)
    return not list(fsck.check(repo, full=True))


def disk(repo: Repo) -> int:
    return sum(path.stat().st_size for path in repo.path.rglob("*") if path.is_file())


def floats(*sizes: int, seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        f"layer{number}.weight": rng.normal(size=size).astype(np.float32)
        for number, size in enumerate(sizes)
    }


def as_safetensors(arrays: Mapping[str, Any]) -> bytes:
    rows = {n: ("F32", list(a.shape), a.tobytes()) for n, a in arrays.items()}
    return safetensors(rows)


def as_torch(arrays: Mapping[str, Any]) -> bytes:
    pushed = {n: tensor(str(k), a.shape) for k, (n, a) in enumerate(arrays.items())}
    return archive(state_dict(pushed), {str(k): a.tobytes() for k, a in enumerate(arrays.values())})


def as_npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def as_gguf(arrays: Mapping[str, Any]) -> bytes:
    return gguf({n: (0, list(a.shape)[::-1], a.tobytes()) for n, a in arrays.items()})


def commit_state(repo: Repo, value: object) -> None:
    def write(tx: Transaction) -> None:
        state = build_state(value, (), tx.writer.blob)
        tx.writer.manifest(state.to_bytes())

    transact(repo, "state", write)


CONTAINERS = {
    "safetensors": as_safetensors,
    "torch.save": as_torch,
    "npz": npz,
    "gguf": as_gguf,
}


class TestCuts:
    @pytest.mark.parametrize("kind", CONTAINERS)
    def test_each_tensor_is_a_blob_of_its_own(self, repo: Repo, kind: str) -> None:
        arrays = floats(30_000, 17, 16, 3, 100)
        id = store(repo, CONTAINERS[kind](arrays))
        assert id is not None
        known = dict(pieces(repo, id))
        for array in arrays.values():
            data = array.tobytes()
            assert (known.get(blob_id(data)) == len(data)) == (len(data) > 64)

    def test_a_tensor_above_a_block_is_cut_in_blocks(self, repo: Repo) -> None:
        array = floats(2 * BLOCK // 4 + 1)["layer0.weight"]
        id = store(repo, as_npy(array))
        assert id is not None
        (_, header), (whole, size) = pieces(repo, id)
        assert (header, size) == (128, array.nbytes)
        assert [size for _, size in pieces(repo, whole)] == [BLOCK, BLOCK, 4]

    def test_blocks_begin_where_their_tensor_does(self, repo: Repo) -> None:
        first = store(repo, as_npy(floats(3 * BLOCK // 4)["layer0.weight"]))
        before = disk(repo)
        second = store(repo, as_safetensors(floats(3 * BLOCK // 4, 33)))
        assert first != second
        assert disk(repo) - before < 8192

    def test_numbers_are_stored_as_numbers(self, repo: Repo) -> None:
        # As opaque bytes they would hardly be smaller: only their exponents are alike.
        data = as_safetensors(floats(200_000))
        before = disk(repo)
        store(repo, data)
        assert disk(repo) - before < 0.9 * len(data)

    def test_files_that_are_not_cut(self, repo: Repo) -> None:
        few = {"a": ("U8", [64], bytes(64))}
        for data in (
            b"",
            noise(1, 200_000),
            as_safetensors(floats(LEAST // 4 - 100)),
            safetensors(few, {"text": "x" * LEAST}),
            as_safetensors(floats(30_000)) + b"\0",
        ):
            assert store(repo, data) is None
        assert not repo.refresh().packs

    def test_a_file_as_large_as_it_may_be_without_cuts(self, repo: Repo) -> None:
        data = as_npy(np.zeros(LEAST - 128, np.uint8))
        assert len(data) == LEAST
        assert store(repo, data) is None
        assert store(repo, as_npy(np.zeros(LEAST - 127, np.uint8))) is not None

    def test_fsck_finds_nothing_wrong(self, repo: Repo) -> None:
        for kind in CONTAINERS.values():
            store(repo, kind(floats(30_000, BLOCK // 4 + 5)))
        assert whole(repo)


class TestOnce:
    def test_a_second_container_adds_next_to_nothing(self, repo: Repo) -> None:
        """The same 20 MB of weights in a state and in files of every kind."""
        arrays = floats(*[50_000] * 60, *[300] * 40, 2_000_000)
        small = {"scale": np.array([0.5], np.float32), "steps": np.arange(16, dtype=np.float32)}
        arrays |= small
        commit_state(repo, {"model": arrays})
        for kind, make in CONTAINERS.items():
            before = disk(repo)
            assert store(repo, make(dict(reversed(arrays.items())))) is not None
            assert disk(repo) - before < 64 * 1024, kind
        before = disk(repo)
        assert store(repo, as_npy(arrays["layer100.weight"])) is not None
        assert disk(repo) - before < 8192

    def test_a_state_after_a_file_adds_next_to_nothing(self, repo: Repo) -> None:
        arrays = floats(*[50_000] * 20, 2_000_000)
        store(repo, as_torch(arrays))
        before = disk(repo)
        commit_state(repo, {"model": arrays})
        assert disk(repo) - before < 16 * 1024

    def test_the_same_file_again_adds_nothing(self, repo: Repo) -> None:
        data = as_torch(floats(50_000, 300))
        store(repo, data)
        packs = repo.refresh().packs
        store(repo, data)
        assert repo.refresh().packs == packs

    def test_files_of_torch(self, repo: Repo, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        arrays = floats(50_000, 300, 9)
        commit_state(repo, arrays)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        path = tmp_path / "w.pt"
        torch.save({"model": tensors, "view": tensors["layer0.weight"][5:]}, path)
        id = store(repo, path.read_bytes())
        assert id is not None
        known = dict(pieces(repo, id))
        assert blob_id(arrays["layer0.weight"].tobytes()) in known
        assert blob_id(arrays["layer1.weight"].tobytes()) in known


class TestChanging:
    """A file that is not what its header said is stored as it was read."""

    def test_one_that_grew(self, repo: Repo) -> None:
        data = as_safetensors(floats(50_000))
        file = Growing(data, noise(2, 700_000))
        found = transact(repo, "test", lambda tx: store_tensors(tx.writer, file, len(data)))
        assert found == (blob_id(data + noise(2, 700_000)), len(data) + 700_000)
        assert b"".join(repo.store.pieces(found[0])) == data + noise(2, 700_000)

    @pytest.mark.parametrize("left", [0, 1, 5, 70, 100_000, 200_200])
    def test_one_that_became_shorter(self, repo: Repo, left: int) -> None:
        data = as_safetensors(floats(50_000, 300))
        file = Shrinking(data, left)
        found = transact(repo, "test", lambda tx: store_tensors(tx.writer, file, len(data)))
        assert found == (blob_id(data[:left]), left)
        assert b"".join(repo.store.pieces(found[0])) == data[:left]

    def test_one_that_cannot_be_read_on(self, repo: Repo) -> None:
        data = as_safetensors(floats(50_000))
        with pytest.raises(OSError, match="gone bad"):
            transact(repo, "test", lambda tx: store_tensors(tx.writer, Failing(data), len(data)))
        assert not repo.refresh().packs


class TestMany:
    def test_more_tensors_than_a_recipe_holds(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cutting, "MAX_PIECES", 100)
        monkeypatch.setattr(cutting, "GROUP", 16)
        arrays = floats(*[300] * 90, BLOCK // 4 + 5, *[301] * 10)
        id = store(repo, as_torch(arrays))
        assert id is not None
        assert len(pieces(repo, id)) < 20
        inner = {piece for group, _ in pieces(repo, id) for piece, _ in pieces(repo, group)}
        assert {blob_id(array.tobytes()) for array in arrays.values()} <= inner
        assert whole(repo)

    def test_a_very_large_tensor_stands_in_no_group(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cutting, "MAX_PIECES", 10)
        monkeypatch.setattr(cutting, "GROUP", 4)
        monkeypatch.setattr(cutting, "GROUP_FROM", BLOCK)
        monkeypatch.setattr("cas.store.writer.GROUP_FROM_TYPED", BLOCK)
        monkeypatch.setattr("cas.store.writer.GROUP", 2)
        arrays = floats(*[300] * 5, 3 * BLOCK // 4, *[301] * 5)
        id = store(repo, as_safetensors(arrays))  # reads it back, which goes three levels deep
        assert id is not None
        assert blob_id(arrays["layer5.weight"].tobytes()) in dict(pieces(repo, id))

    def test_a_large_tensor_that_was_opaque_bytes_stands_in_no_group(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cutting, "MAX_PIECES", 10)
        for module in ("cas.repo.trees.cutting", "cas.store.writer"):
            monkeypatch.setattr(f"{module}.GROUP", 4)
            monkeypatch.setattr(f"{module}.GROUP_FROM", 2 * BLOCK)
        arrays = floats(*[300] * 5, 3 * BLOCK // 4, *[301] * 5)
        dump = arrays["layer5.weight"].tobytes()
        # By itself it is a recipe of recipes.
        transact(repo, "test", lambda tx: tx.writer.stream([dump], len(dump)))
        assert store(repo, as_safetensors(arrays)) is not None  # reads it back
        assert whole(repo)


class TestNested:
    """A tensor may be the bytes of a file of tensors, which may be stored by itself as well."""

    def wrap(self, data: bytes) -> bytes:
        return safetensors({"file": ("U8", [len(data)], data), "b": ("U8", [70], bytes(70))})

    def test_a_file_in_a_file_is_cut_at_its_own_tensors(self, repo: Repo) -> None:
        arrays = floats(2_000_000, 300)
        data = as_torch(arrays)
        for _ in range(6):
            before = disk(repo)
            id = store(repo, data)  # reads it back
            assert id is not None
            assert {blob_id(a.tobytes()) for a in arrays.values()} <= dict(pieces(repo, id)).keys()
            data = self.wrap(data)
        assert disk(repo) - before < 4096
        assert whole(repo)

    def test_too_many_files_in_a_file_are_opaque(self, repo: Repo) -> None:
        data = as_safetensors(floats(30_000))
        for _ in range(8):
            data = self.wrap(data)
        assert store(repo, data) is not None
        assert store(repo, self.wrap(data)) is None

    def test_many_small_files_in_a_file(self, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
        inner = [as_safetensors(floats(20_000, seed=seed)) for seed in range(5)]
        data = safetensors({str(n): ("U8", [len(d)], d) for n, d in enumerate(inner)})
        monkeypatch.setattr("cas.objects.containers.nested.MAX_FILES", 6)
        assert store(repo, data) is not None
        monkeypatch.setattr("cas.objects.containers.nested.MAX_FILES", 5)
        assert store(repo, data) is None


def test_memory_is_bounded(repo: Repo, tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    size = 300 << 20
    header = as_npy(np.zeros(0, np.uint8)).replace(b"(0,), }" + b" " * 8, b"(%d,), }" % size)
    header = header[:127].ljust(127)[:127] + b"\n"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    with path.open("rb", buffering=0) as raw:
        tracemalloc.start()
        try:
            found = transact(
                repo, "test", lambda tx: store_tensors(tx.writer, raw, path.stat().st_size)
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found is not None
    assert repo.store.locate(found[0]).row.codec == RECIPE  # type: ignore[union-attr]
    assert peak < 160 << 20


def test_every_dtype_is_cut(repo: Repo) -> None:
    names = {
        "BOOL": "bool",
        "BF16": "bfloat16",
        "F16": "float16",
        "F64": "float64",
        "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn",
        "U16": "uint16",
        "I64": "int64",
    }
    rows = {
        name: (name, [20_000], os.urandom(20_000 * DTYPES[dtype])) for name, dtype in names.items()
    }
    id = store(repo, safetensors(rows))
    assert id is not None
    assert {blob_id(data) for _, _, data in rows.values()} <= dict(pieces(repo, id)).keys()


def test_special_numbers_keep_their_bits(repo: Repo) -> None:
    bits = [0x7FC00001, 0x7F800001, 0xFFC12345, 0x80000000, 1, 0x807FFFFF, 0x7F800000]
    data = struct.pack("<7I", *bits) * 4000
    id = store(repo, safetensors({"w": ("F32", [28_000], data)}))
    assert id is not None
    assert b"".join(repo.store.pieces(blob_id(data))) == data


class Changing(io.BytesIO):
    """A file that changes once its header was read."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if (offset, whence) == (0, 0) and self.taken > 100:
            self.taken = -(2**60)
            self.change()
        return super().seek(offset, whence)

    def change(self) -> None:
        raise NotImplementedError


class Growing(Changing):
    """One that then has more bytes."""

    def __init__(self, data: bytes, more: bytes) -> None:
        super().__init__(data)
        self.more = more

    def change(self) -> None:
        super().seek(0, 2)
        self.write(self.more)


class Shrinking(Changing):
    """One that then has fewer bytes."""

    def __init__(self, data: bytes, left: int) -> None:
        super().__init__(data)
        self.left = left

    def change(self) -> None:
        self.truncate(self.left)


class Failing(io.BytesIO):
    """A file that cannot be read beyond its header."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() + (size or 0) > 150_000:
            raise OSError(5, "gone bad")
        return super().read(size)
