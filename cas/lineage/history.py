"""Runs and commits as a person looks back at them.

Only commit records are read, no trees: listing the newest of many runs costs a read for each run
and one for each checkpoint that is shown.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, DRAFT, PREVIOUS, RUN, Commit
from cas.repo.layout import ANNOTATIONS, ARCHIVED, HOLDS, OPEN, RUNS
from cas.repo.repo import Repo
from cas.repo.retain.archive import archived
from cas.repo.retain.choice import Read, previous, same_run, segment

if TYPE_CHECKING:
    from cas.repo.annotations import Known

Item = tuple[CommitId, Commit]
RUN_KINDS = frozenset({RUN, CHECKPOINT, DRAFT})


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in one line; the bytes are those of what is still kept."""

    run: str
    ref: str
    id: CommitId
    status: str
    time: int | None
    metric: str | None
    mode: str | None
    last: float | None
    best: float | None
    checkpoints: int
    kept: int
    given_bytes: int
    stored_bytes: int
    archived: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge of the graph: the node that it leads to, and the very commit that is meant."""

    role: str
    node: CommitId
    commit: CommitId


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph: one commit, or the commits of one run, newest first."""

    id: CommitId
    commits: tuple[Item, ...]
    refs: tuple[str, ...]
    edges: tuple[Edge, ...]
    line: RunLine | None


def runs(
    repo: Repo,
    limit: int | None = None,
    live: Mapping[str, str] | None = None,
    *,
    experiment: str | None = None,
    label: str | None = None,
    all: bool = False,
) -> list[RunLine]:
    """Return the newest runs first; `live` says the status of runs (by ref) that have no end.

    Archived runs come with `all` alone; with `label`, those alone that have it.
    """
    found = unfolded(repo, limit, live, experiment=experiment, label=label, all=all)
    return [line for line, _ in found]


def unfolded(
    repo: Repo,
    limit: int | None = None,
    live: Mapping[str, str] | None = None,
    *,
    experiment: str | None = None,
    label: str | None = None,
    all: bool = False,
) -> Iterator[tuple[RunLine, list[Item]]]:
    """Yield each run, or each of an experiment, newest first, with its commits, newest first.

    Archived runs come with `all` alone; with `label`, those alone that have it.
    """
    refs = repo.root.refs
    hidden = frozenset[str]() if all else archived(refs)
    tips: dict[str, CommitId] = {}
    below = f"{experiment}/" if experiment else ""
    for room in (OPEN, RUNS):
        for ref, id in refs.items():
            name = RUNS + ref.removeprefix(room)
            if ref.startswith(room + below) and name not in hidden:
                tips[name] = id
    read = reader(repo)
    known: Known = {}
    if label is not None:
        from cas.repo.annotations import labelled

        having = labelled(repo, known).get(label, frozenset[str]())
        tips = {ref: id for ref, id in tips.items() if _said_at(read(id)) in having}
    order = sorted(tips.items(), key=lambda item: (-(read(item[1]).time or 0), item[0]))
    for ref, id in order[:limit]:
        commits = list(segment(read, id))
        line = run_line(refs, ref, commits, (live or {}).get(ref))
        yield replace(line, labels=_labels(repo, commits[0][1], known)), commits


def _said_at(commit: Commit) -> str:
    """Return the ref of what is said of the run that a commit belongs to."""
    return f"{ANNOTATIONS}{commit.journal.run.hex() if commit.journal is not None else ''}"


def _labels(repo: Repo, commit: Commit, known: "Known") -> tuple[str, ...]:
    """Return the labels of a run; where nobody has labelled one, nothing is loaded and read."""
    if commit.journal is None or _said_at(commit) not in repo.root.refs:
        return ()
    from cas.repo.annotations import current

    said = current(repo, commit.journal.run, known)
    return () if said is None else said.labels


