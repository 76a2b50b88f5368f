"""Repack: store tensors as deltas against those they came from, and give back the space.

Plan, show, execute. Packs are replaced in small steps, in the order of the commits: each step
writes new packs that hold the same objects as the old ones, publishes them in a root that condemns
the old ones, deletes these and clears the list, as gc does. So at no time is much more on disk than
before, and a repack may stop anywhere. A base is settled before a delta is taken against it, and
its form is not changed again: depths only grow from it.
Format: docs/format/ordering.md.
"""

from dataclasses import dataclass, replace
from typing import Final

from cas.errors import ConflictError, CorruptionError, NotFoundError
from cas.progress import SILENT, Progress
from cas.repo.collect.replace import refused, swap, sweep
from cas.repo.layout import SESSIONS
from cas.repo.repacking.forms import deltas
from cas.repo.repacking.repackplan import RepackPlan, batches, decided
from cas.repo.repacking.repackstep import Step
from cas.repo.repacking.tried import Tried
from cas.repo.repo import Repo
from cas.repo.root import Operation, Root
from cas.repo.session import Session
from cas.repo.transaction import ATTEMPTS, begun, lost
from cas.store.pinned import PinnedStore
from cas.store.writer import PACK_LIMIT

WHAT: Final = "repack"
PART: Final = 16  # several packs are replaced in one step while they are this part of all


@dataclass(frozen=True, slots=True)
class Repacked:
    """What a repack did; sizes are those of all listed packs, `most_bytes` of all that there were.

    `skipped_packs` were left as they are because replacing them takes more room than was allowed.
    """

    steps: int = 0
    deltas: int = 0
    replaced_packs: int = 0
    skipped_packs: int = 0
    old_bytes: int = 0
    new_bytes: int = 0
    most_bytes: int = 0


def plan(repo: Repo, *, smallest: bool = False, progress: Progress = SILENT) -> RepackPlan:
    """Decide what a repack would do now; change nothing.

    With `smallest` a piece may take up to eight others to read, whatever that costs. Raises
    RefusedError when something kept cannot be read.
    """
    return decided(repo, Tried.read(repo.path, ops=repo.ops), smallest=smallest, progress=progress)


def execute(
    repo: Repo, planned: RepackPlan, *, max_extra: int | None = None, progress: Progress = SILENT
) -> Repacked:
    """Do what a plan says, or what the newest root asks for instead; return what was done.

    No step takes more than `max_extra` bytes of new packs before it gives back the old ones. Raises
    RefusedError, and ConflictError when others keep changing what this works on.
    """
    operation = begun(repo, WHAT)
    with Session.open(repo.path / SESSIONS, operation.id.hex(), WHAT, ops=repo.ops):
        return _Repack(repo, operation, max_extra, progress).run(planned)


class _MovedError(Exception):
    """The root has moved so that the plan does not hold any more."""


class _Repack:
    """One repack at work."""

    def __init__(
        self, repo: Repo, operation: Operation, max_extra: int | None, progress: Progress
    ) -> None:
        self._repo = repo
        self._operation = operation
        self._max_extra = max_extra
        self._progress = progress
        self._done = Repacked()
        self._known: set[bytes] = set()  # packs that the plan and its steps so far count on

    def run(self, planned: RepackPlan) -> Repacked:
        """Carry out a plan, or those that follow it when others get in between."""
        self._done = Repacked(old_bytes=planned.old_bytes, most_bytes=planned.old_bytes)
        for _ in range(ATTEMPTS):
            try:
                self._carry_out(planned)
            except _MovedError:
                planned = decided(self._repo, planned.tried, smallest=planned.smallest)
                continue
            finally:
                planned.tried.write()
            new = sum(pack.length for pack in self._repo.refresh().packs)
            return replace(self._done, new_bytes=new)
        raise ConflictError("the repository")

    def _carry_out(self, planned: RepackPlan) -> None:
        for work in planned.idle:
            planned.give_up(*work.jobs)
        self._known = {pack.name for pack in planned.base.packs}
        self._done = replace(self._done, skipped_packs=0)
        room = min(planned.old_bytes // PART, PACK_LIMIT)
        if self._max_extra is not None:
            room = min(room, self._max_extra)
        self._progress.start("repack", total=planned.pieces)
        for works in batches(planned.works, room):
            if self._max_extra is not None and works[0].new_bytes > self._max_extra:
                skipped = self._done.skipped_packs + len(works)
                self._done = replace(self._done, skipped_packs=skipped)
            else:
                self._step(Step(self._repo, planned, works, self._progress))
        self._progress.finish()

    def _step(self, step: Step) -> None:
        try:
            if not step.write():
                return
        except (CorruptionError, NotFoundError) as error:
            if not self._stands(self._repo.refresh()):
                raise _MovedError from error
            raise refused(error, "repacked") from error
        self._publish(step)

    def _publish(self, step: Step) -> None:
        """List the new packs and let go of the old ones; raise _MovedError when that may not be."""
        repo, coming = self._repo, list(step.writer.packs.values())
        for _ in range(ATTEMPTS):
            base = repo.refresh()
            if not self._agrees(base, step):
                step.discard()
                raise _MovedError
            after = swap(repo, base, self._operation, step.packs, coming)
            if after is not None:
                break
        else:
            raise ConflictError("the repository")
        on_disk = sum(pack.length for pack in (*base.packs, *base.condemned, *coming))
        sweep(repo, after, self._operation, SILENT)
        gone, new = ({pack.name for pack in packs} for packs in (step.packs, coming))
        self._known = self._known - gone | new
        self._done = replace(
            self._done,
            steps=self._done.steps + 1,
            deltas=self._done.deltas + len(step.made),
            replaced_packs=self._done.replaced_packs + len(step.packs),
            most_bytes=max(self._done.most_bytes, on_disk),
        )

    def _stands(self, base: Root) -> bool:
        """Say whether nothing was taken off the list that the plan counts on."""
        return self._known <= {pack.name for pack in base.packs}

    def _agrees(self, base: Root, step: Step) -> bool:
        """Say whether a step may be listed after this root.

        What came since the plan may hold deltas whose bases are to become as deep as they are,
        also when it came before an earlier step.
        """
        if not self._stands(base) or lost(self._repo, base, step.writer):
            return False
        came = [pack for pack in base.packs if pack.name not in self._known]
        store = PinnedStore(self._repo.backend, came)
        return all(place.row.depth > step.made.get(id, -1) for place, id in deltas(store))
