"""Letting go of checkpoints by name, whatever a policy says of them.

Plan, show, execute, as `prune`. What other commits were made from, and the newest of a run, may go
as well: the plan says so. What a tag or another fixed name points at may not, and neither may the
newest of a run that has not ended, which would go on from it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from cas.errors import InvalidInputError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT
from cas.repo import layout
from cas.repo.collect import reserve
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.repo.retain.needed import called
from cas.repo.retain.prune import PrunePlan, RunPlan, freed_without
from cas.repo.retain.retention import Decision, Keep
from cas.repo.retain.spared import (
    Survey,
    checkpoint,
    checkpoints,
    join,
    named,
    of_run,
    spared,
    survey,
)
from cas.repo.revision import resolve
from cas.repo.transaction import Transaction, transact

NOTHING: Final = Keep()
Refs = Mapping[str, CommitId]


def plan(repo: Repo, words: Sequence[str]) -> PrunePlan:
    """Decide to let go of the commits that these revisions name; change nothing.

    Each decision has the reasons for which a policy would have kept the commit. Raises RefusedError
    when one has to stay, InvalidInputError for one without a payload, and the errors of `resolve`.
    """
    if not words:
        raise InvalidInputError("say which checkpoints to let go of: `cas log RUN --checkpoints`")
    root = repo.refresh()
    chosen = dict.fromkeys(resolve(repo, word) for word in words)
    for id in chosen:
        if f"{layout.HOLDS}{id}" not in root.refs:
            what = called(id, repo.commit(id))
            raise InvalidInputError(f"{what} has nothing to let go of: it holds nothing any more")
    _check_free(repo, root.refs, chosen)
    found = survey(repo, root.refs)
    needs = spared(found)
    for ref in _of(found, chosen):
        join(needs, of_run(found, ref, checkpoints(repo, found.runs[ref], root.refs, NOTHING)))
    runs: dict[str, list[Decision]] = {}
    for id in chosen:
        commit = repo.commit(id)
        name = commit.full_name or f"{commit.kind} {id.short}"
        item = checkpoint(repo, id, commit, NOTHING)
        runs.setdefault(name, []).append(Decision(item, keep=False, reasons=needs.get(id, ())))
    plans = tuple(RunPlan(name, tuple(decisions)) for name, decisions in runs.items())
    freed = freed_without(repo, root.refs, chosen)
    return PrunePlan(root.seq, NOTHING, tuple(words), repo.clock(), plans, None, freed)


def execute(repo: Repo, planned: PrunePlan) -> tuple[CommitId, ...]:
    """Let go of what the plan says; return what went. Raises RefusedError as `plan` does."""

    def build(transaction: Transaction) -> tuple[CommitId, ...]:
        # A name may come meanwhile, or a run go on from one of them.
        transaction.on_this_root = True
        refs = transaction.root.refs
        _check_free(repo, refs, planned.dropped)
        going = tuple(id for id in planned.dropped if f"{layout.HOLDS}{id}" in refs)
        for id in going:
            transaction.set_ref(f"{layout.HOLDS}{id}", None)
        return going

    return reserve.spending(repo, lambda: transact(repo, "prune --drop", build))


def _of(found: Survey, ids: Collection[CommitId]) -> list[str]:
    """Return the runs that have one of these commits."""
    return [ref for ref, run in found.runs.items() if any(id in ids for id, _ in run)]


def _check_free(repo: Repo, refs: Refs, ids: Iterable[CommitId]) -> None:
    """Insist that none of these has to stay; raise RefusedError, which says why."""
    names, live = named(refs), _live(repo, refs)
    for id in ids:
        what = f"{called(id, repo.commit(id))} ({id.short})"
        if id in names:
            told = ", ".join(names[id])
            raise RefusedError(
                f"{what} stays: {told} is at it; remove that name first: `cas tag -d`"
            )
        if id in live:
            raise RefusedError(
                f"{what} stays: it is the newest of {live[id]}, which has not ended; end that first"
            )


def _live(repo: Repo, refs: Refs) -> dict[CommitId, str]:
    """Return the newest checkpoint of each run that has not ended, with the run's name."""
    found: dict[CommitId, str] = {}
    for name in (ref.removeprefix(layout.OPEN) for ref in refs if ref.startswith(layout.OPEN)):
        ref = name if name.startswith(layout.REPRODUCTIONS) else f"{layout.RUNS}{name}"
        commits = segment(repo.commit, refs[ref]) if ref in refs else ()
        first = next((id for id, commit in commits if commit.kind == CHECKPOINT), None)
        if first is not None:
            found[first] = name
    return found
