"""The graph that `cas log --graph` draws."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import render
from .log import commit_cells, live_runs, run_cells
from .session import Session

if TYPE_CHECKING:
    from cas.ids import CommitId
    from cas.lineage.history import Edge, Node


def show_graph(session: Session, rev: str | None, limit: int | None, *, checkpoints: bool) -> None:
    """Draw all that refs reach, or what REV came from."""
    from cas.lineage.history import graph
    from cas.repo.revision import resolve

    tip = None if rev is None else resolve(session.repo, rev)
    nodes = graph(session.repo, tip=tip, checkpoints=checkpoints, live=live_runs(session))[:limit]
    session.emit([_data(node) for node in nodes], lambda: _lines(session, nodes))


def _lines(session: Session, nodes: "list[Node]") -> Iterator[str]:
    from cas.lineage.drawing import draw

    homes = {node.id: node for node in nodes}

    def edge_label(edge: "Edge") -> str:
        text = f"{edge.role} {_end(homes.get(edge.node), edge.commit)}"
        return session.paint(text, fg="cyan")

    yield from draw(nodes, lambda node: _label(session, node), edge_label)


def _label(session: Session, node: "Node") -> str:
    names = [ref.removeprefix("heads/").removeprefix("tags/") for ref in _other_refs(node)]
    shown = session.paint(f"({', '.join(names)})", fg="green") if names else ""
    if node.line is not None and len(node.commits) > 1:
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
        "run": node.line,
        "edges": node.edges,
    }
