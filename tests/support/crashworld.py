"""Programs whose every crash is tried, and what must hold of a repository after one."""

import random
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cas.cli.main import run as command
from cas.errors import CasError, NoRepositoryError
from cas.ids import CommitId
from cas.repo import config
from cas.repo import root as roots
from cas.repo.check import fsck
from cas.repo.collect import gc
from cas.repo.layout import CONFIG, JOURNALS
from cas.repo.repo import Repo
from cas.repo.root import Root
from tests.support.builders import Clock, commit_files, reopened
from tests.support.crashing import Quick
from tests.support.crashstates import (
    Crash,
    Event,
    Recorder,
    State,
    crashes,
    outcomes,
    read_state,
    write_state,
)
from tests.support.faulty import everywhere

Refs = Mapping[str, CommitId]
PLACE = ".cas"
# What differs there alone makes no other state: nobody relies on it.
NOISE = ("tmp", "sessions", "cache")
SOME = 5  # operations, after one of which the next commands are looked at most closely
TOUCHED = "tags/after-the-crash"


@dataclass(frozen=True, slots=True)
class Known:
    """What was acknowledged when so many operations were done."""

    after: int
    seq: int
    settings: Mapping[str, Any]


@dataclass
class Trace:
    """What a program did to the disk, and what it was told."""

    top: Path
    before: State
    events: list[Event]
    known: list[Known]
    history: dict[int, Refs] = field(default_factory=dict)

    def crashes(
        self, rng: random.Random, more: int, at: Collection[int] | None = None
    ) -> list[Crash]:
        """Return crashes with distinct outcomes."""
        told = [known.after for known in self.known]
        return crashes(
            self.top, self.before, self.events, rng, more=more, ignore=NOISE, at=at, told=told
        )


class World:
    """A repository in a folder, on recorded operations, and what was acknowledged so far."""

    def __init__(self, top: Path) -> None:
        self.path = top / PLACE
        self.ops = Recorder(top)
        self.trace = Trace(top, read_state(top), self.ops.events, [Known(0, 0, {})])
        if self.path.exists():
            repo = self.repo()
            settings = config.load(repo)
            self._note(repo)
            self.trace.known[:] = [Known(0, repo.root.seq, settings)]

    def repo(self) -> Repo:
        """Open the repository anew, as each command does."""
        return Repo.open(self.path, who="ada@host", clock=Clock(), ops=self.ops)

    def do(self, command: Callable[[Repo], object]) -> None:
        """Run a command; from its return on, what it did is acknowledged."""
        repo = self.repo()
        command(repo)
        self.told(repo)

    def cas(self, *words: str) -> None:
        """Run a command line, as a user does."""
        with everywhere(self.ops), chdir(self.path.parent):
            assert command(list(words)) == 0, words
        self.told(self.repo())

    def create(self) -> None:
        """Make the repository."""
        self.told(Repo.create(self.path, who="ada@host", clock=Clock(), ops=self.ops))

    def told(self, repo: Repo) -> None:
        """Note down that all that was done so far is acknowledged."""
        self._note(repo)
        settings = config.load(repo)
        self.trace.known.append(Known(len(self.ops.events), repo.refresh().seq, settings))
        repo.backend.close()

    def _note(self, repo: Repo) -> None:
        """Learn the refs of each root that came since."""
        known: Root | None = None
        for seq in range(max(self.trace.history, default=0) + 1, repo.refresh().seq + 1):
            known = roots.read(repo.backend, seq, known)
            self.trace.history[seq] = known.refs


class LostError(AssertionError):
    """A crash took what it must not."""


def survivors(trace: Trace, some: list[Crash], folder: Path) -> Iterator[Crash]:
    """Hold what each crash leaves to what was known by then, and yield it; raise LostError."""
    for crash, state in outcomes(trace.top, trace.before, trace.events, some):
        with _written(state, folder):
            try:
                check(trace, crash, folder / PLACE)
            except (CasError, OSError, AssertionError, LookupError, ValueError, Warning) as error:
                last = trace.events[max(0, crash.after - 3) : crash.after]
                shown = [(e.kind, e.path[len(str(trace.top)) :]) for e in last]
                raise LostError(
                    f"{crash}: after {shown}: {type(error).__name__}: {error}"
                ) from error
        yield crash


@contextmanager
def _written(state: State, folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    try:
        write_state(state, folder)
        yield
    finally:
        shutil.rmtree(folder)


def check(trace: Trace, crash: Crash, path: Path) -> None:
    """Insist on old or new, on a clean repository, and that the next commands just work."""
    done = [known for known in trace.known if known.after <= crash.after]
    sure, later = done[-1], trace.known[len(done) : len(done) + 1]
    try:
        repo = Repo.open(path, who="ada@host", clock=Clock(), ops=Quick())
    except NoRepositoryError:
        assert sure.seq == 0, "the repository is gone"
        repo = Repo.create(path, who="ada@host", clock=Clock(), ops=Quick())
        commit_files(repo, {"a": b"after"}, ref=TOUCHED)
        assert not troubles(repo)
        return
    seq = repo.refresh().seq
    newest = later[0].seq if later else sure.seq
    assert sure.seq <= seq <= newest, f"root {seq}, where {sure.seq} to {newest} may be"
    assert repo.root.refs == trace.history[seq], "refs that no root had"
    assert config.load(repo) in [sure.settings, *(known.settings for known in later)]
    assert not troubles(repo), "after the crash"
    go_on(repo, thoroughly=crash.after % SOME == 0)


def go_on(repo: Repo, *, thoroughly: bool) -> None:
    """Insist that the next commands work, tidy up, and change nothing else."""
    if (repo.path / JOURNALS).exists():
        from cas.tracking.ends.recovery import recover_lost

        recover_lost(repo)
    kept = dict(repo.refresh().refs)
    id = commit_files(repo, {"a": b"after", "sub": {"b": b"the crash"}}, ref=TOUCHED)
    gc.execute(repo, gc.plan(repo))
    assert repo.refresh().refs == {**kept, TOUCHED: id}, "refs after the next commands"
    assert not troubles(repo, full=thoroughly), "after the next commands"
    packs = {info.key for info in repo.backend.scan("packs/")}
    assert packs == {info.key for info in repo.root.packs}, "packs that gc leaves"
    assert not thoroughly or gc.plan(reopened(repo, Quick())).empty, "gc has more to do"
    assert (repo.path / CONFIG).exists() or not config.load(repo)
    repo.backend.close()


def troubles(repo: Repo, *, full: bool = True) -> list[fsck.Finding]:
    """Return what fsck complains of, by default when every byte is read."""
    return [found for found in fsck.check(repo, full=full) if found.severity != fsck.INFO]
