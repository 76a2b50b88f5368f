"""The policy of an open run: what it keeps of its own checkpoints while it goes on.

After each checkpoint the run drops the holds that its policy lets go of, and collects, so that its
use of the disk stays flat. Whatever fails here is told once and ends nothing: the checkpoint is
committed, and `cas prune` can do the same later.

A collection looks at the whole repository. So it is paced by what the last one took: it costs a
loop a small part of its time, and what waits for it stays bounded all the same.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.errors import CasError, ConflictError, CorruptionError, NotFoundError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, Commit
from cas.plain import human_bytes
from cas.repo import config, layout
from cas.repo.repo import Repo
from cas.repo.retain import retention, spared
from cas.repo.retain.budget import fit, measure
from cas.repo.retain.choice import previous, segment
from cas.repo.retain.retention import Checkpoint, Keep
from cas.repo.transaction import Transaction, transact

if TYPE_CHECKING:
    from cas.repo.collect.gcplan import GcPlan

NEWEST: Final = ("newest of an unfinished run",)
# A collection that takes no longer is never put off. Others take one part of the time in so many,
# in fewer when as much waits to be freed as is kept; when a heap of it waits, there is no choice.
AT_ONCE: Final = 0.2
SHARE: Final = 20
RUSH: Final = 4
HEAP: Final = 4
PATIENCE: Final = 10.0  # seconds that the end of a run may be held up
COPIES: Final = 64 * 1024**2  # bytes that it copies beside what the run itself has stored

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of the last collection: what it took, and when it ended, in seconds."""

    took: float = 0.0
    ended: float = 0.0

    def due(self, now: float, *, dead: int, kept: int) -> bool:
        """Say whether to collect now that so many bytes wait for it and so many are kept."""
        share = RUSH if dead >= kept else SHARE
        rested = now - self.ended >= share * self.took
        return dead > 0 and (rested or self.took <= AT_ONCE or dead >= HEAP * kept)


def of_config(repo: Repo, tell: Tell) -> Keep | None:
    """Return the policy that the config gives to runs; what makes no sense is told, and gives none.

    No run fails because of it, and none lets go of what somebody may have wanted to keep.
    """
    try:
        return config.policy(repo, of_runs=True)
    except (CasError, OSError) as error:
        tell(f"warning: this run keeps every checkpoint: {error}")
        return None


