"""Prune: let go of checkpoints by a policy. Who needs what is known here and nowhere else.

To let go of a checkpoint is to drop its hold: its record stays in the history, `gc` takes its
payload. Spared whatever the policy says: what a tag, head or other fixed name points at, the newest
of an unfinished run, and the direct inputs of every run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cas.errors import InvalidInputError, NotFoundError, RefusedError
from cas.ids import CommitId
from cas.objects.commit import BASE_MODEL, CHECKPOINT, DATASET, RESUMED_FROM, RUN, Commit
from cas.repo import gc, layout, retention
from cas.repo.choice import segment
from cas.repo.repo import Repo
from cas.repo.retention import Checkpoint, Decision, Keep, Reasons
from cas.repo.transaction import Transaction, transact

INPUTS = (DATASET, BASE_MODEL, RESUMED_FROM)
# The rooms whose names stand for what somebody chose, each with its word.
NAMED = {
    layout.TAGS: "tag",
    layout.HEADS: "head",
    layout.MODELS: "model",
    layout.DATASETS: "dataset",
}
History = list[tuple[CommitId, Commit]]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What happens to the checkpoints of one run that still have their payload."""

    run: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a policy lets go of; `freed_bytes` is what gc then gives back, None when unknown."""

    root: int
    keep: Keep
    words: tuple[str, ...]
    runs: tuple[RunPlan, ...]
    freed_bytes: int | None

    @property
    def dropped(self) -> tuple[CommitId, ...]:
        """The checkpoints that go."""
        return _dropped(self.runs)


def plan(repo: Repo, keep: Keep, words: Sequence[str] = ()) -> PrunePlan:
    """Decide which checkpoints go, of all runs or of those that `words` name; change nothing.

    A word is EXPERIMENT or EXPERIMENT/RUN. Raises InvalidInputError for a policy that says nothing
    and NotFoundError for a word that names no run.
    """
    if keep.empty:
        raise InvalidInputError("say what to keep: for instance --keep-last 1 --keep-best 1")
    root = repo.refresh()
    runs = _decide(repo, root.refs, keep, words)
    gone = {f"{layout.HOLDS}{id}" for id in _dropped(runs)}
    without = {name: id for name, id in root.refs.items() if name not in gone}
    try:
        freed = gc.plan(repo, without).freed_bytes
    except RefusedError:
        freed = None  # gc will say what is wrong; letting go needs none of it
    return PrunePlan(root.seq, keep, tuple(words), runs, freed)


def execute(repo: Repo, planned: PrunePlan) -> tuple[CommitId, ...]:
    """Let go of what the plan says and still may go; return what went."""

    def build(transaction: Transaction) -> tuple[CommitId, ...]:
        # Any ref that comes meanwhile may be a reason to keep what would go.
        transaction.on_this_root = True
        going = planned.dropped
        refs = transaction.root.refs
        if transaction.root.seq != planned.root:
            # A name, a fork or another prune may have come since the plan was shown.
            still = set(_dropped(_decide(repo, refs, planned.keep, planned.words)))
            going = tuple(id for id in going if id in still)
        for id in going:
            transaction.set_ref(f"{layout.HOLDS}{id}", None)
        return going

    return transact(repo, "prune", build)


def _dropped(runs: Sequence[RunPlan]) -> tuple[CommitId, ...]:
    return tuple(
        decision.checkpoint.commit
        for run in runs
        for decision in run.decisions
        if not decision.keep
    )


def _decide(
    repo: Repo, refs: Mapping[str, CommitId], keep: Keep, words: Sequence[str]
) -> tuple[RunPlan, ...]:
    histories = {
        name: list(segment(repo.commit, tip))
        for name, tip in refs.items()
        if name.startswith((layout.RUNS, layout.OPEN, layout.REPRODUCTIONS))
    }
    protected = _protected(refs, histories)
    selected = _selected(histories, words)
    for name in selected:
        _join(protected, _newest(name, histories[name], refs))
    return tuple(
        RunPlan(
            name.removeprefix(layout.RUNS),
            retention.plan(list(_checkpoints(repo, histories[name], refs)), keep, protected),
        )
        for name in selected
    )


def _selected(histories: Mapping[str, History], words: Sequence[str]) -> list[str]:
    runs = sorted(name for name in histories if name.startswith(layout.RUNS))
    if not words:
        return runs
    found: dict[str, None] = {}
    for word in words:
        name = layout.RUNS + word.removeprefix("refs/").removeprefix(layout.RUNS).rstrip("/")
        meant = [run for run in runs if run == name or run.startswith(f"{name}/")]
        if not meant:
            raise NotFoundError("run or experiment", word, "`cas log` lists runs")
        found |= dict.fromkeys(meant)
    return list(found)


def _checkpoints(
    repo: Repo, history: History, refs: Mapping[str, CommitId]
) -> Iterator[Checkpoint]:
    """Yield the checkpoints of a run that still have their payload."""
    for id, commit in history:
        if commit.kind == CHECKPOINT and f"{layout.HOLDS}{id}" in refs:
            given = 0 if commit.volume is None else commit.volume.given_bytes
            metrics = _metrics(repo, commit)
            yield Checkpoint(id, commit.seq, commit.step, commit.monitor, metrics, given)


def _metrics(repo: Repo, commit: Commit) -> dict[str, float]:
    """Return the last value of each metric at a checkpoint."""
    summary = repo.document(commit.tree, "summary.json")
    found = {}
    for name, row in summary.items() if isinstance(summary, dict) else ():
        last = row.get("last") if isinstance(row, dict) else None
        if isinstance(last, int | float):
            found[name] = float(last)
    return found


def _protected(
    refs: Mapping[str, CommitId], histories: Mapping[str, History]
) -> dict[CommitId, Reasons]:
    """Return what names and runs need, with the reasons."""
    found: dict[CommitId, Reasons] = {}
    for name, id in sorted(refs.items()):
        room, _, rest = name.partition("/")
        if f"{room}/" in NAMED:
            _join(found, {id: (f"{NAMED[f'{room}/']} {rest}",)})
    for name, history in sorted(histories.items()):
        used = {
            parent.commit: (f"{parent.role} of {name.partition('/')[2]}",)
            for _, commit in history
            for parent in commit.parents
            if parent.role in INPUTS
        }
        _join(found, used)
    return found


def _newest(name: str, history: History, refs: Mapping[str, CommitId]) -> dict[CommitId, Reasons]:
    """Return the newest checkpoint of a run that has not finished."""
    live = f"{layout.OPEN}{name.removeprefix(layout.RUNS)}" in refs
    if history[0][1].kind == RUN and not live:
        return {}
    newest = next((id for id, commit in history if commit.kind == CHECKPOINT), None)
    return {} if newest is None else {newest: ("newest of an unfinished run",)}


def _join(found: dict[CommitId, Reasons], more: Mapping[CommitId, Reasons]) -> None:
    for id, reasons in more.items():
        found[id] = tuple(dict.fromkeys((*found.get(id, ()), *reasons)))
