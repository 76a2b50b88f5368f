"""A model of how packs and roots are written, collected and read: what a state is and promises.

Writers, collectors, repacks, a pruner, an undo and a reader share one root and one folder of pack
files. Each takes one small step at a time (`steps.py`, `collecting.py`), and most may stop between
any two; `explore.py` visits every state that some interleaving can reach and looks for what is
`lost`. A state is small and frozen, every step a pure function, and every rule that a step obeys is
a boolean of `Guards`, so that the tests can take out one at a time and see what is lost.

What is left out, and why that hides nothing:

- A root's number is modelled by what it decides: `fresh` says that nobody has published since the
  actor read. Publishing is create-only, so it succeeds exactly while the actor is fresh.
- A collector lists the files, marks and writes replacements in one step: a root that is published
  in between makes it stale, as one does that is published just after, and a file that appears in
  between is one that it did not see. Whether it sweeps unlisted files of others or spares them as
  those of live sessions is a field.
- A collector does not rewrite data packs: to replace one is the step that is modelled for metadata
  packs. A repack does.
- What a repack does after its root is what a collector does, and it is modelled as one.

Format: docs/format/ordering.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

Objects = frozenset[str]

# What trees name, and the payload that a hold keeps of a commit. C, D and S are what writers add.
NAMES = {"T": "XY", "U": "", "G": "H"}
PAYLOAD = {"L": "K", "O": "T", "E": "U", "C": "T", "D": "T", "S": "U"}
BLOBS = frozenset("BHJKXY")


@dataclass(frozen=True, slots=True)
class Guards:
    """The rules of the protocol; a step asks its guard before it takes the safe way."""

    create_only: bool = True
    """Publishing fails when the number is taken: writer (4), gc (2)."""
    recheck_hits: bool = True
    """At each attempt, what a writer relies on is looked up again in R: writer (2)."""
    own_pack_not_condemned: bool = True
    """A writer's own pack that R condemns is written again: writer (3)."""
    own_pack_exists: bool = True
    """A writer's own pack whose file is gone is written again: writer (3)."""
    own_packs_whole: bool = True
    """A writer lists no own pack that names what is neither own nor listed: writer (2)."""
    read_before_stat: bool = True
    """R is read before own files are looked for: the order of writer (1) and (3)."""
    sync_before_publish: bool = True
    """Packs are synced before a root lists them: order of writes."""
    fresh_names: bool = True
    """A pack's name is random, never derived from content and never used again: packs."""
    hold_needs_payload: bool = True
    """A hold is added only while the payload's tree is in a listed pack: design section 4."""
    rewrite_half_dead_metadata: bool = True
    """A metadata pack that holds a dead object is replaced: gc (1)."""
    live_deltas_keep_bases: bool = True
    """The base of a live delta counts as live: gc (1)."""
    dead_deltas_keep_bases: bool = True
    """So does that of a dead delta in a pack that stays listed: gc (1), packs name their bases."""
    remark_after_lost_race: bool = True
    """When R moved, packs in which something came alive leave the plan: gc (2)."""
    kept_metadata_counts_as_live: bool = True
    """When R moved, all that stands in metadata packs that stay listed counts as live: gc (2)."""
    kept_deltas_keep_bases: bool = True
    """And so do the bases of all deltas in data packs that stay listed: gc (2)."""
    replace_only_listed: bool = True
    """A replacement is listed only while what it replaces is listed: gc (2)."""
    replacement_checked: bool = True
    """A replacement is neither condemned nor gone: gc (1), it is a writer for these."""
    kept_plan_only_added: bool = True
    """When R moved, a plan is kept as it is only if packs were but added: gc (2)."""
    kept_plan_needs_live: bool = True
    """And only if what those and new refs name was live in R or came with them: gc (2)."""
    staying_metadata_keeps_all: bool = True
    """A metadata pack that a step leaves for later keeps all that it names: gc, in steps."""
    steps_look_again: bool = True
    """What came after the root of a step is looked at before the next step: gc, in steps."""
    condemn_before_delete: bool = True
    """Files are deleted only after the root that unlists them: gc (2) before (3)."""
    sweep_only_condemned: bool = True
    """Unlisted files too are condemned in a root first: gc (2), (3)."""
    delete_before_clear: bool = True
    """Packs leave the condemned list only once their files are gone: gc (3) before (4)."""
    clear_only_deleted: bool = True
    """A collector takes off the list only what it has deleted itself: gc (4)."""
    base_less_deep: bool = True
    """The record found for the base of an own delta is less deep than the delta: writer (2)."""
    delta_deeper_than_base: bool = True
    """A new delta is deeper than the record that look-ups take for its base: repack (1)."""
    bases_stay_shallow: bool = True
    """The base of a listed delta does not become as deep as that: repack (1)."""
    repack_keeps_dead: bool = True
    """All that stands in replaced packs is written anew, what is dead too: repack (1)."""
    repack_needs_all_listed: bool = True
    """The new root lists all packs that were listed when the repack began: repack (2)."""
    repack_packs_checked: bool = True
    """A repack's new packs are neither condemned nor gone: repack (2)."""
    repack_minds_new_deltas: bool = True
    """Deltas that came meanwhile are deeper than what their bases become: repack (2)."""
    reread_on_miss: bool = True
    """A reader that misses a file reads the root again: readers."""
    reread_until_settled: bool = True
    """It does so for as long as it finds a newer root, not once: readers."""
    sweep_orphans: bool = True
    """For liveness: files that no root lists are condemned as well: gc (2)."""
    take_over_condemned: bool = True
    """For liveness: what a stopped collector condemned is deleted by the next: gc (3)."""


