"""Transactions: how anything gets into a repository.

`transact` calls `build` to write objects and move refs against the newest root, then publishes.
Should the root have moved so that something relied upon is gone, or a ref is no longer what it
was, `build` is called again: it must start from its source (files, staging memory) each time.
Order and checks: docs/format/ordering.md.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from cas.errors import CasError, ConflictError, NotFoundError, OutcomeUnknownError
from cas.ids import CommitId, TreeId
from cas.objects.commit import Commit
from cas.repo import root as roots
from cas.repo.gate import Gate, pass_gate
from cas.repo.layout import HOLDS, SESSIONS
from cas.repo.repo import Repo, check_ref
from cas.repo.root import Operation, RefChange, Root
from cas.repo.session import Session
from cas.store.index import consolidate
from cas.store.writer import ObjectWriter

T = TypeVar("T")
ATTEMPTS = 100
OUTRUN = 3  # lost races after which a writer closes the gate for a moment
PATIENT = 8  # attempts after which one that always loses waits a moment
MOMENT = 0.002  # seconds, on average, for each attempt so far


class Transaction:
    """Objects written and refs moved, against one root."""

    def __init__(self, repo: Repo, root: Root, writer: ObjectWriter) -> None:
        self.repo = repo
        self.root = root
        self.writer = writer
        self.changes: dict[str, RefChange] = {}
        self.expected: dict[str, CommitId | None] = {}
        self.on_this_root = False  # what was decided holds for no other root

    def ref(self, name: str) -> CommitId | None:
        """Return what a ref points at, as far as this transaction has come."""
        change = self.changes.get(name)
        return change.new if change else self.root.refs.get(name)

    def set_ref(self, name: str, new: CommitId | None) -> None:
        """Point a ref at a commit, or drop it with None."""
        if new is not None:
            check_ref(name)
            if not self.writer.has(new):
                raise NotFoundError("commit", str(new))
        # A ref that is right already, a hold for instance, must still be so when this is published.
        self.expected[name] = old = self.root.refs.get(name)
        self.changes[name] = RefChange(name, old, new)
        if old == new:
            del self.changes[name]

    def record(self, commit: Commit) -> CommitId:
        """Write a commit, with the hold that keeps its payload.

        Raises NotFoundError when what it names is not there: a parent may have been let go of and
        collected since it was looked up.
        """
        if not self.writer.has(commit.tree):
            raise NotFoundError("tree", commit.tree.hex())
        for parent in commit.parents:
            if not self.writer.has(parent.commit):
                raise NotFoundError(f"{parent.role} commit", str(parent.commit))
        id = self.writer.commit(commit.to_bytes())
        if commit.payload is not None:
            self.hold(id, commit.payload)
        return id

    def hold(self, id: CommitId, payload: TreeId) -> None:
        """Keep a commit's payload; raise NotFoundError when it is no longer there."""
        if not self.writer.has(payload):
            raise NotFoundError("payload of", id.short, "it was pruned and collected")
        self.set_ref(f"{HOLDS}{id}", id)


def transact(repo: Repo, what: str, build: Callable[[Transaction], T], *, run: str = "") -> T:
    """Run `build` and publish what it did as one operation; return what it returned.

    `run` is the run that does so by itself, without a command of anybody.

    Raises ConflictError when others keep winning, ReadOnlyError and StorageFullError, and
    OutcomeUnknownError when a sync failed after the root was in place.
    """
    operation = begun(repo, what, run)
    name = operation.id.hex()
    with Session.open(repo.path / SESSIONS, name, what, ops=repo.ops):
        writer = ObjectWriter(repo.backend, repo.store, lambda: os.urandom(16))
        try:
            return _attempt(repo, operation, writer, build)
        except BaseException:
            writer.discard()
            raise
        finally:
            # A run waits for hours between two of these, and what others collect meanwhile takes
            # room for as long as it is open here.
            repo.backend.close()


def _attempt(
    repo: Repo, operation: Operation, writer: ObjectWriter, build: Callable[[Transaction], T]
) -> T:
    with Gate(repo) as gate:
        for attempt in range(ATTEMPTS):
            if attempt >= OUTRUN:
                gate.take_turn()
            if attempt >= PATIENT and not gate.closed:
                _step_aside(attempt)
            repo.refresh()
            repo.store.refresh()
            transaction = Transaction(repo, repo.root, writer)
            result = build(transaction)
            if _uninterrupted(partial(_publish, transaction, operation, gate)):
                return result
    raise ConflictError("the repository")


def _step_aside(attempt: int) -> None:
    """Wait a moment that is nobody else's, so that many who want the same come one by one."""
    time.sleep(2 * MOMENT * attempt * int.from_bytes(os.urandom(2)) / (1 << 16))


