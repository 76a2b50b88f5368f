"""What a repository takes: every column is exact, and all of them add up to the files on disk."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cas.codec.base import CodecTag
from cas.ids import BlobId, CommitId, blob_id
from cas.objects.commit import CHECKPOINT, Commit
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.collect import gc
from cas.repo.layout import MAIN
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.report.tally import HEADER, Line
from cas.repo.report.usage import Claims, Usage, claims, commits_of, usage
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest
from cas.repo.trees.cutting import store_tensors
from cas.store.pinned import PinnedStore
from cas.store.record import RecordHeader
from tests.support.builders import (
    RunBuilder,
    commit_files,
    noise,
    reopened,
    repository,
    set_ref,
    write_files,
    write_state,
)
from tests.support.drift import drift_run
from tests.support.faulty import WatchedOps
from tests.support.tensorfiles import safetensors

T = TypeVar("T")
TEXT = b"the same words again and again " * 1000


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


class CountingOps(WatchedOps):
    """File operations that count what is read of packs."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.read_bytes = 0

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        data = super().pread(fd, length, offset)
        if "/packs/" in self.paths[fd]:
            self.reads += 1
            self.read_bytes += len(data)
        return data


def on_disk(repo: Repo) -> int:
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(repo.path)
        for name in names
    )


def lines(found: Usage) -> dict[str, Line]:
    """Return the lines by part; they must add up in every column, to what is on disk."""
    columns = ("given", "shared", "planes", "deltas", "zstd", "added", "stored")
    for name in columns:
        parts = [getattr(line, f"{name}_bytes") for line in found.lines]
        assert sum(parts) == getattr(found.total, f"{name}_bytes"), name
    assert sum(line.records for line in found.lines) == found.total.records
    return {line.part: line for line in found.lines}


def told(repo: Repo) -> dict[str, Line]:
    found = usage(reopened(repo))
    assert found.total.stored_bytes == on_disk(repo)
    assert found.missing == 0
    return lines(found)


def safetensors_of(**tensors: bytes) -> bytes:
    return safetensors({name: ("U8", [len(data)], data) for name, data in tensors.items()})


def commit_file(repo: Repo, folder: Path, name: str, data: bytes) -> CommitId:
    """Commit a real file, which is cut as files are."""
    (folder / name).write_bytes(data)

    def make(tx: Transaction) -> CommitId:
        with (folder / name).open("rb") as file:
            cut = store_tensors(tx.writer, file, len(data))
        id = cut[0] if cut else tx.writer.blob(data)
        entry = Entry(name.encode(), EntryKind.FILE, id, len(data), 0o644)
        payload = build([entry], tx.writer.tree)
        commit = tx.record(Commit(kind="commit", tree=write_files(tx, {}), payload=payload.id))
        tx.set_ref(f"tags/{name}", commit)
        return commit

    return transact(repo, "commit", make)


def stored_as(
    tx: Transaction, data: bytes, tag: CodecTag, body: bytes, *, depth: int = 0
) -> BlobId:
    """Store a blob as if a codec had made this body of it: nobody here decodes it."""
    id = blob_id(data)
    tx.writer.copy(RecordHeader.of(Kind.BLOB, tag, id, len(data), body, depth=depth), body)
    return id


def commit_blobs(repo: Repo, write: Callable[[Transaction], dict[str, tuple[BlobId, int]]]) -> None:
    """Commit files whose blobs `write` stores, with their sizes."""

    def make(tx: Transaction) -> None:
        entries = (
            Entry(name.encode(), EntryKind.FILE, id, size, 0o644)
            for name, (id, size) in sorted(write(tx).items())
        )
        payload = build(entries, tx.writer.tree)
        commit = Commit(kind=CHECKPOINT, tree=write_files(tx, {}), payload=payload.id)
        tx.set_ref("tags/x", tx.record(commit))

    transact(repo, "commit", make)


