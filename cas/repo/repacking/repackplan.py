"""What a repack would do: which pieces may become deltas, in which packs, and what that saves.

Nothing is left out of a pack that is replaced: the new one holds the same objects, dead ones too,
in other forms. So a repack need not know what is live but for where it looks for tensors, and what
a look-up finds stays whole. What is saved is told from a sample of each pack.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from cas.errors import ConflictError, CorruptionError, NotFoundError
from cas.ids import BlobId
from cas.progress import SILENT, Progress
from cas.repo.collect.replace import refused
from cas.repo.repacking.bases import Candidate, candidates
from cas.repo.repacking.forms import Forms, Option
from cas.repo.repacking.recode import as_delta
from cas.repo.repacking.tried import Tried
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.repo.transaction import ATTEMPTS
from cas.store.encoding import Record
from cas.store.index import Place
from cas.store.pack import PackInfo
from cas.store.packed import PackedStore
from cas.store.pinned import PinnedStore
from cas.store.pool import ordered

SAMPLES: Final = 8  # pieces of each pack that are tried for a plan
WORTH: Final = 50  # a pack is replaced when that saves at least one part in so many
ROOM: Final = 96 * 1024 * 1024  # bytes that are being encoded
COPIES: Final = 3  # of a piece that is being encoded: its bytes, those of a base, the delta


class Job(NamedTuple):
    """A piece that may become a delta; those of older commits have a smaller rank."""

    rank: int
    candidate: Candidate
    stored: int

    @property
    def piece(self) -> BlobId:
        """The piece."""
        return self.candidate.piece

    @property
    def room(self) -> int:
        """The memory that it takes: its bytes, those of a base, and the delta."""
        return COPIES * self.candidate.size

    def options(self, forms: Forms, *, smallest: bool) -> list[Option]:
        """Return the bases to try, the best first; none when it stays as it is."""
        return forms.options(self.piece, self.candidate.bases, smallest=smallest)

    def attempt(
        self, store: PackedStore, options: Sequence[Option], *, smallest: bool
    ) -> Record | None:
        """Return the piece as a delta, None when it stays as it is; for any thread."""
        element = self.candidate.element
        return as_delta(store, self.piece, element, options, thorough=smallest)


@dataclass(frozen=True, slots=True)
class Work:
    """A pack, the pieces in it that may become deltas, and how long the new one will about be."""

    pack: PackInfo
    jobs: tuple[Job, ...]
    new_bytes: int

    @property
    def saved_bytes(self) -> int:
        """What replacing it saves."""
        return self.pack.length - self.new_bytes

    @property
    def worth(self) -> bool:
        """Whether it is replaced."""
        return self.saved_bytes * WORTH >= self.pack.length


@dataclass(frozen=True, slots=True)
class RepackPlan:
    """What a repack does, decided on one root; the sizes of new packs are told from samples."""

    base: Root = field(repr=False)
    store: PinnedStore = field(repr=False)
    forms: Forms = field(repr=False)
    tried: Tried = field(repr=False)
    smallest: bool
    works: tuple[Work, ...] = ()
    idle: tuple[Work, ...] = ()

    @property
    def root(self) -> int:
        """The number of the root that this was decided on."""
        return self.base.seq

    @property
    def old_bytes(self) -> int:
        """All packs together, as they are."""
        return sum(pack.length for pack in self.base.packs)

    @property
    def saved_bytes(self) -> int:
        """What this saves, about."""
        return sum(work.saved_bytes for work in self.works)

    @property
    def pieces(self) -> int:
        """How many pieces may become deltas."""
        return sum(len(work.jobs) for work in self.works)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.works

    def give_up(self, *jobs: Job) -> None:
        """Note down that trying these pieces again will not help."""
        for job in jobs:
            self.tried.add(job.piece, job.candidate.bases, smallest=self.smallest)


def decided(
    repo: Repo, tried: Tried, *, smallest: bool = False, progress: Progress = SILENT
) -> RepackPlan:
    """Decide what to do on the newest root; change nothing.

    Raises RefusedError when something kept cannot be read.
    """
    base = repo.refresh()
    for _ in range(ATTEMPTS):
        try:
            return _on(repo, base, tried, smallest=smallest, progress=progress)
        except (CorruptionError, NotFoundError) as error:
            seen, base = base, repo.refresh()
            if base.seq == seen.seq:
                raise refused(error, "repacked") from error
    raise ConflictError("the repository")


def _on(repo: Repo, base: Root, tried: Tried, *, smallest: bool, progress: Progress) -> RepackPlan:
    store = PinnedStore(repo.backend, base.packs)
    forms = Forms(store)
    jobs: dict[bytes, list[Job]] = {}
    progress.start("look for bases")
    for rank, candidate in enumerate(candidates(repo, store, base, progress=progress)):
        place = _place(store, forms, tried, candidate, smallest=smallest)
        if place is not None:
            job = Job(rank, candidate, place.row.stored)
            jobs.setdefault(place.pack.name, []).append(job)
    progress.finish()
    packs = {pack.name: pack for pack in base.packs}
    progress.start("try samples", total=len(jobs))
    works = []
    for name, wanted in jobs.items():
        saved = _estimate(repo.store, forms, wanted, smallest=smallest)
        works.append(Work(packs[name], tuple(wanted), packs[name].length - saved))
        progress.advance()
    progress.finish()
    return RepackPlan(
        base=base,
        store=store,
        forms=forms,
        tried=tried,
        smallest=smallest,
        works=tuple(work for work in works if work.worth),
        idle=tuple(work for work in works if not work.worth),
    )


def _place(
    store: PinnedStore, forms: Forms, tried: Tried, candidate: Candidate, *, smallest: bool
) -> Place | None:
    """Return the record of a piece that may become a delta; None when it stays as it is."""
    piece, bases = candidate.piece, candidate.bases
    if tried.knows(piece, bases, smallest=smallest):
        return None
    places = store.places(piece)
    # Were there a second record, another repack would have to replace both at once: gc takes it.
    if len(places) != 1 or not forms.options(piece, bases, smallest=smallest):
        return None
    return places[0]


def _estimate(store: PackedStore, forms: Forms, jobs: Sequence[Job], *, smallest: bool) -> int:
    """Return about how many bytes these jobs save, by trying some of them."""
    # By id, which is random: every second tensor may be of another kind.
    chosen = sorted(jobs, key=lambda job: job.piece)[:SAMPLES]
    tries = (
        (
            partial(job.attempt, store, job.options(forms, smallest=smallest), smallest=smallest),
            job.room,
        )
        for job in chosen
    )
    saved = looked = 0
    for job, record in zip(chosen, ordered(tries, ROOM), strict=True):
        looked += job.stored
        saved += 0 if record is None else job.stored - record.header.stored
    return saved * sum(job.stored for job in jobs) // max(looked, 1)


def batches(works: Iterable[Work], room: int) -> Iterator[list[Work]]:
    """Yield packs that are replaced in one step: several while what is new fits in `room`."""
    batch: list[Work] = []
    for work in works:
        if batch and sum(item.new_bytes for item in batch) + work.new_bytes > room:
            yield batch
            batch = []
        batch.append(work)
    if batch:
        yield batch
