"""The run as every rank but the first has it: what it logs carries its rank, the rest is rank 0's.

The same training script runs in all processes and makes the same calls. What would only be said
again (params, inputs, checkpoints, labels) does nothing here, and costs nothing.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from cas.ids import CommitId
from cas.objects.commit import RESUMED_FROM
from cas.objects.tree import Entry
from cas.repo import place
from cas.repo.repo import Repo
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction
from cas.tracking.checkpoints.saver import Saving
from cas.tracking.checkpoints.strategy import Strategy
from cas.tracking.journals.state import RunState
from cas.tracking.live import Live
from cas.tracking.ranks import Launch
from cas.tracking.record import Items
from cas.tracking.run import Run
from cas.tracking.shown.logged import Logged

SAID_ONCE: Final = frozenset({"params", "parent", "metadata"})
TOLD_ONCE: Final = frozenset({"params.json", "parents", "metadata.json", "notes.json"})


class RankLive(Live):
    """A joined run whose metrics and objects carry the rank of this process: `loss/rank1`."""

    rank: int = 0
    _names: dict[str, str]

    @classmethod
    def of(
        cls, repo: Repo, state: RunState, launched: Launch, base: CommitId | None = None
    ) -> Self:
        """Join the run that rank 0 owns, with a journal of this process.

        `base` is the checkpoint of its own that it goes on from.
        """
        cwd = Path.cwd()
        number = f"{state.uid.hex()}-{os.getpid()}-{launched.rank}.journal"
        live = cls.join(repo, state, place.git_top(cwd) or cwd, number)
        live.rank, live._names, live.base = launched.rank, {}, base
        draft = repo.commit(repo.root.refs[state.open_ref])
        state.parents = [one for one in draft.parents if one.role == RESUMED_FROM]  # of a fork
        return live

    def note(self, frame: Mapping[str, Any]) -> None:
        """Take one frame; what rank 0 says of the run is not said again."""
        if frame["t"] == "logged":
            super().note({**frame, "key": self._named(frame["key"])})
        elif frame["t"] not in SAID_ONCE and frame.get("where") not in TOLD_ONCE:
            super().note(frame)

    def add_points(
        self,
        points: Mapping[str, object],
        step: object,
        time: float,
        epoch: object = None,
        *,
        leads: bool = True,
    ) -> int:
        """Take one point of each metric under its name with the rank; return the step."""
        named = {self._named(key): points[key] for key in points}
        return super().add_points(named, step, time, epoch, leads=leads)

    def add_logged(self, write: Callable[[Transaction], Sequence[Logged]]) -> Sequence[Logged]:
        """Store what was logged under keys with the rank."""
        return super().add_logged(
            lambda tx: [replace(row, key=self._named(row.key)) for row in write(tx)]
        )

    def add_artifact(self, path: str, write: Callable[[Transaction], Entry]) -> None:
        """Store an artifact in a folder of this rank."""
        super().add_artifact(f"rank{self.rank}/{path}", write)

    def capture(self, capture: Callable[[Transaction], Items]) -> None:
        """Do nothing: what surrounds the run is captured by rank 0."""

    def _named(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            suffix = f"/rank{self.rank}"  # what is stored has it already when it is noted down
            known = self._names[name] = name.removesuffix(suffix) + suffix
        return known


class RankRun(Run):
    """A run as a rank above 0 has it; it knows the strategy, so that all find the same due."""

    def __init__(
        self, live: Live, keep: Keep | None = None, strategy: Strategy | None = None
    ) -> None:
        super().__init__(live, keep, strategy)
        if self._strategy.on_signal:
            # Without, this process would be gone before rank 0 has reached the end of its step.
            self._emergency.install()

    def save_checkpoint(self, **parts: Any) -> Saving:
        """Take note that rank 0 saves. What is returned is done, and names no commit."""
        step, epoch, metrics = (parts.get(name) for name in ("step", "epoch", "metrics"))
        saving = Saving(step if step is not None else epoch)
        saving.end()
        if self._usable("save_checkpoint"):
            if metrics:
                self.log_metrics(metrics, saving.step)
            self._schedule.saved(step, epoch, metrics or {}, time.monotonic())
            self._emergency.saved(saving)
        return saving

    def track_dataset(self, *given: Any, **options: Any) -> CommitId | None:
        """Do nothing: rank 0 says what goes in."""
        return None

    def track_model(self, *given: Any, **options: Any) -> CommitId | None:
        """Do nothing: rank 0 says what goes in."""
        return None

    def track_tokenizer(self, *given: Any, **options: Any) -> CommitId | None:
        """Do nothing: rank 0 says what goes in."""
        return None

    def use(self, *given: Any, **options: Any) -> CommitId | None:
        """Do nothing: rank 0 says what goes in."""
        return None

    def log_model(self, *given: Any, **options: Any) -> None:
        """Do nothing: rank 0 has the model."""

    def _annotate(self, *given: Any, **options: Any) -> None:
        """Do nothing: rank 0 says what the run is about."""