def reader(repo: Repo) -> Read:
    """Return a reader of commits that reads each one once."""
    known: dict[CommitId, Commit] = {}

    def read(id: CommitId) -> Commit:
        if id not in known:
            known[id] = repo.commit(id)
        return known[id]

    return read


def walk(repo: Repo, id: CommitId) -> Iterator[Item]:
    """Yield a commit and what came before it, along `previous`."""
    at: CommitId | None = id
    while at is not None:
        commit = repo.commit(at)
        yield at, commit
        at = previous(commit)


def run_line(
    refs: Mapping[str, CommitId], ref: str, commits: list[Item], live: str | None = None
) -> RunLine:
    """Return a run's line from its commits, newest first."""
    id, tip = commits[0]
    held = [(id, commit) for id, commit in commits if f"{HOLDS}{id}" in refs]
    here = held + [(id, commit) for id, commit in commits if commit.payload is None]
    volumes = [commit.volume for _, commit in here if commit.volume is not None]
    monitors = [commit.monitor for _, commit in commits if commit.monitor is not None]
    newest = monitors[0] if monitors else None
    best = None
    if newest is not None:
        values = [one.value for one in monitors if one.metric == newest.metric]
        pick = min if newest.mode == "min" else max
        best = pick((value for value in values if value == value), default=None)  # noqa: PLR0124
    return RunLine(
        run=tip.full_name or ref,
        ref=ref,
        id=id,
        status=live or tip.status or "-",
        time=tip.time,
        metric=newest.metric if newest else None,
        mode=newest.mode if newest else None,
        last=newest.value if newest else None,
        best=best,
        checkpoints=sum(commit.kind == CHECKPOINT for _, commit in commits),
        kept=sum(commit.kind == CHECKPOINT for _, commit in held),
        given_bytes=sum(volume.given_bytes for volume in volumes),
        stored_bytes=sum(volume.stored_bytes for volume in volumes),
        archived=ARCHIVED + ref.removeprefix(RUNS) in refs,
    )


def graph(
    repo: Repo,
    *,
    tips: Iterable[CommitId] | None = None,
    checkpoints: bool = False,
    live: Mapping[str, str] | None = None,
    all: bool = False,
) -> list[Node]:
    """Return what refs, or `tips`, reach over every role: newest first, children before parents.

    Each run is one node, or with `checkpoints` each of its commits. Timeless inputs come as late
    as they can. An archived run begins a node with `all` alone, or when a tip is in it.
    """
    refs = {ref: id for ref, id in repo.root.refs.items() if _is_drawn(ref, repo.root.refs)}
    if tips is None and not all:
        hidden = archived(repo.root.refs)
        tips = [id for ref, id in refs.items() if ref not in hidden]
    commits = _reachable(refs.values() if tips is None else tips, reader(repo))
    refs = {ref: id for ref, id in refs.items() if id in commits}
    home = {id: id for id in commits} if checkpoints else _homes(commits)
    members: dict[CommitId, list[Item]] = {}
    for id in sorted(commits, key=lambda id: -commits[id].seq):
        members.setdefault(home[id], []).append((id, commits[id]))
    names: dict[CommitId, list[str]] = {}
    for ref in sorted(refs):
        names.setdefault(home[refs[ref]], []).append(ref)
    nodes = {
        id: _node(repo, id, tuple(items), tuple(names.get(id, ())), _edges(items, commits, home))
        for id, items in members.items()
    }
    return _ordered(_living(nodes, live or {}))


def _is_drawn(ref: str, refs: Mapping[str, CommitId]) -> bool:
    """Say whether a ref begins a node: a draft does only while its run has nothing else."""
    if ref.startswith(OPEN):
        rest = ref.removeprefix(OPEN)
        return RUNS + rest not in refs and rest not in refs
    return not ref.startswith((HOLDS, ARCHIVED, ANNOTATIONS))


