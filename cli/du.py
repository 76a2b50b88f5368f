"""`cas du`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cas.errors import InvalidInputError

from . import render
from .exits import printable
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.report.tally import Line
    from cas.repo.report.usage import Claim, Claims

SAVERS = ("shared", "planes", "deltas", "zstd")


@click.command()
@click.argument("rev", required=False)
@click.option(
    "--by",
    type=click.Choice(["experiment", "run", "artifact"]),
    help="Tell what each of them alone needs, which is what would be freed with it.",
)
@click.option("--savings", is_flag=True, help="Tell what each way of storing less has saved.")
@json_option
@pass_session
def du(session: Session, rev: str | None, *, by: str | None, savings: bool) -> None:
    """Show what the repository takes, or what REV takes, and of what.

    Given is what all commits together hold, as if each had its files side by side; stored is what
    that takes on disk. With --savings: given - shared (stored once already) - planes - deltas -
    zstd + added (headers, manifests, indexes) = stored.

    Of a REV: stored is all that it needs, the bases of its deltas too; only here is what nothing
    else needs, which is what `prune` and `gc` would free of it. A run is listed with its
    checkpoints.

    With --by: what each experiment, run or artifact needs that nothing else does. What several
    share goes only with the last of them.
    """
    from cas.repo.report import usage

    repo = session.repo
    if by is not None:
        if rev is not None or savings:
            raise InvalidInputError("--by counts the whole repository: no REV, no --savings")
        _by(session, by)
        return
    if rev is None:
        found = usage.usage(repo, progress=session.progress)
        lines, total = found.lines, found.total
        session.emit(
            {"commits": found.commits, "missing": found.missing, **_data(lines, total)},
            lambda: _table(session, lines, total, savings=savings),
        )
        if found.missing:
            missing = render.count(found.missing, "object")
            verb = "is" if found.missing == 1 else "are"
            session.say(
                f"cas: {missing} cannot be found and {verb} not counted: `cas fsck` says more"
            )
        return
    from cas.repo.revision import resolve

    commits = usage.commits_of(repo, resolve(repo, rev))
    claims = usage.claims(repo, commits, progress=session.progress)
    told = [_claim(session, claim) for claim in claims.commits]
    session.emit(
        {
            "commits": told,
            "own_bytes": claims.own_bytes,
            **_data(claims.lines, claims.total),
        },
        lambda: (
            _table(session, claims.lines, claims.total, savings=True)
            if savings
            else _claims(told, claims)
        ),
    )


def _by(session: Session, by: str) -> None:
    from cas.repo.report.owners import By, owners

    found = owners(session.repo, By(by), progress=session.progress)
    rest = {
        "shared by several": found.shared_bytes,
        "not kept": found.unused_bytes,
        "upkeep": found.upkeep_bytes,
        "total": found.total_bytes,
    }
    rows = [[by, "only here", "objects", "with payload"]]
    for one in found.owners:
        commits = str(one.commits) if one.commits else ""
        size = render.human_bytes(one.own_bytes)
        rows.append([printable(one.name), size, f"{one.own_objects:,}", commits])
    rows += [[name, render.human_bytes(size), "", ""] for name, size in rest.items()]
    if by == "artifact":
        rows = [row[:3] for row in rows]
    session.emit(found, lambda: render.table(rows, right=range(1, len(rows[0]))))


def _claims(told: Sequence[dict[str, Any]], claims: "Claims") -> Iterator[str]:
    rows = [["commit", "", "step", "given", "stored", "only here"]]
    for one in told:
        step = "" if one["step"] is None else str(one["step"])
        kind = one["kind"] + (", pruned" if one["is_pruned"] else "")
        sizes = [one[f"{name}_bytes"] for name in ("given", "stored", "own")]
        rows.append([one["commit"].short, kind, step, *map(render.human_bytes, sizes)])
    if len(told) > 1:
        total = claims.total
        sizes = [total.given_bytes, total.stored_bytes, claims.own_bytes]
        rows.append(["together", "", "", *map(render.human_bytes, sizes)])
    yield from render.table(rows, right=(2, 3, 4, 5))


def _claim(session: Session, claim: "Claim") -> dict[str, Any]:
    commit = session.repo.commit(claim.commit)
    return {
        "commit": claim.commit,
        "kind": commit.kind,
        "step": commit.step,
        "given_bytes": claim.given_bytes,
        "stored_bytes": claim.stored_bytes,
        "own_bytes": claim.own_bytes,
        "shared_bytes": claim.shared_bytes,
        "is_pruned": claim.is_pruned,
    }


def _table(session: Session, lines: "Sequence[Line]", total: "Line", *, savings: bool) -> list[str]:
    names = ("given", *SAVERS, "added", "stored") if savings else ("given", "stored")
    rows = [("", *names, "ratio")]
    for line in (*(line for line in lines if line.records or line.stored_bytes), total):
        sizes = (_size(name, getattr(line, f"{name}_bytes")) for name in names)
        ratio = f"{line.stored_bytes / line.given_bytes:.3f}" if line.given_bytes else ""
        rows.append((line.part, *sizes, ratio))
    right = range(1, len(rows[0]))
    whole = render.table(rows, right=right)
    if session.width is None or max(map(len, whole)) <= session.width:
        return whole
    # What has nothing to say makes room, the ratio first: the sum has it all the same.
    kept = [number for number, column in enumerate(zip(*rows, strict=True)) if _told(column)]
    return render.table([[row[number] for number in kept] for row in rows], right=right)


def _told(column: Sequence[str]) -> bool:
    head, *cells = column
    return head != "ratio" and any(cell != "-" for cell in cells)


def _size(name: str, size: int) -> str:
    if not size:
        return "-"
    return render.human_bytes(-size if name in SAVERS else size)


def _data(lines: "Sequence[Line]", total: "Line") -> dict[str, Any]:
    from cas.plain import plain

    rows = [plain(line) | {"stored_bytes": line.stored_bytes} for line in (*lines, total)]
    return {"parts": rows[:-1], "total": rows[-1]}
