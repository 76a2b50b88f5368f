"""Small repositories, what is done to one at once, and what must be true whatever the order was."""

import os
import shutil
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

from cas.backend.files import FileOps
from cas.errors import NotFoundError
from cas.ids import CommitId, ObjectId
from cas.repo.check import fsck
from cas.repo.collect import gc, reserve
from cas.repo.layout import HOLDS
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from tests.support.builders import (
    Clock,
    Files,
    RunBuilder,
    commit_files,
    noise,
    read_tree,
    set_ref,
)
from tests.support.crashing import Quick
from tests.support.drift import drifting
from tests.support.schedule import Chooser, Played, play

KEEP, OLD, FIRST, SECOND, NEXT = (f"tags/{name}" for name in ("keep", "old", "1st", "2nd", "next"))
# X and Z die with the payload of the old commit, and so does a tree beside what stays of it.
K, X, Y, Z = (noise(seed, 2000) for seed in range(4))
SHARED: Files = {"x": X, "y": Y, "sub": {"z": Z}}
RUN, DRIFT, SIZE, STEPS = "exp/one", 3, 6000, 4

Program = Callable[[Path, FileOps], object]


def handle(path: Path, ops: FileOps) -> Repo:
    """Return the repository as a process of its own has it."""
    return Repo(path, who="ada@host", clock=Clock(), ops=ops)


# --- programs ---


def write(tag: str, path: Path, ops: FileOps) -> CommitId:
    """Commit what others have, and something of its own."""
    repo = handle(path, ops)
    record, payload = written(tag)
    return commit_files(repo, record, ref=tag, payload=payload)


def written(tag: str) -> tuple[Files, Files]:
    heavy: Files = {"k": K, "y": Y} if tag == KEEP else {**SHARED, "own": tag.encode() * 50}
    return {"of": tag.encode()}, heavy


def collect(rounds: int, path: Path, ops: FileOps) -> None:
    repo = handle(path, ops)
    for _ in range(rounds):
        gc.execute(repo, gc.plan(repo))


def let_go(path: Path, ops: FileOps) -> None:
    """Let go of the old payload."""
    repo = handle(path, ops)
    set_ref(repo, f"{HOLDS}{repo.refresh().refs[OLD]}", None)


def take_back(path: Path, ops: FileOps) -> bool:
    """Hold the old payload again, if it is still there; there is nothing to write it from."""
    repo = handle(path, ops)
    id = repo.refresh().refs[OLD]
    payload = repo.commit(id).payload
    assert payload is not None
    with suppress(NotFoundError):
        transact(repo, "back", lambda transaction: transaction.hold(id, payload))
        return True
    return False


def look(rounds: int, path: Path, ops: FileOps) -> None:
    """Read what is held throughout."""
    repo = handle(path, ops)
    for _ in range(rounds):
        _read(repo, repo.root.refs[KEEP], held=True)


def shrink(path: Path, ops: FileOps) -> None:
    repo = handle(path, ops)
    repack.execute(repo, repack.plan(repo))


def train(step: int, path: Path, ops: FileOps) -> CommitId:
    """Commit a state that may be stored already, as it was at that step of another run."""
    return RunBuilder(handle(path, ops), f"again/{step}").checkpoint(step, tensors(step))


@cache
def tensors(step: int) -> dict[str, bytes]:
    return {"w": drifting(1, step, SIZE, DRIFT)}


# --- repositories ---


def committed(repo: Repo) -> None:
    """One commit that is kept, and one that is to be let go of but for its record."""
    for tag in (KEEP, OLD):
        record, payload = written(tag)
        commit_files(repo, record, ref=tag, payload=payload)


