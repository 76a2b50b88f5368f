"""Going on with a run that did not finish: which one that is, and what it goes on from.

A run goes on under its own name, from its newest checkpoint that is kept. What it logged behind
that is done again, so it does not count any more; it stays in the commit that the run broke off
with, which is the one before all that come now.
Format: docs/format/run.md.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import CasError, InvalidInputError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, PREVIOUS, RUN, Commit
from cas.objects.tree import Entry, EntryKind
from cas.repo.layout import HOLDS, RUNS
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.tracking.captured.environment import here
from cas.tracking.captured.variables import KEY_VARIABLE
from cas.tracking.ends.carried import RESUMED, Carried, carried
from cas.tracking.ends.course import course, frame
from cas.tracking.ends.ending import FAILED, FINISHED, INTERRUPTED
from cas.tracking.ends.recovery import LOST, RUNNING, OpenRun, open_runs
from cas.tracking.ends.waiting import ended
from cas.tracking.journals.feed import pieces
from cas.tracking.journals.state import artifact_frame, open_ref, parent_frame
from cas.tracking.names import make_name
from cas.tracking.record import ARTIFACTS, Items

NEVER: Final = "never"
AUTO: Final = "auto"
JOB: Final = "job.json"
HOW: Final = {INTERRUPTED: "was interrupted", FAILED: "failed"}
RESTARTS: Final = "SLURM_RESTART_COUNT"

Tell = Callable[[str], None]


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
        return "key" in {self.kind, other.kind} or self.id == other.id or self.task != other.task

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


def find(
    repo: Repo, run: str, job: Job | None, tell: Tell = lambda _: None, *, restarted: bool = False
) -> Unfinished | None:
    """Return the unfinished run of this name or job, None when there is none to go on with.

    One of the same job counts first, then one of just this name, then the newest that got a number
    behind it. Of one that may be at work on another host a sign of life is waited for, unless the
    job was `restarted` by the cluster: then it has ended.
    """
    known = {ref: _job_at(repo, ref) for ref in _candidates(repo, run)}
    same = [ref for ref, of in known.items() if job is not None and of == job]
    named = [ref for ref, of in known.items() if job is None or not job.excludes(of)]
    others = [ref for ref in [named[0], *named[:0:-1]] if ref not in same] if named else []
    live = {one.ref: one for one in open_runs(repo, orphans=True)}
    for ref in same:
        if ref in live and not _has_ended(repo, live[ref], tell, mine=True, restarted=restarted):
            continue
        if (found := _unfinished(repo, ref)) is not None:
            return found
    for ref in others:
        if ref not in live and (found := _unfinished(repo, ref)) is not None:
            return found
    for ref in others[:1]:
        if ref in live and _has_ended(repo, live[ref], tell):
            return _unfinished(repo, ref)
    return None


def not_found(repo: Repo, run: str, job: Job | None) -> str:
    """Return why nothing is gone on with under a name that is taken; empty where it is free."""
    ref = f"{RUNS}{run}"
    refs = repo.refresh().refs
    live = next((one for one in open_runs(repo, orphans=True) if one.ref == ref), None)
    if live is not None:
        who = f"process {live.pid} on {live.host}" if live.pid else "its process is not known"
        return f"{run} is running ({who}; `cas recover --force {run}` says that it is gone)"
    if ref not in refs:
        return ""
    if job is not None and job.excludes(_job_at(repo, ref)):
        return f"{run} belongs to another job"
    return f"{run} has finished" if repo.commit(refs[ref]).status == FINISHED else ""


def taken_over(repo: Repo, found: Unfinished) -> Carried:
    """Return what the run takes over from before beside points, params, inputs and artifacts."""
    base = repo.commit(found.base) if found.base is not None else None
    return carried(repo, found.tip, base)


def frames(repo: Repo, found: Unfinished, more: Carried) -> list[dict[str, Any]]:
    """Return the frames of a journal that say what the run was told up to where it goes on."""
    told: list[dict[str, Any]] = []
    params = _document(repo, found.commit, "params.json")
    if params:
        told.append({"t": "params", "params": params})
    told += pieces(frame(repo, course(repo, found.base)))
    metadata = _document(repo, found.commit, "metadata.json")
    if metadata:
        told.append({"t": "metadata", "metadata": metadata})
    told += [parent_frame(parent) for parent in found.commit.parents if parent.role != PREVIOUS]
    told += [artifact_frame(path, entry) for path, entry in _artifacts(repo, found.commit).items()]
    told += more.frames()
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
    """Return in words how a run broke off, and what it goes on from."""
    summary = _document(repo, found.commit, "summary.json")
    steps = [told.get("last_step") for told in summary.values() if isinstance(told, dict)]
    last = max((step for step in steps if type(step) is int), default=None)
    how = HOW.get(found.commit.status or "", "was cut off")
    broke = f"{found.run} {how}" + ("" if last is None else f" after step {last}")
    if found.base is not None:
        step = repo.commit(found.base).step
        after = "" if step is None else f" after step {step}"
        return f"{broke}: it goes on{after}, from checkpoint {found.base.short}"
    saved = any(one.kind == CHECKPOINT for _, one in segment(repo.commit, found.tip))
    why = "none of its checkpoints is kept" if saved else "it had no checkpoint yet"
    return f"{broke}: it begins again, as {why}"


def _candidates(repo: Repo, run: str) -> Iterator[str]:
    """Yield the ref of the run of a name, and of those that got a number behind it."""
    refs, ref, number = repo.refresh().refs, f"{RUNS}{run}", 2
    yield ref
    while f"{ref}-{number}" in refs or open_ref(f"{ref}-{number}") in refs:
        yield f"{ref}-{number}"
        number += 1


def _has_ended(
    repo: Repo, live: OpenRun, tell: Tell, *, mine: bool = False, restarted: bool = False
) -> bool:
    """Commit the end of a run that another host was at work on, if it has ended; say whether."""
    if live.status == RUNNING and (not mine or live.host == here().host):
        return False  # its lock says so; of the same job on another host it may be a stale one
    try:
        return ended(repo, live, tell, at_once=restarted or live.status == LOST)
    except CasError as error:
        tell(f"warning: {live.run} could not be committed: {error}")
        return False


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


def _job_at(repo: Repo, ref: str) -> Job | None:
    """Return the job of the run that is or will be at a ref."""
    refs = repo.root.refs
    tip = refs.get(open_ref(ref)) or refs.get(ref)
    return _job_of(repo, repo.commit(tip)) if tip is not None else None


def _job_of(repo: Repo, commit: Commit) -> Job | None:
    told = _document(repo, commit, JOB)
    known = [told.get(name) for name in ("kind", "id", "task")]
    return Job(*map(str, known)) if all(isinstance(one, str) for one in known) else None


def _document(repo: Repo, commit: Commit, name: str) -> dict[str, Any]:
    if repo.lookup(commit.tree, name.encode()) is None:
        return {}
    found = repo.document(commit.tree, name)
    return found if isinstance(found, dict) else {}