class Delta(NamedTuple):
    """An object that needs a less deep record of another one."""

    object: str
    base: str
    depth: int


@dataclass(frozen=True, slots=True, order=True)
class Pack:
    """A pack file; what is stored as a delta is deeper than 0."""

    name: str
    objects: Objects
    deltas: frozenset[Delta] = frozenset()

    @property
    def is_metadata(self) -> bool:
        """Whether commits and trees stand in it, rather than blobs."""
        return not self.objects <= BLOBS


Packs = frozenset[Pack]
NO_PACKS: Packs = frozenset()

WriterStage = Literal["start", "check", "publish", "published", "done", "dead"]
CollectorStage = Literal["mark", "condemn", "sweep", "clear"]


@dataclass(frozen=True, slots=True)
class Root:
    """The newest root: refs keep commits, holds keep payloads."""

    refs: Objects
    holds: Objects
    listed: Packs
    condemned: Packs = NO_PACKS


@dataclass(frozen=True, slots=True)
class Writer:
    """Publishes `commit` with its hold; `relies` is what it found and did not write.

    Before another attempt its source may change, so that it goes on with the commit `then`. `delta`
    is an object and the base against which it is written where that is found, at `depth`.
    """

    name: str
    commit: str
    crashes: bool = True
    then: str = ""
    delta: str = ""
    depth: int | None = None
    stage: WriterStage = "start"
    own: Packs = NO_PACKS
    relies: Objects = frozenset()
    looked: bool = False
    fresh: bool = False
    made: int = 0


@dataclass(frozen=True, slots=True)
class Collector:
    """Collects `rounds` times; `doomed` are the packs whose files it is to delete.

    One that `spares` takes every file that no root lists for that of a live session. One that
    `keeps` goes on with the whole of a plan or none, and knows for that what was `live` in the root
    `on` which it planned. One that is `staged` carries a plan out in steps: it may leave a metadata
    pack for another plan, and dead data for a step that comes `later`.
    """

    name: str
    rounds: int
    crashes: int = 0
    spares: bool = False
    keeps: bool = False
    stage: CollectorStage = "mark"
    gone: Packs = NO_PACKS
    swaps: frozenset[tuple[Pack, Pack]] = frozenset()
    doomed: Packs = NO_PACKS
    live: Objects = frozenset()
    on: Root | None = None
    staged: bool = False
    later: Packs = NO_PACKS
    fresh: bool = False
    made: int = 0

    def at_start(self, *, rounds: int) -> "Collector":
        """Return it before its next mark; the names that it gave are not given again."""
        return Collector(
            *(self.name, rounds, self.crashes, self.spares, self.keeps),
            staged=self.staged,
            made=self.made,
        )

    @property
    def leaving(self) -> Packs:
        """The packs that its plan takes off the list."""
        return self.gone | {old for old, _ in self.swaps}


