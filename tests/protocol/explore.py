"""Every state that can be reached, nearest first: the trace to a breach is a shortest one."""

from collections import deque
from dataclasses import dataclass

from tests.protocol.model import Guards, State, breach
from tests.protocol.steps import successors


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was found: `lost` and the steps that led there, or every state and every end."""

    states: int
    labels: frozenset[str]
    ends: tuple[State, ...] = ()
    lost: str | None = None
    trace: tuple[str, ...] = ()


def explore(start: State, guards: Guards) -> Exploration:
    """Visit every reachable state, nearest first, until one breaks the promise."""
    came: dict[State, tuple[str, State] | None] = {start: None}
    queue, labels, ends = deque([start]), set[str](), list[State]()
    while queue:
        state = queue.popleft()
        if lost := breach(state):
            return Exploration(len(came), frozenset(labels), (), lost, trace(state, came))
        last = True
        for label, following in successors(state, guards):
            last = False
            labels.add(label)
            if following not in came:
                came[following] = (label, state)
                queue.append(following)
        if last:
            ends.append(state)
    return Exploration(len(came), frozenset(labels), tuple(ends))


def trace(state: State, came: dict[State, tuple[str, State] | None]) -> tuple[str, ...]:
    """Return the steps that led to the state."""
    labels = []
    while found := came[state]:
        labels.append(found[0])
        state = found[1]
    return tuple(reversed(labels))
