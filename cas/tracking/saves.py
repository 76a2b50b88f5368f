"""The checkpoints of an open run: saving, loading, and what its policy keeps of them."""

from collections.abc import Mapping

from cas.errors import NotFoundError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, RESUMED_FROM
from cas.objects.tree import Entry
from cas.repo.choice import choose, segment
from cas.repo.retention import Keep
from cas.repo.transaction import Transaction
from cas.tracking.capture import as_data
from cas.tracking.checkpoint import Checkpoint, checkpoint_at, gather, load, restore, write_state
from cas.tracking.guard import guarded
from cas.tracking.live import Live
from cas.tracking.logs import Logs, Scalar
from cas.tracking.retain import Retention
from cas.tracking.start import say


class Saves(Logs):
    """The checkpoint calls of a run; the metrics of a checkpoint are logged too."""

    def __init__(self, live: Live, keep: Keep | None) -> None:
        super().__init__(live)
        self._retention = None if keep is None else Retention(live.repo, keep, say)

    @guarded
    def save_checkpoint(
        self,
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        extra: object = None,
    ) -> CommitId:
        """Commit a checkpoint, durably, with all random generator states; return its commit.

        Parts are objects with `state_dict()` or plain state; `metrics` are recorded at this step
        too and say how good the checkpoint is.
        """
        at = step if step is not None else epoch
        if metrics:
            self.log_metrics(metrics, at)  # a wrong number costs the number, not the checkpoint
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "extra": extra}
        state = gather(parts, step, epoch)

        def write(tx: Transaction) -> Entry:
            return write_state(tx.writer, state)

        details = {"epoch": epoch, "metrics": as_data(metrics or {}), "parts": sorted(state)}
        id = self._live.checkpoint(write, self._live.moment("running", at), details)
        self._retain()
        return id

    def load_checkpoint(
        self,
        rev: str = "latest",
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        restore_rng: bool = True,
    ) -> Checkpoint:
        """Load a checkpoint into the parts given, and the random generators; return all of it.

        `rev` is "latest" or "best" of this run (of a fork without checkpoints: what it was forked
        from) or any revision. Raises NotFoundError when there is none.
        """
        loaded = load(self.repo, self._checkpoint(rev))
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        restore(loaded, parts, with_rng=restore_rng)
        return loaded

    def _retain(self) -> None:
        """Let the run's policy look at what has been saved."""
        policy, state = self._retention, self._live.state
        if policy is not None:
            self._live.between(lambda: policy.saved(state.run, state.ref))

    def _checkpoint(self, rev: str) -> CommitId:
        if rev not in {"latest", "best"}:
            return checkpoint_at(self.repo, rev)
        tip = self.repo.refresh().refs.get(self._live.state.ref)
        if tip is not None and any(
            commit.kind == CHECKPOINT for _, commit in segment(self.repo.commit, tip)
        ):
            return choose(self.repo, [tip], rev, rev)
        for parent in self._live.state.parents:
            if parent.role == RESUMED_FROM:
                return parent.commit
        raise NotFoundError("checkpoint", f"of run {self.name}", "none has been saved")
