"""What no policy lets go of: what names and other commits need, the newest and the best of a run.

A name is one that somebody chose: a tag, a head, a model, a dataset. A commit needs what it was
made from, whichever word it has for that. The best is what was saved as that (`best=True`): what
is best by a metric is a matter of policy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from cas.errors import NotFoundError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, PREVIOUS, REPRODUCES, RUN, VARIANT_OF, Commit
from cas.repo import layout
from cas.repo.repo import Repo
from cas.repo.retain.choice import reached, said_best, same_run, segment
from cas.repo.retain.needed import NAMED
from cas.repo.retain.retention import Checkpoint, Keep, Reasons

History = list[tuple[CommitId, Commit]]  # of one run, newest first
Spared = dict[CommitId, Reasons]

# What comes before is kept by the run's own policy; what is only compared with needs its record.
NO_NEED: Final = frozenset({PREVIOUS, REPRODUCES, VARIANT_OF})
FINISHED: Final = "finished"
BEST: Final = ("said to be the best",)


@dataclass(frozen=True, slots=True)
class Survey:
    """All commits that refs lead to, each read once, and the runs among them by ref."""

    refs: Mapping[str, CommitId]
    commits: Mapping[CommitId, Commit]
    runs: Mapping[str, History]


def survey(repo: Repo, refs: Mapping[str, CommitId]) -> Survey:
    """Read all commits that these refs lead to; what is known to be lost is passed over."""
    tips = (id for ref, id in refs.items() if not ref.startswith(layout.HOLDS))
    found = reached(tips, partial(_known, repo))
    commits = {id: commit for id, commit in found if commit is not None}
    runs = {
        ref: list(segment(commits.__getitem__, tip))
        for ref, tip in sorted(refs.items())
        if ref.startswith((layout.RUNS, layout.REPRODUCTIONS)) and tip in commits
    }
    return Survey(refs, commits, runs)


def spared(found: Survey) -> Spared:
    """Return what names, other commits and runs need, each with the reasons."""
    needs = named(found.refs)
    for commit in found.commits.values():
        join(needs, cited(commit, found.commits.get))
    for ref, history in found.runs.items():
        join(needs, newest(ref, history, found.refs))
    return needs


def named(refs: Mapping[str, CommitId]) -> Spared:
    """Return what fixed names point at."""
    rooms = tuple(NAMED)
    found: Spared = {}
    for ref, id in sorted((ref, id) for ref, id in refs.items() if ref.startswith(rooms)):
        room, _, rest = ref.partition("/")
        join(found, {id: (f"{NAMED[f'{room}/']} {rest}",)})
    return found


def cited(commit: Commit, read: Callable[[CommitId], Commit | None]) -> Spared:
    """Return what a commit was made from; what is of the same run does not count."""
    found: Spared = {}
    for parent in commit.parents:
        other = None if parent.role in NO_NEED else read(parent.commit)
        if other is not None and not same_run(other, commit):
            who = commit.full_name or commit.kind
            join(found, {parent.commit: (f"{parent.role} of {who}",)})
    return found


def newest(ref: str, history: History, refs: Mapping[str, CommitId]) -> Spared:
    """Return the newest checkpoint of a run: what it would go on from, or what it came to.

    Not that of a reproduction that has ended: it came to what the original came to, or is looked
    at and let go of.
    """
    if _was_tried(ref, history, refs):
        return {}
    ended = history[0][1].status == FINISHED and not _is_live(ref, refs)
    reason = "newest of the run" if ended else "newest of an unfinished run"
    first = next((id for id, commit in history if commit.kind == CHECKPOINT), None)
    return {} if first is None else {first: (reason,)}


def best(items: Sequence[Checkpoint]) -> Spared:
    """Return the newest of a run's checkpoints that was said to be the best: `best()` gives it."""
    said = max((item for item in items if item.best), key=lambda item: item.seq, default=None)
    return {} if said is None else {said.commit: BEST}


def of_run(found: Survey, ref: str, items: Sequence[Checkpoint]) -> Spared:
    """Return what is spared of the checkpoints that a run holds, beside what `spared` finds."""
    return {} if _was_tried(ref, found.runs[ref], found.refs) else best(items)


def checkpoints(
    repo: Repo, history: History, refs: Mapping[str, CommitId], keep: Keep
) -> list[Checkpoint]:
    """Return the checkpoints of a run that still have their payload, newest first."""
    return [
        checkpoint(repo, id, commit, keep)
        for id, commit in history
        if commit.kind == CHECKPOINT and f"{layout.HOLDS}{id}" in refs
    ]


def checkpoint(repo: Repo, id: CommitId, commit: Commit, keep: Keep) -> Checkpoint:
    """Return what a policy looks at, of one checkpoint; metrics are read for rules that ask."""
    volume = commit.volume
    asked = bool(keep.min or keep.max)
    return Checkpoint(
        commit=id,
        seq=commit.seq,
        step=commit.step,
        monitor=commit.monitor,
        metrics=last_values(repo, commit) if asked else {},
        given_bytes=0 if volume is None else volume.given_bytes,
        stored_bytes=0 if volume is None else volume.stored_bytes,
        time=commit.time,
        best=said_best(repo, commit),
    )


def last_values(repo: Repo, commit: Commit) -> dict[str, float]:
    """Return the last value of each metric at a checkpoint."""
    summary = repo.document(commit.tree, "summary.json")
    found = {}
    for name, row in summary.items() if isinstance(summary, dict) else ():
        last = row.get("last") if isinstance(row, dict) else None
        if isinstance(last, int | float):
            found[name] = float(last)
    return found


def join(found: Spared, more: Mapping[CommitId, Reasons]) -> None:
    """Add reasons to those that are known, each once."""
    for id, reasons in more.items():
        found[id] = tuple(dict.fromkeys((*found.get(id, ()), *reasons)))


def _is_live(ref: str, refs: Mapping[str, CommitId]) -> bool:
    return f"{layout.OPEN}{ref.removeprefix(layout.RUNS)}" in refs


def _was_tried(ref: str, history: History, refs: Mapping[str, CommitId]) -> bool:
    """Say whether this is a reproduction that has ended."""
    again = ref.startswith(layout.REPRODUCTIONS) and history[0][1].kind == RUN
    return again and not _is_live(ref, refs)


def _known(repo: Repo, id: CommitId) -> Commit | None:
    try:
        return repo.commit(id)
    except NotFoundError:
        if id not in repo.root.tombstones:
            raise
        return None
