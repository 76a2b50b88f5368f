"""The protocol loses nothing in any interleaving, and each of its rules is there for a reason."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest

from tests.protocol.explore import Exploration, explore
from tests.protocol.model import Collector, Guards, Reader, State, Writer, contents, readable
from tests.protocol.scenarios import BASE, DELTA_PAYLOAD, LONG, SCENARIOS
from tests.support.torture import scale

# For each guard of safety: where it is missed, and what is then lost first.
NEEDED = {
    "create_only": ("dying payload", "lost C"),
    "recheck_hits": ("dying payload", "lost T, X"),
    "own_pack_not_condemned": ("dying payload", "lost C"),
    "own_pack_exists": ("dying payload", "lost C"),
    "own_packs_whole": ("changing source", "lost X, Y"),
    "read_before_stat": ("dying payload", "lost C"),
    "sync_before_publish": ("dying payload", "lost C"),
    "fresh_names": ("two collectors", "lost C"),
    "hold_needs_payload": ("undo", "lost T, X"),
    "rewrite_half_dead_metadata": ("dying payload", "lost X"),
    "live_deltas_keep_bases": ("dying base", "lost Y"),
    "dead_deltas_keep_bases": ("dying base", "lost Y"),
    "remark_after_lost_race": ("dying payload", "lost C"),
    "kept_metadata_counts_as_live": ("two writers", "lost X, Y"),
    "kept_deltas_keep_bases": ("repack of garbage", "lost Y"),
    "replace_only_listed": ("two collectors that spare sessions", "lost X"),
    "replacement_checked": ("two collectors", "lost L, O, T"),
    "kept_plan_only_added": ("kept plan", "lost C"),
    "kept_plan_needs_live": ("kept plan", "lost T, X"),
    "base_less_deep": ("writer of deltas", "lost Y"),
    "delta_deeper_than_base": ("repack of deltas", "lost X"),
    "bases_stay_shallow": ("repack of deltas", "lost X, Y"),
    "repack_keeps_dead": ("repack", "lost X"),
    "repack_needs_all_listed": ("two repacks", "lost Y"),
    "repack_packs_checked": ("repack", "lost K, X"),
    "repack_minds_new_deltas": ("writer of deltas", "lost Y"),
    "staying_metadata_keeps_all": ("gc in steps", "lost X"),
    "steps_look_again": ("gc in steps", "lost X"),
    "condemn_before_delete": ("dying payload", "lost L, O"),
    "sweep_only_condemned": ("dying payload", "lost C"),
    "delete_before_clear": ("dying payload", "lost C"),
    "clear_only_deleted": ("two collectors", "lost C"),
    "reread_on_miss": ("stale reader", "reader was told that L is gone"),
    "reread_until_settled": ("stale reader", "reader was told that L is gone"),
}

# For each guard of liveness: what then stays for ever.
LIVE = {"sweep_orphans": "J", "take_over_condemned": "H"}


@cache
def guarded(scenario: str) -> Exploration:
    """Return what a scenario reaches with all guards on; several tests look at it."""
    return explore(SCENARIOS[scenario].state, Guards())


def told(found: Exploration) -> str:
    """Return the way to a loss, for the report of a test that fails."""
    return "\n".join((f"{found.lost}, {found.states} states:", *found.trace))


def left(state: State) -> str:
    """Return what is still stored of that which was dead from the start."""
    return "".join(sorted(contents(state.files) & frozenset("GHJ")))


def test_every_guard_has_its_counterexample() -> None:
    assert {field.name for field in fields(Guards)} == NEEDED.keys() | LIVE.keys()


@pytest.mark.parametrize("guard", [field.name for field in fields(Guards)])
def test_the_format_page_gives_the_rule(guard: str) -> None:
    assert f"(`{guard}`" in Path("docs/format/ordering.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_ever_lost(scenario: str) -> None:
    found = guarded(scenario)
    assert found.lost is None, told(found)
    assert found.states > SCENARIOS[scenario].states


@pytest.mark.torture
@pytest.mark.parametrize("scenario", LONG)
def test_nothing_is_ever_lost_among_many(scenario: str) -> None:
    if not scale():
        pytest.skip("minutes: `make torture`")
    found = explore(LONG[scenario].state, Guards())
    assert found.lost is None, told(found)
    assert found.states > LONG[scenario].states


@pytest.mark.parametrize("guard", NEEDED)
def test_something_is_lost_without(guard: str) -> None:
    scenario, lost = NEEDED[guard]
    found = explore(SCENARIOS[scenario].state, replace(Guards(), **{guard: False}))
    assert found.lost, f"{guard} was not missed in {found.states} states"
    assert found.lost == lost, told(found)


def test_garbage_is_gone_in_the_end() -> None:
    found = guarded("garbage")
    assert found.ends
    assert {left(end) for end in found.ends} == {""}
    assert not any(end.root.condemned for end in found.ends)


@pytest.mark.parametrize("guard", LIVE)
def test_garbage_stays_without(guard: str) -> None:
    found = explore(SCENARIOS["garbage"].state, replace(Guards(), **{guard: False}))
    assert found.lost is None, told(found)
    assert any(LIVE[guard] in left(end) for end in found.ends)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nobody_waits_for_ever(scenario: str) -> None:
    ends = guarded(scenario).ends
    assert ends
    for actor in {actor for end in ends for actor in end.actors}:
        match actor:
            case Writer() | Reader():
                assert actor.stage in ("done", "dead")
            case Collector():
                assert not actor.rounds


def test_a_hit_on_a_dead_object_that_is_listed_is_used() -> None:
    ends = guarded("dying base").ends
    used = [end for end in ends if "C" in end.root.holds and "O" not in end.root.holds]
    assert any(end.root.listed >= {DELTA_PAYLOAD, BASE} for end in used)
    assert all("Y" in readable(end.root.listed & end.files) for end in used)


def test_the_races_that_matter_are_explored() -> None:
    labels = guarded("dying payload").labels
    assert labels >= {
        "writer: crash",
        "writer: number taken",
        "writer: stat, relies on T",
        "writer: stat, relies on Y",
        "writer: stat, write writer.1d+writer.1m",
        "gc: crash and restart",
        "gc: number taken, mark what is new",
        "gc: delete writer.0m",
        "gc: delete data",
    }