class Retention:
    """A policy at work on one run."""

    def __init__(
        self, repo: Repo, keep: Keep, tell: Tell, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._repo = repo
        self._keep = keep
        self._tell = tell
        self._clock = clock
        self._before = dict(repo.root.refs)  # nothing of then was made from what comes
        self._tips = frozenset(self._before.values())
        self._read: set[CommitId] = set()  # of what came since, looked at for what it needs
        self._citing: dict[CommitId, list[Commit]] = {}
        self._run: tuple[str, str] | None = None
        self._own: dict[CommitId, Commit] = {}
        self._held: dict[CommitId, Checkpoint] = {}
        self._dead = 0
        self._pace = Pace()
        self._told = False

    def saved(self, run: str, ref: str) -> None:
        """Apply the policy now that the run at `ref` has a new checkpoint; never raises."""
        try:
            self._look(run, ref)
            gone = self._let_go()
            self._dead += sum(self._held.pop(id).stored_bytes for id in gone)
            kept = sum(item.stored_bytes for item in self._held.values())
            if self._pace.due(self._clock(), dead=self._dead, kept=kept):
                self._collect(kept)
        except ConflictError:
            pass  # others were faster: the next checkpoint tries again
        except Exception as error:
            self._warn(f"what its policy lets go of stays for now: {error}")

    def make_room(self, run: str, ref: str) -> None:
        """Apply the policy and collect at once: the disk is full. Raises what goes wrong."""
        if ref in self._repo.refresh().refs:
            self._look(run, ref)
            for id in self._let_go():
                self._dead += self._held.pop(id).stored_bytes
        self._collect(2**62)  # whatever has to be copied for it

    def ended(self) -> None:
        """Free what still waits for it, now that the run has ended; never raises."""
        try:
            if self._dead and self._pace.took <= PATIENCE:
                self._collect(sum(item.stored_bytes for item in self._held.values()))
        except (ConflictError, RuntimeError):
            pass  # the next `cas gc` frees it: while the interpreter ends, no thread can be started
        except Exception as error:
            self._warn(f"`cas gc` could not be run: {error}")

    def _look(self, run: str, ref: str) -> None:
        """Take up the run's newest checkpoint; of another run than before, all that it has."""
        repo = self._repo
        if self._run != (run, ref):
            self._run, self._own, self._held = (run, ref), {}, {}
            if ref in self._before:  # another process of this run has saved some already
                self._survey()
        for id, commit in segment(repo.commit, repo.refresh().refs[ref]):
            if id in self._own:
                break
            self._own[id] = commit
            if commit.kind == CHECKPOINT:
                self._held[id] = spared.checkpoint(repo, id, commit, self._keep)

    def _let_go(self) -> tuple[CommitId, ...]:
        """Drop the holds that the policy lets go of; return the commits."""
        if not self._going(self._repo.root.refs):
            return ()  # most checkpoints of a rule such as `every` ask for no operation

        def build(tx: Transaction) -> tuple[CommitId, ...]:
            # Any ref that comes meanwhile may be a reason to keep what would go.
            tx.on_this_root = True
            going = self._going(tx.root.refs)
            for id in going:
                tx.set_ref(f"{layout.HOLDS}{id}", None)
            return going

        run, _ = self._run or ("", "")
        return transact(self._repo, f"retention {run}", build, run=run)

    def _going(self, refs: Mapping[str, CommitId]) -> tuple[CommitId, ...]:
        items = [item for id, item in self._held.items() if f"{layout.HOLDS}{id}" in refs]
        if not items:
            return ()
        needs = self._spared(refs)
        spared.join(needs, {max(items, key=lambda item: item.seq).commit: NEWEST})
        spared.join(needs, spared.best(items))
        decisions = retention.plan(items, self._keep, needs, now=self._repo.clock())
        limit = self._keep.budget_bytes
        if limit is not None:
            decisions, _ = fit(decisions, limit, measure(self._repo), needs, word=self._keep.budget)
        return tuple(item.checkpoint.commit for item in decisions if not item.keep)

    def _spared(self, refs: Mapping[str, CommitId]) -> spared.Spared:
        """Return what names and other commits need of this run.

        What needs it came after it: only refs that have moved since this run began are looked at,
        and of what they lead to only what came before in the same run or branch.
        """
        before = self._before
        came = {ref: id for ref, id in refs.items() if before.get(ref) != id}
        for ref, id in came.items():
            if not ref.startswith(layout.HOLDS):
                self._note(id)
        needs = spared.named(came)
        for id in self._own:
            for commit in self._citing.get(id, ()):
                spared.join(needs, spared.cited(commit, self._own.get))
        return needs

    def _note(self, tip: CommitId) -> None:
        """Take down what a commit, and what came before it, was made from."""
        at: CommitId | None = tip
        while at is not None and at not in self._read and at not in self._tips:
            commit = self._repo.commit(at)
            self._read.add(at)
            self._cite(commit)
            at = previous(commit)

    def _survey(self) -> None:
        """Take down what all commits were made from, and count every name as one that came."""
        for commit in spared.survey(self._repo, self._before).commits.values():
            self._cite(commit)
        self._before = {}

    def _cite(self, commit: Commit) -> None:
        for parent in commit.parents:
            if parent.role not in spared.NO_NEED:
                self._citing.setdefault(parent.commit, []).append(commit)

    def _collect(self, kept: int) -> None:
        """Give back the space of what went; with it goes what others let go of, if not much."""
        from cas.repo.collect import (
            gc,  # no run waits for it to be loaded, with NumPy, at its start
        )

        begun = self._clock()
        try:
            planned = gc.plan(self._repo)
            if planned.new_bytes > COPIES + kept + self._dead:
                self._warn(
                    f"{human_bytes(planned.new_bytes)} would have to be copied to free "
                    f"{human_bytes(planned.freed_bytes)}: run `cas gc`"
                )
                return
            if not planned.empty:
                self._execute(planned)
            self._dead = 0
        finally:
            ended = self._clock()
            self._pace = Pace(ended - begun, ended)

    def _execute(self, planned: "GcPlan") -> None:
        """Carry out a plan; raise ConflictError where another collection has been at the same."""
        from cas.repo.collect import gc

        try:
            gc.execute(self._repo, planned, run=self._run[0] if self._run else "")
        except (CorruptionError, NotFoundError) as error:
            if self._repo.refresh().seq == planned.root:
                raise
            raise ConflictError("the repository") from error

    def _warn(self, text: str) -> None:
        if not self._told:
            self._told = True
            self._tell(f"warning: retention: {text}")
