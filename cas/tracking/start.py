"""How a run begins: find or make the repository, capture, choose a name, publish the draft."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from cas.errors import (
    ConflictError,
    NoRepositoryError,
    NotFoundError,
)
from cas.ids import CommitId, ObjectId
from cas.objects.commit import RESUMED_FROM, Commit
from cas.objects.document import document
from cas.repo import annotations, place
from cas.repo.annotations import Annotation
from cas.repo.collect import reserve
from cas.repo.layout import HOLDS, RUNS
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking import notebook
from cas.tracking.captured.capture import (
    Start,
    as_data,
    as_params,
    begin_generators,
    code,
    documents,
)
from cas.tracking.captured.command import default_experiment, entry_point
from cas.tracking.captured.environment import user
from cas.tracking.captured.parts import EVERYTHING, Capture
from cas.tracking.captured.source import Source, capture_source
from cas.tracking.captured.surroundings import PATIENCE_S, Surroundings
from cas.tracking.captured.variables import (
    DIR_VARIABLE,
    JOIN_VARIABLE,
    ORIGINAL_VARIABLE,
    REPRODUCTION_VARIABLE,
)
from cas.tracking.checkpoints.checkpoint import PRUNED, checkpoint_at, write_state
from cas.tracking.ends import resume
from cas.tracking.journals.state import RunState, open_ref, parent_frame
from cas.tracking.live import Live
from cas.tracking.names import check_name, two_words
from cas.tracking.privacy import redaction
from cas.tracking.privacy.redaction import Redaction
from cas.tracking.record import Items, chosen_monitor, settings

TRIES: Final = 20
PAUSE_S: Final = 0.05
_ordinals = count()  # of the runs of this process, so that a reproduction can tell them apart


def open_repo(given: str | os.PathLike[str] | None, clock: Callable[[], int]) -> tuple[Repo, bool]:
    """Return the repository to use, and whether it was made just now."""
    who, cwd = author(), Path.cwd()
    named = asked_for(given)
    at = cwd if not named else Path(named).absolute()
    target = place.default(at)
    if named:
        target = at if at.name in {place.FOLDER, place.IN_GIT} else at / place.FOLDER
    for attempt in range(TRIES):
        try:
            return Repo.open(place.find(at), who=who, clock=clock), False
        except NoRepositoryError:
            if attempt:
                time.sleep(PAUSE_S)  # somebody else is just making it
        try:
            return reserve.made(Repo.create(target, who=who, clock=clock)), True
        except ConflictError:
            continue
    raise ConflictError(str(target))


def asked_for(given: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Return where the user says that the repository is: here, or in the environment."""
    told = os.environ.get(DIR_VARIABLE)
    # A program that cas started belongs to the repository that it was started from.
    started = JOIN_VARIABLE in os.environ or ORIGINAL_VARIABLE in os.environ
    return told if given is None or (told and started) else given


def say(text: str) -> None:
    """Tell the user one line about a run, on standard error."""
    with suppress(Exception):  # it may be closed, or not there at all
        sys.stderr.write(f"cas: {text}\n")
        sys.stderr.flush()


def author() -> str:
    """Return who works here: the user, and the host."""
    return f"{user()}@{os.uname().nodename}"


def begin(repo: Repo, start: Start, *, entry: Path | None = None, cwd: Path | None = None) -> Live:
    """Start a run, or continue the one that this program was started in.

    `entry` and `cwd` are those of another program when it is not this process that is tracked.
    """
    own = cwd is None
    here = cwd or Path.cwd()
    ordinal = next(_ordinals) if own else 0
    start = _with_rules(start)
    around = Surroundings(start.capture)
    frames = [{"t": "params", "params": as_params(start.params)}] if start.params else []
    frames += map(parent_frame, start.parents)
    source = capture_source(entry_point() if own else entry, here, program=not own)
    source = source if start.capture.git else source.without_git()
    live = _joined(repo, source, ordinal) if own and JOIN_VARIABLE in os.environ else None
    again = _reproduced(repo, ordinal)
    generators = begin_generators(repo, again) if own and _is_unseeded(start, live) else None
    start, found = _broken_off(repo, start, own=own and live is None)
    known = documents(start, source, here, ordinal) | _beside(repo, start, found)
    said = _said(repo, known["notes.json"], found)
    # A program in `cas run` waits: what it leaves is taken over by its owner's first commit.
    behind = not around.ready(PATIENCE_S if live is None else None)
    known, before = (known if behind else known | around.added(known)), known
    captured = {**known, "params.json": as_params(start.params)}
    if live is not None:
        known = _better_known(start, known)

    def capture(tx: Transaction, state: RunState) -> Items:
        items = {
            name: ingest.file_entry(tx.writer, name.encode(), document(as_data(value)))
            for name, value in known.items()
        }
        if generators is not None:
            items["rng"] = write_state(tx.writer, generators, b"rng")
        items |= notebook.entries(tx)
        _annotate(tx, state, said)
        if live is not None:
            return items
        return items | code(tx, repo, source, again, captured)

    if live is not None:
        for frame in frames:
            live.note(frame)
        live.capture(partial(capture, state=live.state))
        return live
    begun = _go_on(repo, source.top, frames, capture, found)
    if begun is None:
        known.pop(resume.RESUMED, None)  # somebody else has been faster
        begun = _fresh(repo, start, ordinal, partial(_start, repo, source.top, frames, capture))
    return _behind(begun, around, before) if behind else begun


