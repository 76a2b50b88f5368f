"""A run while it lives: its state, and the commits that are made of it.

All that it is told goes through `feed` into its journal; commits go through `record`, one at a
time. Errors are raised here; `run` decides that they do not reach a training loop.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from cas.errors import TrackingError
from cas.ids import CommitId
from cas.objects.commit import Parent
from cas.objects.tree import Entry
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.tracking import record
from cas.tracking.ends.past import Now, PastMetrics
from cas.tracking.journals.feed import Feed, open_feed
from cas.tracking.journals.state import (
    RunState,
    artifact_frame,
    free_number,
    moved_frame,
    parent_frame,
)
from cas.tracking.numbers.metrics import Mark
from cas.tracking.opened import Opened
from cas.tracking.privacy.secrets import valid_text
from cas.tracking.record import Items, Moment
from cas.tracking.runfiles import has_owner, moved_on
from cas.tracking.shown.logged import Logged
from cas.tracking.shown.shelf import Shelf

T = TypeVar("T")


class _TakenForDeadError(Exception):
    """The run's draft is gone: somebody has committed its end."""


class Live(Opened):
    """An open run of this process."""

    def __init__(self, repo: Repo, state: RunState, feed: Feed, top: Path) -> None:
        super().__init__(repo, state, feed)
        self.top = top
        self.captured: Items = {}
        self.joined = False
        # What writes the rest of what is captured; None once the run has it.
        self.late: Callable[[Transaction, Items], Items] | None = None
        self._late_in = False
        self.base: CommitId | None = None  # the checkpoint of its own that it goes on from
        self._mark: Mark | None = None  # where the points of the newest checkpoint end
        self._draft: CommitId | None = None
        self._made: tuple[CommitId, Mark] | None = None  # the commit on its way, and its points
        self._turn = threading.RLock()

    @classmethod
    def start(
        cls,
        repo: Repo,
        state: RunState,
        top: Path,
        frames: Iterable[Mapping[str, Any]],
        capture: Callable[[Transaction], Items],
    ) -> Self:
        """Open the journal, publish the draft; raise ConflictError when the name is taken."""
        live = cls(repo, state, open_feed(repo, state, f"{state.uid.hex()}.journal"), top)
        try:
            for frame in frames:
                live.note(frame)
            live.capture(capture)
            live._feed.start()
        except BaseException:
            with suppress(Exception):  # it may have been published before it was interrupted
                live._take_back()
            live._feed.drop()
            raise
        return live

    @classmethod
    def join(cls, repo: Repo, state: RunState, top: Path, number: str) -> Self:
        """Continue a run that another process owns; what comes here is merged by it at its end."""
        live = cls(repo, state, open_feed(repo, state, number), top)
        live.joined = True
        tree = repo.commit(repo.refresh().refs[state.open_ref]).tree
        live.captured = record.captured_items(repo, tree)
        params = repo.document(tree, "params.json")
        state.params |= params if isinstance(params, dict) else {}
        live._feed.start()
        return live

    def add_artifact(self, path: str, write: Callable[[Transaction], Entry]) -> None:
        """Store an artifact and hold it by the draft, then name it in the journal."""

        def build(tx: Transaction) -> Entry:
            self._catch_up(tx)
            entry = write(tx)
            self._draft_in(tx, artifacts={**self.state.artifacts, path: entry})
            return entry

        with self._turn:
            entry = self._transact(f"artifact {valid_text(path)}", build)
            self.note(artifact_frame(path, entry))

    def add_logged(self, write: Callable[[Transaction], Sequence[Logged]]) -> Sequence[Logged]:
        """Store files that were logged and hold them by the draft; the journal is the caller's."""

        def build(tx: Transaction) -> tuple[Sequence[Logged], Shelf]:
            self._catch_up(tx)
            rows = write(tx)
            grown = self.state.shelf.grown(tx.writer, rows)
            self._draft_in(tx, shelf=grown)
            return rows, grown

        with self._turn:
            rows, self.state.shelf = self._transact(f"files of {self.state.run}", build)
        return rows

    def add_input(self, what: str, write: Callable[[Transaction], Parent]) -> CommitId:
        """Store an input and let the draft reach it, then name it in the journal."""

        def build(tx: Transaction) -> Parent:
            self._catch_up(tx)
            parent, apart = write(tx), tx.writer.stored
            self._draft_in(tx, apart=apart, parents=[*self.state.parents, parent])
            return parent

        with self._turn:
            parent = self._transact(what, build)
            self.note(parent_frame(parent))
        return parent.commit

    def hold_part(self, path: str, write: Callable[[Transaction], Entry]) -> tuple[Entry, int]:
        """Store a part of a checkpoint, held until that is there; return what it cost too."""

        def build(tx: Transaction) -> tuple[Entry, int]:
            self._catch_up(tx)
            entry, stored = write(tx), tx.writer.stored
            self._draft_in(tx, apart=stored, parts={path: entry})
            return entry, stored

        with self._turn:
            return self._transact(f"part of checkpoint {self.state.run}", build)

    def now(self) -> Now:
        """Return what is known of the run now, for a checkpoint that is stored later."""
        self._feed.flush_or_tell()
        metrics = PastMetrics(self.state.metrics, self._mark)
        return Now(self.state.params, metrics, self.state.position)

    def checkpoint(
        self,
        write: Callable[[Transaction], Entry],
        moment: Moment,
        details: Mapping[str, Any],
        now: Now | None = None,
        before_bytes: int = 0,
    ) -> CommitId:
        """Commit a checkpoint, durably; the points since the commit before go with it."""
        told = now or self.now()
        self.settle()  # who goes on from here does not show again what was shown before

        def build(tx: Transaction) -> CommitId:
            self._catch_up(tx)
            after = told.metrics.mark()
            id = record.checkpoint(
                tx,
                told.of(self.state),
                self.captured,
                write(tx),
                points=(self._mark, after),
                moment=moment,
                details=details,
                before_bytes=before_bytes,
            )
            self._made = id, after
            return id

        with self._turn:
            id = self._transact(f"checkpoint {self.state.run}", build)
            self._committed(id, self.state.seq + 1)
        return id

    def finish(
        self, moment: Moment, extra: Callable[[Transaction], tuple[Items, Items]]
    ) -> CommitId | None:
        """Commit the end of the run and close the journal; a joined run leaves it to its owner.

        One that was interrupted can be called again.
        """
        self.note({"t": "finish", "status": moment.status})
        self._feed.halt()
        if self.joined:
            self.flush()
            self._feed.close()
            return None
        self._feed.flush_or_tell()

        def build(tx: Transaction) -> CommitId:
            tip = tx.ref(self.state.ref)
            ended = tx.ref(self.state.open_ref) is None
            if tip is not None and ended and self._made is not None and tip == self._made[0]:
                return tip  # an interrupted call had come this far
            self._catch_up(tx)
            light, heavy = extra(tx)
            id = record.finish(tx, self.state, self.captured, moment, light=light, heavy=heavy)
            self._made = id, self.state.metrics.mark()
            return id

        with self._turn:
            id = self._transact(f"finish {self.state.run}", build)
        self._feed.drop()
        return id

    def abandon(self) -> None:
        """Close the journal as it is: the next writing command commits what it says."""
        self.late = None
        self._feed.halt()
        self._feed.flush_or_tell()
        self._feed.close()

    def discard(self) -> None:
        """Take back a run that never began."""
        self.late = None
        self._feed.halt()
        self._take_back()
        self._feed.drop()

    def complete(self) -> None:
        """Publish what was still being captured as the run began, unless a commit has it."""

        def build(tx: Transaction) -> None:
            self._catch_up(tx)
            self._draft_in(tx)

        with self._turn:
            if self.late is not None:
                self._transact(f"start {self.state.run}", build)

    def between(self, action: Callable[[], T]) -> T:
        """Do something with the repository while no commit of this run is on its way."""
        with self._turn:
            return action()

    def capture(self, capture: Callable[[Transaction], Items]) -> None:
        """Publish the run's draft with what was captured; a joined run adds to its owner's."""

        def build(tx: Transaction) -> None:
            if self.joined:
                self._catch_up(tx)
            self.captured = self.captured | capture(tx)
            self._draft_in(tx)

        with self._turn:
            before = self.captured
            try:
                self._transact(f"start {self.state.run}", build)
            except BaseException:
                self.captured = before  # what was not published is not stored either
                raise

    def _transact(self, what: str, build: Callable[[Transaction], T]) -> T:
        """Publish something of this run; should it have been taken for dead, under a new ref."""
        while True:
            with suppress(_TakenForDeadError):
                done = transact(self.repo, what, build, run=self.state.run)
                self.late = None if self._late_in else self.late
                return done
            transact(self.repo, f"continue {self.state.run}", self._move_on, run=self.state.run)

    def _take_back(self) -> None:
        def build(tx: Transaction) -> None:
            if tx.ref(self.state.open_ref) == self._draft:
                record.drop_draft(tx, self.state)

        if self._draft is not None:
            self._transact(f"discard {self.state.run}", build)

    def _draft_in(
        self, tx: Transaction, *, apart: int = 0, parts: Items = record.NO_PARTS, **more: Any
    ) -> None:
        """Replace the draft; `more` is what the run's state has besides once that is published."""
        state, now = replace(self.state, **more), self.moment("running")
        self._draft = record.draft(tx, state, self.captured, now, apart=apart, parts=parts)

    def _catch_up(self, tx: Transaction) -> None:
        """Continue after the newest commit of the run, which may be another process's.

        Or one of our own that was published although the call that made it was interrupted.
        """
        draft = tx.ref(self.state.open_ref)
        if draft is None:
            raise _TakenForDeadError
        if draft != self._draft:
            position = self.repo.commit(draft).journal
            if position is not None and position.run != self.state.uid:
                raise _TakenForDeadError  # another process has continued the run
            # Of a program in `cas run`, which knows better what it is made of.
            self.captured = record.captured_items(self.repo, self.repo.commit(draft).tree)
            self._draft = draft
        self._add_late(tx)
        tip = tx.ref(self.state.ref)
        if tip is not None and tip != self.state.tip:
            self._committed(tip, self.repo.commit(tip).seq)

    def _add_late(self, tx: Transaction) -> None:
        if self.late is not None:
            self.captured = self.captured | self.late(tx, self.captured)
            self._late_in = True

    def _committed(self, id: CommitId, seq: int) -> None:
        if self._made is not None and self._made[0] == id:
            self._mark = self._made[1]
        self.note({"t": "commit", "commit": bytes(id), "seq": seq})

    def _move_on(self, tx: Transaction) -> None:
        """Go on under a new ref: somebody took this run for dead and has committed its end.

        Under the one that another process of this run has gone on under, if there is one. The
        journal has it before it is published: this run can be lost, and found, once more.
        """
        run, ref = self._feed.begun
        moved = moved_on(self.repo, self.state.uid, tx.root.refs)
        if moved is not None:
            if moved[1] != self.state.ref:
                self.note(moved_frame(*moved))
            return
        if self.joined and not has_owner(self.repo, self.state.uid):
            raise TrackingError(f"run {self.state.run} has ended: its `cas run` is gone")
        number = free_number(tx.root.refs, ref)
        if self.state.run == run:
            self.tell(f"run {run} was taken for dead and committed; it goes on as {run}-{number}")
        tx.set_ref(f"{ref}-{number}", None)  # free when this is published too
        # The old draft's segments may be gone; their files stand in what it was committed as.
        files = [row for row in self.state.logged.rows() if row.id is not None]
        self.state.shelf = Shelf().grown(tx.writer, files)
        self.note(moved_frame(f"{run}-{number}", f"{ref}-{number}"))
        self._add_late(tx)
        self._draft_in(tx)
