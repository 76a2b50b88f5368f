"""A sharded checkpoint as one process has it whole: its tensors put together from their shards.

Nothing of `torch.distributed` is needed for it; one tensor is read without the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Final

from cas.errors import CorruptionError, NotFoundError
from cas.ids import CommitId, blob_id
from cas.objects.arrays import memory
from cas.objects.commit import Commit
from cas.objects.manifest import DTYPES, INLINE_LIMIT, TensorRow
from cas.objects.named import near
from cas.objects.pystate import MAX_NESTING
from cas.objects.tree import EntryKind
from cas.repo.repo import Repo
from cas.tracking.checkpoints import checkpoint, shards
from cas.tracking.checkpoints.checkpoint import Checkpoint
from cas.tracking.checkpoints.parts import SHARDS
from cas.tracking.checkpoints.shards import Tensor

LIST: Final = 1  # a step into a list is a tuple of one number


class _Branch(dict[object, object]):
    """A dict or list that is put together; no value is one."""


def load(repo: Repo, id: CommitId, *, device: object = None) -> Checkpoint:
    """Read a checkpoint, sharded or not, as `checkpoint.load` does.

    The random generators of one that several processes have saved are none of this process, and
    are left out.
    """
    commit = repo.commit(id)
    if not is_sharded(repo, commit):
        return checkpoint.load(repo, id, device=device)
    told = checkpoint.told_of(repo, id, {})
    state = state_of(repo, commit) | {"step": told.step, "epoch": told.epoch}
    return replace(told, state=state if device is None else checkpoint.moved(state, device))


def is_sharded(repo: Repo, commit: Commit) -> bool:
    """Say whether a commit is a sharded checkpoint that is still there."""
    try:
        entry = repo.lookup(commit.payload, SHARDS) if commit.payload is not None else None
    except NotFoundError:
        return False
    return entry is not None and entry.kind is EntryKind.TREE


def state_of(repo: Repo, commit: Commit) -> dict[str, Any]:
    """Return the whole state of a sharded checkpoint, nested as it was given.

    Raises CorruptionError when its parts do not make up a state.
    """
    found = shards.contents(repo, commit)
    leaves: dict[str, object] = {**found.values}
    leaves |= {name: tensor_of(repo, tensor) for name, tensor in found.tensors.items()}
    state = nested(leaves, found.paths)
    if found.count == 1:
        state["rng"] = shards.rng_of(repo, commit, 0)
    return state


def read_one(repo: Repo, commit: Commit, name: str) -> Any:
    """Return one tensor of a sharded checkpoint by its name; "" is the only one there is."""
    tensors = shards.contents(repo, commit, values=False).tensors
    wanted = next(iter(tensors)) if not name and len(tensors) == 1 else name
    if wanted not in tensors:
        raise NotFoundError("tensor", name or "without a name", near(name, list(tensors)))
    return tensor_of(repo, tensors[wanted])


def tensor_of(repo: Repo, tensor: Tensor) -> Any:
    """Return a tensor put together from its shards, on the CPU, new and the caller's own."""
    import numpy as np

    first = tensor.shards[0]
    if len(tensor.shards) == 1:
        ((shard, whole),) = shards.read_bytes(repo, tensor.shards)
        return first.framework.tensor(shard.row, whole, first.extra)
    for shard in tensor.shards:  # a shape can say anything: this has as many bytes
        if shard.row.data is None:
            checkpoint.stored_size(repo, shard.row)
    width = DTYPES[tensor.dtype]
    target = memory(prod(tensor.shape) * width)
    into = np.frombuffer(target, np.uint8).reshape(*tensor.shape, width)
    for shard, data in shards.read_bytes(repo, tensor.shards):
        at = tuple(
            slice(start, start + length)
            for start, length in zip(shard.offsets, shard.shape, strict=True)
        )
        into[at] = np.frombuffer(data, np.uint8).reshape(*shard.shape, width)
    inline = bytes(target) if len(target) <= INLINE_LIMIT else None
    id = blob_id(inline) if inline is not None else first.row.id
    row = TensorRow(first.row.path, tensor.dtype, tensor.shape, id, inline)
    return first.framework.tensor(row, target, first.extra)


def nested(leaves: Mapping[str, object], paths: Mapping[str, object]) -> dict[str, Any]:
    """Return values by name as the nested state that they are of.

    `paths` has the keys that lead to each, a step into a list being a tuple of its number. What has
    no path stands under its name. Raises CorruptionError when they contradict each other.
    """
    root = _Branch()
    for name, value in leaves.items():
        *above, last = _steps(paths.get(name, [name]))
        at = root
        for step in above:
            inner = at.setdefault(step, _Branch())
            if not isinstance(inner, _Branch):
                raise CorruptionError(f"shards: {name} lies in something that is no dict")
            at = inner
        if last in at:
            raise CorruptionError(f"shards: {name} stands where something else does")
        at[last] = value
    state = _built(root)
    if not isinstance(state, dict):
        raise CorruptionError("shards: the state is no dict")
    return state


def _steps(path: object) -> Sequence[object]:
    def is_step(one: object) -> bool:
        if type(one) is tuple:
            return len(one) == LIST and type(one[0]) is int and one[0] >= 0
        return type(one) in {str, int}

    if (
        not isinstance(path, list)
        or not 0 < len(path) <= MAX_NESTING
        or not all(map(is_step, path))
    ):
        raise CorruptionError("shards: a path is no list of keys")
    return path


def _built(branch: _Branch) -> object:
    values = {
        key: _built(value) if isinstance(value, _Branch) else value for key, value in branch.items()
    }
    numbers = [key[0] for key in values if isinstance(key, tuple)]
    if not numbers:
        return values
    if sorted(numbers) != list(range(len(values))):
        raise CorruptionError("shards: a list lacks some of its values")
    return [values[(number,)] for number in range(len(values))]
