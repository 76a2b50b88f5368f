"""Small repositories in one line, with a clock that everybody can predict.

repo = repository(tmp_path)
first = commit_files(repo, {"a.txt": b"hello", "sub": {"b": b"x"}})
run = RunBuilder(repo, "exp/one")
run.checkpoint(1, {"w": noise(1, 5000)}, value=0.5)
run.finish()
"""

import os
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from cas.backend.files import OPS, FileOps
from cas.ids import CommitId, ManifestId, ObjectId, TreeId
from cas.objects.commit import (
    CHECKPOINT,
    COMMIT,
    PREVIOUS,
    RUN,
    Commit,
    JournalPosition,
    Monitor,
    Parent,
    Volume,
)
from cas.objects.document import document
from cas.objects.kind import Kind
from cas.objects.manifest import INLINE_LIMIT, Column, Series, SeriesRow, State, TensorRow
from cas.objects.tree import Entry, EntryKind, build
from cas.repo import root as roots
from cas.repo.check import fsck
from cas.repo.layout import MAIN, RUNS
from cas.repo.refs import NOTHING, Refs
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, begun, transact

Files: TypeAlias = Mapping[str, "bytes | Files"]
START = 1_900_000_000_000_000


@dataclass
class Clock:
    """A clock that goes on by one second whenever it is looked at."""

    now: int = START

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


def repository(folder: Path) -> Repo:
    """Make an empty repository in `folder`/.cas."""
    return Repo.create(folder / ".cas", who="ada@host", clock=Clock())


def reopened(repo: Repo, ops: FileOps | None = None) -> Repo:
    """Open the same repository once more, with caches and, if given, file operations of its own."""
    return Repo.open(repo.path, who=repo.who, clock=repo.clock, ops=ops or OPS)


def noise(seed: int, size: int) -> bytes:
    """Return bytes that no codec makes smaller, the same ones for the same seed."""
    return random.Random(seed).randbytes(size)


def write_files(transaction: Transaction, files: Files) -> TreeId:
    """Write a directory; return its tree."""
    return _tree(transaction, {name: _file(transaction, item) for name, item in files.items()})


def write_state(transaction: Transaction, tensors: Mapping[str, bytes]) -> ManifestId:
    """Write a state of uint8 tensors with this data."""
    rows = []
    for name, data in tensors.items():
        id = Column.of(data).id
        if len(data) > INLINE_LIMIT:
            transaction.writer.blob(data)
        inline = data if len(data) <= INLINE_LIMIT else None
        rows.append(TensorRow((name,), "uint8", (len(data),), id, inline))
    return transaction.writer.manifest(State(None, tuple(rows)).to_bytes())


def write_payload(transaction: Transaction, tensors: Mapping[str, bytes]) -> TreeId:
    """Write a checkpoint's payload: a tree with one state."""
    id = write_state(transaction, tensors)
    size = sum(map(len, tensors.values()))
    return _tree(transaction, {"state": lambda name: Entry(name, EntryKind.STATE, id, size)})


def commit_files(
    repo: Repo,
    files: Files,
    *,
    ref: str = MAIN,
    parents: tuple[Parent, ...] = (),
    payload: Files | None = None,
    kind: str = COMMIT,
) -> CommitId:
    """Commit files as a record (and as a payload, with its hold) and point a ref at the commit."""

    def make(transaction: Transaction) -> CommitId:
        old = transaction.ref(ref)
        before = (Parent(PREVIOUS, old),) if old and ref == MAIN else ()
        commit = Commit(
            kind=kind,
            tree=write_files(transaction, files),
            payload=None if payload is None else write_files(transaction, payload),
            parents=before + parents,
        )
        id = transaction.record(commit)
        transaction.set_ref(ref, id)
        return id

    return transact(repo, "commit", make)


def set_ref(repo: Repo, ref: str, id: CommitId | None) -> None:
    """Move or drop one ref."""
    transact(repo, "ref", lambda transaction: transaction.set_ref(ref, id))


def lose_ref(repo: Repo, name: str, *, to: CommitId | None = None) -> None:
    """Publish a root in which a ref is gone or elsewhere, and which says nothing of it."""
    base = repo.refresh()
    refs = dict(base.refs)
    del refs[name]
    if to is not None:
        refs[name] = to
    table = base.refs_base.value if base.refs_base else NOTHING
    after = base.follow(begun(repo, "something odd"))
    repo.adopt(
        roots.publish(repo.backend, replace(after, refs=Refs.against(table, refs)), os.urandom(16))
    )


