"""A small repository with one of everything in it, and what each byte of it is needed for.

specimen = build(tmp_path)
specimen.files["roots/0000000000000009"]
specimen.readable({key: b"other bytes"})
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from cas.codec.base import CodecTag
from cas.ids import CommitId, ObjectId
from cas.objects.commit import DATASET, DRAFT, RESUMED_FROM, Commit, JournalPosition, Parent
from cas.objects.kind import Kind
from cas.repo import config as settings
from cas.repo import root
from cas.repo.collect import gc
from cas.repo.layout import CONFIG, FORMAT, HOLDS, INDEX, JOURNALS, PACKS, ROOTS, SNAPSHOTS
from cas.repo.repacking import bases, repack
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import cutting, ingest
from cas.store import index
from cas.store.pinned import PinnedStore
from cas.store.record import DELTAS, RECIPE, RecordHeader, base_of
from cas.tracking.journals.journal import Header, read_journal, to_frame
from tests.support.builders import RunBuilder, commit_files, noise, reopened, repository, set_ref
from tests.support.weights import commit_weights

UID: Final = bytes(range(16))
OPEN_RUN: Final = "exp/live"


@dataclass(frozen=True)
class Record:
    """One stored record: where it stands, and which objects it is decoded with."""

    id: ObjectId
    kind: Kind
    codec: int
    key: str
    start: int
    stop: int
    needs: frozenset[ObjectId]


@dataclass(frozen=True)
class Specimen:
    """The repository as it is when nothing is wrong."""

    path: Path
    files: Mapping[str, bytes]
    objects: Mapping[ObjectId, tuple[Kind, bytes]]
    records: tuple[Record, ...]
    refs: tuple[Mapping[str, CommitId], ...]
    """Those of each root, in order."""
    frames: Mapping[str, tuple[Any, ...]]
    """Those of each journal."""
    vital: frozenset[str]
    """Files without which the newest root, or the repository, cannot be read."""

    def open(self) -> Repo:
        """Open it anew, with empty caches."""
        return Repo.open(self.path, who="ada@host", clock=lambda: 2_000_000_000_000_000)

    def readable(self, changed: Mapping[str, bytes | None]) -> set[ObjectId]:
        """Return the objects that must be read while these files are other bytes, or gone."""
        left = [record for record in self.records if self._is_whole(record, changed)]
        found: set[ObjectId] = set()
        while more := {record.id for record in left if record.needs <= found} - found:
            found |= more
        return found

    def _is_whole(self, record: Record, changed: Mapping[str, bytes | None]) -> bool:
        if record.key not in changed:
            return True
        now, place = changed[record.key], slice(record.start, record.stop)
        return now is not None and now[place] == self.files[record.key][place]


def build(folder: Path) -> Specimen:
    """Make one; snapshots, index files and recipes are made much sooner than they would be."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(root, "CHANGES_LIMIT", 4)
        patched.setattr(index, "UNCOVERED", 3)
        patched.setattr(cutting, "LEAST", 256)
        patched.setattr(bases, "MIN_SIZE", 256)
        repo = repository(folder)
        _fill(repo)
    settings.change(repo, "author", "ada")
    settings.change(repo, "monitor", "loss")
    _open_run(repo)
    return _described(repo)


def _fill(repo: Repo) -> None:
    data = commit_files(repo, {"input.json": b"{}\n"}, ref="datasets/d", kind="input",
                        payload={"data": noise(1, 400), "text": b"a line\n" * 90})  # fmt: skip
    commit_weights(repo, 700, spread=1e-7, some=5)
    run = RunBuilder(repo, "exp/first", (Parent(DATASET, data, "", {"split": "train"}),))
    for step in range(2):
        run.checkpoint(step, {"w": noise(step, 300), "b": b"\0" * 16}, value=1 / (step + 1))
    run.finish({"loss": 0.5})
    forked = RunBuilder(repo, "exp/forked", (Parent(RESUMED_FROM, run.ids[0]),))
    forked.finish({"loss": 0.1}, status="failed")
    set_ref(repo, "tags/best", run.ids[1])
    repack.execute(repo, repack.plan(repo, smallest=True))
    set_ref(repo, f"{HOLDS}{run.ids[0]}", None)
    gc.execute(repo, gc.plan(repo))
    for number in range(3):
        text = b"gc went by %d\n" % number
        folder = {"sub": {"naïve \N{SNOWMAN}": text, "link": b"x"}, "empty": {}}
        commit_files(repo, {"after.txt": text}, payload=folder)


