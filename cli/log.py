"""`cas log`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from cas.errors import InvalidInputError

from . import render
from .exits import printable
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.ids import CommitId
    from cas.lineage.history import Item, RunLine
    from cas.objects.commit import Commit

COLOURS = {"finished": "green", "running": "cyan", "lost": "yellow"}
KEPT, STORED, WHEN = 3, 4, 5  # columns that a narrow terminal does without
ENDS = ("run", "verdict")  # kinds whose status says how something ended


@click.command()
@click.argument("rev", required=False)
@click.option("-n", "limit", type=click.IntRange(min=0), metavar="N", help="The newest N only.")
@click.option(
    "--checkpoints",
    is_flag=True,
    help="Unfold the checkpoints of each run; of one RUN, why each is kept.",
)
@click.option("--graph", is_flag=True, help="Draw the edges of every role.")
@click.option("--label", metavar="LABEL", help="Runs with this label only.")
@click.option("--all", "archived", is_flag=True, help="Archived runs too.")
@json_option
@pass_session
def log(
    session: Session,
    rev: str | None,
    limit: int | None,
    *,
    checkpoints: bool,
    graph: bool,
    label: str | None,
    archived: bool,
) -> None:
    """List the runs, or the history of a revision.

    Without REV: every run that is not archived, the newest first. With REV: the commits along
    `previous`; with an experiment: its runs. On a terminal the lines of a graph end where it ends.
    Checkpoints that were pruned stay in the list, with their metrics.
    """
    if label is not None and (graph or (rev is not None and not is_experiment(session, rev))):
        raise InvalidInputError("--label chooses among runs: without REV, or with an experiment")
    if graph:
        from .graph import show_graph

        show_graph(session, rev, limit, checkpoints=checkpoints, archived=archived)
    elif rev is not None and not is_experiment(session, rev):
        from .checkpoints import show_checkpoints

        if not (checkpoints and show_checkpoints(session, rev, limit)):
            _history(session, rev, limit)
    else:
        _runs(
            session, limit, experiment=rev, checkpoints=checkpoints, label=label, archived=archived
        )


def live_runs(session: Session) -> dict[str, str]:
    """Return the status of every run that has no end yet, by ref."""
    from cas.repo.layout import JOURNALS, REPRODUCTIONS, RUNS

    folder = session.repo.path / JOURNALS
    if not folder.is_dir() or not any(folder.iterdir()):
        return {}
    from cas.tracking.ends.recovery import open_runs

    live, refs = {}, session.repo.root.refs
    for run in open_runs(session.repo):
        # A reproduction is drafted under a run's name, which may be the one that it repeats.
        drafted = f"{RUNS}{run.run}"
        named = run.ref.startswith(REPRODUCTIONS) and drafted not in refs
        live[drafted if named else run.ref] = run.status
    return live


def run_lines(session: Session, lines: "Sequence[RunLine]") -> list[str]:
    """Return a line for each run, in a shorter form where the terminal is too narrow.

    In the narrowest a run's name, status, metric and hash are left.
    """
    table = render.table([run_cells(session, line) for line in lines])
    if fits(session, table):
        return table
    cells = [run_cells(session, line, short=True) for line in lines]
    for left_out in ((), (STORED,), (STORED, KEPT), (STORED, KEPT, WHEN)):
        table = render.table(
            [cell for at, cell in enumerate(row) if at not in left_out] for row in cells
        )
        if fits(session, table):
            break
    return table


def fits(session: Session, lines: Sequence[str]) -> bool:
    """Say whether no line is longer than a line of the terminal."""
    return session.width is None or max(map(render.shown, lines), default=0) <= session.width


def run_cells(session: Session, line: "RunLine", *, short: bool = False) -> list[str]:
    """Return the cells of a run's line."""
    metric = "-"
    if line.metric is not None:
        metric = f"{line.metric} {render.number(line.last)}"
        if line.best is not None and line.best != line.last and not short:
            metric += f" (best {render.number(line.best)})"
    kept = f"{render.count(line.checkpoints, 'checkpoint')}, {line.kept} kept"
    stored = render.human_bytes(line.stored_bytes)
    when = render.moment(session.now, line.time, terminal=session.terminal)
    return [
        session.paint(line.run, bold=True),
        session.paint(line.status, fg=COLOURS.get(line.status, "red"))
        + (" (archived)" if line.archived else "")
        + (f" [{printable(', '.join(line.labels))}]" if line.labels and not short else ""),
        metric,
        f"{line.kept}/{line.checkpoints} kept" if short else kept,
        stored if short else f"{stored} stored",
        when.removesuffix(" ago") if short else when,
        session.paint(line.id.short, fg="yellow"),
    ]


