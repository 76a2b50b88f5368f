"""Reading sharded checkpoints: what each process of a program has stored of one.

A part is a folder of states: `tensors` (shards of tensors and where they lie in the whole),
`values` (what is no tensor), `paths` (where each of both stood in the state) and `rng` (the random
generators of the process).
Format: docs/format/run.md, "Sharded checkpoints".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any, Final

from cas.errors import CorruptionError, NotFoundError
from cas.ids import ManifestId
from cas.objects.arrays import memory
from cas.objects.commit import Commit
from cas.objects.framework import Framework, Memory
from cas.objects.manifest import State, TensorRow
from cas.objects.pystate import unflatten
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints.checkpoint import PRUNED, read_state, stored_size
from cas.tracking.checkpoints.parts import PATHS, RNG, SHARDS, TENSORS, VALUES

BATCH: Final = 256 * 1024 * 1024  # bytes of shards that are read together


@dataclass(frozen=True, slots=True)
class Shard:
    """A stored shard of a tensor, and where it begins in the whole."""

    offsets: tuple[int, ...]
    row: TensorRow
    framework: Framework
    extra: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the shard."""
        return self.row.shape


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that is stored in shards, which cover it."""

    shape: tuple[int, ...]
    dtype: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a sharded checkpoint holds, by name; `count` processes have saved it."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, object]
    count: int
    paths: Mapping[str, object] = field(default_factory=dict)  # nothing of it is checked


def contents(repo: Repo, commit: Commit, *, values: bool = True) -> Contents:
    """Return what a sharded checkpoint holds, without `values` its tensors alone; reads no shard.

    Raises NotFoundError when it is no sharded one, or was pruned, and CorruptionError when its
    shards do not make up its tensors.
    """
    parts = _parts(repo, commit)
    shapes: dict[str, tuple[int, ...]] = {}
    shards: dict[str, list[Shard]] = {}
    told: dict[str, object] = {}
    paths: dict[str, object] = {}
    for part in parts:
        for name, shape, found in _shards(repo, part):
            if shapes.setdefault(name, shape) != shape:
                raise CorruptionError(f"shards: parts differ in the shape of {name}")
            shards.setdefault(name, []).extend(found)
        if values:
            told |= _map(repo, part, VALUES)
            paths |= _map(repo, part, PATHS) if repo.lookup(part.id, PATHS) is not None else {}
    tensors = {name: _whole(name, shapes[name], shards[name]) for name in shapes}
    return Contents(tensors, told, len(parts), paths)


def rng_of(repo: Repo, commit: Commit, number: int) -> Any:
    """Return the random generators of the process with this number."""
    return read_state(repo, _state(repo, _parts(repo, commit)[number], RNG))


def read(repo: Repo, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Any]]:
    """Yield each shard with its tensor, on the CPU; memory is taken for some of them at a time."""
    for shard, data in read_bytes(repo, shards):
        yield shard, shard.framework.tensor(shard.row, data, shard.extra)


def read_bytes(repo: Repo, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Memory]]:
    """Yield each shard with its bytes, row-major."""
    batch: list[Shard] = []
    size = 0
    for shard in shards:
        if batch and size + shard.row.nbytes > BATCH:
            yield from _filled(repo, batch)
            batch, size = [], 0
        batch.append(shard)
        size += shard.row.nbytes
    yield from _filled(repo, batch)


def _filled(repo: Repo, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Memory]]:
    targets = [_memory(repo, shard.row) for shard in shards]
    try:
        repo.store.fill_all(
            (shard.row.id, memoryview(target))
            for shard, target in zip(shards, targets, strict=True)
            if shard.row.data is None
        )
    except NotFoundError as error:
        raise NotFoundError("data of", shards[0].row.label, PRUNED) from error
    yield from zip(shards, targets, strict=True)


def _memory(repo: Repo, row: TensorRow) -> Memory:
    return memory(stored_size(repo, row)) if row.data is None else bytearray(row.data)


def _parts(repo: Repo, commit: Commit) -> list[Entry]:
    """Return the parts of a checkpoint, in the order of their numbers."""
    try:
        entry = repo.lookup(commit.payload, SHARDS) if commit.payload is not None else None
        found = {} if entry is None else {one.name: one for one in repo.entries(entry.id)}
    except NotFoundError as error:
        raise NotFoundError("shards of", commit.id.short, PRUNED) from error
    if not found:
        hint = "it is not sharded, or was pruned: see run.load_checkpoint"
        raise NotFoundError("shards of", commit.id.short, hint)
    numbers = range(len(found))
    missing = [number for number in numbers if str(number).encode() not in found]
    if missing:
        raise CorruptionError(f"shards: part {missing[0]} of {len(found)} is not there")
    return [found[str(number).encode()] for number in numbers]


def _state(repo: Repo, part: Entry, name: bytes) -> ManifestId:
    entry = repo.lookup(part.id, name)
    if entry is None or entry.kind is not EntryKind.STATE:
        raise CorruptionError(f"shards: a part has no state {name.decode()}")
    return ManifestId(entry.id)


def _map(repo: Repo, part: Entry, name: bytes) -> dict[str, object]:
    told = read_state(repo, _state(repo, part, name))
    if not isinstance(told, dict):
        raise CorruptionError(f"shards: {name.decode()} of a part is no map")
    return told


def _shards(repo: Repo, part: Entry) -> Iterator[tuple[str, tuple[int, ...], list[Shard]]]:
    """Yield what a part has of each tensor: its name, its shape as a whole, the shards."""
    state = repo.manifest(_state(repo, part, TENSORS))
    if not isinstance(state, State):
        raise CorruptionError("shards: tensors are no state")

    def made(framework: Framework, number: int, extra: tuple[str, ...]) -> object:
        if not 0 <= number < len(state.rows):
            raise CorruptionError(f"shards: there is no row {number}")
        return Shard((), state.rows[number], framework, extra)

    told = unflatten(state.value, made, frameworks.needed(state))
    if not isinstance(told, dict):
        raise CorruptionError("shards: tensors are no map")
    for name, one in told.items():
        try:
            shape, offsets, shards = (one[key] for key in ("shape", "offsets", "shards"))
            found = [
                Shard(_lengths(at), shard.row, shard.framework, shard.extra)
                for at, shard in zip(offsets, shards, strict=True)
            ]
            yield name, _lengths(shape), found
        except (TypeError, LookupError, ValueError, AttributeError) as error:
            raise CorruptionError(f"shards: {name!r} is no tensor in shards") from error


def _whole(name: str, shape: tuple[int, ...], shards: list[Shard]) -> Tensor:
    """Return a tensor made of shards; raise CorruptionError when they do not cover it once."""
    inside = all(
        len(shard.offsets) == len(shard.shape) == len(shape)
        and all(
            at + length <= full
            for at, length, full in zip(shard.offsets, shard.shape, shape, strict=True)
        )
        for shard in shards
    )
    filled = [shard for shard in shards if prod(shard.shape)]
    shards = filled or shards[:1]
    if not (
        inside
        and len({shard.row.dtype for shard in shards}) == 1
        and sum(prod(shard.shape) for shard in shards) == prod(shape)
        and not _overlap(sorted(shards, key=lambda shard: shard.offsets))
    ):
        raise CorruptionError(f"shards: the shards of {name} do not make it up")
    return Tensor(shape, shards[0].row.dtype, tuple(shards))


def _overlap(shards: list[Shard]) -> bool:
    """Say whether two neighbours hold the same numbers; nobody has all pairs to look at."""
    return any(
        all(
            a < b + wide and b < a + long
            for a, long, b, wide in zip(one.offsets, one.shape, two.offsets, two.shape, strict=True)
        )
        for one, two in pairwise(shards)
    )


def _lengths(told: Sequence[object]) -> tuple[int, ...]:
    if not isinstance(told, list) or not all(type(one) is int and one >= 0 for one in told):
        raise ValueError("not a list of lengths")
    return tuple(told)
