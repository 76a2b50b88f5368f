"""The weights of two checkpoints, tensor by tensor: equal, changed by how much, added, gone.

Equal tensors have equal ids, so only the others are read, piece by piece. NumPy is loaded when
there is something to measure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cas.errors import CorruptionError, NotFoundError
from cas.ids import CommitId, ManifestId, TreeId
from cas.objects.commit import CHECKPOINT, DRAFT, RUN
from cas.objects.manifest import DTYPES, State, TensorRow
from cas.objects.pystate import readable
from cas.objects.tree import EntryKind
from cas.progress import SILENT, Progress
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment

if TYPE_CHECKING:
    from numpy import ndarray

STATE: Final = b"state"
FLOATS: Final = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}
BRAIN_FLOAT: Final = "bfloat16"  # the upper half of a float32
WINDOW: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor in both states that differs.

    `changed_share` is the share of values that differ, the others the greatest and the mean
    absolute difference over all values that are finite on both sides; None where they were not, or
    cannot be measured.
    """

    path: str
    old_dtype: str
    new_dtype: str
    old_shape: tuple[int, ...]
    new_shape: tuple[int, ...]
    changed_share: float | None = None
    max_difference: float | None = None
    mean_difference: float | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """What differs between two checkpoints; `note` says when only ids could be compared."""

    old: CommitId
    new: CommitId
    equal: int = 0
    changed: tuple[TensorChange, ...] = ()
    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    other_values: bool = False
    note: str = ""

    @property
    def same(self) -> bool:
        """Whether nothing is known to differ."""
        return not (self.changed or self.added or self.gone or self.other_values or self.note)


def compare_weights(
    repo: Repo,
    old: CommitId,
    new: CommitId,
    *,
    measure: bool = True,
    progress: Progress = SILENT,
) -> Weights | None:
    """Compare the weights of two commits, None when one of them never had any.

    For the end of a run these are its newest checkpoint whose payload is there. Without `measure`
    tensors are compared by id alone, and none is read.
    """
    left, right = _checkpoint(repo, old), _checkpoint(repo, new)
    if left is None or right is None:
        return None
    ids = (repo.commit(left).payload, repo.commit(right).payload)
    states = [state_of(repo, payload) for payload in ids]
    if states[0] is None or states[1] is None:
        gone = [id.short for id, state in zip((left, right), states, strict=True) if state is None]
        if ids[0] == ids[1]:
            return Weights(left, right)
        which = f"the payload of {' and of '.join(dict.fromkeys(gone))} was pruned"
        return Weights(left, right, note=f"{which}: by their ids the weights differ")
    return compare_states(repo, states[0], states[1], (left, right), measure, progress=progress)


def compare_states(
    repo: Repo,
    old: State,
    new: State,
    ids: tuple[CommitId, CommitId],
    measure: bool = True,
    *,
    progress: Progress = SILENT,
) -> Weights:
    """Compare two states by the paths of their tensors."""
    before, after = _rows(old), _rows(new)
    both = [path for path in before if path in after]
    unlike = [path for path in both if not _equal(before[path], after[path])]
    progress.start("compare tensors", len(unlike))
    changed = []
    for path in unlike:
        changed.append(_change(repo, before[path], after[path], measure=measure))
        progress.advance()
    progress.finish()
    return Weights(
        *ids,
        equal=len(both) - len(unlike),
        changed=tuple(changed),
        added=tuple(readable(row.path) for path, row in after.items() if path not in before),
        gone=tuple(readable(row.path) for path, row in before.items() if path not in after),
        # Values name rows by number, so they can be compared where these stand alike.
        other_values=list(before) == list(after) and old.value != new.value,
    )


def state_of(repo: Repo, payload: TreeId | None) -> State | None:
    """Return the state in a checkpoint's payload, None when it was pruned or there is none."""
    if payload is None:
        return None
    try:
        entry = repo.lookup(payload, STATE)
        if entry is None or entry.kind is not EntryKind.STATE:
            return None
        found = repo.manifest(ManifestId(entry.id))
    except NotFoundError:
        return None
    return found if isinstance(found, State) else None


def _checkpoint(repo: Repo, id: CommitId) -> CommitId | None:
    """Return the checkpoint that stands for a commit: of a run the newest that is whole."""
    kind = repo.commit(id).kind
    if kind == CHECKPOINT:
        return id
    if kind not in {RUN, DRAFT}:
        return None
    known = [
        (found, commit.payload)
        for found, commit in segment(repo.commit, id)
        if commit.kind == CHECKPOINT
    ]
    there = (found for found, payload in known if state_of(repo, payload) is not None)
    return next(there, known[0][0] if known else None)


def _rows(state: State) -> Mapping[tuple[Any, ...], TensorRow]:
    return {row.path: row for row in state.rows}


def _equal(old: TensorRow, new: TensorRow) -> bool:
    return (old.id, old.dtype, old.shape) == (new.id, new.dtype, new.shape)


def _change(repo: Repo, old: TensorRow, new: TensorRow, *, measure: bool) -> TensorChange:
    both = (readable(old.path), old.dtype, new.dtype, old.shape, new.shape)
    change = TensorChange(*both)
    if not measure or (old.dtype, old.shape) != (new.dtype, new.shape) or not old.nbytes:
        return change
    try:
        return TensorChange(*both, *_measured(repo, old, new))
    except NotFoundError:
        return change


def _measured(
    repo: Repo, old: TensorRow, new: TensorRow
) -> tuple[float, float | None, float | None]:
    """Return the share of values that differ, and the greatest and mean absolute difference."""
    import numpy as np

    differ = finite = 0
    total = greatest = 0.0
    width = DTYPES[old.dtype]
    for before, after in zip(_windows(repo, old), _windows(repo, new), strict=True):
        unlike = _bits(before, width) != _bits(after, width)
        unlike = unlike.any(axis=1)
        differ += int(unlike.sum())
        left, right = _numbers(before, old.dtype), _numbers(after, old.dtype)
        if left is None or right is None:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            delta = np.abs(right - left)
        delta[~unlike] = 0.0  # infinities that are equal
        delta = delta[np.isfinite(delta)]
        finite += delta.size
        total += float(delta.sum())
        greatest = max(greatest, float(delta.max(initial=0.0)))
    share = differ * width / old.nbytes
    return (share, greatest, total / finite) if finite else (share, None, None)


def _bits(data: bytes, width: int) -> "ndarray[Any, Any]":
    """Return one row of unsigned numbers for each element."""
    import numpy as np

    unit = min(width, 8)
    return np.frombuffer(data, f"<u{unit}").reshape(-1, width // unit)


def _numbers(data: bytes, dtype: str) -> "ndarray[Any, Any] | None":
    """Return floats as float64, None for what has no difference to speak of."""
    import numpy as np

    if dtype in FLOATS:
        return np.frombuffer(data, FLOATS[dtype]).astype(np.float64)
    if dtype == BRAIN_FLOAT:
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).astype(np.float64)
    return None


def _windows(repo: Repo, row: TensorRow) -> Iterator[bytes]:
    """Yield a tensor's bytes in equal windows, however it is stored."""
    pieces = iter((row.data,)) if row.data is not None else repo.store.pieces(row.id)
    waiting = bytearray()
    left = row.nbytes
    for piece in pieces:
        waiting += piece
        while len(waiting) >= WINDOW:
            left -= WINDOW
            yield bytes(waiting[:WINDOW])
            del waiting[:WINDOW]
    if len(waiting) != left:
        raise CorruptionError(f"{row.label} does not have the {row.nbytes} bytes of its shape")
    if waiting:
        yield bytes(waiting)
