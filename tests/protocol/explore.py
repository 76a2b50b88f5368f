"""Every state that can be reached, nearest first: the trace to a breach is a shortest one.

What an actor may do depends on it, the root and the files alone, so that is worked out once for
each of those. A state is then a few small numbers, and millions of them can be visited.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.protocol.model import Actor, Guards, Packs, Root, State, lost, misled
from tests.protocol.steps import stale, steps

T = TypeVar("T")
Numbers = tuple[int, ...]  # of the root, the files and each actor
SAME = -1


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
    world = _World(guards)
    first = world.numbers(start)
    came: dict[Numbers, Numbers | None] = {first: None}
    queue, ends = deque([first]), list[State]()
    while queue:
        numbers = queue.popleft()
        if breach := world.breach(numbers):
            trace = tuple(world.trace(numbers, came))
            return Exploration(len(came), frozenset(world.labels), (), breach, trace)
        last = True
        for _, _, following in world.successors(numbers):
            last = False
            if following not in came:
                came[following] = numbers
                queue.append(following)
        if last:
            ends.append(world.state(numbers))
    return Exploration(len(came), frozenset(world.labels), tuple(ends))


class _Numbered(Generic[T]):
    """Values by number, each once."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._known: dict[T, int] = {}

    def number(self, value: T) -> int:
        found = self._known.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


@dataclass(frozen=True, slots=True)
class _Step:
    """What one step of one actor changes, in numbers; SAME for what it leaves as it is."""

    label: str
    actor: int
    root: int
    files: int


class _World:
    """All values that were met, and what is known of them."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards
        self._roots = _Numbered[Root]()
        self._files = _Numbered[Packs]()
        self._actors = _Numbered[Actor]()
        self._steps: dict[Numbers, list[_Step]] = {}
        self._outrun: dict[int, int] = {}
        self._lost: dict[Numbers, str | None] = {}
        self.labels: set[str] = set()

    def numbers(self, state: State) -> Numbers:
        actors = map(self._actors.number, state.actors)
        return self._roots.number(state.root), self._files.number(state.files), *actors

    def state(self, numbers: Numbers) -> State:
        root, files, *actors = numbers
        everybody = tuple(self._actors.values[actor] for actor in actors)
        return State(self._roots.values[root], self._files.values[files], everybody)

    def successors(self, numbers: Numbers) -> Iterator[tuple[int, str, Numbers]]:
        """Yield every state that one step leads to, with the actor and what the step was."""
        root, files, *actors = numbers
        for place, actor in enumerate(actors):
            key = (actor, root, files)
            found = self._steps.get(key)
            for step in self._taken(key) if found is None else found:
                after = files if step.files == SAME else step.files
                if step.root == SAME:
                    others = actors.copy()
                    others[place] = step.actor
                    yield actor, step.label, (root, after, *others)
                else:
                    others = [self._outrun.get(other) or self._stale(other) for other in actors]
                    others[place] = step.actor
                    yield actor, step.label, (step.root, after, *others)

    def breach(self, numbers: Numbers) -> str | None:
        """Return what the state has lost, or who is told something wrong."""
        key = numbers[:2]
        if key not in self._lost:
            state = self.state(key)
            self._lost[key] = lost(state.root, state.files)
        told = (misled(self._actors.values[actor]) for actor in numbers[2:])
        return self._lost[key] or next(filter(None, told), None)

    def trace(self, numbers: Numbers, came: dict[Numbers, Numbers | None]) -> list[str]:
        """Return the steps that led to the state."""
        labels = []
        while (before := came[numbers]) is not None:
            edges = self.successors(before)
            actor, label = next((who, what) for who, what, after in edges if after == numbers)
            labels.append(f"{self._actors.values[actor].name}: {label}")
            numbers = before
        return labels[::-1]

    def _taken(self, key: Numbers) -> list[_Step]:
        """Work out what the actor may do."""
        actor, root, files = key
        state = self.state((root, files))
        found = self._steps[key] = []
        for move in steps(self._actors.values[actor], state, self._guards):
            self.labels.add(f"{self._actors.values[actor].name}: {move.label}")
            found.append(
                _Step(
                    move.label,
                    self._actors.number(move.actor),
                    SAME if move.root is None else self._roots.number(move.root),
                    SAME if move.files is None else self._files.number(move.files),
                )
            )
        return found

    def _stale(self, actor: int) -> int:
        number = self._actors.number(stale(self._actors.values[actor]))
        self._outrun[actor] = number
        return number