@dataclass
class RunBuilder:
    """A run that is being tracked: checkpoints with a state each, then the finishing commit."""

    repo: Repo
    name: str
    parents: tuple[Parent, ...] = ()
    ids: list[CommitId] = field(default_factory=list)
    uid: bytes | None = None
    points: int = 1  # of each history; those of more than eight stand in blobs of their own

    @property
    def ref(self) -> str:
        return f"{RUNS}{self.name}"

    def checkpoint(
        self,
        step: int,
        tensors: Mapping[str, bytes],
        *,
        value: float | None = None,
        metrics: Mapping[str, float] | None = None,
        mode: str = "min",
        metric: str = "loss",
        best: bool = False,
    ) -> CommitId:
        """Commit a checkpoint; `value` is what the monitor says, `metrics` the summary."""
        told = {**({} if value is None else {metric: value}), **(metrics or {})}
        monitor = None if value is None else Monitor(metric, mode, value)
        return self._commit(
            CHECKPOINT, told, step=step, monitor=monitor, tensors=tensors, best=best
        )

    def finish(
        self, metrics: Mapping[str, float] | None = None, status: str = "finished"
    ) -> CommitId:
        """Commit the end of the run."""
        return self._commit(RUN, metrics or {}, status=status)

    def _commit(
        self,
        kind: str,
        metrics: Mapping[str, float],
        *,
        step: int | None = None,
        monitor: Monitor | None = None,
        tensors: Mapping[str, bytes] | None = None,
        status: str | None = None,
        best: bool = False,
    ) -> CommitId:
        experiment, _, run = self.name.rpartition("/")
        seq = len(self.ids)
        before = (Parent(PREVIOUS, self.ids[-1]),) if self.ids else self.parents

        def make(transaction: Transaction) -> CommitId:
            payload = None if tensors is None else write_payload(transaction, tensors)
            given = sum(map(len, (tensors or {}).values()))
            commit = Commit(
                kind=kind,
                tree=_record(transaction, metrics, step, best=best, points=self.points),
                payload=payload,
                parents=before,
                experiment=experiment,
                run=run,
                seq=seq,
                step=step,
                status=status,
                time=START + seq,
                monitor=monitor,
                volume=Volume(given, transaction.writer.stored),
                journal=None if self.uid is None else JournalPosition(self.uid, 0),
            )
            id = transaction.record(commit)
            transaction.set_ref(self.ref, id)
            return id

        self.ids.append(transact(self.repo, kind, make))
        return self.ids[-1]


def read_tree(repo: Repo, tree: ObjectId) -> dict[str, object]:
    """Return what a directory holds, all the way down: bytes of files, states as dicts of bytes."""
    found: dict[str, object] = {}
    for entry in repo.entries(tree):
        name = entry.name.decode("utf-8", "surrogateescape")
        match entry.kind:
            case EntryKind.TREE:
                found[name] = read_tree(repo, entry.id)
            case EntryKind.FILE:
                found[name] = repo.store.read(Kind.BLOB, entry.id)
            case EntryKind.STATE | EntryKind.SERIES:
                found[name] = _read_manifest(repo, ManifestId(entry.id))
            case EntryKind.LINK:
                found[name] = entry.link
    return found


def pack_files(repo: Repo) -> dict[str, int]:
    """Return the pack files on disk with their sizes."""
    return {info.key: info.size_bytes for info in repo.backend.scan("packs/")}


def _read_manifest(repo: Repo, id: ManifestId) -> dict[str, bytes]:
    match repo.manifest(id):
        case State(rows=rows):
            columns = {".".join(map(str, row.path)): (row.id, row.data) for row in rows}
        case Series(rows=histories):
            columns = {row.name: (row.values.id, row.values.data) for row in histories}
            long = [row for row in histories if row.steps.data is None]
            columns |= {f"{row.name} steps": (row.steps.id, None) for row in long}
    return {
        name: repo.store.read(Kind.BLOB, id) if data is None else data
        for name, (id, data) in columns.items()
    }


def _record(
    transaction: Transaction,
    metrics: Mapping[str, float],
    step: int | None,
    *,
    best: bool = False,
    points: int = 1,
) -> TreeId:
    summary = {
        name: {"last": value, "min": value, "max": value, "count": 1, "step": step}
        for name, value in metrics.items()
    }
    rows = []
    for name, value in sorted(metrics.items()):
        last = step or 0
        data = (
            struct.pack(f"<{points}q", *range(last - points + 1, last + 1)),
            struct.pack("<d", value) * points,
        )
        columns = [Column.of(one) for one in data]
        for column, one in zip(columns, data, strict=True):
            if column.data is None:
                transaction.writer.blob(one)
        rows.append(SeriesRow(name, points, *columns))
    series = Series(tuple(rows))
    id = transaction.writer.manifest(series.to_bytes())
    size = series.size
    items: dict[str, Any] = {
        "summary.json": _file(transaction, document(summary)),
        "metrics": lambda name: Entry(name, EntryKind.SERIES, id, size),
    }
    if best:
        items["checkpoint.json"] = _file(transaction, document({"best": True}))
    return _tree(transaction, items)


def _file(transaction: Transaction, item: "bytes | Files") -> Callable[[bytes], Entry]:
    if isinstance(item, bytes):
        id = transaction.writer.blob(item)
        data = item
        return lambda name: Entry(name, EntryKind.FILE, id, len(data), mode=0o644)
    tree = build(_entries({n: _file(transaction, i) for n, i in item.items()}), _write(transaction))
    return lambda name: Entry(name, EntryKind.TREE, tree.id, tree.size, mode=0o755)


def _tree(transaction: Transaction, makers: Mapping[str, Callable[[bytes], Entry]]) -> TreeId:
    return build(_entries(makers), _write(transaction)).id


def _entries(makers: Mapping[str, Callable[[bytes], Entry]]) -> list[Entry]:
    raw = {name.encode("utf-8", "surrogateescape"): maker for name, maker in makers.items()}
    return [raw[name](name) for name in sorted(raw)]


def _write(transaction: Transaction) -> Callable[[bytes], TreeId]:
    return transaction.writer.tree


def whole(repo: Repo) -> bool:
    """Whether fsck has nothing at all to say."""
    found = list(fsck.check(reopened(repo), full=True))
    assert not found, found
    return True
