"""What a collector and a repack may do next in the model.

The numbers in brackets are those of the steps of each in docs/format/ordering.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tests.protocol.model import (
    NAMES,
    NO_PACKS,
    PAYLOAD,
    Collector,
    CollectorStage,
    Delta,
    Guards,
    Move,
    Objects,
    Pack,
    Packs,
    Repacker,
    State,
    closure,
    contents,
    depths,
    needed,
    show,
)

NOTHING: Objects = frozenset()


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
            yield from plans(actor, state, guards)
        case "condemn" if actor.fresh or not guards.create_only:
            yield condemn(actor, state, guards)
        case "condemn":
            yield taken(actor, state, guards)
        case "sweep" if there := sorted(actor.doomed & state.files):
            yield Move(f"delete {there[0].name}", actor, files=state.files - {there[0]})
        case "sweep":
            yield Move("all deleted", after(actor, guards))
        case _:
            off = actor.doomed if guards.clear_only_deleted else state.root.condemned
            root = replace(state.root, condemned=state.root.condemned - off)
            yield Move("clear the condemned list", after(actor, guards), root=root)


def plans(actor: Collector, state: State, guards: Guards) -> Iterator[Move]:
    """Yield each way in which a collector may plan."""
    yield mark(actor, state, guards)
    if actor.staged:
        yield mark(actor, state, guards, later=True)
        for pack in sorted(state.root.listed):
            if pack.is_metadata:
                yield mark(actor, state, guards, staying=frozenset({pack}))


def taken(actor: Collector, state: State, guards: Guards) -> Move:
    """Return what becomes of the plan when somebody else has published."""
    if not actor.keeps:
        return Move("number taken, mark what is new", remark(actor, state, guards))
    if stays(actor, state, guards):
        return Move("number taken, keep the plan", replace(actor, on=state.root, fresh=True))
    return Move("number taken, mark anew", actor.at_start(rounds=actor.rounds))


def after(actor: Collector, guards: Guards) -> Collector:
    """Return the collector at the stage that follows, or at the start of its next round."""
    order: list[CollectorStage] = ["condemn", "sweep", "clear"]
    if not guards.condemn_before_delete:
        order = ["sweep", "condemn", "clear"]
    elif not guards.delete_before_clear:
        order = ["condemn", "clear", "sweep"]
    if actor.stage == order[-1] and actor.later:
        fresh = not guards.steps_look_again
        step = replace(actor, gone=actor.later, later=NO_PACKS, doomed=NO_PACKS, fresh=fresh)
        return replace(step, stage=order[0])
    if actor.stage == order[-1]:
        return actor.at_start(rounds=actor.rounds - 1)
    following = order[0] if actor.stage == "mark" else order[order.index(actor.stage) + 1]
    return replace(actor, stage=following)


def with_bases(live: Objects, packs: Packs, guards: Guards, *, stay: bool = False) -> Objects:
    """Return what is live, with the bases that these packs need.

    Unless all of them `stay`, those do in which something is live.
    """
    bases = {
        base
        for pack in packs
        for name, base, _ in pack.deltas
        if (stay or pack.objects & live)
        and (guards.live_deltas_keep_bases if name in live else guards.dead_deltas_keep_bases)
    }
    return live if bases <= live else with_bases(live | bases, packs, guards, stay=stay)


def mark(
    actor: Collector,
    state: State,
    guards: Guards,
    *,
    staying: Packs = NO_PACKS,
    later: bool = False,
) -> Move:
    """Return the plan: what is dead, what is replaced, what no root lists.

    Metadata that is `staying` is left as it is, with all that it names; with `later` what is dead
    in data packs is left to another step.
    """
    root, files = state.root, state.files
    live = needed(root.refs, root.holds)
    if staying and guards.staying_metadata_keeps_all:
        live |= closure(contents(staying))
    live = with_bases(live, root.listed, guards)
    dead = frozenset(pack for pack in root.listed - staying if not pack.objects & live)
    half = {
        pack for pack in root.listed - dead - staying if pack.is_metadata and pack.objects - live
    }
    put_off = frozenset(pack for pack in dead if not pack.is_metadata) if later else NO_PACKS
    dead -= put_off
    swaps = frozenset(
        (pack, Pack(f"{actor.name}.{actor.made}{pack.name}", pack.objects & live))
        for pack in (half if guards.rewrite_half_dead_metadata else ())
    )
    sweeps = guards.sweep_orphans and not actor.spares
    orphans = files - root.listed - root.condemned if sweeps else NO_PACKS
    gone = dead | orphans if guards.sweep_only_condemned else dead
    kept = files if guards.sweep_only_condemned else files - orphans
    planned = replace(
        actor,
        gone=gone,
        swaps=swaps,
        later=put_off,
        fresh=True,
        made=actor.made + bool(swaps),
    )
    doomed = planned.leaving | (root.condemned if guards.take_over_condemned else NO_PACKS)
    if not doomed:
        return Move("mark, nothing to do", actor.at_start(rounds=actor.rounds - 1), files=kept)
    if actor.keeps:
        planned = replace(planned, live=live & contents(root.listed), on=root)
    planned = after(replace(planned, doomed=doomed), guards)
    label = f"mark, dead {show(gone)}, replace {show(old for old, _ in swaps)}"
    label += f", leave {show(staying)}" if staying else ""
    label += f", later {show(put_off)}" if put_off else ""
    return Move(label, planned, files=kept | {new for _, new in swaps})


def stays(actor: Collector, state: State, guards: Guards) -> bool:
    """Say whether the whole plan holds after the new root as well, for what is known of it."""
    root, on = state.root, actor.on
    assert on is not None
    new = root.listed - on.listed
    usable = state.files - root.condemned
    if guards.replacement_checked and not usable.issuperset(new for _, new in actor.swaps):
        return False
    same = on.listed <= root.listed and on.condemned == root.condemned and not new & actor.gone
    if guards.kept_plan_only_added and not same:
        return False
    came = contents(new)
    named = {base for pack in new for _, base, _ in pack.deltas}.union(
        *(NAMES.get(name, "") for name in came),
        root.refs - on.refs,
        (PAYLOAD[commit] for commit in root.holds - on.holds),
    )
    return named <= actor.live | came or not guards.kept_plan_needs_live


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
        live = with_bases(live, kept, guards, stay=guards.kept_deltas_keep_bases)
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
    done = replace(
        actor, gone=NO_PACKS, swaps=frozenset(), doomed=doomed, fresh=False, live=NOTHING, on=None
    )
    return Move(f"condemn {show(actor.leaving)}", after(done, guards), root=root)


# --- repack ---


def repacker_steps(actor: Repacker, state: State, guards: Guards) -> Iterator[Move]:
    """Yield write (1), publish (2) or begin again; what follows is as of a collector."""
    if actor.crashes:
        yield Move("crash", Collector(actor.name, 0))
    if not actor.new:
        if actor.attempts:
            yield rewrite(actor, state, guards)
    elif actor.fresh:
        root = state.root
        listed = root.listed - actor.gone | actor.new
        root = replace(root, listed=listed, condemned=root.condemned | actor.gone)
        doomed = root.condemned if guards.take_over_condemned else actor.gone
        sweeping = Collector(actor.name, 1, stage="sweep", doomed=doomed)
        yield Move(f"list {show(actor.new)}, condemn {show(actor.gone)}", sweeping, root=root)
    elif agrees(actor, state, guards):
        yield Move("number taken, go on", replace(actor, fresh=True))
    else:
        again = replace(actor, gone=NO_PACKS, new=NO_PACKS)
        yield Move("number taken, begin again", again, files=state.files - actor.new)


def rewrite(actor: Repacker, state: State, guards: Guards) -> Move:
    """Return the new packs, with all that the old ones hold."""
    root = state.root
    found = depths(root.listed)
    made = [delta for pair in actor.turns for delta in turned(pair, root.listed, found, guards)]
    turns = {delta.object for delta in made}
    gone = frozenset(
        pack
        for pack in root.listed
        if (turns & pack.objects) - {delta.object for delta in pack.deltas}
    )
    keep = contents(root.listed)
    if not guards.repack_keeps_dead:
        keep = with_bases(needed(root.refs, root.holds), root.listed, guards)
    new = frozenset(
        Pack(
            f"{actor.name}.{actor.made}{pack.name}",
            pack.objects & keep,
            pack.deltas | {delta for delta in made if delta.object in pack.objects & keep},
        )
        for pack in gone
    )
    left = replace(actor, attempts=actor.attempts - 1, made=actor.made + 1)
    if not gone:
        return Move("nothing to repack", replace(left, attempts=0, crashes=False))
    done = replace(left, began=root.listed, gone=gone, new=new, fresh=True)
    return Move(f"write {show(new)} for {show(gone)}", done, files=state.files | new)


def turned(pair: str, listed: Packs, found: Mapping[str, int], guards: Guards) -> Iterator[Delta]:
    """Yield the one object as a delta on the other, where that may be."""
    name, base = pair[0], pair[1]
    if found.get(name) != 0 or base not in found:
        return
    depth = found[base] + 1 if guards.delta_deeper_than_base else 1
    leaning = [delta.depth for pack in listed for delta in pack.deltas if delta.base == name]
    if not guards.bases_stay_shallow or all(deeper > depth for deeper in leaning):
        yield Delta(name, base, depth)


def agrees(actor: Repacker, state: State, guards: Guards) -> bool:
    """Say whether the new packs may be listed after this root."""
    root = state.root
    if guards.repack_needs_all_listed and not actor.began <= root.listed:
        return False
    if guards.repack_packs_checked and not actor.new <= state.files - root.condemned:
        return False
    became = {delta.object: delta.depth for pack in actor.new for delta in pack.deltas}
    came = [delta for pack in root.listed - actor.began for delta in pack.deltas]
    deep = all(delta.depth > became.get(delta.base, -1) for delta in came)
    return deep or not guards.repack_minds_new_deltas
