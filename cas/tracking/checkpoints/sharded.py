"""Checkpoints of a program whose state lies over several processes, each of which saves its own.

Every process copies its pieces, stores them behind the loop and lets the draft of the run hold
them; then the first one publishes the checkpoint that names all of them. A framework says which
process has what.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cas.ids import CommitId, ObjectId
from cas.tracking.captured import frameworks
from cas.tracking.captured.capture import as_data
from cas.tracking.checkpoints import rng, shards
from cas.tracking.checkpoints.checkpoint import Checkpoint, lacking, told_of
from cas.tracking.checkpoints.parts import PATHS, RNG, TENSORS, VALUES
from cas.tracking.checkpoints.saver import Saving
from cas.tracking.checkpoints.saves import Saves
from cas.tracking.checkpoints.storing import Told
from cas.tracking.checkpoints.together import Offer, Taken, Terms, Together
from cas.tracking.measures import Scalar
from cas.tracking.outside import Outside

SAVE = "save_sharded"


class Sharded(Outside, Saves):
    """The calls of a run for state that no process has whole."""

    _together: Together | None = None

    def save_sharded(
        self,
        state: dict[str, Any],
        *,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        wait: bool | None = None,
        best: bool = False,
        group: Any = None,
    ) -> Saving:
        """Save a checkpoint of which each process stores its own part, behind the caller.

        Every process of the group (the default one) makes this call with the same names in `state`,
        as `torch.distributed.checkpoint.save` takes it: DTensors are stored in their shards, what
        all have alike once. Each part has the random generators of its process. What the state is
        as this returns is what is stored; `commit` of what is returned waits until the checkpoint
        is durable, and is the same in all processes. The rest is as in `save_checkpoint`.

        Where one process fails, the save fails in all of them, and nothing is published.
        """
        saving = Saving(step if step is not None else epoch)
        if not self._usable(SAVE):
            saving.end()
            return saving
        now = self._strategy.wait if wait is None else wait
        said = {"step": step, "epoch": epoch, "metrics": metrics or {}, "best": best}
        taken = None
        try:
            with self._turn:
                taken = self._kept(SAVE, lambda: self._begin(state, saving, said, group, wait=now))
        finally:
            if not taken:  # it failed, or was left out
                saving.end()
            self._catch_up()
            self._emergency.saved(saving)
        return saving

    def should_save(
        self,
        step: int | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        *,
        epoch: int | None = None,
        together: bool = False,
        group: Any = None,
    ) -> bool:
        """Say whether the run's strategy wants a checkpoint here, between two steps.

        It also does after a signal, and once a rule of the watch has asked for one. What is said
        to be due counts as saved.

        By steps and epochs all processes of a launch find the same. The clock, a signal and metrics
        of their own may reach one before another: with `together` every process of the group makes
        this call, and all get what the first one finds.
        """
        found = super().should_save(step, metrics, epoch=epoch)
        if not together:
            return found
        said = self._kept(
            "should_save", lambda: frameworks.sharding().agreed(lambda: str(found), group)
        )
        return said == str(True)

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
        `rev` is what the first process makes of it, as in `load_checkpoint`, which reads the same
        checkpoint whole.

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

    def _begin(
        self,
        state: dict[str, Any],
        saving: Saving,
        said: Mapping[str, Any],
        group: Any,
        *,
        wait: bool,
    ) -> bool:
        """Take what this process has, and have it stored; say whether there is anything to."""
        if self._together is None:
            self._together = Together(self._live, self._storing, lambda: self.rank)
            self._storing.share(self._sharers)
        if said["metrics"]:
            self.log_metrics(said["metrics"], saving.step)
        taker = _Taker(self._together, saving, wait=wait)
        try:
            agreed = frameworks.sharding().save(state, taker, group)
        except BaseException:
            self._together.give_up(taker.taken, taker.terms)
            raise
        self._schedule.saved(said["step"], said["epoch"], said["metrics"], time.monotonic())
        taken = taker.taken
        if agreed is None or taken is None:
            return False
        told = partial(self._described, sorted(state), saving.step, said)
        self._together.start(taken, told, saving)
        return True

    def _described(self, names: Sequence[str], step: int | None, said: Mapping[str, Any]) -> Told:
        """Return what the checkpoint says beside its state."""
        given = {**dict.fromkeys(names), "rng": (), "step": said["step"], "epoch": said["epoch"]}
        details = {
            "epoch": said["epoch"],
            "metrics": as_data(said["metrics"]),
            "parts": list(names),
            "lacks": list(lacking(given)),
            "sharded": True,
        }
        details |= {"best": True} if said["best"] else {}
        return Told(self._live.moment("running", step), details, self._live.now())


@dataclass
class _Taker:
    """One save, as the framework asks for what it takes."""

    together: Together
    saving: Saving
    wait: bool
    taken: Taken | None = None
    terms: Terms | None = None

    def offer(self, size: int) -> Offer:
        return self.together.offer(size)

    def agree(self, offers: Sequence[Offer], size: int) -> Terms | None:
        self.terms = self.together.agree(offers, size)
        return self.terms

    def take(self, terms: Terms, number: int, states: Any) -> None:
        values = {TENSORS: states.tensors, VALUES: states.values, PATHS: states.paths}
        values[RNG] = rng.capture(frameworks.loaded())
        self.taken = self.together.take(terms, number, values, self.saving, wait=self.wait)
