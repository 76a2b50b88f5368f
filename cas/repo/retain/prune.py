"""Prune: let go of checkpoints by a policy.

To let go of a checkpoint is to drop its hold: its record stays in the history, `gc` takes its
payload. Spared whatever the policy says: what `spared.py` finds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cas.errors import InvalidInputError, RefusedError
from cas.ids import CommitId
from cas.repo import layout
from cas.repo.collect import gc, reserve
from cas.repo.repo import Repo
from cas.repo.retain import retention
from cas.repo.retain.budget import fit, measure
from cas.repo.retain.choice import runs_meant
from cas.repo.retain.retention import Decision, Keep
from cas.repo.retain.spared import Survey, checkpoints, join, of_run, spared, survey
from cas.repo.transaction import Transaction, transact


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What happens to the checkpoints of one run that still have their payload."""

    run: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a policy lets go of; `freed_bytes` is what gc then gives back, None when unknown.

    `budget_bytes` is what all that stays takes, as a budget counts it; None without one.
    """

    root: int
    keep: Keep
    words: tuple[str, ...]
    now: int
    runs: tuple[RunPlan, ...]
    budget_bytes: int | None
    freed_bytes: int | None

    @property
    def dropped(self) -> tuple[CommitId, ...]:
        """The checkpoints that go."""
        return _dropped(self.runs)


def plan(repo: Repo, keep: Keep, words: Sequence[str] = (), *, now: int | None = None) -> PrunePlan:
    """Decide which checkpoints go, of all runs or of those that `words` name; change nothing.

    A word is EXPERIMENT, EXPERIMENT/RUN, or `reproductions` with what comes after it. `now` is in
    microseconds since the epoch. Raises InvalidInputError for a policy that says nothing,
    NotFoundError for a word that names no run, and RefusedError for a budget that cannot be kept.
    """
    if keep.empty:
        raise InvalidInputError("say what to keep: for instance --keep-last 1 --keep-best 1")
    root = repo.refresh()
    now = repo.clock() if now is None else now
    runs, total = _decide(repo, root.refs, keep, words, now)
    freed = freed_without(repo, root.refs, _dropped(runs))
    return PrunePlan(root.seq, keep, tuple(words), now, runs, total, freed)


def freed_without(repo: Repo, refs: Mapping[str, CommitId], ids: Iterable[CommitId]) -> int | None:
    """Return what gc gives back when these commits are let go of, None when that is not known."""
    gone = {f"{layout.HOLDS}{id}" for id in ids}
    try:
        return gc.plan(
            repo, {name: id for name, id in refs.items() if name not in gone}
        ).freed_bytes
    except RefusedError:
        return None  # gc will say what is wrong; letting go needs none of it


def execute(repo: Repo, planned: PrunePlan) -> tuple[CommitId, ...]:
    """Let go of what the plan says and still may go; return what went."""

    def build(transaction: Transaction) -> tuple[CommitId, ...]:
        # Any ref that comes meanwhile may be a reason to keep what would go.
        transaction.on_this_root = True
        going = planned.dropped
        refs = transaction.root.refs
        if transaction.root.seq != planned.root:
            # A name, a fork or another prune may have come since the plan was shown.
            runs, _ = _decide(repo, refs, planned.keep, planned.words, planned.now)
            still = set(_dropped(runs))
            going = tuple(id for id in going if id in still)
        for id in going:
            transaction.set_ref(f"{layout.HOLDS}{id}", None)
        return going

    return reserve.spending(repo, lambda: transact(repo, "prune", build))


def explain(repo: Repo, id: CommitId, keep: Keep | None, now: int) -> tuple[Decision, ...]:
    """Return why each checkpoint of the run of this commit that has its payload is kept.

    What nothing but the lack of a policy keeps, and what `keep` would let go of, has no reason.
    """
    found = survey(repo, repo.root.refs)
    runs = found.runs.items()
    ref = next((ref for ref, run in runs if any(id == one for one, _ in run)), None)
    if ref is None:
        return ()
    rules = Keep() if keep is None else replace(keep, budget=None)
    items = checkpoints(repo, found.runs[ref], found.refs, rules)
    needs = spared(found)
    join(needs, of_run(found, ref, items))
    return retention.plan(items, rules, needs, now=now)


def _dropped(runs: Sequence[RunPlan]) -> tuple[CommitId, ...]:
    return tuple(
        decision.checkpoint.commit
        for run in runs
        for decision in run.decisions
        if not decision.keep
    )


def _decide(
    repo: Repo, refs: Mapping[str, CommitId], keep: Keep, words: Sequence[str], now: int
) -> tuple[tuple[RunPlan, ...], int | None]:
    """Return what happens to each run, and what stays as the budget counts it."""
    found = survey(repo, refs)
    needs = spared(found)
    held = {ref: checkpoints(repo, found.runs[ref], refs, keep) for ref in _selected(found, words)}
    for ref, items in held.items():
        join(needs, of_run(found, ref, items))
    runs = tuple(
        RunPlan(ref.removeprefix(layout.RUNS), retention.plan(items, keep, needs, now=now))
        for ref, items in held.items()
    )
    if (limit := keep.budget_bytes) is None:
        return runs, None
    together = [decision for run in runs for decision in run.decisions]
    fitted, total = fit(together, limit, measure(repo), needs, word=keep.budget)
    left = iter(fitted)
    return tuple(_taken(run, left) for run in runs), total


def _taken(run: RunPlan, decisions: Iterator[Decision]) -> RunPlan:
    return replace(run, decisions=tuple(next(decisions) for _ in run.decisions))


def _selected(found: Survey, words: Sequence[str]) -> list[str]:
    refs = list(found.runs)
    return runs_meant(refs, words, _tops) if words else refs


def _tops(word: str) -> tuple[str, ...]:
    name = word.removeprefix("refs/").rstrip("/")
    return name, f"{layout.RUNS}{name}"
