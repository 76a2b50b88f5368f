"""The graph of commits as text: `*` for a node, and lines to what it came from.

A column belongs to the node that it leads down to; an edge to a node that has a column joins it.
A line between two nodes is written for every edge that turns, and for every role but `previous`,
whose name stands beside it.
"""

from collections.abc import Callable, Iterator, Sequence

from cas.ids import CommitId
from cas.lineage.history import Edge, Node
from cas.objects.commit import PREVIOUS

Columns = list[CommitId | None]


def draw(
    nodes: Sequence[Node],
    label: Callable[[Node], str],
    edge_label: Callable[[Edge], str],
) -> Iterator[str]:
    """Yield the lines of a graph whose nodes come children first."""
    columns: Columns = []
    done: set[CommitId] = set()
    for node in nodes:
        done.add(node.id)
        at = _column(columns, node.id)
        columns[at] = node.id
        yield f"{_bars(columns, {at: '*'})}  {label(node)}"
        below = [edge for edge in node.edges if edge.node not in done]
        yield from _edges(columns, at, below, edge_label)
        for edge in node.edges:
            if edge.node in done:
                yield _line(columns, {}, edge_label(edge))
        while columns and columns[-1] is None:
            columns.pop()


def _edges(
    columns: Columns, at: int, edges: list[Edge], edge_label: Callable[[Edge], str]
) -> Iterator[str]:
    """Lead the columns on from a node to its parents."""
    straight = next((edge for edge in edges if edge.node not in columns), None)
    columns[at] = straight.node if straight else None
    if straight:
        edges.remove(straight)
        if straight.role != PREVIOUS:
            yield _line(columns, {}, edge_label(straight))
    for number, edge in enumerate(edges):
        ends = straight is None and number == len(edges) - 1
        yield _line(columns, _turn(columns, at, edge.node, ends=ends), _text(edge, edge_label))


def _turn(columns: Columns, at: int, target: CommitId, *, ends: bool) -> dict[int, str]:
    """Return the signs, by place, that lead from column `at` to the one of `target`.

    With `ends` nothing else goes on in column `at`: a target to its right moves there.
    """
    free = columns[at] is None
    own = {} if ends or not free else {2 * at: "|"}
    if target not in columns:
        columns[_column(columns, target, beside=at)] = target
        new = columns.index(target)
        return own | _reach(at, new) | {2 * new: " " if new == at + 1 else "."}
    there = columns.index(target)
    if there == at:
        return own
    if ends and there > at:
        columns[at], columns[there] = target, None
        return _reach(there, at)
    return own | _reach(at, there)


def _reach(start: int, end: int) -> dict[int, str]:
    """Return a slash beside `start` and a line along the ground to `end`."""
    if start < end:
        return dict.fromkeys(range(2 * start + 3, 2 * end, 2), "_") | {2 * start + 1: "\\"}
    return dict.fromkeys(range(2 * end + 1, 2 * start - 2, 2), "_") | {2 * start - 1: "/"}


def _column(columns: Columns, id: CommitId, beside: int = -1) -> int:
    """Return the column of a node: the one that leads to it, else a free one."""
    if id in columns:
        return columns.index(id)
    for number in range(beside + 1, len(columns)):
        if columns[number] is None:
            return number
    columns.append(None)
    return len(columns) - 1


def _bars(columns: Columns, nodes: dict[int, str]) -> str:
    return " ".join(
        nodes.get(number, " " if id is None else "|") for number, id in enumerate(columns)
    )


def _line(columns: Columns, signs: dict[int, str], text: str) -> str:
    places = list(_bars(columns, {}).ljust(max(signs, default=0) + 1))
    for place, sign in signs.items():
        places[place] = sign
    return f"{''.join(places).rstrip()}  {text}".rstrip()


def _text(edge: Edge, edge_label: Callable[[Edge], str]) -> str:
    return "" if edge.role == PREVIOUS else edge_label(edge)
