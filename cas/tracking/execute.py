"""`cas run`: any program as a run, whatever it is written in.

The program's output goes through to the terminal and into the run's log; its `--key value`
arguments are params; what it was told to leave behind is committed. A `cas.track` inside it
continues the same run, through a journal of its own that is merged at the end.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Final

from cas.errors import CasError, InvalidInputError
from cas.ids import CommitId
from cas.objects.commit import DATASET
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking import export
from cas.tracking.captured.capture import Start
from cas.tracking.captured.variables import DIR_VARIABLE, JOIN_VARIABLE
from cas.tracking.ends.ending import FAILED, FINISHED, INTERRUPTED
from cas.tracking.follow import followed, started
from cas.tracking.inputs import dataset_name, edge_attrs, input_edge
from cas.tracking.live import Live
from cas.tracking.measures import watch_over
from cas.tracking.names import make_name
from cas.tracking.privacy import redacted
from cas.tracking.privacy.cleanlog import CleanLog
from cas.tracking.privacy.secrets import Taken, scrub_argv
from cas.tracking.program import Program, argument_params, read_metrics, script_of, subject
from cas.tracking.ranks import take_over
from cas.tracking.record import Items, settings
from cas.tracking.runfiles import (
    create_log,
    joined_journals,
    log_entry,
    log_file,
    remove_files,
)
from cas.tracking.settings.config import Config, replaced
from cas.tracking.settings.configfile import passed_on
from cas.tracking.start import begin, say

STDOUT: Final = 1
STDERR: Final = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended, and the commit of its run."""

    exit_code: int
    commit: CommitId | None
    run: str
    problems: tuple[str, ...] = ()


def run_program(
    repo: Repo,
    program: Program,
    experiment: str | None,
    cwd: Path,
    *,
    config: Config | None = None,
    variables: Mapping[str, str] | None = None,
    output: tuple[int, int] = (STDOUT, STDERR),
) -> Outcome:
    """Run a program as a run of its own; raise InvalidInputError when it cannot be started.

    `config` is what the run follows and what the program gets as CAS_CONFIG. `variables` are its
    environment, ours by default; `output` says where its standard output and standard error go.
    """
    env = dict(os.environ if variables is None else variables)
    _insist_on(program.argv, cwd, env)
    known = config or Config()
    with passed_on(known) as passed:
        start = _start(repo, program, experiment, cwd, known)
        done = _run(repo, program, start, cwd=cwd, env=env | passed, output=output)
    if done.commit is not None:
        for action in export.at_end(repo, known, cwd):
            try:
                action(done.commit)
            except (CasError, OSError) as error:
                say(f"warning: {error}")
    return done


def _start(
    repo: Repo, program: Program, experiment: str | None, cwd: Path, config: Config
) -> Start:
    """Return what is known of the run of a program as it begins."""
    said = config.words
    named = experiment or said.get("experiment") or settings(repo).get("experiment")
    params = {**config.params, **argument_params(scrub_argv(program.argv))}
    return Start(
        experiment=named or make_name(subject(program.argv, cwd), "program"),
        name=said.get("name"),
        params=replaced(params, program.params),
        seed=said.get("seed"),
        labels=said.get("labels", ()),
        group=said.get("group"),
        notes=said.get("notes", ""),
        command=program.document(cwd),
        retention=config.retention,
        config=said,
    )


def _run(
    repo: Repo,
    program: Program,
    start: Start,
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: tuple[int, int],
) -> Outcome:
    """Run a program, with these variables, to its end."""
    live = begin(repo, start, entry=script_of(program.argv, cwd), cwd=cwd)
    live.tell = say
    say(f"run {live.state.run} in {repo.path}")
    try:
        watch_over(live, start.config or {})
        _track_inputs(live, program.inputs, cwd)
        child = started(program.argv, cwd, {**env, **_joining(live)}, output, say)
    except BaseException:
        live.discard()
        raise
    log = log_file(repo, live.state.uid)
    try:
        with create_log(repo, live.state.uid) as file:
            kept = CleanLog(file)
            code = followed(child, kept)
        problems = tuple(_gather(live, program, cwd))
        status = {0: FINISHED, -signal.SIGINT: INTERRUPTED, 130: INTERRUPTED}.get(code, FAILED)
        commit = live.finish(live.moment(status), partial(_logged, live, log, kept.taken))
    except BaseException:
        live.abandon()
        raise
    remove_files(repo, (log, *joined_journals(repo, live.state.uid)))
    return Outcome(code, commit, live.state.run, problems)


def _insist_on(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
    """Raise InvalidInputError for a program that is not there, before anything is recorded."""
    name = argv[0]
    found = shutil.which(cwd / name if os.path.dirname(name) else name, path=env.get("PATH"))
    if found is None:
        raise InvalidInputError(f"cannot run {name}: there is no such program, or it may not run")


def _joining(live: Live) -> dict[str, str]:
    state = live.state
    return {
        DIR_VARIABLE: str(live.repo.path),
        JOIN_VARIABLE: f"{state.uid.hex()} {state.ref} {state.run}",
    }


def _track_inputs(live: Live, inputs: Iterable[str], cwd: Path) -> None:
    for given in inputs:
        path = cwd / given
        name = dataset_name(path, None)
        attrs = edge_attrs(path, live.top, None, {})
        write = partial(input_edge, data=path, name=name, role=DATASET, attrs=attrs)
        live.add_input(f"dataset {name}", write)


def _gather(live: Live, program: Program, cwd: Path) -> Iterator[str]:
    """Take over what the program left; yield what could not be had."""
    takers: list[tuple[str, Callable[[], None]]] = [
        ("what the program logged itself: ", partial(take_over, live, path))
        for path in joined_journals(live.repo, live.state.uid)
    ]
    if program.metrics is not None:
        takers.append(("", partial(_take_metrics, live, cwd / program.metrics)))
    takers += [
        (f"output {output}: ", partial(_take_output, live, cwd / output))
        for output in program.outputs
    ]
    for what, take in takers:
        try:
            take()
        except (CasError, OSError) as error:
            yield f"{what}{error}"


def _take_metrics(live: Live, path: Path) -> None:
    for step, numbers in read_metrics(path):
        live.add_points(numbers, step, live.repo.clock() / 1e6)


def _take_output(live: Live, path: Path) -> None:
    name = os.path.basename(os.path.abspath(path))
    live.add_artifact(name, lambda tx: ingest.add(tx.writer, path, follow=True))


def _logged(live: Live, log: Path, before: Sequence[Taken], tx: Transaction) -> tuple[Items, Items]:
    """Store the log, and with the record what was taken out of it."""
    taken = [*before]  # and what shows itself only where pieces of it stand together
    heavy = log_entry(tx, log, taken.append) if log.exists() else {}
    taken.sort(key=attrgetter("line"))
    counted = live.state.redacted
    return redacted.at_the_end(tx, live.captured, {"log.txt": taken}, counted), heavy