def test_an_empty_repository_is_all_upkeep(repo: Repo) -> None:
    found = told(repo)
    assert {part for part, line in found.items() if line.stored_bytes} == {"upkeep"}


def test_everything_at_once_adds_up(repo: Repo, tmp_path: Path) -> None:
    commit_files(
        repo,
        {"note.txt": TEXT},
        payload={"big": noise(1, 2_000_000), "deep": {"er": {"same.txt": TEXT}}, "none": b""},
    )
    commit_file(repo, tmp_path, "w.safetensors", safetensors_of(a=noise(2, 90_000), b=b"tiny"))
    run = RunBuilder(repo, "e/run")
    for step in range(3):
        tensors = {"w": noise(step, 90_000), "frozen": TEXT, "bias": bytes([step])}
        run.checkpoint(step, tensors, value=1.0, metrics={"m": 0.5})
    run.finish()
    found = told(repo)
    assert set(found) == {
        *("weights", "tensor files", "metrics", "files", "history", "not kept", "upkeep")
    }
    assert found["not kept"] == Line("not kept")
    assert found["weights"].given_bytes == 3 * (90_000 + len(TEXT) + 1)
    # What an earlier part has counts there: the frozen tensor is the text of the files.
    assert found["weights"].shared_bytes == 2 * len(TEXT)
    assert found["files"].shared_bytes >= 2 * len(TEXT)
    assert found["weights"].zstd_bytes > 0.9 * len(TEXT)
    assert found["tensor files"].given_bytes == os.path.getsize(tmp_path / "w.safetensors")


def test_given_is_as_if_each_commit_had_its_files_side_by_side(repo: Repo) -> None:
    for number in range(4):
        commit_files(repo, {"n": bytes([number])}, payload={"a": {"x": noise(1, 5000)}})
    found = told(repo)
    assert found["files"].given_bytes == 4 * 5001
    assert found["files"].shared_bytes == 3 * 5000
    assert found["files"].added_bytes == 5 * HEADER
    assert found["files"].records == 5


def test_each_codec_is_told_apart(repo: Repo) -> None:
    one, two, three = noise(1, 70_000), noise(2, 70_000), noise(3, 70_000)

    def write(tx: Transaction) -> dict[str, tuple[BlobId, int]]:
        planes = stored_as(tx, one, CodecTag.PLANES, b"p" * 50_000)
        body = planes + b"d" * 9_968
        deltas = stored_as(tx, two, CodecTag.DELTA, body, depth=1)
        sparse = stored_as(tx, three, CodecTag.SPARSE_DELTA, deltas + b"s" * 968, depth=2)
        return {name: (id, 70_000) for name, id in (("1", planes), ("2", deltas), ("3", sparse))}

    commit_blobs(repo, write)
    assert sum_of(told(repo), "planes") == 20_000
    assert sum_of(told(repo), "deltas") == 60_000 + 69_000


def sum_of(found: dict[str, Line], name: str) -> int:
    return sum(getattr(line, f"{name}_bytes") for line in found.values())


def test_a_base_that_only_a_delta_needs_is_added(repo: Repo) -> None:
    base, wanted = noise(1, 70_000), noise(2, 70_000)

    def write(tx: Transaction) -> dict[str, tuple[BlobId, int]]:
        id = stored_as(tx, base, CodecTag.PLANES, b"p" * 50_000)
        return {"x": (stored_as(tx, wanted, CodecTag.DELTA, id + b"d" * 968, depth=1), 70_000)}

    commit_blobs(repo, write)
    found = told(repo)["tensor files"]  # what has such a codec is made of numbers
    assert (found.given_bytes, found.shared_bytes) == (70_000, 0)
    assert (found.planes_bytes, found.deltas_bytes) == (20_000, 69_000)
    assert found.added_bytes == 70_000 + 2 * HEADER
    assert found.stored_bytes == 50_000 + 1_000 + 2 * HEADER


