"""Writers, collectors and others of the real code, interleaved at every file operation.

Every order must end well, and with one rule of the protocol taken out of the code some order must
not: else these tests would prove nothing.
"""

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, permutations
from pathlib import Path
from typing import Final

import pytest

from cas.errors import CasError
from cas.repo import transaction
from cas.repo.collect import gc, gcplan
from cas.repo.collect.replace import swap
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.root import Operation, Root
from cas.store import writer
from cas.store.pack import PackClass, PackInfo
from cas.store.writer import ObjectWriter
from tests.schedules.scenarios import SCENARIOS, Stage
from tests.support.schedule import Chooser, Played, Ranked, Wandering, bounded
from tests.support.torture import amount, scale, tell

MEMORY: Final = Path("/dev/shm")
PARTS: Final = 4  # of the long form, so that all cores have something to do
STEPS: Final = 420  # of one play, about
OFTEN: Final = (0.03, 0.1, 0.3)


@pytest.fixture(autouse=True)
def _as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data has packs of its own, which stay for as long as little in them is dead."""
    monkeypatch.setattr(writer, "SMALL", 1000)
    monkeypatch.setattr(gcplan, "SMALL_DATA", 0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: each play makes a repository and removes it."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def at_random(stage: Stage, seeds: Iterable[int]) -> Iterator[Played]:
    """Play orders of both random kinds; in some a process ends somewhere."""
    actors = len(stage.scenario.programs)
    for seed in seeds:
        rng = random.Random(seed)
        end = rng.randrange(STEPS) if rng.random() < 0.3 else None
        chooser: Chooser
        if seed % 2:
            chooser = Wandering(seed, often=rng.choice(OFTEN), end=end)
        else:
            chooser = Ranked(seed, actors=actors, falls=3, length=STEPS, end=end)
        yield stage.play(chooser)


def in_turn(stage: Stage, switches: int, order: tuple[int, ...]) -> Iterator[Played]:
    """Play all that is one after another but for so many switches, a random part of it first."""
    for _, played in bounded(stage.play, order, switches, random.Random(1)):
        yield played


@pytest.mark.torture
@pytest.mark.parametrize("part", range(PARTS if scale() else 1))
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_random_order_ends_well(name: str, part: int, folder: Path) -> None:
    stage = Stage(folder, SCENARIOS[name])
    count = amount(12, 1000)
    lengths = {
        len(played.steps) for played in at_random(stage, range(part * count, (part + 1) * count))
    }
    assert stage.plays == count
    tell(f"schedules, {name}: {count} random plays")
    # They do get in each other's way; a short program has only so many lengths.
    assert len(lengths) > min(count, 400) // 4


@pytest.mark.torture
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_with_few_switches_ends_well(name: str, folder: Path) -> None:
    stage = Stage(folder, SCENARIOS[name])
    most, switches = amount(2, 2000), amount(1, 2)
    for order in permutations(range(len(stage.scenario.programs))):
        for _ in islice(in_turn(stage, switches, order), most):
            pass
    assert stage.plays > 6
    tell(f"schedules, {name}: {stage.plays} plays with few switches")


def test_an_order_can_be_repeated(folder: Path) -> None:
    stage = Stage(folder, SCENARIOS["two writers"])
    first = [stage.play(Wandering(seed, often=0.1)).steps for seed in range(3)]
    assert first == [stage.play(Wandering(seed, often=0.1)).steps for seed in range(3)]


# --- what must be found ---


def not_condemned(repo: Repo, base: Root, own: ObjectWriter) -> list[bytes]:
    """In place of `lost`: own packs are looked for, and may be condemned."""
    there = repo.backend.size
    return [info.name for info in own.packs.values() if there(info.key) != info.length]


def not_there(repo: Repo, base: Root, own: ObjectWriter) -> list[bytes]:
    """In place of `lost`: own packs are not condemned, and nobody looks for them."""
    return [info.name for info in base.condemned if info.name in own.packs]


def hits_are_trusted(repo: Repo, base: Root, own: ObjectWriter) -> bool:
    """In place of `_hits_stand`."""
    return True


def deleted_first(
    repo: Repo,
    base: Root,
    operation: Operation,
    leaving: Iterable[PackInfo],
    coming: Iterable[PackInfo],
) -> Root | None:
    """In place of `swap`: files go before the root that condemns them."""
    packs = list(leaving)
    for info in packs:
        repo.backend.delete(info.key)
    return swap(repo, base, operation, packs, coming)


def only_data(item: "gcplan._Contents") -> bool:
    """In place of `_worth`: metadata packs keep what is dead."""
    return item.pack.kind is PackClass.DATA


def asks_nobody(own: object, base: Root, step: object) -> bool:
    """In place of `_agrees` of a repack."""
    return True


# For each rule that is taken out: in which scenario it is missed, and what is put in its place.
PLANTED: Final[dict[str, tuple[str, tuple[tuple[object, str, Callable[..., object]], ...]]]] = {
    "own packs may be condemned": ("undo", ((transaction, "lost", not_condemned),)),
    "own packs may be gone": ("two writers", ((transaction, "lost", not_there),)),
    "hits are not looked for again": ("undo", ((transaction, "_hits_stand", hits_are_trusted),)),
    "deleted before the root": ("two writers", ((gc, "swap", deleted_first),)),
    "repack asks nobody": ("repack", ((repack._Repack, "_agrees", asks_nobody),)),
    "metadata keeps what is dead": ("undo", ((gcplan, "_worth", only_data),)),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_missing_rule_is_found(bug: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, places = PLANTED[bug]
    stage = Stage(folder, SCENARIOS[name])
    for module, what, instead in places:
        monkeypatch.setattr(module, what, instead)
    with pytest.raises((AssertionError, CasError)) as found:
        for _ in at_random(stage, range(1000)):
            pass
    assert "program 0:" in found.value.__notes__[0]
