"""Reproduction: run a commit again from its hash alone, and say whether it came out the same.

The code as it was is written to a fresh plain folder, the inputs beside it where they stood, and
the recorded command runs there. Its runs go under `refs/reproductions/`; the verdict is committed
with a `reproduces` edge.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cas.errors import CasError, InvalidInputError, NotFoundError, RefusedError
from cas.ids import CommitId
from cas.lineage.verdict import FAILED, IDENTICAL, Verdict, judge
from cas.objects.commit import (
    EVALUATES,
    REPRODUCES,
    RESUMED_FROM,
    RUN,
    VERDICT,
    Commit,
    Parent,
)
from cas.objects.document import document
from cas.objects.kind import Kind
from cas.objects.tree import Entry
from cas.plain import plain
from cas.repo.layout import HOLDS, REPRODUCTIONS, RUNS
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.repo.transaction import Transaction, transact
from cas.repo.trees import ingest
from cas.tracking.captured.environment import variables
from cas.tracking.captured.parts import was_captured
from cas.tracking.captured.variables import (
    CONFIG_VARIABLE,
    DIR_VARIABLE,
    ENVIRONMENT_VARIABLE,
    JOIN_VARIABLE,
    ORIGINAL_VARIABLE,
    REPRODUCTION_VARIABLE,
)
from cas.tracking.ends.ending import FINISHED
from cas.tracking.ends.recovery import recover_lost
from cas.tracking.execute import STDERR, run_program
from cas.tracking.journals.state import open_ref
from cas.tracking.privacy.redacted import (
    DOCUMENT,
    Missing,
    give_back,
    given_argv,
    insist_on,
    missing,
)
from cas.tracking.privacy.secrets import REMOVED
from cas.tracking.program import Program
from cas.tracking.rebuild import Input, Rebuilt, rebuild
from cas.tracking.settings.config import Config, in_effect
from cas.tracking.settings.configfile import passed_on

SHORT: Final = 10
# What may stand around us and stood not around the original, or was something else there.
NOT_PASSED: Final = frozenset({JOIN_VARIABLE, CONFIG_VARIABLE, ENVIRONMENT_VARIABLE})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reproduction will do; nothing has been written yet."""

    original: CommitId
    run: str
    status: str | None
    command: Mapping[str, Any]
    entry: str | None
    code: Entry
    inputs: tuple[Input, ...]
    variables: Mapping[str, str]
    top: str  # where the code lay
    config: Config  # in effect then
    lacking: tuple[Missing, ...] = ()  # secrets that code and command were captured without
    kept: frozenset[str] = frozenset()  # variables whose values were, and are ours now

    @property
    def shown(self) -> str:
        """The command, as a person would type it."""
        return Rebuilt(Path(), Path(), self.command, self.entry).shown


def plan(repo: Repo, id: CommitId) -> Plan:
    """Decide how to run a commit again.

    Raises NotFoundError or RefusedError saying what is missing.
    """
    original = finishing(repo, id)
    commit = repo.commit(original)
    started = repo.document(commit.tree, "command.json")
    source = repo.document(commit.tree, "source.json")
    _insist_on_parts(original, {"code": source, "command": started})
    code = repo.lookup(commit.tree, b"code")
    if not isinstance(started, dict) or code is None:
        raise NotFoundError("command of", original.short, "only tracked runs can be reproduced")
    if started.get("kind") in {"notebook", "interactive"}:
        raise RefusedError(
            f"{original.short} was made in a notebook or an interactive session: "
            "there is no command to run again"
        )
    if started.get("kind") == "frozen":
        raise RefusedError(
            f"{original.short} was made by a program with an interpreter of its own, which is not "
            f"among its code: run {started['argv'][0]} again by hand"
        )
    for parent in commit.parents_of(RESUMED_FROM):
        _insist_on_payload(repo, parent.commit)
    environment = repo.document(commit.tree, "environment.json")
    host = repo.document(commit.tree, "host.json")
    recorded = environment.get("variables", {}) if isinstance(environment, dict) else {}
    lacking = missing(repo.document(commit.tree, DOCUMENT))
    insist_on(lacking, os.environ)
    return Plan(
        original,
        commit.full_name or "",
        commit.status,
        started,
        source.get("entry") if isinstance(source, dict) else None,
        code,
        tuple(_inputs(repo, commit)),
        {str(key): str(value) for key, value in recorded.items() if REMOVED not in str(value)},
        str(host.get("top", "")) if isinstance(host, dict) else "",
        in_effect(repo.document(commit.tree, "config.json") or {}, f"config of {original.short}"),
        lacking,
        frozenset(str(key) for key, value in recorded.items() if REMOVED in str(value)),
    )


