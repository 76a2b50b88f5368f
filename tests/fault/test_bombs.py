"""Small inputs that would take all memory or all time: each is refused, within bounds."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cas
from cas.errors import (
    CasError,
    CorruptionError,
    NoRepositoryError,
    StorageFullError,
    UnsupportedError,
)
from cas.ids import BlobId, CommitId, ObjectId, TreeId, blob_id, digest
from cas.objects import canonical
from cas.objects.commit import Commit
from cas.objects.kind import Kind
from cas.objects.manifest import State, TensorRow
from cas.objects.pystate import flatten
from cas.objects.tree import Entry, EntryKind
from cas.repo import place
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import checkout, ingest
from cas.store.recipe import Recipe
from cas.store.record import RECIPE, RecordHeader
from cas.tracking.checkpoints.checkpoint import read_state
from tests.support.bombs import BOMBS, MIB
from tests.support.builders import repository
from tests.support.limits import memory
from tests.support.torture import amount

MEMORY = 512 * MIB
SECONDS = 30.0  # of a machine that does other things as well; most take a hundredth of a second


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory_and_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is let through is much, and takes seconds: here it is less. The long form takes it all.
    monkeypatch.setattr(canonical, "MAX_CONTAINERS", 256 * 1024)
    monkeypatch.setattr(canonical, "UNCOUNTED", 128 * 1024)
    began = time.monotonic()
    with memory(MEMORY), pytest.raises(CasError):
        BOMBS[name]()
    assert time.monotonic() - began < SECONDS


def test_there_are_enough_of_them() -> None:
    assert len(BOMBS) >= 60


def test_the_bounds_are_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check a bomb goes off, and one that goes off hits the limit."""
    monkeypatch.setattr(canonical, "MAX_CONTAINERS", 1000)
    monkeypatch.setattr(canonical, "UNCOUNTED", sys.maxsize)
    assert canonical.decode(b"\xdc\x13\x88" + b"\x90" * 5000) == [[]] * 5000
    with memory(MEMORY), pytest.raises(MemoryError):
        bytearray(MEMORY + 64 * MIB)


@pytest.mark.torture
def test_as_many_arrays_as_are_let_through_take_bounded_memory() -> None:
    count = amount(64 * 1024, 2 * canonical.MAX_CONTAINERS)
    raw = b"\xdd" + count.to_bytes(4, "big") + b"\x90" * count
    with memory(2 * MEMORY):
        if count < canonical.MAX_CONTAINERS:
            assert canonical.decode(raw) == [[]] * count
        else:
            with pytest.raises(CorruptionError, match="arrays and maps"):
                canonical.decode(raw)


