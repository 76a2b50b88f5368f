"""Who acts on what in the model: small scenarios for every run, larger ones for the long form."""

from dataclasses import dataclass

from tests.protocol.model import (
    Actor,
    Collector,
    Delta,
    Pack,
    Pruner,
    Reader,
    Repacker,
    Root,
    State,
    Undo,
    Writer,
    contents,
)


def pack(name: str, objects: str, *, delta: str = "") -> Pack:
    """Return a pack; a delta is written as its object and its base."""
    deltas = frozenset({Delta(delta[0], delta[1], 1)} if delta else ())
    return Pack(name, frozenset(objects), deltas)


def start(*packs: Pack, actors: tuple[Actor, ...], holds: str = "", orphan: str = "") -> State:
    """Return a state in which all commits of the packs have refs, and only some are held."""
    listed = frozenset(packs)
    root = Root(contents(listed) & frozenset("LOE"), frozenset(holds), listed)
    return State(root, listed | {pack("orphan", orphan)} if orphan else listed, actors)


RECORDS = pack("meta", "LOT")
DIRTY_RECORDS = pack("meta", "LOTG")
PAYLOAD = pack("data", "X")
HALF_PAYLOAD = pack("half", "KY")
DELTA_PAYLOAD = pack("half", "KY", delta="YB")
BASE = pack("base", "B")
DROP = Pruner("prune", ("O",))


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who acts on what; `states` is a little less than what an exploration visits."""

    state: State
    states: int


SCENARIOS = {
    # C is to share the payload of O, which dies in the meantime; L keeps a part of one data pack.
    "dying payload": Scenario(
        start(
            *(RECORDS, PAYLOAD, HALF_PAYLOAD),
            holds="LO",
            actors=(Writer("writer", "C"), Collector("gc", 2, crashes=1), DROP),
        ),
        states=18_000,
    ),
    # Y is a delta on B: it may be found while dead, in a pack that L keeps.
    "dying base": Scenario(
        start(
            *(RECORDS, PAYLOAD, DELTA_PAYLOAD, BASE),
            holds="LO",
            actors=(Writer("writer", "C"), Collector("gc", 2), DROP),
        ),
        states=2_000,
    ),
    "undo": Scenario(
        start(
            *(RECORDS, PAYLOAD, HALF_PAYLOAD),
            holds="LO",
            actors=(Writer("writer", "C"), Undo("undo", "O"), Collector("gc", 2), DROP),
        ),
        states=7_000,
    ),
    # D may find what C brought, also after C was pruned.
    "two writers": Scenario(
        start(
            *(pack("meta", "LO"), pack("data", "XY")),
            actors=(
                *(Writer("first", "C"), Writer("second", "D")),
                *(Collector("gc", 1), Pruner("prune", ("C",))),
            ),
        ),
        states=24_000,
    ),
    # The first goes on with another commit, but has T in a pack of its own already.
    "changing source": Scenario(
        start(
            *(pack("meta", "LO"), pack("data", "XY")),
            actors=(
                Writer("first", "C", crashes=False, then="S"),
                *(Writer("second", "D", crashes=False), Collector("gc", 1)),
            ),
        ),
        states=26_000,
    ),
    # The second is as well the restart of a first that was thought dead and was only slow.
    "two collectors": Scenario(
        start(
            *(DIRTY_RECORDS, PAYLOAD, HALF_PAYLOAD),
            holds="LO",
            actors=(Writer("writer", "C"), Collector("gc", 1), Collector("slow", 1), DROP),
        ),
        states=44_000,
    ),
    "two collectors that spare sessions": Scenario(
        start(
            *(DIRTY_RECORDS, PAYLOAD, HALF_PAYLOAD),
            holds="LO",
            actors=(
                Writer("writer", "C"),
                *(Collector(name, 1, spares=True) for name in ("gc", "slow")),
                DROP,
            ),
        ),
        states=9_000,
    ),
    # As the code does it: the whole of a plan on a newer root, or another one.
    "kept plan": Scenario(
        start(
            *(DIRTY_RECORDS, PAYLOAD, HALF_PAYLOAD),
            holds="LO",
            actors=(Writer("writer", "C"), Collector("gc", 2, keeps=True), DROP),
        ),
        states=2_300,
    ),
    # In steps: the metadata first and dead data later, or some metadata left for another plan.
    "gc in steps": Scenario(
        start(
            *(RECORDS, PAYLOAD, HALF_PAYLOAD),
            holds="LO",
            actors=(Writer("writer", "C"), Collector("gc", 2, staged=True), DROP),
        ),
        states=5_000,
    ),
    # X is to become a delta on Y, while both die.
    "repack": Scenario(
        start(
            *(RECORDS, pack("half", "KX"), pack("whole", "Y")),
            holds="LO",
            actors=(Writer("writer", "C"), Repacker("repack", ("XY",)), Collector("gc", 1), DROP),
        ),
        states=11_000,
    ),
    # Y is a delta on B already: X has to go deeper, and B has to stay as it is.
    "repack of deltas": Scenario(
        start(
            *(RECORDS, PAYLOAD, DELTA_PAYLOAD, BASE),
            holds="LO",
            actors=(
                *(Writer("writer", "C"), Repacker("repack", ("XY", "BK"))),
                *(Collector("gc", 1), DROP),
            ),
        ),
        states=12_000,
    ),
    # Y is to become a delta on B, which is dead as well.
    "repack of garbage": Scenario(
        start(
            *(RECORDS, pack("half", "KX"), BASE, pack("whole", "Y")),
            holds="LO",
            actors=(
                *(Writer("writer", "C", crashes=False), Repacker("repack", ("YB",))),
                *(Collector("gc", 1), DROP),
            ),
        ),
        states=9_000,
    ),
    # Y is to become a delta on B, and B one on K: the second would make the first too deep.
    "two repacks": Scenario(
        start(
            *(RECORDS, pack("half", "KX"), BASE, pack("whole", "Y")),
            holds="LO",
            actors=(Writer("writer", "C"), Repacker("one", ("YB",)), Repacker("two", ("BK",))),
        ),
        states=1_500,
    ),
    # The writer stores Y as a delta on B, which is to become one on K.
    "writer of deltas": Scenario(
        start(
            *(pack("meta", "LO"), pack("half", "KB")),
            holds="L",
            actors=(
                Writer("writer", "C", delta="YB"),
                *(Repacker("repack", ("BK",)), Collector("gc", 1)),
            ),
        ),
        states=7_000,
    ),
    "stale reader": Scenario(
        start(
            *(pack("meta", "LOTEU"), PAYLOAD, HALF_PAYLOAD),
            holds="LOE",
            actors=(
                Reader("reader", "L"),
                Collector("gc", 2, crashes=1),
                Pruner("prune", ("O", "E")),
            ),
        ),
        states=1_100,
    ),
    # Dead from the start: G in a metadata pack, H in a data pack, J in a file that no root lists.
    "garbage": Scenario(
        start(
            *(DIRTY_RECORDS, PAYLOAD, DELTA_PAYLOAD, BASE, pack("dead", "H")),
            holds="L",
            orphan="J",
            actors=(Writer("writer", "C"), Collector("gc", 2, crashes=1)),
        ),
        states=12_000,
    ),
}

FRESH = (pack("meta", "LO"), pack("data", "XY"))
WRITERS = (Writer("first", "C", crashes=False), Writer("second", "D", crashes=False))
# Far larger, for the long form: two writers and two of those who delete.
LONG = {
    "two writers, two collectors": Scenario(
        start(*FRESH, actors=(*WRITERS, Collector("gc", 1), Collector("slow", 1))),
        states=1_300_000,
    ),
    "two writers, two kept plans": Scenario(
        start(
            *FRESH,
            actors=(*WRITERS, *(Collector(name, 1, keeps=True) for name in ("gc", "slow"))),
        ),
        states=1_200_000,
    ),
    "a writer, two kept plans": Scenario(
        start(
            *(DIRTY_RECORDS, PAYLOAD, HALF_PAYLOAD),
            holds="LO",
            actors=(
                Writer("writer", "C"),
                *(Collector(name, 1, keeps=True) for name in ("gc", "slow")),
                DROP,
            ),
        ),
        states=90_000,
    ),
    "two writers, a collector, a repack": Scenario(
        start(
            *(RECORDS, pack("half", "KX"), pack("whole", "Y")),
            holds="LO",
            actors=(*WRITERS, Collector("gc", 1), Repacker("repack", ("XY",)), DROP),
        ),
        states=350_000,
    ),
    "a writer, a collector, two repacks": Scenario(
        start(
            *(RECORDS, pack("half", "KX"), BASE, pack("whole", "Y")),
            holds="LO",
            actors=(
                *(WRITERS[0], Collector("gc", 1, keeps=True), DROP),
                Repacker("one", ("YB",)),
                Repacker("two", ("BK",), attempts=1),
            ),
        ),
        states=250_000,
    ),
}
