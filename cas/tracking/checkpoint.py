"""Checkpoints: all that a training run needs to go on, as one state, and back.

A checkpoint's state is a plain dict: model, optimizer, scheduler, random generators, step, epoch
and whatever the user adds. It is stored tensor by tensor; nothing in it is pickled.
Format: docs/format/run.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cas.errors import CorruptionError, InvalidInputError, NotFoundError
from cas.ids import BlobId, CommitId, ManifestId
from cas.objects.arrays import memory
from cas.objects.commit import CHECKPOINT, DRAFT, RUN
from cas.objects.framework import Memory
from cas.objects.manifest import State, TensorRow
from cas.objects.states import build_state, load_state
from cas.objects.tree import Entry, EntryKind
from cas.repo.choice import choose
from cas.repo.repo import Repo
from cas.repo.revision import resolve
from cas.store.writer import ObjectWriter
from cas.tracking import frameworks, rng

STATE = b"state"
PRUNED = "the checkpoint was pruned; `cas log --checkpoints` shows which are kept"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What `load_checkpoint` read; `state` is the whole stored dict."""

    commit: CommitId
    step: int | None
    epoch: int | None
    metrics: Mapping[str, float]
    state: Mapping[str, Any] = field(repr=False)


def gather(parts: Mapping[str, object], step: int | None, epoch: int | None) -> dict[str, Any]:
    """Return the state to store: each part's `state_dict()`, or the part where it has none."""
    state = {name: _state_of(part) for name, part in parts.items() if part is not None}
    return state | {"rng": rng.capture(frameworks.loaded()), "step": step, "epoch": epoch}


def write_state(writer: ObjectWriter, value: object, name: bytes = STATE) -> Entry:
    """Store a Python value as a state; raise UnstorableError naming the path of what cannot be."""
    return state_entry(writer, build_state(value, frameworks.adapters(), writer.blob), name)


def state_entry(writer: ObjectWriter, state: State, name: bytes) -> Entry:
    """Store a state whose tensors are stored; return the entry that names it."""
    return Entry(name, EntryKind.STATE, writer.manifest(state.to_bytes()), state.size)


def read_state(repo: Repo, id: ManifestId) -> Any:
    """Return the Python value of a stored state; its tensors are new and the caller's own."""
    state = repo.manifest(id)
    if not isinstance(state, State):
        raise InvalidInputError(f"{id} is a series of metrics, not a state")

    wanted = [(row.id, memory(stored_size(repo, row))) for row in state.rows if row.data is None]
    targets: dict[BlobId, list[Memory]] = {}
    for blob, target in wanted:
        targets.setdefault(blob, []).append(target)
    try:
        repo.store.fill_all((blob, memoryview(target)) for blob, target in wanted)
    except NotFoundError as error:
        raise NotFoundError("data of state", id.hex()[:10], PRUNED) from error
    # Each row is asked for once, and has memory of its own also where two rows are equal.
    return load_state(state, frameworks.needed(state), lambda blob, _: targets[blob].pop())


def stored_size(repo: Repo, row: TensorRow) -> int:
    """Return the bytes of a tensor, before memory is taken for them; raise CorruptionError.

    A shape can say anything: the blob must have as many bytes. One that is not there is told of
    when it is read.
    """
    place = repo.store.find(row.id)
    size = 0 if place is None else place.row.size
    if place is not None and size != row.nbytes:
        raise CorruptionError(f"state: {row.label} has {size} bytes, not {row.nbytes}")
    return size


def checkpoint_at(repo: Repo, rev: str) -> CommitId:
    """Return the checkpoint that a revision names; a run stands for its newest one."""
    id = resolve(repo, rev)
    if repo.commit(id).kind in {RUN, DRAFT}:
        id = choose(repo, [id], "latest", rev)
    commit = repo.commit(id)
    if commit.kind in {RUN, DRAFT}:
        raise NotFoundError("checkpoint", f"of {rev}", "the run saved none")
    if commit.kind != CHECKPOINT:
        raise InvalidInputError(f"{rev} is no checkpoint: it is a commit of kind {commit.kind}")
    return id


def load(repo: Repo, id: CommitId) -> Checkpoint:
    """Read a checkpoint back; raise NotFoundError when it was pruned."""
    commit = repo.commit(id)
    try:
        entry = repo.lookup(commit.payload, STATE) if commit.payload is not None else None
    except NotFoundError:
        entry = None
    if entry is None or entry.kind is not EntryKind.STATE:
        raise NotFoundError("state of", id.short, PRUNED)
    details = repo.document(commit.tree, "checkpoint.json")
    about = details if isinstance(details, dict) else {}
    return Checkpoint(
        commit=id,
        step=commit.step,
        epoch=about.get("epoch"),
        metrics=about.get("metrics") or {},
        state=read_state(repo, ManifestId(entry.id)),
    )


def restore(loaded: Checkpoint, parts: Mapping[str, object], *, with_rng: bool) -> None:
    """Load each part's stored state into it, and set the random generators.

    Nothing is loaded when a part is missing in the checkpoint or cannot take a state.
    """
    wanted = {name: part for name, part in parts.items() if part is not None}
    for name, part in wanted.items():
        if name not in loaded.state:
            has = ", ".join(sorted(loaded.state.keys() - {"rng", "step", "epoch"})) or "no parts"
            raise NotFoundError(name, f"in checkpoint {loaded.commit.short}", f"it holds {has}")
        if not callable(getattr(part, "load_state_dict", None)):
            raise InvalidInputError(f"{name} has no load_state_dict; read it from `.state`")
    for name, part in wanted.items():
        part.load_state_dict(loaded.state[name])  # type: ignore[attr-defined]  # just checked
    if with_rng and "rng" in loaded.state:
        rng.restore(loaded.state["rng"], frameworks.loaded())


def _state_of(part: object) -> object:
    state_dict = getattr(part, "state_dict", None)
    return state_dict() if callable(state_dict) else part
