"""One step of a repack: the new packs in place of a few old ones.

Pieces are tried on all cores, those of older commits first; whatever has a base that is still
being tried waits for it. What stays as it is follows, in the order in which it stood.
"""

import os
from collections.abc import Sequence
from functools import partial

from cas.ids import BlobId
from cas.progress import Progress
from cas.repo.repacking.forms import Option
from cas.repo.repacking.repackplan import ROOM, WORTH, Job, RepackPlan, Work
from cas.repo.repo import Repo
from cas.store.encoding import Record
from cas.store.index import Place
from cas.store.pack import PackInfo
from cas.store.pool import Ordered
from cas.store.writer import ObjectWriter

Tried = tuple[Job, Record | None]


class Step:
    """Some packs, and what is written to replace them."""

    def __init__(
        self, repo: Repo, planned: RepackPlan, works: Sequence[Work], progress: Progress
    ) -> None:
        self.packs = [work.pack for work in works]
        self.writer = ObjectWriter(repo.backend, repo.store, lambda: os.urandom(16))
        self.made: dict[BlobId, int] = {}  # pieces that became deltas, and how deep
        self._repo = repo
        self._planned = planned
        self._jobs = sorted((job for work in works for job in work.jobs), key=lambda job: job.rank)
        self._progress = progress
        self._flying: set[BlobId] = set()

    def write(self) -> bool:
        """Write the new packs; return False, and remove them, when that saves too little.

        Raises CorruptionError or NotFoundError for what cannot be read.
        """
        try:
            self._try()
            for pack in self.packs:
                self._copy(pack)
            old = sum(pack.length for pack in self.packs)
            if (old - self.writer.stored) * WORTH < old:
                self._planned.give_up(*self._jobs)
                self.discard()
                return False
            self.writer.seal()
        except BaseException:
            self.discard()
            raise
        return True

    def discard(self) -> None:
        """Remove the new packs, which no root lists, and forget what was decided."""
        self.writer.discard()
        for info in self.writer.packs.values():
            self._repo.backend.delete(info.key)
        self._planned.forms.undo(self.made)

    def _try(self) -> None:
        """Write the pieces that become deltas."""
        planned = self._planned
        queue: Ordered[Tried] = Ordered(self._take, ROOM)
        try:
            for job in self._jobs:
                if not self._flying.isdisjoint(job.candidate.bases):
                    queue.settle()
                options = job.options(planned.forms, smallest=planned.smallest)
                if not options:
                    self._take((job, None))
                    continue
                for option in options:
                    planned.forms.pinned.add(option.base.id)
                self._flying.add(job.piece)
                queue.put(partial(self._tried, job, options), job.room)
            queue.settle()
        finally:
            queue.drop()

    def _tried(self, job: Job, options: Sequence[Option]) -> Tried:
        return job, job.attempt(self._repo.store, options, smallest=self._planned.smallest)

    def _take(self, result: Tried) -> None:
        job, record = result
        self._flying.discard(job.piece)
        self._progress.advance()
        if record is None:
            self._planned.give_up(job)
            return
        self.writer.copy(*record)
        self._planned.forms.decided(*record)
        self.made[job.piece] = record.header.depth

    def _copy(self, pack: PackInfo) -> None:
        """Write what else stands in a pack: of several records that of look-ups."""
        store, own = self._planned.store, {info.name for info in self.packs}
        for row in sorted(store.rows(pack), key=lambda row: row.offset):
            if row.id not in self.writer.own:
                places = [place for place in store.places(row.id) if place.pack.name in own]
                place = places[0] if places else Place(row, pack)
                self.writer.copy(*store.body(place))
