"""The run as a training script sees it: `cas.track`, `cas.fork` and `Run`.

Nothing here ends a training loop: while a run is open, a failure of tracking warns once, is kept,
and is raised by `finish`. Errors outside a run, and of reading a checkpoint, are raised at once.
"""

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from cas.errors import CasError, InvalidInputError, NotFoundError, TrackingError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, DATASET, RESUMED_FROM, Commit, Parent
from cas.objects.tree import Entry
from cas.plain import human_share
from cas.repo import ingest
from cas.repo.choice import choose, segment
from cas.repo.repo import Repo
from cas.repo.retention import Keep
from cas.repo.transaction import Transaction
from cas.repo.vocabulary import as_policy
from cas.tracking import ending, frameworks, rng
from cas.tracking.capture import Start, as_data, as_params
from cas.tracking.checkpoint import Checkpoint, checkpoint_at, gather, load, restore, write_state
from cas.tracking.ending import FAILED, FINISHED, INTERRUPTED
from cas.tracking.inputs import dataset_name, edge_attrs, input_edge
from cas.tracking.live import Live
from cas.tracking.record import Items, run_volume
from cas.tracking.recovery import recover_lost
from cas.tracking.retain import Retention, of_config
from cas.tracking.secrets import scrub_bytes, scrub_text, valid_text
from cas.tracking.start import begin, forked_from, open_repo, say
from cas.tracking.upkeep import after_run

P = ParamSpec("P")
T = TypeVar("T")
Scalar = Any  # anything with a number in it: int, float, bool, a 0-d array or tensor
SHOWN_VALUES = 4
ENDS = (FINISHED, FAILED, INTERRUPTED)


def track(
    experiment: str | None = None,
    *,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int | None = None,
    labels: Sequence[str] = (),
    group: str | None = None,
    notes: str = "",
    retention: Keep | Mapping[str, Any] | None = None,
    repo: str | os.PathLike[str] | None = None,
) -> "Run":
    """Start a run; use it in a `with` block, or call `finish`.

    The experiment defaults to the script's name, the run's name to two words; a name that is taken
    gets a number. `seed` also seeds Python, NumPy and the loaded frameworks. With `retention`, such
    as `cas.Keep(last=2, best=1)`, the run lets go of its own checkpoints as it goes on. A missing
    repository is made, at the git top level or else in this folder.
    """
    keep = as_policy(retention)
    start = Start(experiment, name, params or {}, seed, labels, group, notes, retention=keep)
    return _started(start, *open_repo(repo, clock))


def fork(
    rev: str,
    *,
    params: Mapping[str, Any] | None = None,
    experiment: str | None = None,
    name: str | None = None,
    seed: int | None = None,
    notes: str = "",
    retention: Keep | Mapping[str, Any] | None = None,
    repo: str | os.PathLike[str] | None = None,
) -> "Run":
    """Start a run from a checkpoint: its params, overridden by `params`, and an edge to it.

    A run stands for its newest checkpoint. `run.load_checkpoint(model=…)` then loads it. Metrics
    without a step go on after the checkpoint's last one.
    """
    keep = as_policy(retention)
    opened, made = open_repo(repo, clock)
    base = forked_from(opened, rev)
    commit = opened.commit(base)
    inherited = opened.document(commit.tree, "params.json")
    merged = dict(inherited) if isinstance(inherited, dict) else {}
    start = Start(
        experiment or commit.experiment,
        name,
        merged | as_params(params or {}),
        seed,
        notes=notes,
        parents=(Parent(RESUMED_FROM, base),),
        retention=keep,
    )
    run = _started(start, opened, made)
    run._live.state.metrics.go_on_after(_last_step(opened, commit))
    return run


def _last_step(repo: Repo, commit: Commit) -> int:
    """Return the furthest step that was logged up to a checkpoint, -1 for none."""
    summary = repo.document(commit.tree, "summary.json")
    told = summary.values() if isinstance(summary, dict) else ()
    return max((one["last_step"] for one in told if "last_step" in one), default=-1)


def clock() -> int:
    """Return now, in microseconds since the epoch."""
    return time.time_ns() // 1000