def trained(repo: Repo) -> None:
    """A run of which some states are deltas on those before; half of them are let go of."""
    run = RunBuilder(repo, RUN)
    for step in range(STEPS):
        run.checkpoint(step, tensors(step))
        if step == 1:
            repack.execute(repo, repack.plan(repo))
    set_ref(repo, OLD, run.ids[0])
    set_ref(repo, f"{HOLDS}{run.ids[1]}", None)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who acts on what; when `apart`, on hosts whose locks do not reach each other."""

    programs: tuple[Program, ...]
    prepare: Callable[[Repo], None] = committed
    dying: bool = False  # the old payload is held at first
    apart: bool = True


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "two writers": Scenario((partial(write, FIRST), partial(write, SECOND), partial(collect, 2))),
    "one host": Scenario(
        (partial(write, FIRST), partial(write, SECOND), partial(collect, 2)), apart=False
    ),
    "dying": Scenario((partial(write, FIRST), let_go, partial(collect, 2)), dying=True),
    "two collectors": Scenario((partial(write, FIRST), partial(collect, 1), partial(collect, 1))),
    "undo": Scenario((partial(write, FIRST), take_back, partial(collect, 2))),
    "reader": Scenario((partial(look, 2), let_go, partial(collect, 2)), dying=True),
    "repack": Scenario((shrink, partial(train, 1), partial(collect, 1)), trained),
    "two repacks": Scenario((shrink, shrink, partial(train, 0)), trained),
}


class Stage:
    """The repository before, and the folder in which it is played on, both in memory."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.scenario = scenario
        self.plays = 0
        self.outcomes: set[Hashable] = set()
        self._origin = folder / "origin"
        self._path = folder / "played"
        Repo.create(self._origin, who="ada@host", clock=Clock(), ops=Quick()).backend.close()
        repo = reserve.made(handle(self._origin, Quick()))
        scenario.prepare(repo)
        if not scenario.dying:
            let_go(self._origin, Quick())
        dying = {OLD, f"{HOLDS}{repo.refresh().refs[OLD]}"}
        self._kept = {name: id for name, id in repo.root.refs.items() if name not in dying}
        repo.backend.close()

    def play(self, chooser: Chooser) -> Played:
        """Play once on a fresh copy, and insist on what must be true."""
        path, scenario = self._path, self.scenario
        shutil.rmtree(path, ignore_errors=True)
        # What has a name never changes, so a second name is as good as a copy.
        shutil.copytree(self._origin, path, copy_function=os.link)
        programs = [partial(run, path) for run in scenario.programs]
        played = play(str(path), programs, chooser, apart=scenario.apart)
        self.plays += 1
        try:
            self._settle(played)
        except Exception as error:
            error.add_note(played.told())
            raise
        return played

    def _settle(self, played: Played) -> None:
        for error in played.errors.values():
            raise error
        path = self._path
        repo = handle(path, Quick())
        outcome = _outcome(repo, played)
        if outcome in self.outcomes:  # and it was good
            return
        acknowledged = {id for id in played.results.values() if isinstance(id, ObjectId)}
        assert acknowledged <= set(repo.root.refs.values())
        self._look(repo)
        # Whoever comes next may trust whatever it finds, and nothing stays behind.
        write(NEXT, path, Quick())
        train(0, path, Quick())
        repo = handle(path, Quick())
        for _ in range(2):
            gc.execute(repo, gc.plan(repo))
        assert gc.plan(repo).empty
        assert {key for key, _ in _files(repo)} == {info.key for info in repo.root.packs}
        self._look(handle(path, Quick()))
        self.outcomes.add(outcome)

    def _look(self, repo: Repo) -> None:
        """Compare all that refs and holds keep with what was given to store."""
        refs = repo.refresh().refs
        assert refs.items() >= self._kept.items()
        for name, id in refs.items():
            _read(repo, id, held=name.startswith(HOLDS))
        found = [item for item in fsck.check(repo) if item.severity != fsck.INFO]
        assert not found, found
        repo.backend.close()


def _read(repo: Repo, id: CommitId, *, held: bool) -> None:
    """Compare a commit with what was given to store: its record says what that was."""
    commit = repo.commit(id)
    record = read_tree(repo, commit.tree)
    if commit.step is None:
        of = record["of"]
        assert isinstance(of, bytes)
        light, heavy = written(of.decode())
        assert record == light
    else:
        heavy = {"state": tensors(commit.step)}
    if held:
        assert commit.payload is not None
        assert read_tree(repo, commit.payload) == heavy


def _outcome(repo: Repo, played: Played) -> Hashable:
    """Return all that decides what can be read from now on."""
    root = repo.refresh()
    refs, results = sorted(root.refs.items()), sorted(map(str, played.results.items()))
    return tuple(refs), tuple(results), root.packs, root.condemned, tuple(_files(repo))


def _files(repo: Repo) -> list[tuple[str, int]]:
    return [(info.key, info.size_bytes) for info in repo.backend.scan("packs/")]