def test_the_same_weights_as_a_state_and_as_a_file(repo: Repo, tmp_path: Path) -> None:
    weights = noise(5, 5_000_000)
    RunBuilder(repo, "e/run").checkpoint(0, {"w": weights})
    commit_file(repo, tmp_path, "w.safetensors", safetensors_of(w=weights))
    found = told(repo)
    assert found["weights"].shared_bytes == 0
    assert found["tensor files"].shared_bytes == len(weights)
    assert found["tensor files"].stored_bytes < 64 * 1024


def test_opaque_files_of_all_sizes_are_no_tensor_files(repo: Repo, tmp_path: Path) -> None:
    for size in (0, 1, 20_000, 512 * 1024, 512 * 1024 + 1, 3_000_000):
        commit_file(repo, tmp_path, f"f{size}", noise(size, size))
    found = told(repo)
    assert "tensor files" not in found
    assert found["files"].shared_bytes == 0


def test_links_count_with_the_folders_that_they_stand_in(repo: Repo, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "l").symlink_to("somewhere/else")

    def make(tx: Transaction) -> None:
        entry = ingest.add(tx.writer, folder)
        payload = ingest.nest(tx.writer, [(b"d", entry)])
        commit = Commit(kind="commit", tree=write_files(tx, {}), payload=payload.id)
        tx.set_ref("tags/x", tx.record(commit))

    transact(repo, "commit", make)
    assert told(repo)["history"].given_bytes == len("somewhere/else")


def test_what_was_let_go_of_is_not_kept_until_gc(repo: Repo) -> None:
    run = RunBuilder(repo, "e/run")
    first = run.checkpoint(0, {"w": noise(1, 500_000)})
    run.checkpoint(1, {"w": noise(2, 500_000)})
    before = told(repo)
    set_ref(repo, f"holds/{first}", None)
    pruned = told(repo)
    assert before["weights"].given_bytes == 2 * pruned["weights"].given_bytes
    assert pruned["not kept"].stored_bytes >= 500_000
    gc.execute(repo, gc.plan(repo))
    after = told(repo)
    assert after["not kept"].stored_bytes == 0
    assert after["weights"] == pruned["weights"]


def test_a_pack_that_no_root_lists_is_not_kept(repo: Repo) -> None:
    sink = repo.backend.create(f"packs/{'0' * 32}.pack")
    sink.write([b"x" * 1234])
    sink.seal()
    assert told(repo)["not kept"].stored_bytes == 1234


def test_what_is_missing_is_counted_and_hinders_nothing(repo: Repo) -> None:
    def make(tx: Transaction) -> None:
        gone = blob_id(b"gone")
        entry = Entry(b"gone", EntryKind.FILE, gone, 4, 0o644)
        commit = Commit(kind="commit", tree=build([entry], tx.writer.tree).id)
        tx.set_ref("tags/x", tx.record(commit))

    transact(repo, "commit", make)
    found = usage(repo)
    assert found.missing == 1
    assert found.total.stored_bytes == on_disk(repo)


def test_no_blob_is_read(repo: Repo, tmp_path: Path) -> None:
    commit_files(repo, {}, payload={"big": noise(1, 9_000_000), "mid": noise(2, 400_000)})
    commit_file(repo, tmp_path, "w.safetensors", safetensors_of(w=noise(3, 9_000_000)))
    RunBuilder(repo, "e/run").checkpoint(0, {"w": noise(4, 9_000_000)})
    ops = CountingOps()
    usage(reopened(repo, ops))
    assert ops.read_bytes < 60_000


def test_reads_grow_with_folders_not_with_files(repo: Repo) -> None:
    commit_files(repo, {}, payload={f"f{n}": n.to_bytes(8, "big") * 30 for n in range(5000)})
    ops = CountingOps()
    assert usage(reopened(repo, ops)).total.records > 5000
    assert ops.reads < 100


