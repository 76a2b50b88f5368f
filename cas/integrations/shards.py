"""State of torch that lies over several processes, through torch.distributed.checkpoint.

The planners of torch say which process stores which shard of which tensor, and which shards one
needs for another sharding. Storage is the run's: nothing is pickled into it, and what is read from
it is never unpickled.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final, Protocol
from warnings import catch_warnings, filterwarnings

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from cas.errors import CasError, NotFoundError, TrackingError
from cas.ids import CommitId
from cas.objects.canonical import MAX_INT
from cas.repo.repo import Repo
from cas.tracking.checkpoints.shards import Contents, Shard, contents, read

PART: Final = MetadataIndex("part")  # what a process has taken is told as one thing


class Taker(Protocol):
    """What takes the state of one process for a save that all of them make."""

    def offer(self, size: int) -> Any:
        """Return what this process says of itself; it has up to `size` bytes."""

    def agree(self, offers: Sequence[Any], size: int) -> Any:
        """Return, in the first process, what is agreed of `size` bytes; None for no save."""

    def take(self, terms: Any, number: int, states: "States") -> None:
        """Take what this process has, so that the caller may change it."""


@dataclass(frozen=True, slots=True)
class States:
    """What one process has of a state: shards of tensors, values, and the keys that lead there."""

    tensors: dict[str, dict[str, list[Any]]]
    values: dict[str, Any]
    paths: dict[str, list[Any]]


def place(group: Any = None) -> tuple[int, int]:
    """Return which of how many processes of a group this one is."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def agreed(find: Callable[[], str], group: Any = None) -> str:
    """Return what the first process finds, in all of them; where it fails, all raise."""
    number, count = place(group)
    told: list[Any] = [None, None, None]
    error: CasError | None = None
    if not number:
        try:
            told[0] = find()
        except CasError as caught:
            error, told[1] = caught, str(caught)
            told[2] = isinstance(caught, NotFoundError) and (caught.kind, caught.name)
    if count > 1:
        first = dist.get_global_rank(group, 0) if group is not None else 0
        dist.broadcast_object_list(told, src=first, group=group)
    if told[0] is None:
        raise error or (NotFoundError(*told[2]) if told[2] else TrackingError(told[1]))
    return str(told[0])


def save(state: dict[str, Any], taker: Taker, group: Any = None) -> Any:
    """Have what each process has taken; return what they agreed on, None for no save.

    A collective. Raises TrackingError in all processes where one failed.
    """
    storage = _Writer(state, place(group)[0], taker)
    with _told("saved"), _alone():
        dcp_save(state, storage_writer=storage, planner=DefaultSavePlanner(), process_group=group)
    return storage.terms


def load(
    state: dict[str, Any], repo: Repo, id: CommitId, *, strict: bool = True, group: Any = None
) -> int:
    """Load a sharded checkpoint into `state`, in place; return how many processes saved it.

    Raises TrackingError in all processes where one failed.
    """
    storage = _Reader(repo, id)
    planner = _Planner(allow_partial_load=not strict)
    with _told("loaded"), _alone():
        dcp_load(state, storage_reader=storage, planner=planner, process_group=group)
    return storage.contents.count


class _Writer(StorageWriter):
    """Storage of one save, as one process sees it."""

    def __init__(self, state: Mapping[str, Any], number: int, taker: Taker) -> None:
        self.terms: Any = None
        self._state = state
        self._number = number
        self._taker = taker

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: one of these serves one save."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: nothing has to be set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan with what this process says of itself."""
        with _plain():
            return replace(plan, storage_data=self._taker.offer(_size(plan)))

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Return the plans with what is agreed."""
        with _plain():
            offers = [plan.storage_data for plan in plans]
            terms = self._taker.agree(offers, sum(map(_size, plans)))
        return [replace(plan, storage_data=terms) for plan in plans]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        """Take the shards and values of this process."""
        self.terms = plan.storage_data
        if self.terms is not None:
            with _plain():
                states = _gathered(plan, planner, self._state, first=not self._number)
                self._taker.take(self.terms, self._number, states)
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(PART, 0, None)])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Do nothing: what was taken is stored behind the caller."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Say no: a run names its checkpoints itself."""
        return False


class _Reader(StorageReader):
    """Storage of one checkpoint, as one process reads it."""

    contents: Contents

    def __init__(self, repo: Repo, id: CommitId) -> None:
        self._repo = repo
        self._id = id

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: one of these serves one load."""

    # With keyword arguments torch would ask again, for the metadata of this process alone.
    def read_metadata(self) -> Metadata:
        """Return what the checkpoint holds."""
        with _plain():
            self.contents = contents(self._repo, self._repo.commit(self._id))
            known: dict[str, Any] = {
                name: TensorStorageMetadata(
                    TensorProperties(_dtype(tensor.dtype)),
                    torch.Size(tensor.shape),
                    [
                        ChunkStorageMetadata(torch.Size(shard.offsets), torch.Size(shard.shape))
                        for shard in tensor.shards
                    ],
                )
                for name, tensor in self.contents.tensors.items()
            }
        return Metadata(known | {name: BytesStorageMetadata() for name in self.contents.values})

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: nothing has to be set up."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        """Read what this process needs, each shard once, into the tensors that are there."""
        assert isinstance(planner, _Planner)
        wanted: dict[tuple[str, tuple[int, ...]], list[ReadItem]] = {}
        for item in plan.items:
            name = item.storage_index.fqn
            if item.type is LoadItemType.BYTE_IO:
                planner.put(item, self.contents.values[name])
            else:
                at = tuple(item.storage_index.offset or ())
                wanted.setdefault((name, at), []).append(item)
        with _plain():
            shards = self._shards(wanted)
            for shard, tensor in read(self._repo, list(shards)):
                for item in shards[shard]:
                    _fill(planner, item, tensor)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Say no: a run names its checkpoints itself."""
        return False

    def _shards(
        self, wanted: Mapping[tuple[str, tuple[int, ...]], list[ReadItem]]
    ) -> dict[Shard, list[ReadItem]]:
        places = {
            (name, shard.offsets): shard
            for name in {name for name, _ in wanted}
            for shard in self.contents.tensors[name].shards
        }
        return {places[where]: items for where, items in wanted.items()}


