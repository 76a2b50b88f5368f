"""The gate: who always loses gets a turn, and nobody who stops at a closed gate stops the others.

Nothing rests on the gate, so this is about progress alone. Publishers make their next root again
and again, and each may be outrun by any other at any time. Every interleaving is visited.
Modelled after `cas/repo/gate.py`, `transaction.py` and `gc.py`.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import pytest

OUTRUN = 3  # races lost, then one closes the gate
FAR = 12  # races lost in a row that no bound explains


@dataclass(frozen=True, slots=True)
class Guards:
    """The rules of the gate."""

    losers_close: bool = True
    """Who has lost some races closes the gate."""
    others_wait: bool = True
    """Who is about to begin waits while another keeps the gate closed."""
    not_for_ever: bool = True
    """But not for ever: one that keeps it closed may have been stopped."""
    opened_after: bool = True
    """Who has published opens it again."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """One that publishes; `fresh` while nobody has published since it read the newest root."""

    stage: str = "idle"
    lost: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """All publishers, which of them keeps the gate closed, and whether that one was stopped."""

    publishers: tuple[Publisher, ...]
    closed_by: int | None = None
    stopped: bool = False


def steps(state: State, guards: Guards, *, stops: bool) -> Iterator[State]:
    """Yield what may happen next."""
    for number in range(len(state.publishers)):
        holds = state.closed_by == number
        if state.stopped and holds:
            continue
        if stops and holds:
            yield replace(state, stopped=True)
        after = _step(state, number, guards)
        if after is not None:
            yield after


def _step(state: State, number: int, guards: Guards) -> State | None:
    """Return the state after the next step of one publisher, None where it waits."""
    one = state.publishers[number]
    # In time, who keeps it closed comes to an end, unless it was stopped.
    barred = state.closed_by not in (None, number) and not (state.stopped and guards.not_for_ever)
    reading = replace(one, stage="read", fresh=True)
    match one.stage:
        case "idle":
            return None if barred and guards.others_wait else _with(state, number, reading)
        case "read" if one.fresh:
            after = _outrun(state, number)
            opened = after.closed_by == number and guards.opened_after
            return replace(after, closed_by=None) if opened else after
        case "read":
            again = replace(one, lost=min(one.lost + 1, FAR), stage="again")
            return _with(state, number, again)
    # It has lost a race.
    after = _with(state, number, reading)
    if not guards.losers_close or one.lost < OUTRUN:
        return after
    if barred:
        return None
    return replace(after, closed_by=number) if state.closed_by is None else after


def _with(state: State, number: int, one: Publisher) -> State:
    front, back = state.publishers[:number], state.publishers[number + 1 :]
    return replace(state, publishers=(*front, one, *back))


def _outrun(state: State, winner: int) -> State:
    """Return the state after one has published: all others have read an older root."""
    others = tuple(
        Publisher() if number == winner else replace(one, fresh=False)
        for number, one in enumerate(state.publishers)
    )
    return replace(state, publishers=others)


def explored(count: int, guards: Guards, *, stops: bool = False) -> dict[State, list[State]]:
    """Return every reachable state with those that follow it."""
    first = State((Publisher(),) * count)
    found: dict[State, list[State]] = {}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        if state not in found:
            found[state] = list(steps(state, guards, stops=stops))
            queue.extend(found[state])
    return found


def most_lost(states: dict[State, list[State]]) -> int:
    """Return how many races one loses in a row at most."""
    return max(one.lost for state in states for one in state.publishers)


def stuck(states: dict[State, list[State]]) -> list[State]:
    """Return the states from which somebody who was not stopped can never publish again."""
    before: dict[State, list[State]] = {}
    for state, following in states.items():
        for after in following:
            before.setdefault(after, []).append(state)
    count = len(next(iter(states)).publishers)
    return [
        state
        for number in range(count)
        for state in states.keys() - _leading(before, _able(states, number))
    ]


def _able(states: dict[State, list[State]], number: int) -> Iterator[State]:
    """Yield the states in which one is about to publish, or was stopped and is not asked."""
    for state in states:
        one = state.publishers[number]
        if (one.stage == "read" and one.fresh) or (state.stopped and state.closed_by == number):
            yield state


def _leading(before: dict[State, list[State]], ends: Iterator[State]) -> set[State]:
    """Return the states from which one of these can be reached."""
    found = set(ends)
    pending = list(found)
    while pending:
        new = set(before.get(pending.pop(), ())) - found
        found |= new
        pending += new
    return found


@pytest.mark.parametrize("count", [2, 3, 4])
def test_nobody_loses_for_ever(count: int) -> None:
    # All that had begun may win once more each; then it is the loser's turn, or one after another.
    assert most_lost(explored(count, Guards())) == OUTRUN + count - 1


@pytest.mark.parametrize("count", [2, 3])
def test_nobody_is_stuck_behind_one_that_stopped(count: int) -> None:
    states = explored(count, Guards(), stops=True)
    assert any(state.stopped for state in states)
    assert not stuck(states)


@pytest.mark.parametrize("guard", ["losers_close", "others_wait"])
def test_without_it_somebody_loses_for_ever(guard: str) -> None:
    assert most_lost(explored(3, replace(Guards(), **{guard: False}))) == FAR


@pytest.mark.parametrize("guard", ["not_for_ever", "opened_after"])
def test_without_it_somebody_is_stuck(guard: str) -> None:
    assert stuck(explored(2, replace(Guards(), **{guard: False}), stops=guard == "not_for_ever"))


def test_every_rule_is_missed() -> None:
    missed = {"losers_close", "others_wait", "not_for_ever", "opened_after"}
    assert {field.name for field in fields(Guards)} == missed
