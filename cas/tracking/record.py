"""How a run becomes commits: the record tree, the payload, the edges.

What two equal runs share (params, environment, code, metrics' steps and values) stands in objects
of its own; what may differ (host, wall times, logs) in others, so that ids can be compared.
Format: docs/format/run.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cas.errors import CasError, CorruptionError
from cas.ids import CommitId, ObjectId, TreeId
from cas.objects import canonical
from cas.objects.commit import (
    CHECKPOINT,
    DRAFT,
    MODES,
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
from cas.objects.manifest import Series
from cas.objects.tree import Entry, EntryKind, TreeSummary
from cas.repo import config
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.store.writer import ObjectWriter
from cas.tracking.checkpoints.parts import SHARDS, held, joined
from cas.tracking.journals.state import RunState, artifact_frame, named_entry
from cas.tracking.numbers.metrics import Mark
from cas.tracking.numbers.monitor import monitor
from cas.tracking.shown import loggedrecord
from cas.tracking.shown.shelf import drafted

SMALL_ARTIFACT: Final = 64 * 1024
SMALL_ARTIFACTS: Final = 1024 * 1024
ARTIFACTS: Final = "artifacts"
ARTIFACT_LIST: Final = "artifacts.list"  # in a draft alone
SUMS: Final = "sums"  # in a checkpoint alone
# What a record takes over from the draft, where it was captured at the start.
CAPTURED: Final = (
    "environment.json",
    "seeds.json",
    "rng",
    "command.json",
    "source.json",
    "host.json",
    "notes.json",
    "retention.json",
    "strategy.json",
    "config.json",
    "job.json",
    "resumed.json",
    "redacted.json",
    "code",
    "cells.py",
    "notebook.ipynb",
)

Items = dict[str, Entry]

NO_PARTS: Final[Items] = {}


@dataclass(frozen=True, slots=True)
class Moment:
    """The circumstances of one commit."""

    time: int
    author: str
    status: str
    message: str = ""
    step: int | None = None


def captured_items(repo: Repo, tree: ObjectId) -> Items:
    """Return what was captured at the start of a run, from a record that holds it."""
    return {
        name: entry
        for entry in repo.entries(tree)
        if (name := entry.name.decode("utf-8", "replace")) in CAPTURED
    }


def drafted_artifacts(repo: Repo, draft: CommitId) -> Items:
    """Return the artifacts that a draft holds, by path."""
    entry = repo.lookup(repo.commit(draft).tree, ARTIFACT_LIST.encode())
    if entry is None:
        return {}
    frames = canonical.decode(repo.store.read(Kind.BLOB, entry.id))
    if not isinstance(frames, list):
        raise CorruptionError(f"draft {draft.short}: its list of artifacts is none")
    return dict(named_entry(frame) for frame in frames if isinstance(frame, dict))


def settings(repo: Repo) -> dict[str, str]:
    """Return what the repository is set to; a config that cannot be read sets nothing."""
    try:
        return {key: value for key, value in config.load(repo).items() if isinstance(value, str)}
    except (CasError, OSError):
        return {}


def chosen_monitor(repo: Repo) -> tuple[str | None, str | None]:
    """Return the metric and the mode that the repository is set to."""
    told = settings(repo)
    mode = told.get("mode")
    return told.get("monitor"), mode if mode in MODES else None


def run_volume(repo: Repo, tip: CommitId) -> Volume:
    """Return what a run's commits hold together, and what they cost."""
    volumes = [commit.volume for _, commit in segment(repo.commit, tip) if commit.volume]
    return Volume(sum(v.given_bytes for v in volumes), sum(v.stored_bytes for v in volumes))