def _started(start: Start, repo: Repo, made: bool) -> "Run":
    if made:
        say(f"created repository {repo.path}")
    with suppress(CasError, OSError):  # it hinders no other run, and the next command says why
        for run in recover_lost(repo):
            say(f"{run} ended without a finish: committed as crashed")
    if start.seed is not None:
        rng.seed_all(start.seed, frameworks.loaded())
    keep = start.retention or of_config(repo, say)
    live = begin(repo, replace(start, retention=keep))
    if not live.joined:  # `cas run` has said it
        say(f"run {live.state.run} in {repo.path}")
    return Run(live, keep)


def _guarded(
    method: Callable[Concatenate["Run", P], T],
) -> Callable[Concatenate["Run", P], T | None]:
    """Keep a failure of tracking away from the training loop; `finish` raises it."""

    @functools.wraps(method)
    def guarded(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        if not self._usable(method.__name__):
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # a wrong call at step 90,000 must not end it either
            self._failed(method.__name__, error)
            return None

    return guarded


class Run:
    """An execution being tracked."""

    def __init__(self, live: Live, keep: Keep | None = None) -> None:
        self._live = live
        self._retention = None if keep is None else Retention(live.repo, keep, say)
        self._pid = os.getpid()
        self._problems: list[str] = []
        self._ended = False
        self._commit: CommitId | None = None
        self._ending = threading.RLock()
        live.tell = say
        ending.watch(self._at_exit)

    @property
    def name(self) -> str:
        """The run's full name, EXPERIMENT/NAME."""
        return self._live.state.run

    @property
    def params(self) -> dict[str, Any]:
        """The params so far; a fork has those of its checkpoint too."""
        return dict(self._live.state.params)

    @property
    def repo(self) -> Repo:
        """The repository that the run is recorded in."""
        return self._live.repo

    @_guarded
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params, nested or not; values under secret-looking names are masked."""
        self._live.note({"t": "params", "params": as_params(params)})

    @_guarded
    def log(self, metrics: Mapping[str, Scalar], step: int | None = None) -> None:
        """Record numbers at a step; without `step`, one step further than the last."""
        self._live.add_points(metrics, step, time.time())

    @_guarded
    def log_metrics(self, metrics: Mapping[str, Scalar], step: int | None = None) -> None:
        """Record numbers at a step; the same as `log`."""
        self._live.add_points(metrics, step, time.time())

    @_guarded
    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """Store a file or directory as the run's artifact, under its own name or `name`."""
        source = Path(os.path.abspath(path))
        stored_as = (name or source.name).strip("/")
        self._live.add_artifact(stored_as, lambda tx: ingest.add(tx.writer, source, follow=True))

    @_guarded
    def track_dataset(
        self,
        data: object,
        name: str | None = None,
        *,
        split: str | None = None,
        role: str = DATASET,
        metadata: Mapping[str, Any] | None = None,
    ) -> CommitId:
        """Store a file, directory, or arrays as an input of this run; return its commit.

        Equal data is one commit for all runs; split, role and metadata stand on the edge.
        """
        known = dataset_name(data, name)
        attrs = edge_attrs(data, self._live.top, split, as_params(metadata or {}))
        return self._live.add_input(
            f"dataset {known}", lambda tx: input_edge(tx, data, known, role, attrs)
        )

    @_guarded
    def save_checkpoint(
        self,
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Scalar] | None = None,
        extra: object = None,
    ) -> CommitId:
        """Commit a checkpoint, durably, with all random generator states; return its commit.

        Parts are objects with `state_dict()` or plain state; `metrics` are recorded at this step
        too and say how good the checkpoint is.
        """
        at = step if step is not None else epoch
        if metrics:
            self.log_metrics(metrics, at)  # a wrong number costs the number, not the checkpoint
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "extra": extra}
        state = gather(parts, step, epoch)

        def write(tx: Transaction) -> Entry:
            return write_state(tx.writer, state)

        details = {"epoch": epoch, "metrics": as_data(metrics or {}), "parts": sorted(state)}
        id = self._live.checkpoint(write, self._live.moment("running", at), details)
        self._retain()
        return id

    def load_checkpoint(
        self,
        rev: str = "latest",
        *,
        model: object = None,
        optimizer: object = None,
        scheduler: object = None,
        restore_rng: bool = True,
    ) -> Checkpoint:
        """Load a checkpoint into the parts given, and the random generators; return all of it.

        `rev` is "latest" or "best" of this run (of a fork without checkpoints: what it was forked
        from) or any revision. Raises NotFoundError when there is none.
        """
        loaded = load(self.repo, self._checkpoint(rev))
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        restore(loaded, parts, with_rng=restore_rng)
        return loaded

    def finish(self, status: str = FINISHED, message: str = "") -> CommitId | None:
        """End the run and return its commit; raise TrackingError when tracking failed on the way.

        `status` is finished, failed or interrupted. Called again, it does nothing.
        """
        if status not in ENDS:
            raise InvalidInputError(f"a run ends as {', '.join(ENDS)}, not {status!r}")
        return self._finish(status, message, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        status = ending.status_of(error)
        if error is None or status == FINISHED:
            self._finish(FINISHED, "", None)
            return
        with suppress(Exception):  # the user's own exception is the one to see
            self._finish(status, "", ending.told(error))

    def _finish(self, status: str, message: str, crash: str | None) -> CommitId | None:
        if os.getpid() != self._pid:
            return None
        with self._ending:
            if self._ended:
                return self._commit
            texts = {} if crash is None else {"traceback.txt": crash}
            moment = self._live.moment(status, message=valid_text(scrub_text(message)[0]))
            try:
                # Ctrl-C leaves the run open: the end of the interpreter then ends it.
                self._commit = self._live.finish(moment, lambda tx: (_documents(tx, texts), {}))
            except Exception as error:
                self._leave()
                with suppress(Exception):
                    self._live.abandon()
                raise TrackingError(f"run {self.name} could not be committed: {error}") from error
            self._leave()
        self._tell(status)
        if self._retention is not None:
            self._live.between(self._retention.ended)
        after_run(self.repo)
        if self._problems:
            count = len(self._problems)
            calls = "1 call" if count == 1 else f"{count} calls"
            raise TrackingError(f"{calls} of run {self.name} failed; first: {self._problems[0]}")
        return self._commit

    def _retain(self) -> None:
        """Let the run's policy look at what has been saved."""
        policy, state = self._retention, self._live.state
        if policy is not None:
            self._live.between(lambda: policy.saved(state.run, state.ref))

    def _leave(self) -> None:
        self._ended = True
        ending.leave(self._at_exit)

    def _at_exit(self, status: str, crash: str | None) -> None:
        try:
            self._finish(status, "", crash)
        except CasError as error:
            say(f"error: {error}")

    def _checkpoint(self, rev: str) -> CommitId:
        if rev not in {"latest", "best"}:
            return checkpoint_at(self.repo, rev)
        tip = self.repo.refresh().refs.get(self._live.state.ref)
        if tip is not None and any(
            commit.kind == CHECKPOINT for _, commit in segment(self.repo.commit, tip)
        ):
            return choose(self.repo, [tip], rev, rev)
        for parent in self._live.state.parents:
            if parent.role == RESUMED_FROM:
                return parent.commit
        raise NotFoundError("checkpoint", f"of run {self.name}", "none has been saved")

    def _usable(self, method: str) -> bool:
        if os.getpid() != self._pid:
            return False  # a forked child: the run belongs to its parent
        if self._ended:
            raise InvalidInputError(f"run {self.name} has ended: {method} comes too late")
        ending.went_on()
        return True

    def _failed(self, method: str, error: Exception) -> None:
        text = str(error) if isinstance(error, CasError) else f"{type(error).__name__}: {error}"
        problem = f"{method}: {text}"
        self._problems.append(problem)
        if len(self._problems) == 1:
            say(f"warning: {problem} (training goes on; finish() will raise)")

    def _tell(self, status: str) -> None:
        """Say how the run ended; it has, so that no failure here is one of the run's."""
        with suppress(Exception):
            if self._commit is None:
                return
            values = list(self._live.state.metrics.summary().items())[:SHOWN_VALUES]
            shown = [f"{key} {value['last']:.4g}" for key, value in values]
            volume = run_volume(self.repo, self._commit)
            head = f"{status} {self.name} {self._commit.short}"
            stored = f"stored {human_share(volume.stored_bytes, volume.given_bytes)}"
            say(" · ".join([head, *shown, stored]))


def _documents(tx: Transaction, texts: Mapping[str, str]) -> Items:
    raw = {name: scrub_bytes(valid_text(text).encode())[0] for name, text in texts.items()}
    return {name: ingest.file_entry(tx.writer, name.encode(), data) for name, data in raw.items()}
