"""`cas log RUN --checkpoints`: the checkpoints of one run, and why each is kept."""

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from . import render
from .exits import printable
from .session import Session

if TYPE_CHECKING:
    from cas.ids import CommitId
    from cas.objects.commit import Commit
    from cas.repo.repo import Repo
    from cas.repo.retain.retention import Keep

SHOWN_METRICS: Final = 4
Row = dict[str, Any]


def show_checkpoints(session: Session, rev: str, limit: int | None) -> bool:
    """Print the checkpoints that a run has up to a revision; False when it names none of a run."""
    from cas.objects.commit import CHECKPOINT, DRAFT, RUN
    from cas.repo.retain.choice import segment
    from cas.repo.retain.prune import explain
    from cas.repo.revision import resolve

    repo = session.repo
    id = resolve(repo, rev)
    tip = repo.commit(id)
    if tip.kind not in {RUN, CHECKPOINT, DRAFT}:
        return False
    keep = _policy(repo, tip)
    decided = {one.checkpoint.commit: one for one in explain(repo, id, keep, session.now)}
    rows = [
        _row(repo, one, commit, decided[one].reasons if one in decided else None)
        for one, commit in segment(repo.commit, id)
        if commit.kind == CHECKPOINT
    ]
    chosen = list(islice(rows, limit))
    if not rows:
        session.say(f"cas: run {tip.full_name} has no checkpoints")
    session.emit(
        chosen,
        lambda: render.table([_cells(session, row, keep) for row in chosen], right={3, 4}),
        paged=True,
    )
    return True


def _policy(repo: "Repo", tip: "Commit") -> "Keep | None":
    """Return the policy that the run was given, or else the config's; None for none."""
    from contextlib import suppress

    from cas.errors import CasError
    from cas.repo import config
    from cas.repo.retain.vocabulary import as_policy

    with suppress(CasError):
        told = repo.document(tip.tree, "retention.json")
        return as_policy(told) if isinstance(told, Mapping) else config.policy(repo)
    return None


def _row(repo: "Repo", id: "CommitId", commit: "Commit", reasons: tuple[str, ...] | None) -> Row:
    """Return a checkpoint as data; `reasons` is None for one that was pruned."""
    from cas.repo.retain.spared import last_values

    details = repo.document(commit.tree, "checkpoint.json")
    epoch = details.get("epoch") if isinstance(details, dict) else None
    volume = commit.volume
    return {
        "commit": id,
        "seq": commit.seq,
        "step": commit.step,
        "epoch": epoch,
        "time": render.iso(commit.time) or None,
        "monitor": commit.monitor,
        "metrics": last_values(repo, commit),
        "given_bytes": None if volume is None else volume.given_bytes,
        "stored_bytes": None if volume is None else volume.stored_bytes,
        "kept": reasons is not None,
        "reasons": list(reasons or ()),
    }


def _cells(session: Session, row: Row, keep: "Keep | None") -> list[str]:
    return [
        session.paint(row["commit"].short, fg="yellow"),
        "" if row["step"] is None else f"step {row['step']}",
        "" if row["epoch"] is None else f"epoch {row['epoch']}",
        "" if row["given_bytes"] is None else f"{render.human_bytes(row['given_bytes'])} given",
        "" if row["stored_bytes"] is None else f"{render.human_bytes(row['stored_bytes'])} stored",
        _metrics(row),
        _fate(session, row, keep),
    ]


def _metrics(row: Row) -> str:
    """Return the values that people look for, the monitored one first."""
    first = row["monitor"].metric if row["monitor"] is not None else None
    names = sorted(row["metrics"], key=lambda name: (name != first, name))
    shown = [f"{name} {render.number(row['metrics'][name])}" for name in names[:SHOWN_METRICS]]
    more = len(names) - len(shown)
    return printable(", ".join(shown)) + (f" (+{more})" if more else "")


def _fate(session: Session, row: Row, keep: "Keep | None") -> str:
    if not row["kept"]:
        return session.paint("pruned", fg="red")
    if row["reasons"]:
        return f"kept: {', '.join(row['reasons'])}"
    return "kept" if keep is None else "kept, though no rule keeps it"
