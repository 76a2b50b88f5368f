"""Checkpoints: all that a training run needs to go on, as one state, and back.

A checkpoint's state is a plain dict: model, optimizer, scheduler, random generators, step, epoch
and whatever the user adds. It is stored tensor by tensor; nothing in it is pickled.
Format: docs/format/run.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cas.errors import CorruptionError, InvalidInputError, NotFoundError
from cas.ids import BlobId, CommitId, ManifestId
from cas.objects.arrays import memory
from cas.objects.commit import CHECKPOINT, DRAFT, RUN
from cas.objects.framework import Memory
from cas.objects.manifest import State, TensorRow
from cas.objects.pystate import Flat
from cas.objects.states import assemble, build_state, load_state
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.retain.choice import choose
from cas.repo.revision import resolve
from cas.store.writer import ObjectWriter
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints import rng
from cas.tracking.checkpoints.loading import Report, fit_optimizer, left_out

STATE = b"state"
NEEDED = ("model", "optimizer", "data", "rng")  # the position in the data is `data`
SCHEDULED = "initial_lr"
APART = frozenset({"rng", "step", "epoch"})  # of a state, what is no part
PRUNED = "the checkpoint was pruned; `cas log --checkpoints` shows which are kept"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What `load_checkpoint` read; `state` is the whole stored dict.

    `lacks` names what a run that goes on from here would need to go on exactly, and has not.
    `reports` has what did not fit of each part that the state was loaded into, by its name.
    """

    commit: CommitId
    step: int | None
    epoch: int | None
    metrics: Mapping[str, float]
    state: Mapping[str, Any] = field(repr=False)
    lacks: tuple[str, ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)


def gather(parts: Mapping[str, object], step: int | None, epoch: int | None) -> dict[str, Any]:
    """Return the state to store: each part's `state_dict()`, or the part where it has none."""
    state = {name: _state_of(part) for name, part in parts.items() if part is not None}
    return state | {"rng": rng.capture(frameworks.loaded()), "step": step, "epoch": epoch}


def lacking(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a checkpoint lacks for training to go on exactly as it would have.

    Whether there is a scaler at all, nobody can tell: one that there is has to be given. That there
    is a scheduler is told by what those of torch leave in the groups of an optimizer.
    """
    lacks = [name for name in NEEDED if name not in state]
    if "scheduler" not in state and _is_scheduled(state.get("optimizer")):
        lacks.append("scheduler")
    if state.get("step") is None and state.get("epoch") is None:
        lacks.append("step")
    return tuple(lacks)


def _is_scheduled(optimizer: object) -> bool:
    groups = optimizer.get("param_groups") if isinstance(optimizer, dict) else None
    return isinstance(groups, list) and any(
        isinstance(group, dict) and SCHEDULED in group for group in groups
    )


def write_state(writer: ObjectWriter, value: object, name: bytes = STATE) -> Entry:
    """Store a Python value as a state; raise UnstorableError naming the path of what cannot be."""
    return state_entry(writer, build_state(value, frameworks.adapters(), writer.blob), name)


def write_flat(writer: ObjectWriter, flat: Flat) -> Entry:
    """Store a state that is flattened already, as the state of a checkpoint."""
    return state_entry(writer, assemble(flat, writer.blob), STATE)


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


def load(repo: Repo, id: CommitId, *, device: object = None) -> Checkpoint:
    """Read a checkpoint back; raise NotFoundError when it was pruned.

    Tensors come on the CPU, or where `device` says, as `map_location` of `load_checkpoint`.
    """
    commit = repo.commit(id)
    try:
        entry = repo.lookup(commit.payload, STATE) if commit.payload is not None else None
    except NotFoundError:
        entry = None
    if entry is None or entry.kind is not EntryKind.STATE:
        raise NotFoundError("state of", id.short, PRUNED)
    state = read_state(repo, ManifestId(entry.id))
    return told_of(repo, id, state if device is None else moved(state, device))


def told_of(repo: Repo, id: CommitId, state: Mapping[str, Any]) -> Checkpoint:
    """Return what is said of a checkpoint, with the state that was read of it."""
    commit = repo.commit(id)
    details = repo.document(commit.tree, "checkpoint.json")
    about = details if isinstance(details, dict) else {}
    return Checkpoint(
        commit=id,
        step=commit.step,
        epoch=about.get("epoch"),
        metrics=about.get("metrics") or {},
        state=state,
        lacks=tuple(about.get("lacks") or ()),
    )


def restore(
    loaded: Checkpoint, parts: Mapping[str, object], *, with_rng: bool, strict: bool = True
) -> Checkpoint:
    """Load each part's stored state into it, and set the random generators; return with reports.

    Nothing is loaded when a part is missing in the checkpoint or cannot take a state, or when it is
    `strict` and does not fit. Otherwise what does not fit is left out.
    """
    wanted = {name: part for name, part in parts.items() if part is not None}
    for name, part in wanted.items():
        if name not in loaded.state and strict:
            has = ", ".join(sorted(loaded.state.keys() - APART)) or "no parts"
            raise NotFoundError(name, f"in checkpoint {loaded.commit.short}", f"it holds {has}")
        if not callable(getattr(part, "load_state_dict", None)):
            raise InvalidInputError(f"{name} has no load_state_dict; read it from `.state`")
    fitting: dict[str, tuple[object, Report]] = {}
    anew: frozenset[int] = frozenset()
    for name, part in wanted.items():
        if name in loaded.state:
            stored = loaded.state[name]
            fitting[name] = fit_optimizer(name, part, stored, strict=strict, without=anew)
            anew |= left_out(part, fitting[name][1])
    for name, (state, _) in fitting.items():
        wanted[name].load_state_dict(state)  # type: ignore[attr-defined]  # just checked
    if with_rng and "rng" in loaded.state:
        rng.restore(loaded.state["rng"], frameworks.loaded())
    return replace(loaded, reports={name: report for name, (_, report) in fitting.items()})


def moved(state: Any, device: object) -> Any:
    """Return a state with its tensors where `device` says."""
    for framework in frameworks.loaded():
        state = framework.moved(state, device)
    return state


def _state_of(part: object) -> object:
    state_dict = getattr(part, "state_dict", None)
    return state_dict() if callable(state_dict) else part
