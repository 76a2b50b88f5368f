"""What each actor of the model may do next; for collectors and repacks see `collecting.py`.

The numbers in brackets are those of the writer's and of gc's steps in docs/format/ordering.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tests.protocol.collecting import collector_steps, repacker_steps
from tests.protocol.model import (
    BLOBS,
    NAMES,
    PAYLOAD,
    Actor,
    Collector,
    Delta,
    Guards,
    Move,
    Objects,
    Pack,
    Packs,
    Pruner,
    Reader,
    Repacker,
    State,
    Undo,
    Writer,
    closure,
    contents,
    depths,
    show,
)

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
    found = depths(state.root.listed)
    own = on_bases(own, offered, found, guards)
    own = whole(own, offered) if guards.own_packs_whole else own
    _, relies = missing(actor.commit, contents(own), offered)
    bases = {delta.base for pack in own for delta in pack.deltas}
    depth = found.get(actor.delta[1]) if actor.delta else None
    relies |= bases - contents(own)
    return replace(actor, own=own, relies=relies, depth=depth, looked=True, fresh=True)


def on_bases(own: Packs, offered: Objects, found: Mapping[str, int], guards: Guards) -> Packs:
    """Return the packs whose deltas have their bases in what is offered."""

    def stands(delta: Delta) -> bool:
        if delta.base not in offered:
            return False
        return not guards.base_less_deep or found.get(delta.base, delta.depth) < delta.depth

    return frozenset(pack for pack in own if all(map(stands, pack.deltas)))


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
    deltas = frozenset[Delta]()
    if actor.depth is not None and actor.delta[0] in write:
        deltas = frozenset({Delta(actor.delta[0], actor.delta[1], actor.depth + 1)})
    packs = frozenset(
        Pack(f"{actor.name}.{actor.made}{kind}" if guards.fresh_names else show(part), part, on)
        for kind, part, on in (
            ("m", write - BLOBS, frozenset[Delta]()),
            ("d", write & BLOBS, deltas),
        )
        if part
    )
    made = actor.made + 1 if guards.fresh_names else 0
    again = replace(actor, stage="start", own=actor.own | packs, fresh=False, made=made)
    return Move(f"{what}, write {show(packs)}", again, files=state.files | packs)


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
        case Repacker():
            return repacker_steps(actor, state, guards)
        case Pruner():
            return pruner_steps(actor, state)
        case Undo():
            return undo_steps(actor, state, guards)
        case Reader():
            return reader_steps(actor, state, guards)


def stale(actor: Actor) -> Actor:
    """Return the actor after somebody else has published."""
    return replace(actor, fresh=False) if actor.fresh else actor
