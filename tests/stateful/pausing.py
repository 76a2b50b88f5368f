"""Rules that a machine takes on: processes under way that stop and go on between its other rules.

Each is the real code on a thread of its own, with a handle and caches of its own, which stops
before each change of packs and roots. It may end there, and two days may go by meanwhile.
"""

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from cas.backend.files import FileOps
from cas.repo.collect import gc
from cas.repo.repacking import repack
from cas.repo.repo import Repo
from tests.support.builders import Clock, reopened
from tests.support.paused import DatedOps, Dates, Paused

MOST = 2
TWO_DAYS = 48 * 3600
which = st.integers(0, MOST - 1)


class Pausing(RuleBasedStateMachine):
    """A machine with `handles` on one repository, and processes that are paused."""

    handles: list[Repo]

    def __init__(self) -> None:
        super().__init__()
        self.paused: list[Paused[object]] = []
        self.dates = Dates()
        for repo in self.handles:
            repo.backend.close()
        self.handles = [reopened(repo, DatedOps(self.dates)) for repo in self.handles]

    def start(self, program: Callable[[Repo], object]) -> Paused[object]:
        """Begin a process, as far as its first stop."""
        path = self.handles[0].path
        clock = Clock(self.handles[0].clock())

        def run(ops: FileOps) -> object:
            return program(Repo(path, who="ada@host", clock=clock, ops=ops))

        process = Paused(run, self.dates)
        self.paused.append(process)
        self.advance(process)
        return process

    def advance(self, process: Paused[object], *, end: bool = False) -> None:
        """Let a process go on, or end it where it stopped."""
        if end:
            process.end()
        if end or not process.go_on():
            self.paused.remove(process)
            self.ended(process)

    def ended(self, process: Paused[object]) -> None:
        """Take notice that a process is at its end, good or bad."""
        process.result()

    def finish_all(self) -> None:
        """Let everybody go on to the end."""
        while self.paused:
            self.advance(self.paused[0])

    @precondition(lambda self: len(self.paused) < MOST)
    @rule()
    def begin_to_collect(self) -> None:
        self.start(lambda repo: gc.execute(repo, gc.plan(repo)))

    @precondition(lambda self: len(self.paused) < MOST)
    @rule()
    def begin_to_repack(self) -> None:
        self.start(lambda repo: repack.execute(repo, repack.plan(repo)))

    @precondition(lambda self: self.paused)
    @rule(which=which, steps=st.integers(1, 12))
    def go_on(self, which: int, steps: int) -> None:
        process = self.paused[which % len(self.paused)]
        for _ in range(steps):
            if process in self.paused:
                self.advance(process)

    @precondition(lambda self: self.paused)
    @rule(which=which)
    def go_on_to_the_end(self, which: int) -> None:
        self.go_on(which, 10_000)

    @precondition(lambda self: self.paused)
    @rule(which=which)
    def end_where_it_stopped(self, which: int) -> None:
        self.advance(self.paused[which % len(self.paused)], end=True)

    @rule(back=st.booleans())
    def two_days_go_by(self, back: bool) -> None:
        """The clocks of file system and handles jump, forwards or backwards."""
        seconds = TWO_DAYS * (-1 if back else 1)
        self.dates.jump(seconds)
        for repo in self.handles:
            assert isinstance(repo.clock, Clock)
            repo.clock.now += seconds * 1_000_000