def draft(
    tx: Transaction,
    state: RunState,
    captured: Items,
    moment: Moment,
    *,
    apart: int = 0,
    parts: Items | None = NO_PARTS,
) -> CommitId:
    """Write the run's draft: what was captured, all artifacts and inputs so far, others' too.

    `apart` of the bytes that this transaction stored are not the draft's own: an input's, or a
    checkpoint's. `parts` of a checkpoint join those that are held, see `parts.joined`; None lets go
    of them all.
    """
    old = tx.ref(state.open_ref)
    artifacts = (drafted_artifacts(tx.repo, old) if old is not None else {}) | state.artifacts
    parents = list(tx.repo.commit(old).parents) if old is not None else []
    parents += [parent for parent in state.parents if parent not in parents]
    small, large = split_artifacts(artifacts)
    others = drafted(tx.repo, tx.repo.commit(old)) if old is not None else {}
    others.pop(state.shelf.path, None)
    large |= others | state.shelf.items(tx.writer)
    if parts is not None:
        large |= joined(held(tx.repo, tx.repo.commit(old)) if old is not None else {}, parts)
    items = captured | small | _metadata(tx.writer, state)
    items["params.json"] = _document(tx.writer, "params.json", state.params)
    if artifacts:
        frames = [artifact_frame(path, entry) for path, entry in sorted(artifacts.items())]
        listed = canonical.encode(frames)
        items[ARTIFACT_LIST] = ingest.file_entry(tx.writer, ARTIFACT_LIST.encode(), listed)
    tree = _tree(tx, items)
    payload = _tree(tx, large) if large else None
    given = tree.size + (payload.size if payload else 0)
    commit = replace(
        _commit(DRAFT, tree.id, state, moment),
        payload=payload.id if payload else None,
        parents=tuple(parents),
        volume=Volume(given, _drafted_bytes(tx.repo, old) + tx.writer.stored - apart),
    )
    id = tx.record(commit)
    if old is not None and old != id:
        tx.set_ref(f"{HOLDS}{old}", None)
    tx.set_ref(state.open_ref, id)
    return id


def checkpoint(
    tx: Transaction,
    state: RunState,
    items: Items,
    entry: Entry,
    *,
    points: tuple[Mark | None, Mark],
    moment: Moment,
    details: Mapping[str, Any],
    before_bytes: int = 0,
) -> CommitId:
    """Write a checkpoint: the state as payload, the points since the commit before as record.

    `before_bytes` were stored for its parts, which the draft has held and now lets go of.
    """
    captured = items
    # What was captured at the start counts where the run ends, not once for each checkpoint.
    captured_bytes = sum(item.size for item in items.values())
    items = items | _results(tx.writer, state, *points)
    if sums := state.metrics.sums(points[0]):
        items[SUMS] = ingest.file_entry(tx.writer, SUMS.encode(), canonical.encode(sums))
    items["checkpoint.json"] = _document(tx.writer, "checkpoint.json", dict(details))
    tree = _tree(tx, items)
    payload = ingest.nest(tx.writer, [(entry.name, entry)])
    commit = replace(_commit(CHECKPOINT, tree.id, state, moment), payload=payload.id)
    given = tree.size + payload.size - captured_bytes
    id = _publish(tx, state, commit, given, before_bytes)
    if entry.name == SHARDS:
        now = replace(moment, step=None)
        draft(tx, state, captured, now, apart=tx.writer.stored, parts=None)
    return id


def finish(
    tx: Transaction,
    state: RunState,
    captured: Items,
    moment: Moment,
    *,
    light: Items | None = None,
    heavy: Items | None = None,
) -> CommitId:
    """Write the finishing commit: the whole series and all artifacts; the draft goes.

    `light` joins the record, `heavy` the payload.
    """
    old = tx.ref(state.open_ref)
    artifacts = (drafted_artifacts(tx.repo, old) if old is not None else {}) | state.artifacts
    small, large = split_artifacts(artifacts)
    results = _results(tx.writer, state) | _observed(tx.writer, state)
    shown, shown_files = loggedrecord.items(tx.writer, state.logged)
    tree = _tree(tx, captured | small | results | shown | (light or {}))
    commit, given = _commit(RUN, tree.id, state, moment), tree.size
    large |= shown_files | (heavy or {})
    if large:
        payload = _tree(tx, large)
        commit, given = replace(commit, payload=payload.id), given + payload.size
    id = _publish(tx, state, commit, given, _drafted_bytes(tx.repo, old))
    drop_draft(tx, state)
    return id


def _drafted_bytes(repo: Repo, draft: CommitId | None) -> int:
    """Return what was stored for a draft so far: its artifacts come before the commit that ends."""
    volume = repo.commit(draft).volume if draft is not None else None
    return volume.stored_bytes if volume is not None else 0


