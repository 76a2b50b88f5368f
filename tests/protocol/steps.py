"""What each actor of the model may do next, and what a step changes.

The numbers in brackets are those of the writer's and of gc's steps in docs/format/ordering.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.protocol.model import (
    BLOBS,
    NAMES,
    NO_PACKS,
    PAYLOAD,
    Actor,
    Collector,
    CollectorStage,
    Guards,
    Objects,
    Pack,
    Packs,
    Pruner,
    Reader,
    Root,
    State,
    Undo,
    Writer,
    closure,
    contents,
    needed,
    show,
)


@dataclass(frozen=True, slots=True)
class Move:
    """What one step changes; a root that is given is published."""

    label: str
    actor: Actor
    root: Root | None = None
    files: Packs | None = None


# --- writer ---


def missing(commit: str, own: Objects, offered: Objects) -> tuple[Objects, Objects]:
    """Return what must be written, and what is relied on: no walk goes below a hit."""
    write, rely, seen, todo = set(), set(), set(), [commit, PAYLOAD[commit]]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in own and name in offered:
            rely.add(name)
            continue
        if name not in own:
            write.add(name)
        todo += NAMES.get(name, "")
    return frozenset(write), frozenset(rely)


def writer_steps(actor: Writer, state: State, guards: Guards) -> Iterator[Move]:
    """Yield the writer's steps: read (1, 2), look for files and write (3), publish (4)."""
    if actor.stage in ("done", "dead"):
        return
    survivors = state.files if guards.sync_before_publish else state.files - actor.own
    if actor.crashes:
        dead = Writer(actor.name, actor.commit, stage="dead")
        yield Move("crash", dead, files=survivors)
    checks = ("read", "stat") if guards.read_before_stat else ("stat", "read")
    match actor.stage:
        case "publish" if actor.fresh or not guards.create_only:
            yield Move(
                f"publish {actor.commit}, list {show(actor.own)}",
                replace(actor, stage="published", relies=frozenset()),
                root=replace(
                    state.root,
                    refs=state.root.refs | {actor.commit},
                    holds=state.root.holds | {actor.commit},
                    listed=state.root.listed | actor.own,
                ),
            )
        case "publish":
            yield Move("number taken", replace(actor, stage="start"))
        case "published":
            yield Move("acknowledge", Writer(actor.name, actor.commit, stage="done"))
        case "start":
            if actor.then and actor.looked:
                yield Move("source changes", replace(actor, commit=actor.then, then=""))
            yield Move(checks[0], replace(check(actor, checks[0], state, guards), stage="check"))
        case _:
            yield settle(check(actor, checks[1], state, guards), checks[1], state, guards)


def check(actor: Writer, what: str, state: State, guards: Guards) -> Writer:
    """Return the writer after it has read the root, or after it has looked for its files."""
    if what == "stat":
        return replace(actor, own=actor.own & state.files) if guards.own_pack_exists else actor
    own = actor.own - state.root.condemned if guards.own_pack_not_condemned else actor.own
    look = guards.recheck_hits or not actor.looked
    offered = contents(state.root.listed) if look else actor.relies
    own = whole(own, offered) if guards.own_packs_whole else own
    _, relies = missing(actor.commit, contents(own), offered)
    return replace(actor, own=own, relies=relies, looked=True, fresh=True)


def whole(own: Packs, offered: Objects) -> Packs:
    """Return the packs without those that name what is neither offered nor in one of them."""
    there = contents(own) | offered
    kept = frozenset(pack for pack in own if closure(pack.objects) <= there)
    return own if kept == own else whole(kept, offered)


def settle(actor: Writer, what: str, state: State, guards: Guards) -> Move:
    """Return the writer's second check: all is there, or what is not is written from the source."""
    write, _ = missing(actor.commit, contents(actor.own), actor.relies)
    if not write:
        return Move(f"{what}, relies on {show(actor.relies)}", replace(actor, stage="publish"))
    packs = frozenset(
        Pack(f"{actor.name}.{actor.made}{kind}" if guards.fresh_names else show(part), part)
        for kind, part in (("m", write - BLOBS), ("d", write & BLOBS))
        if part
    )
    made = actor.made + 1 if guards.fresh_names else 0
    again = replace(actor, stage="start", own=actor.own | packs, fresh=False, made=made)
    return Move(f"{what}, write {show(packs)}", again, files=state.files | packs)


