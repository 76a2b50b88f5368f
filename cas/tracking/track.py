"""How a run begins: `cas.track` and `cas.fork`."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from cas.errors import CasError
from cas.objects.commit import RESUMED_FROM, Commit, Parent
from cas.repo.repo import Repo
from cas.repo.retention import Keep
from cas.repo.vocabulary import as_policy
from cas.tracking import frameworks, rng
from cas.tracking.capture import Start, as_params
from cas.tracking.recovery import recover_lost
from cas.tracking.retain import of_config
from cas.tracking.run import Run
from cas.tracking.start import begin, forked_from, open_repo, say


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
) -> Run:
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
) -> Run:
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


def _started(start: Start, repo: Repo, made: bool) -> Run:
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
