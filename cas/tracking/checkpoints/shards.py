"""The parts of a sharded checkpoint: what each process of a program has stored of it.

A part is a folder of three states: `tensors` (shards of tensors and where they lie in the whole),
`values` (what is no tensor) and `rng` (the random generators of the process).
Format: docs/format/run.md, "Sharded checkpoints".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Final

from cas.errors import CorruptionError, NotFoundError
from cas.ids import ManifestId, ObjectId
from cas.objects.arrays import memory
from cas.objects.commit import Commit
from cas.objects.framework import Framework, Memory
from cas.objects.manifest import State, TensorRow
from cas.objects.pystate import unflatten
from cas.objects.states import build_state
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured import frameworks
from cas.tracking.checkpoints.checkpoint import PRUNED, read_state, state_entry, stored_size

SHARDS: Final = b"shards"
TENSORS: Final = b"tensors"
VALUES: Final = b"values"
RNG: Final = b"rng"
BATCH: Final = 256 * 1024 * 1024  # bytes of shards that are read together


@dataclass(frozen=True, slots=True)
class Part:
    """What one process has stored; it goes to another process, so that all of it is plain.

    `stored` is what it cost, in bytes.
    """

    number: int
    tree: bytes
    size: int
    stored: int


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


class Writing:
    """Stores a part; called again, it reads the tensors again only where they are not there."""

    def __init__(self, tensors: object, values: object, rng: object) -> None:
        self._given = {TENSORS: tensors, VALUES: values, RNG: rng}
        self._states: dict[bytes, State] = {}

    def __call__(self, tx: Transaction) -> Entry:
        """Return the part's entry; raise UnstorableError naming what cannot be stored."""
        entries = []
        for name, value in self._given.items():
            state = self._states.get(name)
            if state is None or not all(map(tx.writer.has, state.blobs())):
                state = build_state(value, frameworks.adapters(), tx.writer.blob)
                self._states[name] = state
            entries.append((name, state_entry(tx.writer, state, name)))
        tree = ingest.nest(tx.writer, entries)
        return _folder(b"part", tree.id, tree.size)


def path_of(number: int) -> str:
    """Return where a draft holds the part of a process."""
    return f"{SHARDS.decode()}/{number}"


def held(repo: Repo, draft: Commit) -> dict[str, Entry]:
    """Return the parts that a draft holds until their checkpoint is published, by their paths."""
    entry = repo.lookup(draft.payload, SHARDS) if draft.payload is not None else None
    if entry is None or entry.kind is not EntryKind.TREE:
        return {}
    return {f"{SHARDS.decode()}/{one.name.decode()}": one for one in repo.entries(entry.id)}


def joined(tx: Transaction, draft: Commit | None, parts: Sequence[Part]) -> Entry:
    """Return the entry of a checkpoint made of parts; raise NotFoundError where one is not held.

    What the draft holds cannot be collected before the transaction that replaces the draft.
    """
    there = {} if draft is None else held(tx.repo, draft)
    for part in parts:
        entry = there.get(path_of(part.number))
        if entry is None or bytes(entry.id) != part.tree or not tx.writer.has(entry.id):
            raise NotFoundError(
                "part",
                f"{part.number} of the checkpoint",
                "every process must be of one run, in one repository on a shared disk",
            )
    entries = [
        (str(part.number).encode(), _folder(b"part", ObjectId(part.tree), part.size))
        for part in parts
    ]
    tree = ingest.nest(tx.writer, entries)
    return _folder(SHARDS, tree.id, tree.size)


def contents(repo: Repo, commit: Commit) -> Contents:
    """Return what a sharded checkpoint holds; reads no tensor.

    Raises NotFoundError when it is no sharded one, or was pruned, and CorruptionError when its
    shards do not make up its tensors.
    """
    parts = _parts(repo, commit)
    shapes: dict[str, tuple[int, ...]] = {}
    shards: dict[str, list[Shard]] = {}
    values: dict[str, object] = {}
    for part in parts:
        for name, shape, found in _shards(repo, part):
            if shapes.setdefault(name, shape) != shape:
                raise CorruptionError(f"shards: parts differ in the shape of {name}")
            shards.setdefault(name, []).extend(found)
        told = read_state(repo, _state(repo, part, VALUES))
        values |= told if isinstance(told, dict) else {}
    tensors = {name: _whole(name, shapes[name], shards[name]) for name in shapes}
    return Contents(tensors, values, len(parts))


def rng_of(repo: Repo, commit: Commit, number: int) -> Any:
    """Return the random generators of the process with this number."""
    return read_state(repo, _state(repo, _parts(repo, commit)[number], RNG))


def read(repo: Repo, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Any]]:
    """Yield each shard with its tensor, on the CPU; memory is taken for some of them at a time."""
    batch: list[Shard] = []
    size = 0
    for shard in shards:
        if batch and size + shard.row.nbytes > BATCH:
            yield from _filled(repo, batch)
            batch, size = [], 0
        batch.append(shard)
        size += shard.row.nbytes
    yield from _filled(repo, batch)


def _filled(repo: Repo, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Any]]:
    targets = [_memory(repo, shard.row) for shard in shards]
    try:
        repo.store.fill_all(
            (shard.row.id, memoryview(target))
            for shard, target in zip(shards, targets, strict=True)
            if shard.row.data is None
        )
    except NotFoundError as error:
        raise NotFoundError("data of", shards[0].row.label, PRUNED) from error
    for shard, target in zip(shards, targets, strict=True):
        yield shard, shard.framework.tensor(shard.row, target, shard.extra)


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


def _folder(name: bytes, id: ObjectId, size: int) -> Entry:
    return Entry(name, EntryKind.TREE, id, size, ingest.FOLDER_MODE)
