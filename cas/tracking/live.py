"""A run while it lives: its state, its journal and the thread that drains into it.

Adding points costs microseconds; the thread writes what has come up to the journal at most a second
behind. All else is rare and is written at once. Commits go through `record`, one at a time. Errors
are raised here; `run` decides that they do not reach a training loop. A journal that cannot be
written is only told of: the frames wait for the next try, and the last commit has them anyway.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from cas.errors import CasError, InvalidInputError, TrackingError
from cas.ids import CommitId
from cas.objects import canonical
from cas.objects.commit import Parent
from cas.objects.tree import Entry
from cas.repo.layout import JOURNALS
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.tracking import record
from cas.tracking.environment import here
from cas.tracking.journal import MAX_FRAME, Header, JournalWriter
from cas.tracking.metrics import POINT, Mark
from cas.tracking.record import Items, Moment
from cas.tracking.secrets import valid_text
from cas.tracking.state import RunState, artifact_frame, open_ref, parent_frame

BEHIND_SECONDS: Final = 0.5
POINTS: Final = 500_000  # of one metric in one frame, far from the largest that a journal takes


class Live:
    """An open run of this process."""

    def __init__(self, repo: Repo, state: RunState, journal: JournalWriter, top: Path) -> None:
        self.repo = repo
        self.state = state
        self.top = top
        self.captured: Items = {}
        self.joined = False
        self.tell: Callable[[str], None] = lambda _: None
        self._author = record.settings(repo).get("author") or repo.who
        self._journal = journal
        self._queue: list[dict[str, Any]] = []
        self._mark: Mark | None = None
        self._draft: CommitId | None = None
        self._made: tuple[CommitId, Mark] | None = None  # the commit on its way, and its points
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._turn = threading.RLock()
        self._told = False
        self._begun = (state.run, state.ref)
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="cas-journal", daemon=True)

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
        live = cls(repo, state, create_journal(repo, state, f"{state.uid.hex()}.journal"), top)
        try:
            for frame in frames:
                live.note(frame)
            live.capture(capture)
            live._thread.start()
        except BaseException:
            with suppress(Exception):  # it may have been published before it was interrupted
                live._take_back()
            live._journal.close(delete=True)
            raise
        return live

    @classmethod
    def join(cls, repo: Repo, state: RunState, top: Path, number: str) -> Self:
        """Continue a run that another process owns; what comes here is merged by it at its end."""
        live = cls(repo, state, create_journal(repo, state, number), top)
        live.joined = True
        tree = repo.commit(repo.refresh().refs[state.open_ref]).tree
        live.captured = record.captured_items(repo, tree)
        params = repo.document(tree, "params.json")
        state.params |= params if isinstance(params, dict) else {}
        live._thread.start()
        return live

    def note(self, frame: Mapping[str, Any]) -> None:
        """Take one frame, into the state and the journal."""
        # What cannot be written would stop all that comes behind it, so it is refused here.
        if len(canonical.encode(dict(frame))) > MAX_FRAME:
            raise InvalidInputError(f"more than {MAX_FRAME} bytes at once: log them as an artifact")
        with self._lock:
            self.state.apply(frame)
            self._queue.append(dict(frame))
        self._flush_or_tell()

    def add_points(self, points: Mapping[str, object], step: object | None, time: float) -> int:
        """Take one point of each metric, within the second in the journal; return the step."""
        return self.state.metrics.add(points, step, time)

    def flush(self) -> None:
        """Write everything that has come up to the journal."""
        with self._writing:
            with self._lock:
                points = self.state.metrics.drain()
                frames = [*self._queue, *(_pieces(points) if points else ())]
                self._queue = []
            try:
                if frames:
                    self.state.position = self._journal.append(frames)
            except BaseException:
                with self._lock:
                    self._queue = frames + self._queue
                raise

    def add_artifact(self, path: str, write: Callable[[Transaction], Entry]) -> None:
        """Store an artifact and hold it by the draft, then name it in the journal."""

        def build(tx: Transaction) -> Entry:
            self._catch_up(tx)
            entry = write(tx)
            before = self.state.artifacts
            self.state.artifacts = {**before, path: entry}
            try:
                self._draft_in(tx)
            finally:
                self.state.artifacts = before
            return entry

        with self._turn:
            self.note(
                artifact_frame(path, transact(self.repo, f"artifact {valid_text(path)}", build))
            )

    def add_input(self, what: str, write: Callable[[Transaction], Parent]) -> CommitId:
        """Store an input and let the draft reach it, then name it in the journal."""

        def build(tx: Transaction) -> Parent:
            self._catch_up(tx)
            parent = write(tx)
            before, apart = self.state.parents, tx.writer.stored
            self.state.parents = [*before, parent]
            try:
                self._draft_in(tx, apart=apart)
            finally:
                self.state.parents = before
            return parent

        with self._turn:
            parent = transact(self.repo, what, build)
            self.note(parent_frame(parent))
        return parent.commit

    def checkpoint(
        self, write: Callable[[Transaction], Entry], moment: Moment, details: Mapping[str, Any]
    ) -> CommitId:
        """Commit a checkpoint, durably; the points since the commit before go with it."""
        self._flush_or_tell()

        def build(tx: Transaction) -> CommitId:
            self._catch_up(tx)
            after = self.state.metrics.mark()
            id = record.checkpoint(
                tx,
                self.state,
                self.captured,
                write(tx),
                points=(self._mark, after),
                moment=moment,
                details=details,
            )
            self._made = id, after
            return id

        with self._turn:
            id = transact(self.repo, f"checkpoint {self.state.run}", build)
            self._committed(id, self.state.seq + 1)
        return id

    def finish(
        self, moment: Moment, extra: Callable[[Transaction], tuple[Items, Items]]
    ) -> CommitId | None:
        """Commit the end of the run and close the journal; a joined run leaves it to its owner.

        One that was interrupted can be called again.
        """
        self.note({"t": "finish", "status": moment.status})
        self._halt()
        if self.joined:
            self.flush()
            self._journal.close()
            return None
        self._flush_or_tell()

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
            id = transact(self.repo, f"finish {self.state.run}", build)
        with suppress(CasError, OSError):  # a journal that is left over is seen to be of no use
            self._journal.close(delete=True)
        return id

    def abandon(self) -> None:
        """Close the journal as it is: the next writing command commits what it says."""
        self._halt()
        self._flush_or_tell()
        self._journal.close()

    def discard(self) -> None:
        """Take back a run that never began."""
        self._halt()
        self._take_back()
        self._journal.close(delete=True)

    def moment(self, status: str, step: int | None = None, message: str = "") -> Moment:
        """Return the circumstances of a commit made now."""
        return Moment(self.repo.clock(), self._author, status, message, step)

    def capture(self, capture: Callable[[Transaction], Items]) -> None:
        """Publish the run's draft with what was captured; a joined run adds to its owner's."""

        def build(tx: Transaction) -> None:
            if self.joined:
                self._catch_up(tx)
            self.captured = self.captured | capture(tx)
            self._draft_in(tx)

        with self._turn:
            transact(self.repo, f"start {self.state.run}", build)

    def _take_back(self) -> None:
        def build(tx: Transaction) -> None:
            if tx.ref(self.state.open_ref) == self._draft:
                record.drop_draft(tx, self.state)

        if self._draft is not None:
            transact(self.repo, f"discard {self.state.run}", build)

    def _draft_in(self, tx: Transaction, *, apart: int = 0) -> None:
        moment = self.moment("running")
        self._draft = record.draft(tx, self.state, self.captured, moment, apart=apart)

    def _catch_up(self, tx: Transaction) -> None:
        """Continue after the newest commit of the run, which may be another process's.

        Or one of our own that was published although the call that made it was interrupted.
        """
        draft = tx.ref(self.state.open_ref)
        if draft is None:
            self._move_on(tx)
        elif draft != self._draft:
            # Of a program in `cas run`, which knows better what it is made of.
            self.captured = record.captured_items(self.repo, self.repo.commit(draft).tree)
            self._draft = draft
        tip = tx.ref(self.state.ref)
        if tip is not None and tip != self.state.tip:
            self._committed(tip, self.repo.commit(tip).seq)

    def _committed(self, id: CommitId, seq: int) -> None:
        if self._made is not None and self._made[0] == id:
            self._mark = self._made[1]
        self.note({"t": "commit", "commit": bytes(id), "seq": seq})

    def _move_on(self, tx: Transaction) -> None:
        """Go on under a new ref: somebody took this run for dead and has committed its end."""
        if self.joined:
            raise TrackingError(f"run {self.state.run} has ended: its `cas run` is gone")
        run, ref = self._begun
        number = 2
        while tx.ref(f"{ref}-{number}") or tx.ref(open_ref(f"{ref}-{number}")):
            number += 1
        if self.state.run == run:
            self.tell(f"run {run} was taken for dead and committed; it goes on as {run}-{number}")
        tx.set_ref(f"{ref}-{number}", None)  # free when this is published too
        self.state.run, self.state.ref = f"{run}-{number}", f"{ref}-{number}"
        self._draft_in(tx)

    def _drain(self) -> None:
        while not self._halted.wait(BEHIND_SECONDS):
            self._flush_or_tell()

    def _flush_or_tell(self) -> None:
        try:
            self.flush()
        except Exception as error:
            if not self._told:
                self._told = True
                self.tell(f"warning: {error} (what is logged would be lost if the process died)")

    def _halt(self) -> None:
        self._halted.set()
        if self._thread.is_alive():
            self._thread.join()


def create_journal(repo: Repo, state: RunState, name: str) -> JournalWriter:
    """Create a journal of a run in its repository and lock it for the life of this process."""
    place = here()
    header = Header(
        run=state.run,
        ref=state.ref,
        uid=state.uid,
        host=place.host,
        boot=place.boot,
        pidns=place.pidns,
        pid=os.getpid(),
        started=repo.clock(),
    )
    return JournalWriter.create(repo.path / JOURNALS / name, header)


def _pieces(points: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a frame of points as frames of bounded size."""
    size = POINTS * POINT
    if sum(map(len, points["steps"])) <= size:
        yield dict(points)
        return
    columns = ("steps", "values", "times")
    for number, name in enumerate(points["names"]):
        whole = {key: points[key][number] for key in columns}
        for at in range(0, len(whole["steps"]), size):
            yield {"t": "points", "names": [name]} | {
                key: [column[at : at + size]] for key, column in whole.items()
            }