class TestClaims:
    def test_of_a_run_each_checkpoint_and_all_together(self, repo: Repo) -> None:
        run = RunBuilder(repo, "e/run")
        for step in range(3):
            run.checkpoint(step, {"w": noise(step, 50_000), "frozen": noise(9, 30_000)})
        end = run.finish()
        assert commits_of(repo, end) == run.ids
        found = claims(repo, run.ids)
        assert [one.commit for one in found.commits] == run.ids
        for one in found.commits[:3]:
            assert one.given_bytes >= 80_000
            assert 50_000 < one.own_bytes < 52_000
            assert one.own_bytes + one.shared_bytes == one.stored_bytes
        assert found.commits[3].own_bytes == 0
        assert found.own_bytes > sum(one.own_bytes for one in found.commits) + 30_000

    def test_own_is_what_prune_and_gc_free(self, repo: Repo) -> None:
        run = RunBuilder(repo, "e/run")
        ids = [
            run.checkpoint(step, {"w": noise(step, 50_000), "frozen": noise(9, 30_000)})
            for step in range(2)
        ]
        commit_files(repo, {}, payload={"copy": noise(0, 50_000)[:40_000]})
        (claim,) = claims(repo, ids[:1]).commits
        before = kept(repo)
        set_ref(repo, f"holds/{ids[0]}", None)
        gc.execute(repo, gc.plan(repo))
        assert claim.own_bytes == before - kept(repo)
        (again,) = claims(reopened(repo), ids[:1]).commits
        assert (again.is_pruned, again.own_bytes) == (True, 0)

    def test_what_others_are_deltas_against_stays(self, repo: Repo) -> None:
        base, other = noise(1, 70_000), noise(2, 70_000)

        def write(tx: Transaction) -> dict[str, tuple[BlobId, int]]:
            id = stored_as(tx, base, CodecTag.PLANES, b"p" * 50_000)
            return {"x": (stored_as(tx, other, CodecTag.DELTA, id + b"d" * 968, depth=1), 70_000)}

        commit_blobs(repo, write)
        first = commit_files(repo, {}, payload={"x": base})
        (claim,) = claims(repo, [first]).commits
        assert claim.stored_bytes > 50_000
        assert claim.own_bytes < 1_000

    def test_a_state_that_stands_in_the_record_is_no_ones_own(self, repo: Repo) -> None:
        def make(tx: Transaction) -> CommitId:
            entry = Entry(b"rng", EntryKind.STATE, write_state(tx, {"x": noise(1, 500)}), 500)
            id = tx.record(Commit(kind="commit", tree=build([entry], tx.writer.tree).id))
            tx.set_ref("tags/x", id)
            return id

        (claim,) = claims(repo, [transact(repo, "commit", make)]).commits
        assert claim.own_bytes == 0
        assert claim.given_bytes == 500


def kept(repo: Repo) -> int:
    """Return the bytes of all records that are kept."""
    parts: Iterator[Line] = (line for line in usage(reopened(repo)).lines)
    return sum(line.stored_bytes for line in parts if line.part not in {"upkeep", "not kept"})


@pytest.mark.parametrize("count", [usage, lambda repo: claims(repo, [repo.root.refs[MAIN]])])
def test_packs_that_are_replaced_meanwhile_are_counted_anew(
    repo: Repo, count: Callable[[Repo], Usage | Claims], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_ref(repo, MAIN, drift_run(repo, steps=5, size=300_000)[-1])
    reader, before = reopened(repo), count(reopened(repo)).total.stored_bytes
    first = [True]

    def overtaken(*args: Any) -> PinnedStore:
        if first.pop() if first else False:
            repack.execute(repo, repack.plan(repo))
        return PinnedStore(*args)

    monkeypatch.setattr("cas.repo.report.usage.PinnedStore", overtaken)
    assert count(reader).total.stored_bytes != before
    assert count(reader) == count(reopened(repo))