def run_data(line: "RunLine") -> dict[str, object]:
    """Return a run's line as JSON data."""
    from cas.plain import plain

    told = plain(line) | {"time": render.iso(line.time) or None}
    told["kept_checkpoints"] = told.pop("kept")
    return told  # type: ignore[no-any-return]


def commit_cells(
    session: Session, id: "CommitId", commit: "Commit", refs: Mapping[str, "CommitId"]
) -> list[str]:
    """Return the cells of a commit's line."""
    from cas.repo.layout import HOLDS

    held = "" if commit.payload is None else "kept" if f"{HOLDS}{id}" in refs else "pruned"
    metric = commit.monitor
    return [
        session.paint(id.short, fg="yellow"),
        f"{commit.kind} {commit.status}" if commit.kind in ENDS and commit.status else commit.kind,
        "" if commit.step is None else f"step {commit.step}",
        f"{metric.metric} {render.number(metric.value)}" if metric else "",
        session.paint(held, fg="red") if held == "pruned" else held,
        ""
        if commit.time is None
        else render.moment(session.now, commit.time, terminal=session.terminal),
        render.first_line(commit.message),
    ]


def is_experiment(session: Session, word: str) -> bool:
    """Say whether a word names an experiment that has runs."""
    from cas.repo.layout import OPEN, RUNS

    refs = session.repo.root.refs
    return any(ref.startswith((f"{RUNS}{word}/", f"{OPEN}{word}/")) for ref in refs)


def _runs(
    session: Session,
    limit: int | None,
    *,
    experiment: str | None,
    checkpoints: bool,
    label: str | None,
    archived: bool,
) -> None:
    from cas.lineage.history import runs, unfolded

    repo, live = session.repo, live_runs(session)
    if not checkpoints:
        lines = runs(repo, limit, live, experiment=experiment, label=label, all=archived)
        if not lines and limit != 0:
            session.say(_none(session) if label is None else f"no run has the label {label}")
        session.emit(
            [run_data(line) for line in lines],
            lambda: run_lines(session, lines),
            paged=True,
        )
        return
    found = list(unfolded(repo, limit, live, experiment=experiment, label=label, all=archived))
    refs = repo.root.refs
    session.emit(
        [
            run_data(line) | {"commits": [as_data(id, commit, refs) for id, commit in commits]}
            for line, commits in found
        ],
        lambda: _unfolded(session, found, refs),
        paged=True,
    )


def _none(session: Session) -> str:
    from cas.repo.retain.archive import archived

    if archived(session.repo.root.refs):
        return "no runs but archived ones: `cas log --all` lists them"
    return "no runs yet: `cas run` and `cas.track` make them"


def _unfolded(
    session: Session,
    found: "list[tuple[RunLine, list[Item]]]",
    refs: Mapping[str, "CommitId"],
) -> Iterator[str]:
    heads = run_lines(session, [line for line, _ in found])
    for head, (_, commits) in zip(heads, found, strict=True):
        yield head
        cells = [commit_cells(session, id, commit, refs) for id, commit in commits]
        yield from (f"    {line}" for line in render.table(cells))


def _history(session: Session, rev: str, limit: int | None) -> None:
    from itertools import islice

    from cas.lineage.history import walk
    from cas.repo.revision import resolve

    repo = session.repo
    commits = list(islice(walk(repo, resolve(repo, rev)), limit))
    refs = repo.root.refs
    session.emit(
        [as_data(id, commit, refs) for id, commit in commits],
        lambda: render.table([commit_cells(session, id, commit, refs) for id, commit in commits]),
        paged=True,
    )


def as_data(id: "CommitId", commit: "Commit", refs: Mapping[str, "CommitId"]) -> dict[str, object]:
    """Return a commit as plain data, with its id, its time as text and whether it is kept."""
    from cas.plain import plain
    from cas.repo.layout import HOLDS

    kept = None if commit.payload is None else f"{HOLDS}{id}" in refs
    told: dict[str, object] = {"id": str(id)} | plain(commit)
    if commit.journal is not None:
        told["journal"] = {"run": commit.journal.run.hex(), "position": commit.journal.position}
    return told | {"time": render.iso(commit.time) or None, "kept": kept}