# --- collector ---


def collector_steps(actor: Collector, state: State, guards: Guards) -> Iterator[Move]:
    """Yield mark, condemn, delete the files one by one, clear; and a crash with a restart."""
    if not actor.rounds:
        return
    if actor.crashes and actor.stage != "mark":
        restarted = replace(actor, crashes=actor.crashes - 1).at_start(rounds=actor.rounds)
        yield Move("crash and restart", restarted)
    match actor.stage:
        case "mark":
            yield mark(actor, state, guards)
        case "condemn" if actor.fresh or not guards.create_only:
            yield condemn(actor, state, guards)
        case "condemn":
            yield Move("number taken, mark what is new", remark(actor, state, guards))
        case "sweep" if there := sorted(actor.doomed & state.files):
            yield Move(f"delete {there[0].name}", actor, files=state.files - {there[0]})
        case "sweep":
            yield Move("all deleted", after(actor, guards))
        case _:
            off = actor.doomed if guards.clear_only_deleted else state.root.condemned
            root = replace(state.root, condemned=state.root.condemned - off)
            yield Move("clear the condemned list", after(actor, guards), root=root)


def after(actor: Collector, guards: Guards) -> Collector:
    """Return the collector at the stage that follows, or at the start of its next round."""
    order: list[CollectorStage] = ["condemn", "sweep", "clear"]
    if not guards.condemn_before_delete:
        order = ["sweep", "condemn", "clear"]
    elif not guards.delete_before_clear:
        order = ["condemn", "clear", "sweep"]
    if actor.stage == order[-1]:
        return actor.at_start(rounds=actor.rounds - 1)
    following = order[0] if actor.stage == "mark" else order[order.index(actor.stage) + 1]
    return replace(actor, stage=following)


def with_bases(live: Objects, kept: Packs, guards: Guards) -> Objects:
    """Return what is live, with the bases that the packs that are kept need."""
    bases = {
        base
        for pack in kept
        for name, base in pack.deltas
        if pack.objects & live
        and (guards.live_deltas_keep_bases if name in live else guards.dead_deltas_keep_bases)
    }
    return live if bases <= live else with_bases(live | bases, kept, guards)


def mark(actor: Collector, state: State, guards: Guards) -> Move:
    """Return the plan: what is dead, what is replaced, what no root lists."""
    root, files = state.root, state.files
    live = with_bases(needed(root.refs, root.holds), root.listed, guards)
    dead = frozenset(pack for pack in root.listed if not pack.objects & live)
    half = {pack for pack in root.listed - dead if pack.is_metadata and pack.objects - live}
    swaps = frozenset(
        (pack, Pack(f"{actor.name}.{actor.made}{pack.name}", pack.objects & live))
        for pack in (half if guards.rewrite_half_dead_metadata else ())
    )
    sweeps = guards.sweep_orphans and not actor.spares
    orphans = files - root.listed - root.condemned if sweeps else NO_PACKS
    gone = dead | orphans if guards.sweep_only_condemned else dead
    kept = files if guards.sweep_only_condemned else files - orphans
    planned = replace(actor, gone=gone, swaps=swaps, fresh=True, made=actor.made + bool(swaps))
    doomed = planned.leaving | (root.condemned if guards.take_over_condemned else NO_PACKS)
    if not doomed:
        return Move("mark, nothing to do", actor.at_start(rounds=actor.rounds - 1), files=kept)
    planned = after(replace(planned, doomed=doomed), guards)
    label = f"mark, dead {show(gone)}, replace {show(old for old, _ in swaps)}"
    return Move(label, planned, files=kept | {new for _, new in swaps})


def remark(actor: Collector, state: State, guards: Guards) -> Collector:
    """Return the collector with the part of its plan that the new root still allows."""
    root = state.root
    usable = state.files - root.condemned
    actor = replace(actor, fresh=True)
    live = needed(root.refs, root.holds)
    while guards.remark_after_lost_race:
        kept = root.listed - actor.leaving
        if guards.kept_metadata_counts_as_live:
            live |= closure(contents(frozenset(pack for pack in kept if pack.is_metadata)))
        live = with_bases(live, kept, guards)
        gone = frozenset(
            pack for pack in actor.gone if pack not in root.listed or not pack.objects & live
        )
        swaps = frozenset(
            (old, new)
            for old, new in actor.swaps
            if (old in root.listed or not guards.replace_only_listed)
            and not (old.objects - new.objects) & live
            and (new in usable or not guards.replacement_checked)
        )
        if (gone, swaps) == (actor.gone, actor.swaps):
            break
        actor = replace(actor, gone=gone, swaps=swaps)
    return actor


