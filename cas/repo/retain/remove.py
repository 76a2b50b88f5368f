"""Remove: take whole runs out of the history, or only what is heavy of them.

Plan, show, execute. Removing a run drops its ref and the holds of its commits; gc then takes what
nothing else keeps, and until then `undo` brings all of it back. A run that something else was made
from, or that a name points into, is not removed: its record is part of that one's lineage. Its
payloads can go nevertheless when that is asked for, but for those that a fixed name points at.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cas.errors import RefusedError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, Commit
from cas.plain import few
from cas.repo import annotations, layout
from cas.repo.collect import gc
from cas.repo.repo import Repo
from cas.repo.retain.choice import Read, bare, runs_meant, segment
from cas.repo.retain.needed import NAMED, Use, Uses, after, called, reader
from cas.repo.transaction import Transaction, transact

LISTED = 8
MOVES = 10  # names that a run may have gone on under, as far as anybody looks
NUMBERED = re.compile(r"-\d+$")
ROOMS = (layout.RUNS, layout.REPRODUCTIONS)
Refs = Mapping[str, CommitId]


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes of one run: how many checkpoints it has, and whose payloads are let go of."""

    ref: str
    tip: CommitId
    status: str
    checkpoints: int
    held: tuple[CommitId, ...]
    given_bytes: int
    annotation: str | None = None  # the ref of what is said of the run

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.ref.removeprefix(layout.RUNS)


@dataclass(frozen=True, slots=True)
class RemovePlan:
    """What is removed; `freed_bytes` is what gc then gives back, None when unknown.

    `uses` are what else needs the runs: with `keep_record` they only say who loses by it.
    """

    root: int
    keep_record: bool
    runs: tuple[Removal, ...]
    uses: tuple[str, ...]
    freed_bytes: int | None

    @property
    def refused(self) -> bool:
        """Whether something else needs the record of one of the runs."""
        return bool(self.uses) and not self.keep_record

    @property
    def gone(self) -> tuple[str, ...]:
        """The refs that go."""
        return tuple(_gone(self.runs, self.keep_record))


def plan(repo: Repo, words: Sequence[str], *, keep_record: bool = False) -> RemovePlan:
    """Decide what goes of the runs that `words` name; change nothing.

    A word is EXPERIMENT or EXPERIMENT/RUN, or a reproduction. Raises NotFoundError for one that
    names no run, and RefusedError for a run that has not ended.
    """
    root = repo.refresh()
    read = reader(repo)
    names = selected(root.refs, words)
    runs = tuple(_removal(read, root.refs, name, names, keep_record=keep_record) for name in names)
    uses = _uses(read, Uses(read, _commits(read, runs)), root.refs, runs)
    changes = [(name, None) for name in _gone(runs, keep_record)]
    try:
        freed = gc.plan(repo, after(root.refs, changes)).freed_bytes
    except RefusedError:
        freed = None  # gc will say what is wrong; letting go needs none of it
    return RemovePlan(root.seq, keep_record, runs, uses, freed)


def execute(repo: Repo, planned: RemovePlan) -> tuple[str, ...]:
    """Drop the refs that the plan says; return those that went.

    Raises RefusedError when something needs one of the runs, also when that came meanwhile.
    """
    read = reader(repo)
    uses = Uses(read, _commits(read, planned.runs))

    def build(transaction: Transaction) -> tuple[str, ...]:
        # Whatever comes meanwhile may have been made from one of the runs.
        transaction.on_this_root = True
        refs = transaction.root.refs
        for run in planned.runs:
            _check_ended(refs, run.ref)
            if refs.get(run.ref) != run.tip:
                raise RefusedError(f"{run.run} has changed since the plan was shown: look again")
        # What was reached once leads to none of them, so another try costs what is new alone.
        found = () if planned.keep_record else _uses(read, uses, refs, planned.runs)
        if found:
            raise refusal(found)
        named = _named(refs) if planned.keep_record else {}
        names = [name for name in planned.gone if name in refs and refs[name] not in named]
        for name in names:
            transaction.set_ref(name, None)
        return tuple(names)

    what = "remove payloads of" if planned.keep_record else "remove"
    return transact(repo, f"{what} {few([run.run for run in planned.runs], LISTED)}", build)


