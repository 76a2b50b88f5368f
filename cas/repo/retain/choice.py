"""Choosing runs by words, and one commit of a run or experiment: the latest, the best by a metric.

What is compared are checkpoints, pruned ones too; a run without any stands for itself. Within a run
the newest checkpoint that was saved as the best is the best, whatever its metrics say.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import isnan

from cas.errors import InvalidInputError, NotFoundError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, PREVIOUS, Commit
from cas.repo.layout import RUNS
from cas.repo.repo import Repo

Candidate = tuple[CommitId, Commit]
Read = Callable[[CommitId], Commit]


def runs_meant(
    refs: Sequence[str],
    words: Iterable[str],
    tops: Callable[[str], tuple[str, ...]],
    *,
    what: str = "run or experiment",
    hint: str = "`cas log` lists runs",
) -> list[str]:
    """Return those of the refs that words mean, each once: at or below one of the `tops` of a word.

    Raises NotFoundError, with `what` and `hint`, for a word that means none of them.
    """
    found: dict[str, None] = {}
    for word in words:
        above = tuple(f"{top}/" for top in tops(word))
        meant = [ref for ref in refs if f"{ref}/".startswith(above)]
        if not meant:
            raise NotFoundError(what, word, hint)
        found |= dict.fromkeys(meant)
    return list(found)


def bare(word: str) -> str:
    """Return the name of a run or experiment as its ref has it behind `runs/`."""
    return word.removeprefix("refs/").removeprefix(RUNS).rstrip("/")


def choose(
    repo: Repo, tips: Sequence[CommitId], selector: str, word: str, *, runs: bool = False
) -> CommitId:
    """Return the commit that `latest`, `best`, `min=METRIC` or `max=METRIC` selects.

    `tips` are the newest commits of runs. With `runs`, `latest` is the newest run, otherwise the
    newest checkpoint. `word` is the revision, for messages.
    """
    kind, equals, metric = selector.partition("=")
    match kind:
        case "latest" if not equals and runs:
            return max(((id, repo.commit(id)) for id in tips), key=_age)[0]
        case "latest" if not equals:
            return max(_candidates(repo, tips), key=_age)[0]
        case "best" if not equals:
            return _best(repo, [_history(repo, tip) for tip in tips], word)
        case "min" | "max" if metric:
            return _extreme(repo, list(_candidates(repo, tips)), kind, metric)
    raise InvalidInputError(
        f"{word}: after @ comes latest, best, min=METRIC or max=METRIC, not {selector!r}"
    )


def segment(read: Read, tip: CommitId) -> Iterator[Candidate]:
    """Yield the commits of one run, from its newest back to its first."""
    first = read(tip)
    yield tip, first
    at = previous(first)
    while at is not None:
        commit = read(at)
        if not same_run(commit, first):
            return
        yield at, commit
        at = previous(commit)


def reached(
    tips: Iterable[CommitId],
    read: Callable[[CommitId], Commit | None],
    seen: set[CommitId] | None = None,
) -> Iterator[tuple[CommitId, Commit | None]]:
    """Yield the commits of `tips` and all above them, each once; None where `read` has none.

    What is in `seen` is passed over, and what is yielded is added to it.
    """
    known = set[CommitId]() if seen is None else seen
    pending = list(dict.fromkeys(tips))
    while pending:
        id = pending.pop()
        if id in known:
            continue
        known.add(id)
        commit = read(id)
        yield id, commit
        if commit is not None:
            pending += (parent.commit for parent in commit.parents if parent.commit not in known)


def previous(commit: Commit) -> CommitId | None:
    """Return the commit before this one, in the same run or branch."""
    return next((parent.commit for parent in commit.parents if parent.role == PREVIOUS), None)


def same_run(one: Commit, other: Commit) -> bool:
    """Say whether two commits belong to one run."""
    return one.run is not None and (one.experiment, one.run) == (other.experiment, other.run)


def said_best(repo: Repo, checkpoint: Commit) -> bool:
    """Say whether a checkpoint was saved with the word that it is the best."""
    about = repo.document(checkpoint.tree, "checkpoint.json")
    return isinstance(about, dict) and about.get("best") is True


def _candidates(repo: Repo, tips: Sequence[CommitId]) -> Iterator[Candidate]:
    for tip in tips:
        yield from _history(repo, tip)


def _history(repo: Repo, tip: CommitId) -> list[Candidate]:
    """Return the checkpoints of a run, oldest first; the run itself where it has none."""
    commits = list(segment(repo.commit, tip))
    checkpoints = [item for item in commits if item[1].kind == CHECKPOINT]
    return (checkpoints or commits[:1])[::-1]


def _best(repo: Repo, runs: Sequence[list[Candidate]], word: str) -> CommitId:
    """Return the best of runs: of each what was said to be its best, or else all it can compare.

    What was said to be the best, and has no value, loses against other runs that have one.
    """
    said = [_said(repo, run) for run in runs]
    found = [item for run, one in zip(runs, said, strict=True) for item in one or _monitored(run)]
    told = [(id, commit.monitor) for id, commit in found if commit.monitor is not None]
    known = [(id, monitor) for id, monitor in told if not isnan(monitor.value)]
    if not known or len(runs) == 1:
        newest = max((item for one in said for item in one), key=_age, default=None)
        if newest is not None:
            return newest[0]
    if not known:
        raise NotFoundError("revision", word, "no monitored metric was logged: try @latest")
    ways = sorted({(monitor.mode, monitor.metric) for _, monitor in known})
    if len(ways) > 1:
        choices = " or ".join(f"@{mode}={metric}" for mode, metric in ways)
        raise InvalidInputError(f"{word}: its runs monitor different metrics: say {choices}")
    pick = min if ways[0][0] == "min" else max
    return pick(known, key=lambda item: item[1].value)[0]


def _said(repo: Repo, run: Sequence[Candidate]) -> list[Candidate]:
    """Return the newest checkpoint of a run that was said to be the best, if there is one."""
    marked = (it for it in reversed(run) if it[1].kind == CHECKPOINT and said_best(repo, it[1]))
    return list(islice(marked, 1))


def _monitored(run: Sequence[Candidate]) -> list[Candidate]:
    """Return what can be compared of one run: by the metric that its newest checkpoint goes by."""
    ways = {id: (it.monitor.mode, it.monitor.metric) for id, it in run if it.monitor is not None}
    last = list(ways.values())[-1:]
    return [item for item in run if [ways.get(item[0])] == last]


def _extreme(repo: Repo, candidates: list[Candidate], mode: str, metric: str) -> CommitId:
    values: list[tuple[CommitId, float]] = []
    seen: set[str] = set()
    for id, commit in candidates:
        summary = repo.document(commit.tree, "summary.json")
        known = summary if isinstance(summary, dict) else {}
        seen |= known.keys()
        last = known.get(metric, {}).get("last")
        if isinstance(last, int | float) and not isnan(last):
            values.append((id, last))
    if not values:
        there = ", ".join(sorted(seen)) or "none"
        raise NotFoundError("metric", metric, f"metrics here are {there}")
    return (min if mode == "min" else max)(values, key=lambda item: item[1])[0]


def _age(candidate: Candidate) -> tuple[int, int]:
    commit = candidate[1]
    return commit.time or 0, commit.seq
