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

from cas.errors import ConflictError, NoRepositoryError
from cas.objects.commit import Commit
from cas.objects.document import document
from cas.repo import annotations, place
from cas.repo.annotations import Annotation
from cas.repo.collect import reserve
from cas.repo.layout import RUNS
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
from cas.tracking.checkpoints.checkpoint import write_state
from cas.tracking.ends import resume
from cas.tracking.journals.state import RunState, open_ref, parent_frame
from cas.tracking.live import Live
from cas.tracking.names import check_name, two_words
from cas.tracking.origin import Base, reproduced
from cas.tracking.privacy import redaction
from cas.tracking.privacy.redaction import Redaction
from cas.tracking.record import Items, chosen_monitor, settings
from cas.tracking.settings.config import written
from cas.tracking.shown.shelf import Shelf

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


def begin(
    repo: Repo,
    start: Start,
    *,
    base: Base | None = None,
    entry: Path | None = None,
    cwd: Path | None = None,
) -> Live:
    """Start a run, continue the one that this program was started in, or go on with one.

    `base` is what the run is forked from. `entry` and `cwd` are those of another program when it is
    not this process that is tracked.
    """
    start, ordinal = _with_rules(start), next(_ordinals) if cwd is None else 0
    for _ in range(TRIES):  # somebody else may be faster to go on with a run
        begun = _begun(repo, start, ordinal, base=base, entry=entry, cwd=cwd)
        if begun is not None:
            return begun
    raise ConflictError(f"{_experiment(repo, start)}/{start.name}")


def _begun(
    repo: Repo,
    start: Start,
    ordinal: int,
    *,
    base: Base | None,
    entry: Path | None,
    cwd: Path | None,
) -> Live | None:
    """Begin as `begin` does; None when somebody else is faster to go on with a run."""
    own, here = cwd is None, cwd or Path.cwd()
    around = Surroundings(start.capture)
    source = _source(start, entry, here, own=own)
    live = _joined(repo, source, ordinal) if own else None
    again = reproduced(repo, ordinal)
    generators = _generators(repo, start, live, again) if own else None
    start, found = _broken_off(repo, start, base, own=own and live is None)
    frames = _frames(start)
    known = documents(start, source, here, ordinal) | _beside(repo, start, found)
    said = _said(repo, known["notes.json"], found)
    # A program in `cas run` waits: what it leaves is taken over by its owner's first commit.
    behind = not around.ready(PATIENCE_S if live is None else None)
    known, before = (known if behind else known | around.added(known)), known
    captured = {**known, "params.json": as_params(start.params)}
    known = known if live is None else _better_known(start, known)

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
    if found is not None:
        begun = _go_on(repo, source.top, frames, capture, found)
    else:
        begun = _fresh(repo, start, ordinal, partial(_start, repo, source.top, frames, capture))
    if begun is not None and behind:
        _behind(begun, around, before)
    return begun


def _source(start: Start, entry: Path | None, here: Path, *, own: bool) -> Source:
    source = capture_source(entry_point() if own else entry, here, program=not own)
    # What the runs before have written by their config is no code: equal runs would differ by it.
    source = source.without(written(start.config or {}, here))
    return source if start.capture.git else source.without_git()


def _frames(start: Start) -> list[Mapping[str, Any]]:
    """Return what a journal says first of a run."""
    params = [{"t": "params", "params": as_params(start.params)}] if start.params else []
    return [*params, *map(parent_frame, start.parents)]


def _behind(live: Live, around: Surroundings, known: Mapping[str, object]) -> None:
    """Let what is still being read go into the run's next transaction, or into one of its own."""
    live.late = around.late(known)
    around.then(live.complete)


def _generators(repo: Repo, start: Start, live: Live | None, again: Commit | None) -> Any:
    """Return the states of the random generators where they are all that tells how they began."""
    first = live is None or "rng" not in live.captured
    unseeded = first and start.seed is None and start.capture.rng
    return begin_generators(repo, again) if unseeded else None


def _with_rules(start: Start) -> Start:
    """Let what the config says of redaction and capture hold; CAS_CAPTURE says more than it."""
    told = start.config or {}
    redaction.use(Redaction.of(told.get("redaction")))
    if start.capture is not EVERYTHING:
        return start
    return replace(start, capture=Capture.of(Capture.of_environment(), told.get("capture")))


def joined_state(repo: Repo) -> RunState | None:
    """Return the run of the `cas run` around us, None when it has ended."""
    uid, ref, run = os.environ[JOIN_VARIABLE].split(" ", 2)
    state = RunState(run, ref, bytes.fromhex(uid), chosen=chosen_monitor(repo))
    return state if state.open_ref in repo.refresh().refs else None


def _joined(repo: Repo, source: Source, ordinal: int) -> Live | None:
    """Continue the run of `cas run`, where this program is in one."""
    state = joined_state(repo) if JOIN_VARIABLE in os.environ else None
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
        "strategy.json": bool(start.strategy),
        "config.json": bool(start.config),
    }
    return {name: known[name] for name, tells in told.items() if tells}


def _annotate(tx: Transaction, state: RunState, said: Annotation) -> None:
    """Say of a run what its start says of it, beside what has been said before."""

    def join(before: Annotation) -> Annotation:
        return before.labelled(said.labels).noted(said.notes or before.notes)

    annotations.change(tx, state.uid, Annotation(), join, f"start {state.run}")


def _broken_off(
    repo: Repo, start: Start, base: Base | None, *, own: bool
) -> tuple[Start, resume.Unfinished | None]:
    """Return the run to go on with, if there is one, and how it starts: a new one from the base."""
    fresh = start if base is None else base.begun(start)
    if start.resume != resume.AUTO or not own or REPRODUCTION_VARIABLE in os.environ:
        return fresh, None
    job = resume.Job.of(os.environ)
    name = check_name(resume.name_of(start.name, job), "run")
    run = f"{_experiment(repo, start)}/{name}"
    restarted = os.environ.get(resume.RESTARTS, "0") not in {"", "0"}
    found = resume.find(repo, run, job, say, restarted=restarted)
    if found is None and (why := resume.not_found(repo, run, job)):
        say(f"{why}: this is a new run")
    return replace(start if found is not None else fresh, name=name), found


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
    found: resume.Unfinished,
) -> Live | None:
    """Begin to go on with a run that broke off; None when somebody else does."""
    state = RunState(found.run, found.ref, os.urandom(16), chosen=chosen_monitor(repo))
    state.tip, state.seq = found.tip, found.commit.seq
    more = resume.taken_over(repo, found)

    def claim(tx: Transaction) -> Items:
        if tx.ref(found.ref) != found.tip or tx.ref(state.open_ref) is not None:
            raise ConflictError(found.ref)
        tx.set_ref(found.ref, found.tip)  # as it is, when this is published too
        kept = [row for row in more.files if row.id is not None and tx.writer.has(row.id)]
        state.shelf = Shelf().grown(tx.writer, kept)
        return capture(tx, state)

    try:
        live = Live.start(repo, state, top, [*resume.frames(repo, found, more), *frames], claim)
    except ConflictError:
        return None
    live.base = found.base
    live.not_before(max(more.last, found.commit.time or 0))
    say(resume.said(repo, found))
    if more.unread:
        say(f"warning: not taken over, as it cannot be read any more: {', '.join(more.unread)}")
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
