"""Going on with a run that did not finish: which one that is, and what it goes on from.

A run goes on under its own name, from its newest checkpoint that is kept. What it logged behind
that is done again, so it does not count any more; it stays in the commit that the run broke off
with, which is the one before all that come now.
Format: docs/format/run.md.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from cas.errors import CasError, InvalidInputError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, PREVIOUS, RUN, Commit
from cas.objects.tree import Entry, EntryKind
from cas.repo.layout import HOLDS, RUNS
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.tracking.captured.variables import KEY_VARIABLE
from cas.tracking.ends.ending import FINISHED
from cas.tracking.ends.recovery import ELSEWHERE, OpenRun, open_runs, recover
from cas.tracking.ends.rescue import points_of
from cas.tracking.journals.feed import pieces
from cas.tracking.journals.state import artifact_frame, open_ref, parent_frame
from cas.tracking.names import make_name
from cas.tracking.record import ARTIFACTS, Items

NEVER: Final = "never"
AUTO: Final = "auto"
JOB: Final = "job.json"
RESUMED: Final = "resumed.json"


@dataclass(frozen=True, slots=True)
class Job:
    """What tells an execution from others: a key that the user gave, or a job of the cluster."""

    kind: str  # `key`, `slurm`
    id: str
    task: str = ""

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "Job | None":
        """Return the job that a program with these environment variables belongs to."""
        if key := variables.get(KEY_VARIABLE):
            return cls("key", key)
        if array := variables.get("SLURM_ARRAY_JOB_ID"):
            return cls("slurm", array, variables.get("SLURM_ARRAY_TASK_ID", ""))
        if job := variables.get("SLURM_JOB_ID"):
            return cls("slurm", job)
        return None

    @property
    def name(self) -> str:
        """A name for a run of this job."""
        task = f"-{self.task}" if self.task else ""
        return make_name(self.id if self.kind == "key" else f"job-{self.id}{task}", "job")

    def excludes(self, other: "Job | None") -> bool:
        """Say whether a run of the other job is surely not one of this: it has its own to do."""
        if other is None or other == self:
            return False
        return "key" in {self.kind, other.kind} or self.id == other.id

    def document(self) -> dict[str, str]:
        """Return the job as it stands in a record."""
        return {"kind": self.kind, "id": self.id, "task": self.task}


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run to go on with: the commit it broke off with, and the checkpoint it goes on from."""

    run: str
    ref: str
    tip: CommitId
    commit: Commit
    base: CommitId | None

    @property
    def uid(self) -> bytes:
        """The uid that the run had."""
        return self.commit.journal.run if self.commit.journal is not None else bytes(16)


def check_resume(told: object) -> str:
    """Return what a user said of resuming; raise InvalidInputError."""
    if told not in {NEVER, AUTO}:
        raise InvalidInputError(f"resume is {NEVER!r} or {AUTO!r}, not {told!r}")
    return str(told)


def name_of(named: str | None, job: Job | None) -> str:
    """Return the name to look for; raise InvalidInputError where nothing tells runs apart."""
    if named is not None:
        return named
    if job is None:
        raise InvalidInputError(
            f"resume={AUTO!r} goes by the run's name or job: give name=, or set {KEY_VARIABLE}"
        )
    return job.name


def find(repo: Repo, run: str, job: Job | None) -> Unfinished | None:
    """Return the unfinished run of this name or job, None when there is none to go on with.

    One of the same job counts first, then one of just this name. A run that another host may still
    be at work on is gone on with only when it is of the same job: then that was started again.
    """
    candidates = list(_candidates(repo, run))
    found: list[tuple[Unfinished, Job | None]] = []
    live = {one.ref: one for one in open_runs(repo, orphans=True)}
    for ref in candidates:
        if open_ref(ref) in repo.root.refs and not _taken_over(repo, live.get(ref), ref, job):
            continue
        one = _unfinished(repo, ref)
        if one is not None:
            found.append((one, _job_of(repo, one.commit)))
    same = [one for one, of in found if job is not None and of == job]
    named = [
        one
        for one, of in found
        if one.ref == f"{RUNS}{run}" and not (job is not None and job.excludes(of))
    ]
    return next(iter(same or named), None)


def frames(repo: Repo, found: Unfinished) -> list[dict[str, Any]]:
    """Return the frames of a journal that say what the run was told up to where it goes on."""
    told: list[dict[str, Any]] = []
    params = _document(repo, found.commit, "params.json")
    if params:
        told.append({"t": "params", "params": params})
    if found.base is not None:
        for frame in points_of(repo, _course(repo, found.base)):
            told += pieces(frame)
    metadata = _document(repo, found.commit, "metadata.json")
    if metadata:
        told.append({"t": "metadata", "metadata": metadata})
    told += [parent_frame(parent) for parent in found.commit.parents if parent.role != PREVIOUS]
    told += [artifact_frame(path, entry) for path, entry in _artifacts(repo, found.commit).items()]
    return told