def _behind(live: Live, around: Surroundings, known: Mapping[str, object]) -> Live:
    """Let what is still being read go into the run's next transaction, or into one of its own."""
    live.late = around.late(known)
    around.then(live.complete)
    return live


def _is_unseeded(start: Start, live: Live | None) -> bool:
    """Say whether the states of the random generators are all that tells where they began."""
    first = live is None or "rng" not in live.captured
    return first and start.seed is None and start.capture.rng


def _with_rules(start: Start) -> Start:
    """Let what the config says of redaction and capture hold; CAS_CAPTURE says more than it."""
    told = start.config or {}
    redaction.use(Redaction.of(told.get("redaction")))
    if start.capture is not EVERYTHING:
        return start
    return replace(start, capture=Capture.of(Capture.of_environment(), told.get("capture")))


def forked_from(repo: Repo, rev: str) -> CommitId:
    """Return the checkpoint to begin from; in a reproduction, what the original began from."""
    original = _original(repo)
    known = original.parents_of(RESUMED_FROM) if original is not None else ()
    base = known[0].commit if known else checkpoint_at(repo, rev)
    if f"{HOLDS}{base}" not in repo.refresh().refs:
        raise NotFoundError("state of", base.short, PRUNED)
    return base


def joined_state(repo: Repo) -> RunState | None:
    """Return the run of the `cas run` around us, None when it has ended."""
    uid, ref, run = os.environ[JOIN_VARIABLE].split(" ", 2)
    state = RunState(run, ref, bytes.fromhex(uid), chosen=chosen_monitor(repo))
    return state if state.open_ref in repo.refresh().refs else None


def _joined(repo: Repo, source: Source, ordinal: int) -> Live | None:
    """Continue the run of `cas run`."""
    state = joined_state(repo)
    if state is None:
        return None
    tip = repo.root.refs.get(state.ref)
    state.tip, state.seq = tip, repo.commit(tip).seq if tip is not None else 0
    name = f"{state.uid.hex()}-{os.getpid()}-{ordinal}.journal"
    return Live.join(repo, state, source.top, name)


def _better_known(start: Start, known: Mapping[str, object]) -> dict[str, object]:
    """Return what a program in `cas run` knows better than its owner."""
    told = {
        "environment.json": True,
        "seeds.json": start.seed is not None,
        "notes.json": bool(start.labels or start.group or start.notes),
        "retention.json": start.retention is not None,
        "config.json": bool(start.config),
    }
    return {name: known[name] for name, tells in told.items() if tells}


def _annotate(tx: Transaction, state: RunState, said: Annotation) -> None:
    """Say of a run what its start says of it, beside what has been said before."""

    def join(before: Annotation) -> Annotation:
        return before.labelled(said.labels).noted(said.notes or before.notes)

    annotations.change(tx, state.uid, Annotation(), join, f"start {state.run}")


def _broken_off(repo: Repo, start: Start, *, own: bool) -> tuple[Start, resume.Unfinished | None]:
    """Return the run to go on with, if there is one, and the start with the name to look for."""
    if start.resume != resume.AUTO or not own or REPRODUCTION_VARIABLE in os.environ:
        return start, None
    job = resume.Job.of(os.environ)
    name = check_name(resume.name_of(start.name, job), "run")
    found = resume.find(repo, f"{_experiment(repo, start)}/{name}", job)
    return replace(start, name=name), found