def test_a_tensor_that_says_more_than_its_blob_has_takes_no_memory(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    data = bytes(100)

    def make(tx: Transaction) -> bytes:
        tx.writer.blob(data)
        row = TensorRow(("w",), "uint8", (2**40,), blob_id(data), None)
        return tx.writer.manifest(State(["ndarray", 0], (row,)).to_bytes())

    id = transact(repo, "test", make)
    with memory(MEMORY), pytest.raises(CorruptionError, match="w has 100 bytes"):
        read_state(repo, id)  # type: ignore[arg-type]  # it is a manifest's


def bomb(tx: Transaction, levels: int) -> tuple[BlobId, int]:
    """Store a blob whose recipe names the same few bytes over and over."""
    data = bytes(4 * MIB)
    id, size = ObjectId(tx.writer.blob(data)), len(data)
    for level in range(levels):
        recipe = Recipe((size,) * 1024, id * 1024)
        id, size = ObjectId(digest(b"bomb %d" % level)), recipe.size
        body = recipe.to_bytes()
        tx.writer.copy(RecordHeader.of(Kind.BLOB, RECIPE, id, size, body), body)
    return BlobId(id), size


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_tensor_of_endless_pieces_takes_no_memory(tmp_path: Path, levels: int) -> None:
    repo = repository(tmp_path)

    def make(tx: Transaction) -> CommitId:
        id, size = bomb(tx, levels)
        row = TensorRow(("w",), "uint8", (size,), id, None)
        state = tx.writer.manifest(State(["ndarray", 0], (row,)).to_bytes())
        return commit_of(tx, Entry(b"s", EntryKind.STATE, state, size))

    id = transact(repo, "test", make)
    with memory(MEMORY), pytest.raises(UnsupportedError, match="do not fit into memory"):
        cas.read_tensor(f"{id}:s", repo=repo.path)
    with memory(MEMORY), pytest.raises(UnsupportedError, match="do not fit into memory"):
        cas.load(f"{id}:s", repo=repo.path)


def test_a_tensor_that_is_read_alone_has_to_be_as_large_as_its_blob(tmp_path: Path) -> None:
    repo = repository(tmp_path)

    def make(tx: Transaction) -> CommitId:
        row = TensorRow(("w",), "uint8", (2**40,), tx.writer.blob(bytes(100)), None)
        state = tx.writer.manifest(State(["ndarray", 0], (row,)).to_bytes())
        return commit_of(tx, Entry(b"s", EntryKind.STATE, state, 100))

    id = transact(repo, "test", make)
    with memory(MEMORY), pytest.raises(CorruptionError, match="is not stored with its"):
        cas.read_tensor(f"{id}:s", repo=repo.path)


@pytest.mark.parametrize("levels", [2, 3])
def test_a_file_of_endless_pieces_is_refused_before_anything_is_written(
    tmp_path: Path, levels: int
) -> None:
    repo = repository(tmp_path)

    def make(tx: Transaction) -> CommitId:
        small = Entry(b"a", EntryKind.FILE, tx.writer.blob(b"a"), 1, 0o644)
        id, size = bomb(tx, levels)
        return commit_of(tx, small, Entry(b"f", EntryKind.FILE, id, size, 0o644))

    tree = repo.commit(transact(repo, "test", make)).tree
    planned = checkout.plan(repo, tree, tmp_path / "out")
    with pytest.raises(StorageFullError, match="nothing was written"):
        checkout.execute(repo, planned)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_larger_than_its_tree_says_is_not_begun(tmp_path: Path) -> None:
    repo = repository(tmp_path)

    def make(tx: Transaction) -> CommitId:
        return commit_of(tx, Entry(b"f", EntryKind.FILE, bomb(tx, 3)[0], 2, 0o644))

    tree = repo.commit(transact(repo, "test", make)).tree
    with pytest.raises(CorruptionError, match="where its tree says 2"):
        checkout.plan(repo, tree, tmp_path / "out")


def commit_of(tx: Transaction, *entries: Entry) -> CommitId:
    tree = ingest.nest(tx.writer, [(entry.name, entry) for entry in entries]).id
    return tx.record(Commit(kind="commit", tree=TreeId(tree)))


def test_a_document_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    repo = repository(tmp_path)

    def make(tx: Transaction) -> CommitId:
        id = tx.writer.blob(bytes(65 * MIB))
        entry = Entry(b"params.json", EntryKind.FILE, id, 2, 0o644)
        return tx.record(
            Commit(kind="commit", tree=ingest.nest(tx.writer, [(b"params.json", entry)]).id)
        )

    id = transact(repo, "test", make)
    with pytest.raises(CorruptionError, match="a document of 68157440 bytes"):
        repo.document(repo.commit(id).tree, "params.json")


def test_a_key_that_python_does_not_write_has_a_path_all_the_same() -> None:
    flat = flatten({10**5000: np.zeros(3), (1, 10**5000): 1})
    assert flat.views[0][0] == ("<int too long to write>",)
    with pytest.raises(CasError, match="<int too long to write>"):
        flatten({10**5000: object()})


@pytest.mark.parametrize("name", ["loop", "long", "zero", "large", "binary", "folder"])
def test_a_git_file_that_leads_nowhere_is_passed_by(tmp_path: Path, name: str) -> None:
    dot = tmp_path / ".git"
    (tmp_path / "loop").symlink_to("loop")
    paths = {"loop": b"loop", "long": b"a" * 100_000, "zero": b"a\0b", "binary": b"\xff\xfe"}
    dot.write_bytes(b"gitdir: " + paths.get(name, b"."))
    if name == "large":
        os.truncate(dot, 4 * 1024 * MIB)
    with memory(MEMORY), pytest.raises(NoRepositoryError):
        place.find(tmp_path)
