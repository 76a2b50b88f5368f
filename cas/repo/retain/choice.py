"""Choosing runs by words, and one commit of a run or experiment: the latest, the best by a metric.

What is compared are checkpoints, pruned ones too; a run without any stands for itself.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
            return _best(list(_candidates(repo, tips)), word)
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


def _candidates(repo: Repo, tips: Sequence[CommitId]) -> Iterator[Candidate]:
    for tip in tips:
        commits = list(segment(repo.commit, tip))
        checkpoints = [item for item in commits if item[1].kind == CHECKPOINT]
        yield from reversed(checkpoints or commits[:1])


def _best(candidates: list[Candidate], word: str) -> CommitId:
    told = [(id, commit.monitor) for id, commit in candidates if commit.monitor is not None]
    known = [(id, monitor) for id, monitor in told if not isnan(monitor.value)]
    if not known:
        raise NotFoundError("revision", word, "no monitored metric was logged: try @latest")
    ways = sorted({(monitor.mode, monitor.metric) for _, monitor in known})
    if len(ways) > 1:
        choices = " or ".join(f"@{mode}={metric}" for mode, metric in ways)
        raise InvalidInputError(f"{word}: its runs monitor different metrics: say {choices}")
    pick = min if ways[0][0] == "min" else max
    return pick(known, key=lambda item: item[1].value)[0]


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
