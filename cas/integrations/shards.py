"""State of torch that lies over several processes, through torch.distributed.checkpoint.

The planners of torch say which process stores which shard of which tensor, and which shards one
needs for another sharding. Storage is the run's: nothing is pickled into it, and what is read from
it is never unpickled.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar
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
    StorageMeta,
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
from cas.repo.repo import Repo
from cas.tracking.checkpoints.shards import Contents, Part, Shard, contents, read

T = TypeVar("T")
Hold = Callable[[int, object, object], Part]
Publish = Callable[[Sequence[Part]], str]
PART: Final = MetadataIndex("part")  # what a process has stored is told as one thing


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


def save(state: dict[str, Any], hold: Hold, publish: Publish, group: Any = None) -> str:
    """Have each process hold its part, and the first one publish all; return what that returns.

    `hold(number, tensors, values)` stores a part, `publish(parts)` names all of them. Raises
    TrackingError in all processes where one failed.
    """
    storage = _Writer(place(group)[0], hold, publish)
    with _told("saved"):
        known: Any = dcp_save(
            state, storage_writer=storage, planner=DefaultSavePlanner(), process_group=group
        )
    return str(known.storage_meta.checkpoint_id)


def load(
    state: dict[str, Any], repo: Repo, id: CommitId, *, strict: bool = True, group: Any = None
) -> int:
    """Load a sharded checkpoint into `state`, in place; return how many processes saved it.

    Raises TrackingError in all processes where one failed.
    """
    storage = _Reader(repo, id)
    planner = _Planner(allow_partial_load=not strict)
    with _told("loaded"), catch_warnings():
        # One process that loads what several saved is nothing to warn of.
        filterwarnings("ignore", "torch.distributed is disabled")
        dcp_load(state, storage_reader=storage, planner=planner, process_group=group)
    return storage.contents.count


class _Writer(StorageWriter):
    """Storage of one save, as one process sees it."""

    def __init__(self, number: int, hold: Hold, publish: Publish) -> None:
        self._number = number
        self._hold = hold
        self._publish = publish

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: one of these serves one save."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: nothing has to be set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Return the plans as they are."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        """Store the shards and values of this process, and have them held."""
        with _plain():
            part = self._hold(self._number, *_gathered(plan, planner))
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(PART, part.size, part)])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Publish all parts; what is returned goes to all processes with the metadata."""
        with _plain():
            published = self._publish([one.storage_data for result in results for one in result])
        metadata.storage_meta = StorageMeta(checkpoint_id=published)

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
    plan: SavePlan, planner: SavePlanner
) -> tuple[dict[str, dict[str, list[Any]]], dict[str, Any]]:
    """Return the shards and the values that this process is to store, by name."""
    assert isinstance(planner, DefaultSavePlanner)
    tensors: dict[str, dict[str, list[Any]]] = {}
    values: dict[str, Any] = {}
    for item in sorted(plan.items, key=lambda item: item.index.fqn):
        name = item.index.fqn
        if item.type is WriteItemType.BYTE_IO:
            values[name] = planner.lookup_object(item.index)
            continue
        about, tensor = item.tensor_data, planner.resolve_data(item)
        assert about is not None
        assert isinstance(tensor, torch.Tensor)
        new: dict[str, list[Any]] = {"shape": list(about.size), "offsets": [], "shards": []}
        told = tensors.setdefault(name, new)
        told["offsets"].append(list(about.chunk.offsets))
        told["shards"].append(tensor.detach())
    return tensors, values


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