def _beside(repo: Repo, start: Start, found: resume.Unfinished | None) -> dict[str, object]:
    """Return what is known of a run beside what it captures."""
    job = resume.Job.of(os.environ)
    known: dict[str, object] = {} if job is None else {resume.JOB: job.document()}
    if start.config:
        known["config.json"] = as_params(start.config)
    if found is not None:
        known |= resume.documents(repo, found, as_params(start.params), repo.clock())
    return known


def _said(repo: Repo, words: object, found: resume.Unfinished | None) -> Annotation:
    """Return what is said of a run as it begins, and what was of one that goes on."""
    said = annotations.from_words(words)
    if found is None:
        return said
    before = annotations.of_run(repo, found.commit)
    return before.labelled(said.labels).noted(said.notes or before.notes)


def _go_on(
    repo: Repo,
    top: Path,
    frames: Sequence[Mapping[str, Any]],
    capture: Callable[[Transaction, RunState], Items],
    found: resume.Unfinished | None,
) -> Live | None:
    """Begin to go on with a run that broke off; None when somebody else does, or there is none."""
    if found is None:
        return None
    state = RunState(found.run, found.ref, os.urandom(16), chosen=chosen_monitor(repo))
    state.tip, state.seq = found.tip, found.commit.seq

    def claim(tx: Transaction) -> Items:
        if tx.ref(found.ref) != found.tip or tx.ref(state.open_ref) is not None:
            raise ConflictError(found.ref)
        tx.set_ref(found.ref, found.tip)  # as it is, when this is published too
        return capture(tx, state)

    try:
        live = Live.start(repo, state, top, [*resume.frames(repo, found), *frames], claim)
    except ConflictError:
        return None
    live.base = found.base
    say(resume.said(repo, found))
    return live


def _experiment(repo: Repo, start: Start) -> str:
    told = start.experiment or settings(repo).get("experiment") or default_experiment()
    return check_name(told, "experiment")


def _fresh(repo: Repo, start: Start, ordinal: int, begin_as: Callable[[RunState], Live]) -> Live:
    """Begin a run under the first name that is free."""
    experiment = _experiment(repo, start)
    named = check_name(start.name, "run") if start.name else None
    under = os.environ.get(REPRODUCTION_VARIABLE)
    for name in _names(named, once=under is not None):
        run = f"{experiment}/{name}"
        ref = f"{under}/run-{ordinal}" if under else f"{RUNS}{run}"
        if _taken(repo.refresh(), ref):
            continue
        try:
            chosen = chosen_monitor(repo)
            return begin_as(RunState(run, ref, os.urandom(16), chosen=chosen))
        except ConflictError as error:
            if error.name != ref:
                raise
    raise ConflictError(f"{under}/run-{ordinal}")


def _start(
    repo: Repo,
    top: Path,
    frames: Sequence[Mapping[str, Any]],
    capture: Callable[[Transaction, RunState], Items],
    state: RunState,
) -> Live:
    def claim(tx: Transaction) -> Items:
        if _taken(tx.root, state.ref):
            raise ConflictError(state.ref)
        # Free when this is published too: a whole run may have gone by since the root was read.
        tx.set_ref(state.ref, None)
        return capture(tx, state)

    return Live.start(repo, state, top, frames, claim)


def _names(named: str | None, *, once: bool) -> Iterator[str]:
    """Yield the names to try: two words without one; one that is taken gets a number."""
    for _ in range(1 if named or once else TRIES):
        name = named or two_words(os.urandom(8))
        yield name
    number = 2
    while not once:
        yield f"{name}-{number}"
        number += 1


def _taken(root: Root, ref: str) -> bool:
    return ref in root.refs or open_ref(ref) in root.refs


def _original(repo: Repo) -> Commit | None:
    """Return the commit that is reproduced, None when this is no reproduction."""
    original = os.environ.get(ORIGINAL_VARIABLE)
    return repo.commit(CommitId(ObjectId.parse(original))) if original else None


def _reproduced(repo: Repo, ordinal: int) -> Commit | None:
    """Return the commit that is reproduced when it is this run that it stands for."""
    original = _original(repo)
    if original is None:
        return None
    started = repo.document(original.tree, "command.json")
    known = started.get("ordinal") if isinstance(started, dict) else None
    return original if known == ordinal else None
