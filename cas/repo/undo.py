"""Undo: take back one operation, by a new root that restores the refs it moved and no others.

Plan, show, execute. A ref goes back only if it still is where the operation left it, and a hold or
a name comes back only while what it keeps is whole in listed packs: so a prune can be undone until
gc has swept. Packs are never touched. To undo an undo is to redo.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cas.errors import NotFoundError, RefusedError
from cas.ids import CommitId, ObjectId
from cas.plain import few
from cas.repo.layout import HOLDS, OPEN, RUNS
from cas.repo.reflog import Past, find, history, shown
from cas.repo.repo import Repo
from cas.repo.retain.needed import INPUTS, NAMED, Uses, after, reader
from cas.repo.root import RefChange
from cas.repo.transaction import Transaction, transact

WHAT: Final = "undo "
LISTED: Final = 3
Refs = Mapping[str, CommitId]
Has = Callable[[ObjectId], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one ref that the operation moved.

    It goes back, or there is a `problem` why it cannot, or a reason why it `stays` as it is.
    """

    change: RefChange
    problem: str = ""
    stays: str = ""

    @property
    def moves(self) -> bool:
        """Whether the ref goes back."""
        return not (self.problem or self.stays)


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """How an operation would be taken back, decided on one root."""

    past: Past
    steps: tuple[Step, ...]

    @property
    def problems(self) -> tuple[Step, ...]:
        """The refs that cannot go back."""
        return tuple(step for step in self.steps if step.problem)

    @property
    def moved(self) -> tuple[RefChange, ...]:
        """What the refs that go back do."""
        changes = (step.change for step in self.steps if step.moves)
        return tuple(RefChange(change.name, change.new, change.old) for change in changes)


def plan(repo: Repo, word: str | None = None) -> UndoPlan:
    """Decide how an operation is taken back; change nothing.

    `word` is its number or id; by default it is the last one of this user that moved a ref and
    that no run made. Raises NotFoundError, and RefusedError when it is not theirs to take back.
    """
    past = _last(repo) if word is None else find(repo, word)
    _check_own(repo, past)
    refs = repo.refresh().refs
    repo.store.refresh()
    return _Decision(repo, past).on(refs, lambda id: repo.store.locate(id) is not None)


def execute(repo: Repo, planned: UndoPlan, *, partly: bool = False) -> UndoPlan:
    """Take the operation back; return what was done in the end.

    Raises RefusedError when a ref cannot go back; with `partly` the others do.
    """
    decision = _Decision(repo, planned.past)

    def build(transaction: Transaction) -> UndoPlan:
        past = planned.past
        done = decision.on(transaction.root.refs, transaction.writer.has)
        if done.problems and not partly:
            raise refusal(done)
        # Any ref that comes meanwhile may be a reason why a hold stays.
        transaction.on_this_root = any(map(_drops_hold, past.changes))
        for change in done.moved:
            _restore(transaction, change)
        if not transaction.changes:
            raise RefusedError(f"nothing is left to take back of operation {past.number}")
        return done

    what = planned.past.operation.what
    told = "" if what.startswith(WHAT) else f": {what}"
    return transact(repo, f"{WHAT}{planned.past.number}{told}", build)


def refusal(planned: UndoPlan) -> RefusedError:
    """Return the error that names what keeps an operation from being taken back as a whole."""
    told = [f"{shown(step.change.name)} {step.problem}" for step in planned.problems]
    rest = "; --partly takes back the rest" if planned.moved else ""
    return RefusedError(
        f"operation {planned.past.number} ({planned.past.operation.what}) cannot be taken back: "
        f"{few(told, LISTED)}{rest}"
    )


def user(who: str) -> str:
    """Return the user of `user@host`: people are the same on every host of theirs."""
    return who.rpartition("@")[0] or who


def _last(repo: Repo) -> Past:
    mine = (past for past in history(repo) if user(past.operation.who) == user(repo.who))
    own = (past for past in mine if past.vouched and not past.operation.run)
    found = next((past for past in own if past.changes), None)
    if found is None:
        raise NotFoundError(
            "operation", f"of {user(repo.who)} to take back", "`cas reflog` lists all"
        )
    return found


def _check_own(repo: Repo, past: Past) -> None:
    said = f"operation {past.number} ({past.operation.what})"
    if past.operation.run:
        raise RefusedError(
            f"{said} was made by the run {past.operation.run}: `cas rm` removes runs"
        )
    if user(past.operation.who) != user(repo.who):
        raise RefusedError(f"{said} was made by {past.operation.who}: ask them to take it back")
    if not past.changes:
        raise RefusedError(f"{said} moved no ref: there is nothing to take back")
    if not past.vouched:
        raise RefusedError(f"{said} is no part of this repository's history: look with `cas fsck`")


class _Decision:
    """What becomes of each ref, decided anew on every root that is tried."""

    def __init__(self, repo: Repo, past: Past) -> None:
        self._repo = repo
        self._past = past
        going = {change.new for change in past.changes if _drops_hold(change) and change.new}
        self._uses = Uses(reader(repo), going) if going else None
        self._needed: dict[CommitId, str] = {}

    def on(self, refs: Refs, has: Has) -> UndoPlan:
        """Decide on these refs; `has` says whether an object is there to be named."""
        steps = [_step(self._repo, change, refs, has) for change in self._past.changes]
        if self._uses is not None:
            back = [(step.change.name, step.change.old) for step in steps if step.moves]
            self._look(self._uses, after(refs, back))
        return UndoPlan(self._past, tuple(map(self._spared, steps)))

    def _look(self, uses: Uses, refs: Refs) -> None:
        """Note down what needs a payload whose hold would go.

        As in `prune`: names that somebody chose, and runs that were made from it.
        """
        named = {name: id for name, id in refs.items() if name.startswith(tuple(NAMED))}
        for use in (*uses.among(named), *uses.among(refs)):
            if use.role in INPUTS or use.ref.startswith(tuple(NAMED)):
                self._needed.setdefault(use.commit, str(use))

    def _spared(self, step: Step) -> Step:
        new = step.change.new
        if step.moves and _drops_hold(step.change) and new in self._needed:
            return Step(step.change, stays=f"stays for {self._needed[new]}")
        return step


def _step(repo: Repo, change: RefChange, refs: Refs, has: Has) -> Step:
    now = refs.get(change.name)
    if now == change.old:
        return Step(change, stays="is so already")
    if now != change.new:
        return Step(change, f"has moved since, to {now.short if now else 'nothing'}")
    if change.old is None:
        return Step(change)
    return Step(change, _missing(repo, change.name, change.old, refs, has))


def _missing(repo: Repo, name: str, id: CommitId, refs: Refs, has: Has) -> str:
    """Say why a ref cannot come back to where it was, if so."""
    if not has(id):
        return f"was at {id.short}, which gc has taken"
    if name.startswith(RUNS) and OPEN + name.removeprefix(RUNS) in refs:
        return "is the name of a run that is open now"
    if name.startswith(HOLDS):
        payload = repo.commit(id).payload
        if payload is not None and not has(payload):
            return "kept a payload that gc has taken"
    return ""


def _drops_hold(change: RefChange) -> bool:
    return change.old is None and change.name.startswith(HOLDS)


def _restore(transaction: Transaction, change: RefChange) -> None:
    """Do one change, a hold's only while the payload is there."""
    if change.new is not None and change.name.startswith(HOLDS):
        payload = transaction.repo.commit(change.new).payload
        if payload is not None:
            transaction.hold(change.new, payload)
    else:
        transaction.set_ref(change.name, change.new)