def refusal(uses: Sequence[str]) -> RefusedError:
    """Return the error that names what else needs the runs."""
    return RefusedError(
        f"still needed: {few(uses, LISTED)}: remove those too, or say --keep-record "
        "to let go of the payloads alone"
    )


def selected(refs: Refs, words: Sequence[str]) -> list[str]:
    """Return the refs of the runs that words name; raise NotFoundError and RefusedError."""
    for word in words:
        _check_ended(refs, _top(word))
    there = sorted(ref for ref in refs if ref.startswith(ROOMS))
    found = runs_meant(there, words, lambda word: (_top(word),))
    for ref in found:
        _check_ended(refs, ref)
    return found


def _top(word: str) -> str:
    name = bare(word)
    return name if name.startswith(layout.REPRODUCTIONS) else layout.RUNS + name


def _check_ended(refs: Refs, ref: str) -> None:
    if layout.OPEN + ref.removeprefix(layout.RUNS) in refs:
        name = ref.removeprefix(layout.RUNS)
        raise RefusedError(f"run {name} has not ended: end it first, `cas log` says where it is")


def _removal(
    read: Read, refs: Refs, name: str, names: Collection[str], *, keep_record: bool
) -> Removal:
    commits = list(segment(read, refs[name]))
    named = _named(refs) if keep_record else {}
    held = [
        (id, commit) for id, commit in commits if f"{layout.HOLDS}{id}" in refs and id not in named
    ]
    others = [refs[other] for other in _family(name) if other in refs and other not in names]
    return Removal(
        ref=name,
        tip=refs[name],
        status=commits[0][1].status or "-",
        checkpoints=sum(commit.kind == CHECKPOINT for _, commit in commits),
        held=tuple(id for id, _ in held),
        given_bytes=sum(commit.volume.given_bytes for _, commit in held if commit.volume),
        annotation=_annotation(read, others, commits[0][1]),
    )


def _annotation(read: Read, others: Iterable[CommitId], commit: Commit) -> str | None:
    """Return the ref of what is said of a run, unless one of the others is of the same run."""
    if commit.journal is None:
        return None
    uid = commit.journal.run
    if any(at is not None and at.run == uid for at in (read(id).journal for id in others)):
        return None
    return annotations.ref_of(uid)


def _family(name: str) -> list[str]:
    """Return what a run that was taken for dead, and went on, may be called as well."""
    stem = NUMBERED.sub("", name)
    return [stem, *(f"{stem}-{number}" for number in range(2, MOVES))]


def _commits(read: Read, runs: Sequence[Removal]) -> frozenset[CommitId]:
    return frozenset(id for run in runs for id, _ in segment(read, run.tip))


def _uses(read: Read, uses: Uses, refs: Refs, runs: Sequence[Removal]) -> tuple[str, ...]:
    """Return what else needs the runs, in words."""
    others = after(refs, ((name, None) for name in _gone(runs, keep_record=False)))
    return tuple(dict.fromkeys(_told(read, use) for use in uses.among(others)))


def _told(read: Read, use: Use) -> str:
    commit = called(use.commit, read(use.commit))
    return f"{use.by} is at {commit}" if use.ref else f"{use.by} has {commit} as {use.role}"


def _named(refs: Refs) -> dict[CommitId, str]:
    """Return the commits that fixed names point at."""
    return {id: name for name, id in refs.items() if name.startswith(tuple(NAMED))}


def _gone(runs: Sequence[Removal], keep_record: bool) -> Iterator[str]:
    """Yield the refs that go with these runs; a mark that is not there is passed over."""
    for run in runs:
        if not keep_record:
            yield run.ref
            yield layout.ARCHIVED + run.run
            yield from [run.annotation] if run.annotation is not None else []
        yield from (f"{layout.HOLDS}{id}" for id in run.held)