class _Planner(DefaultLoadPlanner):
    """Plans a load; values come as they are, not as pickled bytes."""

    def put(self, item: ReadItem, value: object) -> None:
        """Set a value that is no tensor."""
        name = item.dest_index.fqn
        if name not in self.mappings:
            self.state_dict[name] = value
            return
        *above, last = self.mappings[name]
        where: Any = self.original_state_dict
        for key in above:
            where = where[key]
        where[last] = value


def _gathered(
    plan: SavePlan, planner: SavePlanner, state: Mapping[str, Any], *, first: bool
) -> States:
    """Return what this process is to store; the first one has what is empty too."""
    assert isinstance(planner, DefaultSavePlanner)
    found = States({}, {}, {})
    for item in sorted(plan.items, key=lambda item: item.index.fqn):
        name = item.index.fqn
        found.paths[name] = _keys(state, planner.mappings.get(name, (name,)))
        if item.type is WriteItemType.BYTE_IO:
            found.values[name] = planner.lookup_object(item.index)
            continue
        about, tensor = item.tensor_data, planner.resolve_data(item)
        assert about is not None
        assert isinstance(tensor, torch.Tensor)
        new: dict[str, list[Any]] = {"shape": list(about.size), "offsets": [], "shards": []}
        told = found.tensors.setdefault(name, new)
        told["offsets"].append(list(about.chunk.offsets))
        told["shards"].append(tensor.detach())
    for keys in _empty(state) if first else ():  # torch plans no leaf in them
        name = ".".join(map(str, keys))
        if name not in planner.mappings:
            found.values[name], found.paths[name] = {}, keys
    return found


def _keys(state: Mapping[str, Any], path: Sequence[Any]) -> list[Any]:
    """Return the keys that lead to a leaf as they are: torch makes text of those of dicts.

    A step into a list is a tuple of its number.
    """
    at: Any = state
    keys: list[Any] = []
    for step in path:
        if isinstance(at, Mapping):
            key = step if step in at else next(key for key in at if str(key) == step)
            keys.append(key if type(key) is int and abs(key) <= MAX_INT else step)
        else:
            key = step
            keys.append((step,))
        at = at[key]
    return keys


def _empty(state: Mapping[Any, Any], above: tuple[Any, ...] = ()) -> Iterator[list[Any]]:
    """Yield the keys that lead to the dicts without anything in them."""
    for key, value in state.items():
        keys = (*above, key if type(key) is int and abs(key) <= MAX_INT else str(key))
        if isinstance(value, Mapping):
            yield from _empty(value, keys) if value else [list(keys)]


def _size(plan: SavePlan) -> int:
    """Return the bytes of the tensors in a plan."""
    told = [item.tensor_data for item in plan.items if item.tensor_data is not None]
    return sum(prod(one.chunk.sizes) * one.properties.dtype.itemsize for one in told)


def _fill(planner: _Planner, item: ReadItem, tensor: torch.Tensor) -> None:
    """Copy what an item wants of a shard to where it belongs."""
    for dimension, (start, length) in enumerate(
        zip(item.storage_offsets, item.lengths, strict=True)
    ):
        tensor = tensor.narrow(dimension, start, length)
    target = planner.resolve_tensor(item).detach()
    if target.shape != tensor.shape:
        raise TrackingError(
            f"{item.dest_index.fqn} takes {list(target.shape)}, not {list(tensor.shape)}"
        )
    target.copy_(tensor)
    planner.commit_tensor(item, target)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TrackingError(f"torch {torch.__version__} has no dtype {name!r}")
    return dtype


@contextmanager
def _plain() -> Iterator[None]:
    """Let errors pass in a form that another process can read: torch sends them to all."""
    try:
        yield
    except TrackingError:
        raise
    except CasError as error:
        raise TrackingError(str(error)) from None
    except Exception as error:
        raise TrackingError(f"{type(error).__name__}: {error}") from None


@contextmanager
def _alone() -> Iterator[None]:
    """Be silent of it where one process saves, or loads what several saved: it is no mistake."""
    if dist.is_available() and dist.is_initialized():
        yield
        return
    with catch_warnings():
        filterwarnings("ignore", "torch.distributed is disabled")
        yield


@contextmanager
def _told(done: str) -> Iterator[None]:
    """Say in one line which processes failed, with what."""
    try:
        yield
    except CheckpointException as failed:
        failures = sorted(failed.failures.items())
        for _, error in failures:
            if not isinstance(error[0], Exception):
                raise error[0] from failed  # Ctrl-C in one process ends the call in all
        why = "; ".join(f"process {number}: {error[0]}" for number, error in failures)
        raise TrackingError(f"the sharded checkpoint could not be {done}: {why}") from failed
