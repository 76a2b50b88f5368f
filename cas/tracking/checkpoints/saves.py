"""The checkpoints of an open run: when they are due, saving them, finding and loading them.

A save copies the state and returns; see `storing` for what becomes of it.
"""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import NotFoundError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, RESUMED_FROM
from cas.objects.pystate import flatten
from cas.repo.retain.choice import choose, segment
from cas.repo.retain.retention import Keep
from cas.tracking.captured import frameworks
from cas.tracking.captured.capture import as_data
from cas.tracking.checkpoints.checkpoint import (
    Checkpoint,
    checkpoint_at,
    gather,
    lacking,
    restore,
)
from cas.tracking.checkpoints.emergency import Emergency
from cas.tracking.checkpoints.saver import Saving
from cas.tracking.checkpoints.storing import Storing, Told
from cas.tracking.checkpoints.strategy import Schedule, Strategy
from cas.tracking.checkpoints.whole import load
from cas.tracking.live import Live
from cas.tracking.logs import Logs
from cas.tracking.measures import Scalar
from cas.tracking.start import say

SAVE: Final = "save_checkpoint"
BLIND: Final = 200  # times that a strategy is asked without what it goes by, until that is told
PARTS: Final = ("model", "optimizer", "scheduler", "scaler", "data", "extra")