def condemn(actor: Collector, state: State, guards: Guards) -> Move:
    """Return the root that lists the replacements and condemns what leaves."""
    root = state.root
    root = replace(
        root,
        listed=root.listed - actor.leaving | {new for _, new in actor.swaps},
        condemned=root.condemned | actor.leaving,
    )
    doomed = root.condemned if guards.take_over_condemned else actor.leaving
    done = replace(actor, gone=NO_PACKS, swaps=frozenset(), doomed=doomed, fresh=False)
    return Move(f"condemn {show(actor.leaving)}", after(done, guards), root=root)


# --- the others ---


def pruner_steps(actor: Pruner, state: State) -> Iterator[Move]:
    """Yield the drop of the next hold; its re-evaluation is trivial, so it is one step."""
    if actor.drops and actor.drops[0] in state.root.holds:
        root = replace(state.root, holds=state.root.holds - {actor.drops[0]})
        rest = replace(actor, drops=actor.drops[1:])
        yield Move(f"drop the hold of {actor.drops[0]}", rest, root=root)


def undo_steps(actor: Undo, state: State, guards: Guards) -> Iterator[Move]:
    """Yield read root and look for the payload; publish the hold, or refuse."""
    root, payload = state.root, PAYLOAD[actor.commit]
    match actor.stage:
        case "read" if actor.commit not in root.holds:
            if guards.hold_needs_payload and payload not in contents(root.listed):
                yield Move(f"{payload} is nowhere, refuse", replace(actor, stage="done"))
            else:
                yield Move("read", replace(actor, stage="publish", fresh=True))
        case "publish" if actor.fresh or not guards.create_only:
            done = replace(actor, stage="done", fresh=False)
            yield Move("publish", done, root=replace(root, holds=root.holds | {actor.commit}))
        case "publish":
            yield Move("number taken", replace(actor, stage="read"))


def reader_steps(actor: Reader, state: State, guards: Guards) -> Iterator[Move]:
    """Yield read root, open the pack; after a miss again, or give up."""
    gone = replace(actor, stage="gone", pack=None)
    if actor.stage == "read":
        packs = sorted(pack for pack in state.root.listed if actor.wants in pack.objects)
        found = replace(actor, stage="open", pack=packs[0], fresh=True) if packs else gone
        yield Move("read root", found)
    elif actor.stage == "open" and actor.pack in state.files:
        yield Move("open", Reader(actor.name, actor.wants, "done"))
    elif actor.stage == "open":
        settled = actor.fresh or (actor.missed and not guards.reread_until_settled)
        again = guards.reread_on_miss and not settled
        missed = not guards.reread_until_settled
        yield Move("miss", replace(actor, stage="read", missed=missed) if again else gone)


# --- all together ---


def steps(actor: Actor, state: State, guards: Guards) -> Iterator[Move]:
    """Yield what the actor may do next."""
    match actor:
        case Writer():
            return writer_steps(actor, state, guards)
        case Collector():
            return collector_steps(actor, state, guards)
        case Pruner():
            return pruner_steps(actor, state)
        case Undo():
            return undo_steps(actor, state, guards)
        case Reader():
            return reader_steps(actor, state, guards)


def successors(state: State, guards: Guards) -> Iterator[tuple[str, State]]:
    """Yield every state that one step of one actor leads to, with what the step was."""
    for place, actor in enumerate(state.actors):
        for move in steps(actor, state, guards):
            root = state.root if move.root is None else move.root
            files = state.files if move.files is None else move.files
            actors = state.actors if move.root is None else tuple(map(stale, state.actors))
            actors = (*actors[:place], move.actor, *actors[place + 1 :])
            yield f"{actor.name}: {move.label}", State(root, files, actors)


def stale(actor: Actor) -> Actor:
    """Return the actor after somebody else has published."""
    return replace(actor, fresh=False) if actor.fresh else actor
