"""The picture of a graph, line by line."""

from hypothesis import given
from hypothesis import strategies as st

from cas.ids import CommitId, ObjectId, TreeId
from cas.lineage.drawing import draw
from cas.lineage.history import Edge, Node
from cas.objects.commit import Commit


def name(number: int) -> CommitId:
    return CommitId(ObjectId(bytes([number]) * 32))


EMPTY = Commit(kind="commit", tree=TreeId(ObjectId(bytes(32))))


def node(number: int, *edges: tuple[str, int]) -> Node:
    ends = tuple(Edge(role, name(to), name(to)) for role, to in edges)
    return Node(name(number), ((name(number), EMPTY),), (), ends, None)


def picture(*nodes: Node) -> list[str]:
    return list(draw(nodes, lambda n: str(n.id[0]), lambda e: f"{e.role} {e.node[0]}"))


def test_a_straight_history_has_no_lines_between() -> None:
    nodes = node(1, ("previous", 2)), node(2, ("previous", 3)), node(3)
    assert picture(*nodes) == ["*  1", "*  2", "*  3"]


def test_other_roles_are_named() -> None:
    assert picture(node(1, ("dataset", 2)), node(2)) == ["*  1", "|  dataset 2", "*  2"]


def test_a_fork_with_a_dataset() -> None:
    drawn = picture(
        node(3, ("resumed-from", 1), ("dataset", 9)),
        node(2, ("dataset", 9)),
        node(1, ("dataset", 9)),
        node(9),
    )
    assert drawn == [
        "*  3",
        "|  resumed-from 1",
        "|\\  dataset 9",
        "| | *  2",
        "| |/  dataset 9",
        "* |  1",
        "|/  dataset 9",
        "*  9",
    ]


def test_a_line_passes_over_what_is_between() -> None:
    drawn = picture(
        node(1, ("previous", 2), ("a", 3), ("b", 4)),
        node(4, ("previous", 2)),
        node(3),
        node(2),
    )
    assert drawn == [
        "*  1",
        "|\\  a 3",
        "|\\|_.  b 4",
        "| | *  4",
        "|_|/",
        "| *  3",
        "*  2",
    ]


def test_an_edge_to_what_is_drawn_already_is_only_named() -> None:
    assert picture(node(1), node(2, ("previous", 1))) == ["*  1", "*  2", "  previous 1"]


@given(st.data())
def test_every_graph_is_drawn_whole(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    nodes = []
    for number in range(count):
        ends = data.draw(st.lists(st.integers(number + 1, count), max_size=4))
        edges = [(data.draw(st.sampled_from(["previous", "a"])), to) for to in ends if to < count]
        nodes.append(node(number, *edges))
    drawn = picture(*nodes)
    stars = [line for line in drawn if "*" in line]
    assert [int(line.rsplit("  ", 1)[1]) for line in stars] == list(range(count))
    named = [line for line in drawn if "  a " in line]
    assert len(named) == sum(edge.role == "a" for one in nodes for edge in one.edges)
    for line in drawn:
        graph = line.split("  a ")[0].split("  ")[0]
        assert set(graph) <= set("*|/\\_. "), line