def execute(
    repo: Repo,
    planned: Plan,
    *,
    python: str = sys.executable,
    tolerance: float = 0.0,
    keep: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Verdict, CommitId]:
    """Run it again, compare, and commit the verdict; return both."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="cas-reproduce-")))
    under = _free(repo.refresh().refs, planned.original)
    try:
        verdict, again = _again(repo, planned, under, folder=folder, python=python, tell=tell)
    finally:
        if keep:
            tell(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if again is not None and verdict.verdict != FAILED:
        verdict = judge(repo, planned.original, again, tolerance)
    return verdict, transact(
        repo,
        f"reproduce {planned.run}",
        lambda tx: _commit_verdict(tx, planned, under, verdict, again),
    )


def _insist_on_parts(original: CommitId, documents: Mapping[str, object]) -> None:
    """Raise RefusedError when what is run again was switched off as the run began."""
    off = [part for part, told in documents.items() if not was_captured(told, part)]
    if off:
        raise RefusedError(
            f"{' and '.join(off)} of {original.short} were not captured: the run was started "
            "with that switched off, so there is nothing to run again"
        )


def finishing(repo: Repo, id: CommitId) -> CommitId:
    """Return the finishing commit of the run that a commit belongs to."""
    commit = repo.commit(id)
    if commit.kind == RUN:
        return id
    for name, tip in repo.root.refs.items():
        if commit.run is None or not name.startswith((RUNS, REPRODUCTIONS)):
            continue
        if any(found == id for found, _ in segment(repo.commit, tip)):
            if repo.commit(tip).kind == RUN:
                return tip
            raise RefusedError(f"run {commit.full_name} has not ended: nothing to compare with")
    raise NotFoundError("run of", id.short, f"it is a commit of kind {commit.kind}")


def _again(
    repo: Repo,
    planned: Plan,
    under: str,
    *,
    folder: Path,
    python: str,
    tell: Callable[[str], None],
) -> tuple[Verdict, CommitId | None]:
    """Run it again; return the new finishing commit, or how far it came."""
    stage = "inputs"
    try:
        place = Rebuilt.within(
            folder,
            planned.command,
            entry=planned.entry,
            inputs=planned.inputs,
            before=planned.top,
        )
        rebuild(repo, place, planned.code, planned.inputs)
        give_back(place.top, planned.lacking, os.environ)
        tell(f"running {place.shown} in {place.cwd}")
        stage = "start"
        exit_code = _start(repo, planned, under, place, python)
    except CasError as error:
        return Verdict(FAILED, stage=stage, differences=(str(error),)), None
    with suppress(CasError):  # one that was killed is committed too
        recover_lost(repo)
    again = repo.refresh().refs.get(f"{under}/run-{planned.command.get('ordinal', 0)}")
    if again is None or repo.commit(again).kind != RUN:
        why = f"the command ended with exit code {exit_code} and left no finished run"
        return Verdict(FAILED, stage="run", differences=(why,)), None
    status = repo.commit(again).status
    if planned.status == FINISHED != status:
        why = f"the command ended with exit code {exit_code}, the run as {status}"
        return Verdict(FAILED, stage="run", differences=(why, *_last_line(repo, again))), again
    return Verdict(IDENTICAL), again


def _start(repo: Repo, planned: Plan, under: str, place: Rebuilt, python: str) -> int:
    """Run the command to its end; what it prints goes to standard error."""
    env = {key: value for key, value in os.environ.items() if key not in NOT_PASSED}
    for name in variables(env).keys() - planned.kept:
        del env[name]  # one that was not set is not set now
    if env.get("PYTHONPATH") and planned.top:
        # What it leads to in the user's folder is the code as it is now, not as it was.
        moved = [_moved(one, planned.top, place.top) for one in env["PYTHONPATH"].split(":")]
        env["PYTHONPATH"] = ":".join(moved)
    env |= planned.variables
    env |= {
        DIR_VARIABLE: str(repo.path),
        REPRODUCTION_VARIABLE: under,
        ORIGINAL_VARIABLE: str(planned.original),
    }
    argv = given_argv(place.argv(python), planned.lacking, os.environ)
    if planned.command["kind"] == "command":
        program = replace(Program.from_document(planned.command), argv=tuple(argv))
        experiment = planned.run.rpartition("/")[0]
        with _environment(env):
            return run_program(
                repo,
                program,
                experiment,
                place.cwd,
                config=planned.config,
                output=(STDERR, STDERR),
            ).exit_code
    with passed_on(planned.config) as passed:
        return _run(argv, place.cwd, env | passed)


def _run(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> int:
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, stdout=STDERR, check=False)
    except OSError as error:
        raise InvalidInputError(f"cannot run {argv[0]}: {error.strerror}") from error
    return done.returncode


def _moved(path: str, before: str, now: Path) -> str:
    """Return where a path below the top of the code is now; another as it is."""
    inside = os.path.isabs(path) and Path(path).is_relative_to(before)
    return str(now / Path(path).relative_to(before)) if inside else path


def _inputs(repo: Repo, commit: Commit) -> list[Input]:
    found = []
    for parent in commit.parents:
        at = parent.attrs.get("at")
        if isinstance(at, str | bytes) and not os.path.isabs(os.fsdecode(at)):
            _insist_on_payload(repo, parent.commit)
            found.append(Input(parent.commit, os.fsdecode(at)))
    return found


def _insist_on_payload(repo: Repo, id: CommitId) -> None:
    if f"{HOLDS}{id}" not in repo.root.refs:
        raise NotFoundError("payload of", id.short, "it was pruned, and this run starts from it")


def _free(refs: Mapping[str, CommitId], original: CommitId) -> str:
    base = f"{REPRODUCTIONS}{str(original)[:SHORT]}/"
    taken = {
        name.removeprefix(prefix).partition("/")[0]
        for prefix in (base, open_ref(base))
        for name in refs
        if name.startswith(prefix)
    }
    number = 1
    while str(number) in taken:
        number += 1
    return f"{base}{number}"


def _commit_verdict(
    tx: Transaction, planned: Plan, under: str, verdict: Verdict, again: CommitId | None
) -> CommitId:
    repo = tx.repo
    text = ingest.file_entry(tx.writer, b"verdict.json", document(plain(verdict)))
    tree = ingest.nest(tx.writer, [(b"verdict.json", text)])
    parents = [Parent(REPRODUCES, planned.original)]
    if again is not None:
        parents.append(Parent(EVALUATES, again))
    original = repo.commit(planned.original)
    id = tx.record(
        Commit(
            kind=VERDICT,
            tree=tree.id,
            parents=tuple(parents),
            experiment=original.experiment,
            run=original.run,
            status=verdict.verdict,
            time=repo.clock(),
            author=repo.who,
        )
    )
    if tx.ref(f"{under}/verdict") is not None:  # somebody else took the same number meanwhile
        under = _free(tx.root.refs, planned.original)
    tx.set_ref(f"{under}/verdict", id)
    if verdict.verdict == IDENTICAL and again is not None:
        # The original has the same, or has let it go.
        for own, _ in segment(repo.commit, again):
            tx.set_ref(f"{HOLDS}{own}", None)
    return id


def _last_line(repo: Repo, again: CommitId) -> Iterator[str]:
    """Yield what the program died of, if that is known."""
    entry = repo.lookup(repo.commit(again).tree, b"traceback.txt")
    if entry is not None:
        text = repo.store.read(Kind.BLOB, entry.id).decode("utf-8", "replace")
        yield from text.strip().splitlines()[-1:]


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """Work with these environment variables alone."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