def documents(
    repo: Repo, found: Unfinished, params: Mapping[str, Any], now: int
) -> dict[str, object]:
    """Return what the record says of this, and of all times before; `params` are as given now."""
    before = _document(repo, found.commit, RESUMED)
    known = _document(repo, found.commit, "params.json")
    changed = {
        name: {"before": known.get(name), "now": value}
        for name, value in params.items()
        if name not in known or known[name] != value
    }
    base = repo.commit(found.base) if found.base is not None else None
    this = {
        "after": str(found.tip),
        "checkpoint": None if found.base is None else str(found.base),
        "step": None if base is None else base.step,
        "time": now,
        "params": changed,
    }
    earlier = before.get("resumed")
    return {RESUMED: {"resumed": [*(earlier if isinstance(earlier, list) else []), this]}}


def said(repo: Repo, found: Unfinished) -> str:
    """Return in words what a run goes on from."""
    if found.base is None:
        return f"{found.run} goes on from its beginning: it broke off before its first checkpoint"
    step = repo.commit(found.base).step
    after = "" if step is None else f" after step {step}"
    return f"{found.run} goes on{after}, from checkpoint {found.base.short}"


def _candidates(repo: Repo, run: str) -> Iterator[str]:
    """Yield the refs of the runs of one name, and of those that got a number behind it."""
    refs, ref, number = repo.refresh().refs, f"{RUNS}{run}", 2
    yield ref
    while f"{ref}-{number}" in refs or open_ref(f"{ref}-{number}") in refs:
        yield f"{ref}-{number}"
        number += 1


def _taken_over(repo: Repo, live: OpenRun | None, ref: str, job: Job | None) -> bool:
    """Commit the end of a run that our own job began elsewhere; say whether that was done."""
    if live is None or live.status != ELSEWHERE or job is None or job.kind != "slurm":
        return False
    draft = repo.commit(repo.root.refs[open_ref(ref)])
    if _job_of(repo, draft) != job:
        return False
    return recover(repo, live, force=True) is not None


def _unfinished(repo: Repo, ref: str) -> Unfinished | None:
    refs = repo.refresh().refs
    tip = refs.get(ref)
    if tip is None or open_ref(ref) in refs:
        return None
    commit = repo.commit(tip)
    if commit.kind not in {RUN, CHECKPOINT} or commit.status == FINISHED:
        return None
    held = (
        id
        for id, one in segment(repo.commit, tip)
        if one.kind == CHECKPOINT and f"{HOLDS}{id}" in refs
    )
    return Unfinished(ref.removeprefix(RUNS), ref, tip, commit, next(held, None))


def _course(repo: Repo, base: CommitId) -> list[Commit]:
    """Return the checkpoints up to one, oldest first, whose points together are its history."""
    own = takewhile(lambda item: item[1].kind == CHECKPOINT, segment(repo.commit, base))
    return [commit for _, commit in own][::-1]


def _artifacts(repo: Repo, commit: Commit) -> Items:
    """Return the artifacts of a commit that are still there, by path."""
    found: Items = {}
    for tree in (commit.tree, commit.payload):
        try:
            top = repo.lookup(tree, ARTIFACTS.encode()) if tree is not None else None
            if top is not None:
                found |= dict(_below(repo, top, ""))
        except CasError:
            continue  # it was let go of
    return {path: entry for path, entry in found.items() if repo.store.find(entry.id) is not None}


def _below(repo: Repo, folder: Entry, above: str) -> Iterator[tuple[str, Entry]]:
    for entry in repo.entries(folder.id):
        path = above + os.fsdecode(entry.name)
        if entry.kind is EntryKind.TREE:
            yield from _below(repo, entry, f"{path}/")
        else:
            yield path, entry


def _job_of(repo: Repo, commit: Commit) -> Job | None:
    told = _document(repo, commit, JOB)
    known = [told.get(name) for name in ("kind", "id", "task")]
    return Job(*map(str, known)) if all(isinstance(one, str) for one in known) else None


def _document(repo: Repo, commit: Commit, name: str) -> dict[str, Any]:
    if repo.lookup(commit.tree, name.encode()) is None:
        return {}
    found = repo.document(commit.tree, name)
    return found if isinstance(found, dict) else {}