def begun(repo: Repo, what: str, run: str = "") -> Operation:
    """Return a new operation of this user, or of a run of theirs."""
    repo.check_whole()
    return Operation(os.urandom(16), repo.who, what, repo.clock(), run)


def lost(repo: Repo, base: Root, writer: ObjectWriter) -> list[bytes]:
    """Return the writer's packs that `base` condemns or whose files are gone.

    `base` was read before: a pack that is deleted later was condemned by a newer root.
    """
    condemned = {info.name for info in base.condemned}
    return [
        info.name
        for info in writer.packs.values()
        if info.name in condemned or repo.backend.size(info.key) != info.length
    ]


def _publish(transaction: Transaction, operation: Operation, gate: Gate) -> bool:
    """Publish, or say that `build` must run again."""
    repo, writer = transaction.repo, transaction.writer
    writer.seal()
    if not gate.closed:
        pass_gate(repo)
    base, lost_races = transaction.root, 0
    while transaction.changes or writer.packs:
        if not _stands(repo, base, writer):
            writer.restart()
            return False
        if not _agrees(transaction, base):
            return False
        listed = {info.name for info in base.packs}
        fresh = tuple(info for info in writer.packs.values() if info.name not in listed)
        after = base.follow(operation, transaction.changes.values(), packs=base.packs + fresh)
        try:
            root = roots.publish(repo.backend, after, os.urandom(16))
        except ConflictError:
            lost_races += 1
            if lost_races >= OUTRUN:
                gate.take_turn()
            base = repo.refresh()
            continue
        except OutcomeUnknownError as error:
            raise OutcomeUnknownError(operation.id.hex(), str(error)) from error
        gate.open()
        repo.adopt(root)
        with suppress(CasError):  # what follows only spares later readers time
            repo.store.refresh()
            consolidate(repo.backend, repo.store.index, os.urandom(16))
        break
    return True


def _agrees(transaction: Transaction, base: Root) -> bool:
    """Say whether what was decided about refs still holds."""
    if transaction.on_this_root and base.seq != transaction.root.seq:
        return False
    return all(base.refs.get(name) == old for name, old in transaction.expected.items())


def _stands(repo: Repo, base: Root, writer: ObjectWriter) -> bool:
    """Say whether all that the new root needs would be there.

    Own packs are neither condemned nor swept, and hits lie in packs that `base` lists. The root is
    read before the files are looked for: a pack swept later was condemned in a newer root.
    """
    return not lost(repo, base, writer) and _hits_stand(repo, base, writer)


def _hits_stand(repo: Repo, base: Root, writer: ObjectWriter) -> bool:
    listed = {info.name for info in base.packs}
    moved = [id for id, pack in writer.relied.items() if pack not in listed]
    if moved:
        repo.store.refresh()
    for id in moved:
        place = repo.store.locate(id)
        if place is None or place.pack.name not in listed:
            return False
        writer.relied[id] = place.pack.name
    return True


def _uninterrupted(action: Callable[[], T]) -> T:
    """Run `action` on a thread of its own, so that Ctrl-C cannot cut it in two."""
    return _Beside(action).result()


class _Beside(Generic[T]):
    """Something on a thread of its own, which is never done or else done to its end."""

    def __init__(self, action: Callable[[], T]) -> None:
        self._waiting = [action]  # whoever takes it decides whether it is done
        self._thread: threading.Thread | None = None
        self._ended = threading.Lock()  # an Event does not outlive an interrupt in the midst of it
        self._ended.acquire()
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    def result(self) -> T:
        """Return what came of it, or raise what it raised, or else KeyboardInterrupt if that came.

        An interrupt is taken wherever it comes: in a call that has just begun, too.
        """
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                self._go_on()
                break
            except KeyboardInterrupt as caught:
                interrupt = caught
                if self._called_off():
                    raise
        if self._errors:
            raise self._errors[0]
        if interrupt is not None:
            raise interrupt
        return self._results[0]

    def _go_on(self) -> None:
        """Begin, if that was not so before, and wait for the end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cas-publish")
            try:
                self._thread.start()
            except RuntimeError as error:
                if isinstance(error.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from error  # it broke what a thread starts with
                self._run()  # while the interpreter ends, Python 3.12 and later start none
        while not (self._results or self._errors):
            self._ended.acquire()

    def _called_off(self) -> bool:
        """Say whether it had not begun; then it never does."""
        try:
            self._waiting.pop()
        except IndexError:
            return False
        return True

    def _run(self) -> None:
        try:
            action = self._waiting.pop()
        except IndexError:
            return
        try:
            self._results.append(action())
        except BaseException as error:
            self._errors.append(error)
        self._ended.release()
