"""Checkpoints of a program whose state lies over several processes, each of which saves its own.

Every process stores its pieces and lets the draft of the run hold them; then the first one
publishes the checkpoint that names all of them. A framework says which process has what.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from cas.errors import InvalidInputError
from cas.ids import CommitId, ObjectId
from cas.objects.tree import Entry
from cas.repo.transaction import Transaction
from cas.tracking.captured import frameworks
from cas.tracking.captured.capture import as_data
from cas.tracking.checkpoints import rng, shards
from cas.tracking.checkpoints.checkpoint import Checkpoint, lacking, told_of
from cas.tracking.checkpoints.saver import Saving
from cas.tracking.checkpoints.saves import Saves
from cas.tracking.checkpoints.shards import Part, Writing
from cas.tracking.checkpoints.storing import Told
from cas.tracking.guard import guarded
from cas.tracking.measures import Scalar
from cas.tracking.outside import Outside


class Sharded(Outside, Saves):
    """The calls of a run for state that no process has whole."""

    @guarded
    def save_sharded(
        self,
        state: dict[str, Any],
        *,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        best: bool = False,
        group: Any = None,
    ) -> CommitId | None:
        """Save a checkpoint of which each process stores its own part; return its commit.

        Every process of the group (the default one) makes this call with the same names in `state`,
        as `torch.distributed.checkpoint.save` takes it: DTensors are stored in their shards, what
        all have alike once. It returns when the checkpoint is durable. Each part has the random
        generators of its process. The rest is as in `save_checkpoint`.

        Where one process fails, the call fails in all of them, and nothing is published.
        """
        saving = Saving(step if step is not None else epoch)
        sharding = frameworks.sharding()
        try:
            with self._turn:
                self._storing.settle()
                if metrics:
                    self.log_metrics(metrics, saving.step)
                given = {**state, "rng": (), "step": step, "epoch": epoch}
                details = {
                    "epoch": epoch,
                    "metrics": as_data(metrics or {}),
                    "parts": sorted(state),
                    "lacks": list(lacking(given)),
                    "sharded": True,
                }
                details |= {"best": True} if best else {}

                def publish(parts: Sequence[Part]) -> str:
                    return str(self._publish(parts, saving.step, details))

                id = CommitId(ObjectId.parse(sharding.save(state, self._hold, publish, group)))
                self._schedule.saved(step, epoch, metrics or {}, time.monotonic())
            saving.end(id)
            return id
        finally:
            if not saving.done:
                saving.end()
            self._emergency.saved(saving)

    def load_sharded(
        self,
        state: dict[str, Any],
        rev: str = "latest",
        *,
        strict: bool = True,
        restore_rng: bool = True,
        group: Any = None,
    ) -> Checkpoint:
        """Load a sharded checkpoint into `state`, in place; every process makes this call.

        The processes may be more or fewer than those that saved it, and `state` sharded in another
        way: each reads what it needs. With `strict=False` names that the checkpoint lacks stay as
        they are. The random generators are restored where as many processes as saved it load it.
        `rev` is what the first process makes of it, as in `load_checkpoint`.

        Raises NotFoundError when there is no such checkpoint, and TrackingError in every process
        when one of them could not load its part.
        """
        sharding = frameworks.sharding()
        id = CommitId(ObjectId.parse(sharding.agreed(lambda: str(self._checkpoint(rev)), group)))
        number, count = sharding.place(group)
        saved_by = sharding.load(state, self.repo, id, strict=strict, group=group)
        if restore_rng and saved_by == count:
            found = shards.rng_of(self.repo, self.repo.commit(id), number)
            rng.restore(found, frameworks.loaded())
        return told_of(self.repo, id, state)

    def _hold(self, number: int, tensors: object, values: object) -> Part:
        """Store what this process has of a checkpoint, and let the draft hold it."""
        given = Writing(tensors, values, rng.capture(frameworks.loaded()))
        entry, stored = self._live.hold_part(shards.path_of(number), given)
        return Part(number, bytes(entry.id), entry.size, stored)

    def _publish(
        self, parts: Sequence[Part], step: int | None, details: Mapping[str, Any]
    ) -> CommitId:
        """Commit the checkpoint that all processes have stored their parts of."""
        if self.rank:
            raise InvalidInputError(
                f"process 0 of the group is rank {self.rank} of run {self.name}: "
                "torch.distributed must count the processes as their launcher does"
            )

        def write(tx: Transaction) -> Entry:
            draft = tx.ref(self._live.state.open_ref)
            return shards.joined(tx, None if draft is None else self.repo.commit(draft), parts)

        told = Told(self._live.moment("running", step), details, self._live.now())
        return self._storing.name(write, told, sum(part.stored for part in parts))