def _node(
    repo: Repo, id: CommitId, commits: tuple[Item, ...], refs: tuple[str, ...], edges: list[Edge]
) -> Node:
    tip = commits[0][1]
    line = None
    if tip.run is not None and (len(commits) > 1 or tip.kind in RUN_KINDS):
        ref = next((ref for ref in refs if ref.startswith((RUNS, OPEN))), f"{RUNS}{tip.run}")
        line = run_line(repo.root.refs, ref, list(commits), _end(repo, tip))
    return Node(id, commits, refs, tuple(edges), line)


def _end(repo: Repo, commit: Commit) -> str | None:
    """Return how a run ended whose end is out of sight, None for any other commit."""
    end = repo.root.refs.get(f"{RUNS}{commit.full_name}")
    return repo.commit(end).status if commit.kind == CHECKPOINT and end is not None else None


def _living(nodes: dict[CommitId, Node], live: Mapping[str, str]) -> dict[CommitId, Node]:
    for id, node in nodes.items():
        status = node.line and live.get(RUNS + node.line.ref.partition("/")[2])
        if node.line is not None and status:
            nodes[id] = replace(node, line=replace(node.line, status=status))
    return nodes


def _reachable(tips: Iterable[CommitId], read: Read) -> dict[CommitId, Commit]:
    found: dict[CommitId, Commit] = {}
    waiting = list(dict.fromkeys(tips))
    while waiting:
        id = waiting.pop()
        if id not in found:
            found[id] = read(id)
            waiting.extend(parent.commit for parent in found[id].parents)
    return found


def _homes(commits: Mapping[CommitId, Commit]) -> dict[CommitId, CommitId]:
    """Return the node of each commit: the newest of its run that it leads up to."""
    after: dict[CommitId, CommitId] = {}
    for id, commit in commits.items():
        before = previous(commit)
        if before is not None and same_run(commits[before], commit):
            after[before] = id
    homes: dict[CommitId, CommitId] = {}
    for id in commits:
        path = [id]
        while path[-1] in after and path[-1] not in homes:
            path.append(after[path[-1]])
        end = homes.get(path[-1], path[-1])
        homes.update(dict.fromkeys(path, end))
    return homes


def _edges(
    items: list[Item], commits: Mapping[CommitId, Commit], home: Mapping[CommitId, CommitId]
) -> list[Edge]:
    """Return the edges that leave a node, each role and commit once, `previous` first."""
    found: dict[tuple[str, CommitId], Edge] = {}
    for id, commit in reversed(items):
        before = previous(commit)
        # A run's commits all have the edges of the run: the first one tells them.
        known = (
            {(parent.role, parent.commit) for parent in commits[before].parents}
            if before is not None and same_run(commits[before], commit)
            else set()
        )
        for parent in commit.parents:
            key = (parent.role, parent.commit)
            if home[parent.commit] != home[id] and key not in known:
                found.setdefault(key, Edge(parent.role, home[parent.commit], parent.commit))
    return sorted(found.values(), key=lambda edge: edge.role != PREVIOUS)


def _ordered(nodes: Mapping[CommitId, Node]) -> list[Node]:
    """Return children before parents; of those that are free to come, the newest."""
    waits = dict.fromkeys(nodes, 0)
    for node in nodes.values():
        for id in {edge.node for edge in node.edges}:
            waits[id] += 1
    ready = [_rank(nodes[id]) for id, count in waits.items() if not count]
    heapify(ready)
    order: dict[CommitId, Node] = {}
    while len(order) < len(nodes):
        # Two runs whose commits came from each other in turn make a circle: the newest goes first.
        if not ready:
            ready = [min(_rank(node) for id, node in nodes.items() if id not in order)]
        node = nodes[heappop(ready)[1]]
        order[node.id] = node
        for id in {edge.node for edge in node.edges}:
            waits[id] -= 1
            if not waits[id] and id not in order:
                heappush(ready, _rank(nodes[id]))
    return list(order.values())


def _rank(node: Node) -> tuple[int, CommitId]:
    return -(node.commits[0][1].time or 0), node.id