def drop_draft(tx: Transaction, state: RunState) -> None:
    """Let go of the run's draft and what it held."""
    old = tx.ref(state.open_ref)
    if old is not None:
        tx.set_ref(state.open_ref, None)
        tx.set_ref(f"{HOLDS}{old}", None)


def split_artifacts(artifacts: Mapping[str, Entry]) -> tuple[Items, Items]:
    """Part artifacts into those that stay with the record and those that are payload."""
    small: Items = {}
    large: Items = {}
    room = SMALL_ARTIFACTS
    for path, entry in sorted(artifacts.items()):
        stays = entry.size <= SMALL_ARTIFACT and entry.size <= room
        room -= entry.size if stays else 0
        (small if stays else large)[f"{ARTIFACTS}/{path}"] = entry
    return small, large


def _results(
    writer: ObjectWriter, state: RunState, since: Mark | None = None, until: Mark | None = None
) -> Items:
    until = until or state.metrics.mark()
    items: Items = {
        "params.json": _document(writer, "params.json", state.params),
        "summary.json": _document(writer, "summary.json", state.metrics.summary()),
    }
    metrics = state.metrics
    items |= _series(writer, "metrics", metrics.series(since, writer.blob, until))
    items |= _series(writer, "times", metrics.times(since, writer.blob, until))
    return items | _series(writer, "epochs", metrics.epochs(since, writer.blob))


def _observed(writer: ObjectWriter, state: RunState) -> Items:
    """Return what was seen of a run from outside; none of it is ever compared."""
    items = _series(writer, "system", state.system.series(None, writer.blob))
    items |= _metadata(writer, state)
    if state.events:
        items["events.json"] = _document(writer, "events.json", state.events)
    return items


def _metadata(writer: ObjectWriter, state: RunState) -> Items:
    if not state.metadata:
        return {}
    return {"metadata.json": _document(writer, "metadata.json", state.metadata)}


def _series(writer: ObjectWriter, name: str, series: Series) -> Items:
    if not series.rows:
        return {}
    id = writer.manifest(series.to_bytes())
    return {name: Entry(name.encode(), EntryKind.SERIES, id, series.size)}


def _tree(tx: Transaction, items: Items) -> TreeSummary:
    _rely(tx.writer, items.values())
    return ingest.nest(tx.writer, _pairs(items))


def _publish(
    tx: Transaction, state: RunState, commit: Commit, given: int, before_bytes: int = 0
) -> CommitId:
    # A run that has moved to another ref goes on after what it committed under its old one.
    tip = tx.ref(state.ref) or state.tip
    before = () if tip is None else (Parent(PREVIOUS, tip),)
    volume = Volume(given, before_bytes + tx.writer.stored)
    id = tx.record(replace(commit, parents=(*before, *commit.parents), volume=volume))
    tx.set_ref(state.ref, id)
    return id


def _commit(kind: str, tree: TreeId, state: RunState, moment: Moment) -> Commit:
    return Commit(
        kind=kind,
        tree=tree,
        parents=tuple(state.parents),
        experiment=state.experiment,
        run=state.name,
        seq=state.seq + 1,
        step=moment.step,
        status=moment.status,
        time=moment.time,
        author=moment.author,
        message=moment.message,
        monitor=_monitored(state),
        journal=JournalPosition(state.uid, state.position),
    )


def _monitored(state: RunState) -> Monitor | None:
    summary = state.metrics.summary()
    found = monitor(summary, *state.chosen)
    if found is None:
        return None
    metric, mode = found
    return Monitor(metric, mode, float(summary[metric]["last"]))


def _document(writer: ObjectWriter, name: str, value: object) -> Entry:
    return ingest.file_entry(writer, name.encode(), document(value))


def _pairs(items: Items) -> Iterable[tuple[bytes, Entry]]:
    return ((path.encode("utf-8", "surrogateescape"), entry) for path, entry in items.items())


def _rely(writer: ObjectWriter, entries: Iterable[Entry]) -> None:
    """Insist that what is taken over is stored; the transaction then checks that it stays so."""
    for entry in entries:
        if entry.stored and entry.kind is not EntryKind.LINK and not writer.has(entry.id):
            raise CorruptionError(f"{entry.name!r} of this run is no longer stored: run `cas fsck`")
