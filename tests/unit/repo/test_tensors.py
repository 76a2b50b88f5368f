"""The tensors of stored files are told from their headers, with ids from their recipes."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from cas.errors import CorruptionError, NotFoundError
from cas.ids import BlobId, blob_id
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.repo.trees import cutting
from cas.repo.trees.cutting import store_tensors
from cas.repo.trees.tensors import StoredFile, tensors_of
from cas.store.packed import PackedStore
from tests.support.builders import noise, reopened, repository
from tests.support.tensorfiles import archive, safetensors, state_dict, tensor

RNG = np.random.default_rng(1)
W = RNG.normal(size=(300, 100)).astype("<f4").tobytes()
LARGE = RNG.integers(0, 255, 9_000_001, np.uint8).tobytes()
SMALL = RNG.integers(0, 255, 20, np.uint8).tobytes()
ROWS = {"w": ("F32", [300, 100], W), "large": ("U8", [9_000_001], LARGE), "s": ("U8", [20], SMALL)}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def cut(repo: Repo, data: bytes) -> BlobId:
    file = io.BytesIO(data)
    found = transact(repo, "test", lambda tx: store_tensors(tx.writer, file, len(data)))
    assert found is not None
    return found[0]


def opaque(repo: Repo, data: bytes) -> BlobId:
    return transact(repo, "test", lambda tx: tx.writer.blob(data))


class Watched:
    """A store that counts the bytes that are asked of it."""

    def __init__(self, store: PackedStore) -> None:
        self._store = store
        self.taken = 0
        self.shape = store.shape

    def slice(self, id: BlobId, start: int = 0, stop: int | None = None):  # type: ignore[no-untyped-def]
        for data in self._store.slice(id, start, stop):
            self.taken += len(data)
            yield data


class TestListing:
    @pytest.mark.parametrize("store", [cut, opaque])
    def test_ids_are_those_of_the_bytes(self, repo: Repo, store) -> None:  # type: ignore[no-untyped-def]
        id = store(repo, safetensors(ROWS))
        listing = tensors_of(reopened(repo), id)
        assert listing is not None
        assert listing.kind == "safetensors"
        assert [(t.name, t.dtype, t.shape, t.nbytes, t.id) for t in listing.tensors] == [
            ("w", "float32", (300, 100), len(W), blob_id(W)),
            ("large", "uint8", (9_000_001,), len(LARGE), blob_id(LARGE)),
            ("s", "uint8", (20,), 20, blob_id(SMALL)),
        ]

    def test_a_cut_file_is_not_read_for_it(self, repo: Repo) -> None:
        id = cut(repo, safetensors(ROWS))
        watched = reopened(repo)
        watched.store = Watched(watched.store)  # type: ignore[assignment]
        assert tensors_of(watched, id) is not None
        assert watched.store.taken < 4096  # type: ignore[attr-defined]

    def test_groups_are_looked_into(self, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cutting, "MAX_PIECES", 3)
        monkeypatch.setattr(cutting, "GROUP", 2)
        id = cut(repo, safetensors(ROWS))
        watched = reopened(repo)
        watched.store = Watched(watched.store)  # type: ignore[assignment]
        listing = tensors_of(watched, id)
        assert listing is not None
        assert [t.id for t in listing.tensors] == [blob_id(W), blob_id(LARGE), blob_id(SMALL)]
        assert watched.store.taken < 8 << 20  # type: ignore[attr-defined]  # not the large one

    def test_a_tensor_that_is_no_run_of_bytes_has_no_id(self, repo: Repo) -> None:
        turned = tensor("0", (100, 300), strides=(1, 100))
        data = archive(state_dict({"w": tensor("0", (300, 100)), "t": turned}), {"0": W})
        listing = tensors_of(repo, cut(repo, data))
        assert listing is not None
        assert [(t.name, t.id) for t in listing.tensors] == [("w", blob_id(W)), ("t", None)]

    def test_other_files_have_none(self, repo: Repo) -> None:
        lying = struct.pack("<Q", 2**60) + b"{" + bytes(100_000)
        for data in (b"", b"text", noise(1, 2_000_000), lying):
            assert tensors_of(repo, opaque(repo, data)) is None

    def test_a_file_that_is_not_there(self, repo: Repo) -> None:
        with pytest.raises(NotFoundError):
            tensors_of(repo, blob_id(b"nowhere"))

    def test_a_damaged_file_is_told(self, repo: Repo) -> None:
        id = opaque(repo, safetensors({"w": ROWS["w"]}))
        (place,) = repo.store.index.find(id)
        path = repo.path / place.pack.key
        path.chmod(0o600)
        raw = bytearray(path.read_bytes())
        raw[place.row.offset + 100] ^= 1
        path.write_bytes(raw)
        with pytest.raises(CorruptionError):
            tensors_of(reopened(repo), id)


class TestStoredFile:
    @pytest.mark.parametrize("store", [cut, opaque])
    def test_it_reads_as_the_file_does(self, repo: Repo, store) -> None:  # type: ignore[no-untyped-def]
        data = safetensors(ROWS)
        file = StoredFile(repo.store, store(repo, data))
        assert file.readable()
        assert file.seekable()
        assert file.seek(0, os.SEEK_END) == len(data)
        rng = np.random.default_rng(2)
        for _ in range(60):
            start, length = (int(n) for n in rng.integers(0, [len(data) + 9, 300_000]))
            file.seek(start)
            assert file.read(length) == data[start : start + length]
            assert file.tell() == max(start, min(start + length, len(data)))
        file.seek(0)
        assert file.read() == data

    def test_an_empty_one(self, repo: Repo) -> None:
        file = StoredFile(repo.store, opaque(repo, b""))
        assert file.read(10) == b""
