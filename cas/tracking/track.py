"""How a run begins: `cas.track` and `cas.fork`."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cas.errors import CasError
from cas.objects.commit import RESUMED_FROM, Commit, Parent
from cas.repo.repo import Repo
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import as_policy
from cas.tracking import export, notebook, ranks
from cas.tracking.captured import frameworks
from cas.tracking.captured.capture import Start, as_params
from cas.tracking.captured.parts import EVERYTHING, Capture
from cas.tracking.captured.variables import JOIN_VARIABLE
from cas.tracking.checkpoints import rng
from cas.tracking.checkpoints.retain import of_config
from cas.tracking.checkpoints.strategy import Strategy, as_strategy
from cas.tracking.ends.recovery import recover_lost
from cas.tracking.ends.resume import NEVER, check_resume
from cas.tracking.measures import OBSERVING, Observing, as_observing
from cas.tracking.outside import Around
from cas.tracking.ranks import Launch
from cas.tracking.run import Run
from cas.tracking.settings.config import Config
from cas.tracking.settings.configfile import Given, said_of_run
from cas.tracking.settings.configfile import config as effective
from cas.tracking.sinks import Follower, Sink, as_sinks
from cas.tracking.start import begin, forked_from, joined_state, open_repo, say
from cas.tracking.watching.watch import Watch


def track(
    experiment: str | None = None,
    *,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    config: Given = None,
    strategy: Strategy | Mapping[str, Any] | None = None,
    retention: Keep | Mapping[str, Any] | None = None,
    resume: str | None = None,
    capture: Capture | Mapping[str, Any] | str | None = None,
    seed: int | None = None,
    labels: Sequence[str] = (),
    tags: Sequence[str] = (),
    group: str | None = None,
    notes: str = "",
    total: int | None = None,
    log_every: int | Mapping[str, int] | None = None,
    watch: Watch | Mapping[str, Any] | bool | None = None,
    system_metrics: bool | float | None = None,
    sinks: Sequence[Sink | Mapping[str, Any] | str] | None = None,
    repo: str | os.PathLike[str] | None = None,
) -> Run:
    """Start a run; use it in a `with` block, or call `finish`.

    The experiment defaults to the script's name, the run's name to two words; a name that is taken
    gets a number. `seed` also seeds Python, NumPy and the loaded frameworks. With `retention`, such
    as `cas.Keep(last=2, best=1)`, the run lets go of its own checkpoints as it goes on. `tags` are
    labels: what cas calls a tag is a fixed name of one commit. A missing repository is made, at the
    git top level or else in this folder.

    `strategy` says when `run.should_save` wants a checkpoint, and how those are saved, see
    `cas.Strategy`. With `resume="auto"` the unfinished run of this name, or of this job of a
    cluster, goes on from its newest checkpoint, which `run.resumed` names; else a new one begins.
    `capture` says what is recorded of code and environment, see `cas.Capture`.

    What is not given here is what the config says, which is recorded: a file or a map as
    `config`, else the one that CAS_CONFIG or the project names (see `cas.config`). Raises
    InvalidInputError for a config that makes no sense.

    `total` is how many steps there will be, for `run.progress`. `log_every=N` keeps a point of a
    metric when it is N steps further than the last one kept; the summary counts all. `watch` says
    what to look out for, see `cas.Watch`; False is nothing. `system_metrics` are recorded every 15
    seconds, or as many as given; False is never. `sinks` get what is logged as it comes: kinds such
    as "jsonl", maps as in a config, or any object with `take` and `close` (`cas.Sink`).
    """
    known = effective(config)
    said = said_of_run(known)

    def pick(name: str, given: Any, default: Any = None) -> Any:
        return known.words.get(name, default) if given is None else given

    observing = as_observing(
        pick("watch", watch),
        pick("system_metrics", system_metrics, True),
        pick("total", total),
        pick("log_every", log_every, 1),
    )
    wanted = as_strategy(pick("strategy", strategy))
    start = Start(
        experiment or said.get("experiment"),
        name or said.get("name"),
        {**said.get("params", {}), **as_params(params or {})},
        pick("seed", seed),
        labels=(*said.get("labels", ()), *labels, *tags),
        group=group or said.get("group"),
        notes=notes or said.get("notes", ""),
        retention=as_policy(retention) or wanted.keep or known.retention,
        config=known.words,
        resume=check_resume(pick("resume", resume, NEVER)),
        capture=EVERYTHING if capture is None else Capture.of(capture),
    )
    passed_to = as_sinks(pick("sinks", sinks))
    opened, made = open_repo(repo, clock)
    run = _started(start, opened, made, observing=observing, config=known, strategy=wanted)
    if not run.rank:
        for sink in passed_to:
            run._live.beside(Follower(run._live, sink))
    return run


ExperimentTracker = track  # as others call it


def fork(
    rev: str,
    *,
    params: Mapping[str, Any] | None = None,
    experiment: str | None = None,
    name: str | None = None,
    seed: int | None = None,
    notes: str = "",
    strategy: Strategy | Mapping[str, Any] | None = None,
    retention: Keep | Mapping[str, Any] | None = None,
    repo: str | os.PathLike[str] | None = None,
) -> Run:
    """Start a run from a checkpoint: its params, overridden by `params`, and an edge to it.

    A run stands for its newest checkpoint. `run.load_checkpoint(model=…)` then loads it. Metrics
    without a step go on after the checkpoint's last one.
    """
    wanted = as_strategy(strategy)
    keep = as_policy(retention) or wanted.keep
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
    run = _started(start, opened, made, strategy=wanted)
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


def _started(
    start: Start,
    repo: Repo,
    made: bool,
    *,
    observing: Observing = OBSERVING,
    config: Config | None = None,
    strategy: Strategy | None = None,
) -> Run:
    launched = ranks.launch(os.environ)
    if launched is not None and launched.rank:
        joined = _of_rank(start, repo, launched, observing)
        if joined is not None:
            return joined
    notebook.begin_again()
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
    begun = Run(live, keep, strategy)
    if launched is not None and not live.joined:
        ranks.announce(repo, launched, live.state)
    begun._surround(Around(launched, export.at_end(repo, config or Config(), Path.cwd())))
    begun._observe(observing)
    notebook.begun(begun, begun.finish)
    return begun


def _of_rank(start: Start, repo: Repo, launched: Launch, observing: Observing) -> Run | None:
    """Return the run of rank 0 as another rank has it; None where there is none to join."""
    from cas.tracking.rankrun import RankLive, RankRun

    state = joined_state(repo) if JOIN_VARIABLE in os.environ else ranks.found(repo, launched)
    if state is None:
        say(f"rank {launched.rank} found no run of rank 0: it begins one of its own")
        return None
    if start.seed is not None:
        rng.seed_all(start.seed, frameworks.loaded())
    run = RankRun(RankLive.of(repo, state, launched))
    run._surround(Around(launched))
    run._observe(replace(observing, system=None))
    return run