class Saves(Logs):
    """The checkpoint calls of a run; the metrics of a checkpoint are logged too."""

    def __init__(self, live: Live, keep: Keep | None, strategy: Strategy | None = None) -> None:
        super().__init__(live)
        said = self._strategy = strategy or Strategy()
        monitor, mode = live.state.chosen
        live.state.chosen = (said.monitor or monitor, said.mode or mode)
        self._schedule = Schedule(said, time.monotonic(), mode)
        self._storing = Storing(
            live,
            said,
            keep if keep is not None else said.keep,
            failed=lambda error: self._late.append((SAVE, error)),
            alert=self.alert,
        )
        self._emergency = Emergency(self._storing.settle, self._die)
        self._parts: dict[str, object] = {}
        self._newest: dict[str, object] = {}  # the parts of the newest checkpoint
        self._turn = threading.RLock()
        if live.base is not None:
            self._go_on(live.base)

    @property
    def resumed(self) -> CommitId | None:
        """The checkpoint that this run goes on from, where it broke off; None for a new run."""
        return self._live.base

    def register(
        self,
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        scaler: object = None,
        data: object = None,
        extra: object = None,
    ) -> None:
        """Name parts of every checkpoint from here on, as `save_checkpoint` takes them.

        What a strategy saves by itself, after an exception, is made of these, or else of those of
        the newest checkpoint.
        """
        self._parts |= _given(model, optimizer, scheduler, scaler, data, extra)

    def should_save(
        self,
        step: int | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        *,
        epoch: int | None = None,
    ) -> bool:
        """Say whether the run's strategy wants a checkpoint here, between two steps.

        It also does after a signal, and once a rule of the watch has asked for one. What is said
        to be due counts as saved. Of `metrics` the one that the strategy monitors is looked at;
        where it is not among them, its value is the one that was logged last.
        """
        if not self._usable("should_save"):
            return False
        asked = self.should_checkpoint or self._emergency.is_pending
        due = self._kept("should_save", lambda: self._is_due(step, epoch, metrics or {}))
        return asked or bool(due)

    def save_checkpoint(
        self,
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        scaler: object = None,
        data: object = None,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        extra: object = None,
        wait: bool | None = None,
        best: bool = False,
    ) -> Saving:
        """Save a checkpoint with all random generator states; it is stored behind the caller.

        Parts are objects with `state_dict()` or plain state; what is not given is as registered.
        `data` is what feeds the loop and knows its position: a stateful sampler or loader.
        `metrics` are recorded at this step too and say how good the checkpoint is; with `best` it
        counts as the best, whatever they say.

        What the parts are as this returns is what is stored, whatever becomes of them. `commit` of
        what is returned waits until it is durable; with `wait`, this call does.
        """
        given = _given(model, optimizer, scheduler, scaler, data, extra)
        saving = Saving(step if step is not None else epoch)
        if not self._usable(SAVE):
            saving.end()
            return saving
        said = _Said(step, epoch, metrics or {}, best)
        now = self._strategy.wait if wait is None else wait
        self._newest = self._parts | given
        taken = None
        try:
            with self._turn:  # points and checkpoints stand in one order
                taken = self._kept(SAVE, lambda: self._save(saving, said, wait=now))
        finally:
            if taken is None:
                saving.end()
            self._catch_up()
            self._emergency.saved(saving)
        return saving

    def latest(self) -> CommitId | None:
        """Return the newest checkpoint of this run, None without any; waits for what is saved."""
        own = self._own()
        return choose(self.repo, own[:1], "latest", "latest") if own else None

    def best(self) -> CommitId | None:
        """Return the best checkpoint of this run, None without any; waits for what is saved.

        That is the newest one that was saved with `best=True`, or else the best by the monitor.
        Raises NotFoundError where there are some, but no metric was logged that tells.
        """
        own = self._own()
        return choose(self.repo, own[:1], "best", "best") if own else None

    def load_checkpoint(
        self,
        rev: str = "latest",
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        scaler: object = None,
        data: object = None,
        restore_rng: bool = True,
        strict: bool = True,
        map_location: object = None,
    ) -> Checkpoint:
        """Load a checkpoint into the parts given, and the random generators; return all of it.

        `rev` is "latest" or "best" of this run (of a fork without checkpoints: what it was forked
        from) or any revision. With `strict=False` a part takes what fits and keeps the rest as it
        is; `reports` of what is returned says of each part what was missing, unexpected, of another
        shape or dtype. `map_location` is a device for the tensors of `state`, or a map from devices
        to devices. Raises NotFoundError when there is no such checkpoint.
        """
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        parts |= {"scaler": scaler, "data": data}
        loaded = load(self.repo, self._checkpoint(rev), device=map_location)
        return restore(loaded, parts, with_rng=restore_rng, strict=strict)

    def _is_due(self, step: int | None, epoch: int | None, metrics: Mapping[str, Scalar]) -> bool:
        due = self._schedule.due(step, epoch, self._monitored(metrics), time.monotonic())
        if self._schedule.blind == BLIND:
            self._schedule.blind += 1
            say(f"no {self._schedule.wanted} so far, logged or given to should_save: none is saved")
        return due

    def _monitored(self, metrics: Mapping[str, Scalar]) -> Mapping[str, Any]:
        """Return these metrics with the one that says what is best, as it was last logged."""
        name = self._schedule.wanted
        if name is None or name in metrics:
            return metrics
        whole = self._live.state.metrics.whole(name)
        return metrics if whole is None else {**metrics, name: whole.last}

    def _save(self, saving: Saving, said: "_Said", *, wait: bool) -> bool:
        """Have the state stored as it is now."""
        if said.metrics:
            self.log_metrics(said.metrics, saving.step)  # a wrong number costs it, not the save
        state = gather(self._newest, said.step, said.epoch)
        flat = flatten(state, frameworks.adapters())
        known = self._monitored(said.metrics)
        self._schedule.saved(said.step, said.epoch, known, time.monotonic())
        details = {
            "epoch": said.epoch,
            "metrics": as_data(said.metrics),
            "parts": sorted(state),
            "lacks": list(lacking(state)),
        }
        details |= {"best": True} if said.best else {}

        def told() -> Told:
            return Told(self._live.moment("running", saving.step), details, self._live.now())

        self._storing.put(saving, flat, told, wait=wait)
        return True

    def _go_on(self, base: CommitId) -> None:
        """Count a checkpoint as saved that an earlier process of this run has saved."""
        commit = self.repo.commit(base)
        about = self.repo.document(commit.tree, "checkpoint.json")
        told = about if isinstance(about, dict) else {}
        summary = self.repo.document(commit.tree, "summary.json")
        name = self._strategy.monitor or ""
        whole = summary.get(name, {}) if isinstance(summary, dict) else {}
        best = {name: whole.get(self._schedule.mode)}
        self._schedule.saved(commit.step, told.get("epoch"), best, time.monotonic())

    def _save_last(self) -> None:
        """Save once more as the run ends by an exception, if its strategy says so."""
        parts = self._parts or self._newest
        if self._strategy.on_exception and parts and not self._ended:
            step = self._live.state.metrics.last_step
            self._parts = parts
            self.save_checkpoint(step=step if step >= 0 else None, wait=True)

    def _die(self, why: str) -> None:
        raise NotImplementedError

    def _own(self) -> list[CommitId]:
        """Return the checkpoints of this run, newest first, when those under way are there."""
        if os.getpid() == self._pid:  # in a forked child nobody is at work on them
            self._storing.settle()
        tip = self.repo.refresh().refs.get(self._live.state.ref)
        found = segment(self.repo.commit, tip) if tip is not None else ()
        return [id for id, commit in found if commit.kind == CHECKPOINT]

    def _checkpoint(self, rev: str) -> CommitId:
        if rev not in {"latest", "best"}:
            return checkpoint_at(self.repo, rev)
        found = self.latest() if rev == "latest" else self.best()
        if found is not None:
            return found
        for parent in self._live.state.parents:
            if parent.role == RESUMED_FROM:
                return parent.commit
        raise NotFoundError("checkpoint", f"of run {self.name}", "none has been saved")


def _given(*parts: object) -> dict[str, object]:
    """Return the parts that were given, by their names."""
    return {name: part for name, part in zip(PARTS, parts, strict=True) if part is not None}


@dataclass(frozen=True, slots=True)
class _Said:
    """What a caller says of a checkpoint."""

    step: int | None
    epoch: int | None
    metrics: Mapping[str, Scalar]
    best: bool
