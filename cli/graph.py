"""The graph that `cas log --graph` draws."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from . import render
from .log import commit_cells, is_experiment, live_runs, run_cells, run_data
from .session import Session

if TYPE_CHECKING:
    from cas.ids import CommitId
    from cas.lineage.history import Edge, Node


def show_graph(
    session: Session, rev: str | None, limit: int | None, *, checkpoints: bool, archived: bool
) -> None:
    """Draw all that refs reach, or what REV came from."""
    from cas.lineage.history import graph

    tips = None if rev is None else _tips(session, rev, archived=archived)
    live = live_runs(session)
    nodes = graph(
        session.repo, tips=tips, checkpoints=checkpoints, live=live, all=archived or rev is not None
    )[:limit]
    if not nodes and limit != 0:
        session.say("no commits yet: `cas run`, `cas.track` and `cas commit` make them")
    lines = partial(_lines, session, nodes, checkpoints=checkpoints)
    session.emit([_data(node) for node in nodes], lines, paged=True)


def _tips(session: Session, rev: str, *, archived: bool) -> "list[CommitId]":
    """Return the newest commits of an experiment's runs, or the one that a revision names."""
    from cas.repo.layout import OPEN, RUNS
    from cas.repo.retain import archive
    from cas.repo.revision import resolve

    if not is_experiment(session, rev):
        return [resolve(session.repo, rev)]
    inside = (f"{RUNS}{rev}/", f"{OPEN}{rev}/")
    refs = session.repo.root.refs
    hidden = frozenset[str]() if archived else archive.archived(refs)
    return [id for ref, id in refs.items() if ref.startswith(inside) and ref not in hidden]


def _lines(session: Session, nodes: "list[Node]", *, checkpoints: bool) -> Iterator[str]:
    from cas.lineage.drawing import draw

    homes = {node.id: node for node in nodes}

    def edge_label(edge: "Edge") -> str:
        text = f"{edge.role} {_end(homes.get(edge.node), edge.commit)}"
        return session.paint(text, fg="cyan")

    def label(node: "Node") -> str:
        return _label(session, node, whole=not checkpoints)

    for line in draw(nodes, label, edge_label):
        # A line that is broken in two would tear the drawing.
        yield line if session.width is None else render.cut(line, session.width)


def _label(session: Session, node: "Node", *, whole: bool) -> str:
    """Return what stands beside a node: of a `whole` run its line, of a commit its cells."""
    names = [ref.removeprefix("heads/").removeprefix("tags/") for ref in _other_refs(node)]
    shown = session.paint(f"({', '.join(names)})", fg="green") if names else ""
    if node.line is not None and whole:
        name, *cells = run_cells(session, node.line)[:4]
        return "  ".join(cell for cell in (name, shown, *cells) if cell)
    id, commit = node.commits[0]
    head, *cells = commit_cells(session, id, commit, session.repo.root.refs)
    name = session.paint(commit.full_name or "", bold=True)
    return "  ".join(cell for cell in (head, name, shown, *cells) if cell)


def _other_refs(node: "Node") -> list[str]:
    """Return the names of a node, less those that its run's name tells."""
    return [ref for ref in node.refs if not ref.startswith(("runs/", "open/"))]


def _end(node: "Node | None", commit: "CommitId") -> str:
    """Return how people call the end of an edge."""
    if node is None:
        return commit.short
    found = dict(node.commits)[commit]
    if any(ref.startswith("reproductions/") for ref in node.refs):
        return f"its reproduction {commit.short}"
    if found.run is not None:
        at = "" if found.step is None else f", step {found.step}"
        return f"{found.full_name}{at}"
    return node.refs[0].partition("/")[2] if node.refs else commit.short


def _data(node: "Node") -> dict[str, object]:
    return {
        "id": node.id,
        "refs": node.refs,
        "commits": [id for id, _ in node.commits],
        "kind": node.commits[0][1].kind,
        "time": render.iso(node.commits[0][1].time) or None,
        "run": node.commits[0][1].full_name,
        "line": None if node.line is None else run_data(node.line),
        "edges": node.edges,
    }