def _open_run(repo: Repo) -> None:
    """Leave a run as a killed process leaves it: a draft, and a journal that goes on behind it."""
    header = Header(OPEN_RUN, f"runs/{OPEN_RUN}", UID, "host", "boot", "pid:[1]", 7, 1)
    journal = to_frame(header.to_value()) + to_frame({"t": "params", "params": {"lr": 0.5}})
    position = len(journal)

    def make(tx: Transaction) -> None:
        at = JournalPosition(UID, position)
        tree = ingest.nest(tx.writer, [])
        draft = Commit(kind=DRAFT, tree=tree.id, experiment="exp", run="live", journal=at)
        tx.set_ref(f"open/{OPEN_RUN}", tx.record(draft))

    transact(repo, "start", make)
    for step in range(4):
        columns = [[struct.pack("<q", step)], [struct.pack("<d", 1 / (step + 1))]]
        points = {"t": "points", "names": ["loss"], "steps": columns[0], "values": columns[1]}
        journal += to_frame(points | {"times": [struct.pack("<d", step)]})
    (repo.path / JOURNALS).mkdir(exist_ok=True)
    (repo.path / JOURNALS / f"{UID.hex()}.journal").write_bytes(journal)


def _described(repo: Repo) -> Specimen:
    repo = reopened(repo)
    now = repo.refresh()
    store = PinnedStore(repo.backend, now.packs)
    records = tuple(_records(repo, store))
    objects = {}
    for record in records:
        objects[record.id] = (record.kind, repo.store.read(record.kind, record.id))
    bases = [base.name.hex() for base in (now.refs_base, now.packs_base) if base is not None]
    vital = {FORMAT, f"{ROOTS}{now.seq:016d}", *(f"{SNAPSHOTS}{name}" for name in bases)}
    files = {key: (repo.path / key).read_bytes() for key in sorted(_keys(repo.path))}
    found = Specimen(
        path=repo.path,
        files=files,
        objects=objects,
        records=records,
        refs=tuple(root.read(repo.backend, seq).refs for seq in range(1, now.seq + 1)),
        frames={key: _frames(repo.path / key) for key in files if key.startswith(JOURNALS)},
        vital=frozenset(vital),
    )
    _has_everything(found)
    return found


def _records(repo: Repo, store: PinnedStore) -> Iterator[Record]:
    for pack in store.packs:
        for row in store.rows(pack):
            (raw,) = repo.backend.read(pack.key, [row.span])
            body, needs = raw[RecordHeader.SIZE :], frozenset[ObjectId]()
            if row.codec in DELTAS:
                needs = frozenset({base_of(body)})
            elif row.codec == RECIPE:
                needs = frozenset(_pieces(body))
            stop = row.offset + len(raw)
            yield Record(row.id, Kind(row.kind), row.codec, pack.key, row.offset, stop, needs)


def _pieces(body: bytes | memoryview) -> Iterable[ObjectId]:
    (count,) = struct.unpack_from("<I", body, 32)
    ids = bytes(body[36 + 8 * count :])
    return (ObjectId(ids[at : at + 32]) for at in range(0, len(ids), 32))


def _frames(path: Path) -> tuple[Any, ...]:
    found = read_journal(path)
    return (found.header, *found.frames)


def _keys(path: Path) -> Iterator[str]:
    passing = {"hints", "tmp", "sessions", "cache", "reserve"}
    for file in path.rglob("*"):
        key = file.relative_to(path).as_posix()
        if file.is_file() and key.partition("/")[0] not in passing:
            yield key


def _has_everything(found: Specimen) -> None:
    """Insist that nothing that the format knows is left out."""
    codecs = {record.codec for record in found.records}
    assert codecs == {*map(int, CodecTag), RECIPE}, codecs
    assert {record.kind for record in found.records} == set(Kind)
    for part in (FORMAT, CONFIG, ROOTS, SNAPSHOTS, PACKS, INDEX, JOURNALS):
        assert any(key.startswith(part) for key in found.files), part
    assert len(found.vital) == 4