@dataclass(frozen=True, slots=True)
class Repacker:
    """Stores objects as deltas, pairs of which `turns` names: "XY" is X as a delta on Y."""

    name: str
    turns: tuple[str, ...]
    attempts: int = 2
    crashes: bool = True
    began: Packs = NO_PACKS
    gone: Packs = NO_PACKS
    new: Packs = NO_PACKS
    fresh: bool = False
    made: int = 0


@dataclass(frozen=True, slots=True)
class Pruner:
    """Drops these holds, one after the other, each as soon as it is there."""

    name: str
    drops: tuple[str, ...]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Undo:
    """Brings the hold of `commit` back after it was dropped; it has no source to write from."""

    name: str
    commit: str
    stage: Literal["read", "publish", "done"] = "read"
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one object that is held throughout; `gone` is a wrong answer."""

    name: str
    wants: str
    stage: Literal["read", "open", "done", "gone"] = "read"
    pack: Pack | None = None
    missed: bool = False
    fresh: bool = False


Actor = Writer | Collector | Repacker | Pruner | Undo | Reader


@dataclass(frozen=True, slots=True)
class State:
    """All that there is at one instant."""

    root: Root
    files: Packs
    actors: tuple[Actor, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """What one step changes; a root that is given is published."""

    label: str
    actor: Actor
    root: Root | None = None
    files: Packs | None = None


# --- what is needed, and what is there ---


@cache
def closure(objects: Objects) -> Objects:
    """Return the objects with all that they name; a commit alone does not name its payload."""
    grown = objects.union(*(NAMES.get(name, "") for name in objects))
    return grown if grown == objects else closure(grown)


@cache
def needed(refs: Objects, holds: Objects) -> Objects:
    """Return what the refs and holds keep."""
    return closure(refs | holds | {PAYLOAD[commit] for commit in holds})


@cache
def contents(packs: Packs) -> Objects:
    """Return all objects in the packs."""
    return frozenset[str]().union(*(pack.objects for pack in packs))


@cache
def depths(packs: Packs) -> Mapping[str, int]:
    """Return how deep the record is that look-ups take of each object."""
    found: dict[str, int] = {}
    for pack in packs:
        deep = {delta.object: delta.depth for delta in pack.deltas}
        for name in pack.objects:
            depth = deep.get(name, 0)
            found[name] = min(depth, found.get(name, depth))
    return found


@cache
def readable(packs: Packs) -> Objects:
    """Return the objects that stand there whole, or as a delta on a less deep one that does."""
    found: dict[str, int] = {}
    for pack in packs:
        whole = pack.objects - {delta.object for delta in pack.deltas}
        found.update(dict.fromkeys(whole, 0))
    deltas = sorted((delta for pack in packs for delta in pack.deltas), key=lambda it: it.depth)
    for name, base, depth in deltas:
        if found.get(base, depth) < depth:
            found.setdefault(name, depth)
    return frozenset(found)


def lost(root: Root, files: Packs) -> str | None:
    """Return what is needed and cannot be read, or None: what every state promises."""
    gone = needed(root.refs, root.holds) - readable(root.listed & files)
    return f"lost {', '.join(sorted(gone))}" if gone else None


def misled(actor: Actor) -> str | None:
    """Return which wrong answer somebody has got, or None: the other half of the promise."""
    if isinstance(actor, Reader) and actor.stage == "gone":
        return f"{actor.name} was told that {actor.wants} is gone"
    return None


# --- for the trace ---


def show(things: Iterable[str | Pack]) -> str:
    """Return objects, or packs by name, in order."""
    names = sorted(thing if isinstance(thing, str) else thing.name for thing in things)
    return "+".join(names) or "nothing"
