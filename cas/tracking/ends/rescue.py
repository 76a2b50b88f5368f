"""How a run that did not end is committed, from its journals or from its draft alone.

It may have been taken for dead and live on. So what its journals say and no finishing commit holds
is committed too, under a name of its own: nothing that anybody noted down is lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cas.errors import CasError
from cas.ids import CommitId
from cas.objects.commit import RUN, Commit
from cas.objects.document import document
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.tracking import record
from cas.tracking.ends.carried import carried, gone_on
from cas.tracking.ends.course import course, frame
from cas.tracking.ends.ending import CRASHED
from cas.tracking.journals.journal import read_journal
from cas.tracking.journals.state import RunState, free_number, open_ref
from cas.tracking.record import Items
from cas.tracking.runfiles import log_entry, log_file
from cas.tracking.shown.loggedrecord import Index
from cas.tracking.shown.shelf import drafted_frames

PASSED_BY: Final = frozenset({"finish", "moved"})  # of a program that continued another's run


@dataclass(frozen=True, slots=True)
class Lost:
    """A run to commit: what its journals say, and all refs that it has gone on under."""

    state: RunState
    known_as: tuple[tuple[str, str], ...]  # names and refs, the last one first
    ended: int


def from_journals(repo: Repo, run: str, ref: str, uid: bytes, parts: list[Path]) -> Lost:
    """Return what the journals of a run say; raise CorruptionError."""
    state = RunState(run, ref, uid, chosen=record.chosen_monitor(repo))
    known_as = [(run, ref)]
    for number, path in enumerate(parts):
        journal = read_journal(path)
        for told in journal.frames:
            moved = isinstance(told, dict) and told.get("t") == "moved"
            state.replay([told] if number == 0 or not _passed_by(told) else [])
            if moved:
                known_as.insert(0, (str(told.get("run")), str(told.get("ref"))))
        if number == 0:
            state.position = journal.positions[-1] if journal.positions else 0
    ended = max(path.stat().st_mtime_ns for path in parts) // 1000
    return Lost(state, tuple(dict.fromkeys(known_as)), ended)


def from_draft(repo: Repo, run: str, ref: str) -> Lost:
    """Return what the commits of a run say of it: its journal is not there."""
    draft = repo.commit(repo.refresh().refs[open_ref(ref)])
    uid = draft.journal.run if draft.journal else bytes(16)
    state = RunState(run, ref, uid, chosen=record.chosen_monitor(repo))
    params = repo.document(draft.tree, "params.json")
    state.params = dict(params) if isinstance(params, dict) else {}
    state.parents = list(draft.parents)
    state.replay(drafted_frames(repo, draft))
    if repo.lookup(draft.tree, b"metadata.json") is not None:
        told = repo.document(draft.tree, "metadata.json")
        state.metadata = dict(told) if isinstance(told, dict) else {}
    saved = course(repo, repo.root.refs.get(ref))
    saved = _carry(repo, state, draft, saved) or saved
    points = frame(repo, saved)
    state.metrics.replay([points] if points is not None else [])
    ended = max([draft.time or 0, *(commit.time or 0 for commit in saved)])
    return Lost(state, ((run, ref),), ended)


def _carry(repo: Repo, state: RunState, draft: Commit, saved: list[Commit]) -> list[Commit]:
    """Tell a state what the run took over when it went on; return the checkpoints up to there.

    Of files the draft itself tells.
    """
    before = gone_on(repo, draft)
    if before is None:
        return []
    tip, base = before
    found = carried(repo, tip, repo.commit(base) if base is not None else None)
    rest = replace(found, logged=tuple(row for row in found.logged if row.id is None))
    state.replay(rest.frames())
    return [] if saved else course(repo, base)


def commit_lost(repo: Repo, lost: Lost) -> str | None:
    """Commit the end of a run; return its name, None when its commits hold all of it already."""
    state, log = lost.state, log_file(repo, lost.state.uid)
    own_tip, artifacts, logged = state.tip, state.artifacts, state.logged

    def build(tx: Transaction) -> str | None:
        found = _place(tx, lost)
        if found is None:
            return None
        state.run, state.ref, source = found
        begun = repo.commit(source)
        tip = tx.ref(state.ref) or own_tip
        state.tip, state.seq = tip, repo.commit(tip).seq if tip is not None else 0
        # What was let go of with the commit that held it is gone.
        state.artifacts = {
            path: entry for path, entry in artifacts.items() if tx.writer.has(entry.id)
        }
        state.logged = logged.only(tx.writer.has)
        moment = record.Moment(lost.ended, begun.author or repo.who, state.status or CRASHED)
        captured = record.captured_items(repo, begun.tree)
        light, heavy = _logged(tx, state, captured, log)
        record.finish(tx, state, captured, moment, light=light, heavy=heavy)
        return state.run

    return transact(repo, f"recover {state.run}", build, run=state.run)


def _logged(tx: Transaction, state: RunState, captured: Items, log: Path) -> tuple[Items, Items]:
    """Store what a program has printed, and with the record what the filter took out."""
    from cas.tracking.privacy import cleanlog, redacted

    there = log.exists()
    taken = [*cleanlog.removed_before(log)] if there else []
    heavy = log_entry(tx, log, taken.append) if there else {}
    return redacted.at_the_end(tx, captured, {"log.txt": taken}, state.redacted), heavy


def _place(tx: Transaction, lost: Lost) -> tuple[str, str, CommitId] | None:
    """Return name and ref to commit under, and a commit that has what was captured at the start."""
    for run, ref in lost.known_as:
        draft = tx.ref(open_ref(ref))
        if draft is not None and _is_of(tx.repo, draft, lost.state.uid):
            return run, ref, draft
    run, ref = lost.known_as[-1]
    number = free_number(tx.root.refs, ref)
    tips = list(_tips(tx, lost, number))
    if not tips or any(_holds_all(tx.repo, tip, lost.state) for tip in tips):
        return None  # it never began, or it has ended properly, and only its journal was left
    tx.set_ref(f"{ref}-{number}", None)  # free when this is published too
    return f"{run}-{number}", f"{ref}-{number}", tips[0]


def _is_of(repo: Repo, draft: CommitId, uid: bytes) -> bool:
    """Say whether a draft is of the process that wrote these journals, or does not say whose."""
    position = repo.commit(draft).journal
    return position is None or position.run == uid


def _tips(tx: Transaction, lost: Lost, number: int) -> Iterator[CommitId]:
    """Yield the newest commits of the run under all its names, those that others gave it too."""
    ref = lost.known_as[-1][1]
    names = dict.fromkeys([known for _, known in lost.known_as])
    for name in [*names, *(f"{ref}-{taken}" for taken in range(2, number))]:
        tip = tx.ref(name)
        if tip is not None:
            position = tx.repo.commit(tip).journal
            if position is not None and position.run == lost.state.uid:
                yield tip


def _holds_all(repo: Repo, tip: CommitId, state: RunState) -> bool:
    """Say whether a commit ends the run with all that the run's journals say."""
    commit = repo.commit(tip)
    if commit.kind != RUN:
        return False
    told = repo.document(commit.tree, "summary.json")
    counts = told if isinstance(told, dict) else {}
    for name, summary in state.metrics.summary().items():
        known = counts.get(name)
        if not isinstance(known, dict) or known.get("count", 0) < summary["count"]:
            return False
    entry = repo.lookup(commit.tree, b"params.json")
    params = repo.document(commit.tree, "params.json") if entry is not None else {}
    if document(params) != document(state.params):
        return False
    if not {parent.commit for parent in state.parents} <= {p.commit for p in commit.parents}:
        return False
    shown = Index(repo, tip).counts()
    if any(shown.get(where, 0) < count for where, count in state.logged.counts().items()):
        return False
    return all(_has_artifact(repo, commit, path) for path in state.artifacts)


def _has_artifact(repo: Repo, commit: Commit, path: str) -> bool:
    name = f"{record.ARTIFACTS}/{path}".encode("utf-8", "surrogateescape")
    for tree in (commit.tree, commit.payload):
        try:
            if tree is not None and repo.lookup(tree, name) is not None:
                return True
        except CasError:
            return True  # of a payload that was let go of since, nobody can tell
    return False


def _passed_by(frame: object) -> bool:
    return isinstance(frame, dict) and frame.get("t") in PASSED_BY
