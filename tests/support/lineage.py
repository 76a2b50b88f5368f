"""Commits with every part that a comparison looks at, written directly."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, PREVIOUS, RUN, Commit, Monitor, Parent
from cas.objects.document import document
from cas.objects.manifest import Column, Series, SeriesRow
from cas.objects.states import build_state
from cas.objects.tree import Entry, EntryKind
from cas.repo.collect import gc
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest
from tests.support.builders import set_ref

Points = Sequence[tuple[int, float]]


@dataclass
class Made:
    """What a commit is made of; files by path in the record and in the payload."""

    record: Mapping[str, bytes] = field(default_factory=dict)
    payload: Mapping[str, bytes] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Points] = field(default_factory=dict)
    state: object = None
    kind: str = RUN
    run: str | None = "one"
    step: int | None = None
    monitor: Monitor | None = None
    parents: tuple[Parent, ...] = ()
    before: CommitId | None = None
    time: int | None = 1
    message: str = ""


def make(repo: Repo, **parts: Any) -> CommitId:
    """Write a commit that a tag of its own keeps."""
    made = Made(**parts)
    return transact(repo, made.kind, lambda tx: _write(tx, made))


def checkpoint(repo: Repo, state: object, **parts: Any) -> CommitId:
    """Write a checkpoint with this state."""
    return make(repo, kind=CHECKPOINT, state=state, **parts)


def prune(repo: Repo, *ids: CommitId) -> None:
    """Let go of payloads, and collect."""
    for id in ids:
        set_ref(repo, f"{HOLDS}{id}", None)
    gc.execute(repo, gc.plan(repo))


def _write(tx: Transaction, made: Made) -> CommitId:
    writer = tx.writer
    documents = {f"{name}.json": document(value) for name, value in made.documents.items()}
    record = _files(tx, {**made.record, **documents})
    payload = _files(tx, made.payload)
    if made.metrics:
        series = Series(tuple(_row(tx, name, made.metrics[name]) for name in sorted(made.metrics)))
        manifest = writer.manifest(series.to_bytes())
        record[b"metrics"] = Entry(b"metrics", EntryKind.SERIES, manifest, series.size)
        record[b"summary.json"] = ingest.file_entry(
            writer, b"summary.json", document({n: _told(p) for n, p in made.metrics.items()})
        )
    if made.state is not None:
        state = build_state(made.state, (), writer.blob)
        manifest = writer.manifest(state.to_bytes())
        payload[b"state"] = Entry(b"state", EntryKind.STATE, manifest, state.size)
    before = () if made.before is None else (Parent(PREVIOUS, made.before),)
    timeless = made.kind == "input"
    id = tx.record(
        Commit(
            kind=made.kind,
            tree=ingest.nest(writer, record.items()).id,
            payload=ingest.nest(writer, payload.items()).id if payload else None,
            parents=before + made.parents,
            experiment="exp" if made.run and not timeless else None,
            run=None if timeless else made.run,
            step=made.step,
            monitor=made.monitor,
            time=None if timeless else made.time,
            message=made.message,
        )
    )
    tx.set_ref(f"tags/{id.short}", id)
    return id


def _files(tx: Transaction, files: Mapping[str, bytes]) -> dict[bytes, Entry]:
    return {
        path.encode(): ingest.file_entry(tx.writer, path.rpartition("/")[2].encode(), data)
        for path, data in files.items()
    }


def _row(tx: Transaction, name: str, points: Points) -> SeriesRow:
    steps = b"".join(struct.pack("<q", step) for step, _ in points)
    values = b"".join(struct.pack("<d", value) for _, value in points)
    for data in (steps, values):
        tx.writer.blob(data)
    return SeriesRow(name, len(points), Column.of(steps), Column.of(values))


def _told(points: Points) -> dict[str, Any]:
    values = [value for _, value in points]
    return {
        "last": values[-1],
        "last_step": points[-1][0],
        "min": min(values),
        "max": max(values),
        "count": len(values),
    }
