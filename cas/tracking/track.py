"""How a run begins: `cas.track` and `cas.fork`."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cas.errors import CasError
from cas.objects.commit import Commit
from cas.repo.repo import Repo
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import as_policy
from cas.tracking import export, notebook, ranks
from cas.tracking.captured import frameworks
from cas.tracking.captured.capture import Start, as_params
from cas.tracking.captured.parts import EVERYTHING, Capture
from cas.tracking.captured.variables import JOIN_VARIABLE, RANK_VARIABLE
from cas.tracking.checkpoints import rng
from cas.tracking.checkpoints.retain import of_config
from cas.tracking.checkpoints.strategy import Strategy, as_strategy
from cas.tracking.ends.recovery import recover_lost, said
from cas.tracking.ends.resume import NEVER, check_resume
from cas.tracking.live import Live
from cas.tracking.measures import Observing, as_observing
from cas.tracking.origin import Base, forked_from
from cas.tracking.outside import Around
from cas.tracking.ranks import Launch
from cas.tracking.run import Run
from cas.tracking.settings.config import Config
from cas.tracking.settings.configfile import Given, said_of_run
from cas.tracking.settings.configfile import config as effective
from cas.tracking.sinks.follower import Followers
from cas.tracking.sinks.sink import Sink, as_sinks
from cas.tracking.start import begin, joined_state, open_repo, say
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
    seconds, or as many as given; False is never. `sinks` get what is logged as it comes: "jsonl",
    "tensorboard", maps as in a config, or any object with `take` and `close` (`cas.Sink`).
    """
    asked = _Asked(
        params=params,
        config=config,
        strategy=strategy,
        retention=retention,
        capture=capture,
        seed=seed,
        labels=(*labels, *tags),
        group=group,
        notes=notes,
        total=total,
        log_every=log_every,
        watch=watch,
        system_metrics=system_metrics,
        sinks=sinks,
        repo=repo,
    )
    said = asked.said
    named = name or said.get("name"), check_resume(asked.pick("resume", resume, NEVER))
    return _run(asked, experiment or said.get("experiment"), *named)


ExperimentTracker = track  # as others call it


def fork(
    rev: str,
    *,
    experiment: str | None = None,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    config: Given = None,
    strategy: Strategy | Mapping[str, Any] | None = None,
    retention: Keep | Mapping[str, Any] | None = None,
    resume: str = NEVER,
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
    """Start a run from a checkpoint: its params, overridden by `params`, and an edge to it.

    A run stands for its newest checkpoint. `run.load_checkpoint(model=…)` then loads it. Metrics
    without a step go on after the checkpoint's last one. The experiment defaults to that of the
    checkpoint; of a config, experiment and name are those of other runs and do not count here.
    With `resume="auto"` the unfinished fork of this name goes on from its own newest checkpoint.
    All else is as in `cas.track`. Raises NotFoundError where the checkpoint was let go of.
    """
    asked = _Asked(
        params=params,
        config=config,
        strategy=strategy,
        retention=retention,
        capture=capture,
        seed=seed,
        labels=(*labels, *tags),
        group=group,
        notes=notes,
        total=total,
        log_every=log_every,
        watch=watch,
        system_metrics=system_metrics,
        sinks=sinks,
        repo=repo,
    )
    return _run(asked, experiment, name, check_resume(resume), rev)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What `track` and `fork` are asked for alike; what is None is as the config says."""

    params: Mapping[str, Any] | None
    config: Given
    strategy: Strategy | Mapping[str, Any] | None
    retention: Keep | Mapping[str, Any] | None
    capture: Capture | Mapping[str, Any] | str | None
    seed: int | None
    labels: Sequence[str]
    group: str | None
    notes: str
    total: int | None
    log_every: int | Mapping[str, int] | None
    watch: Watch | Mapping[str, Any] | bool | None
    system_metrics: bool | float | None
    sinks: Sequence[Sink | Mapping[str, Any] | str] | None
    repo: str | os.PathLike[str] | None
    known: Config = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", effective(self.config))

    @property
    def said(self) -> dict[str, Any]:
        """What the config says of a run that begins now."""
        return said_of_run(self.known)

    def pick(self, name: str, given: Any, default: Any = None) -> Any:
        """Return what was given, else what the config says."""
        return self.known.words.get(name, default) if given is None else given

    def start(self, wanted: Strategy) -> Start:
        """Return how the run begins, but for its name; raise InvalidInputError."""
        said = self.said
        return Start(
            None,
            None,
            {**said.get("params", {}), **as_params(self.params or {})},
            self.pick("seed", self.seed),
            labels=(*said.get("labels", ()), *self.labels),
            group=self.group or said.get("group"),
            notes=self.notes or said.get("notes", ""),
            retention=as_policy(self.retention) or wanted.keep or self.known.retention,
            strategy=wanted.as_words,
            config=self.known.words,
            capture=EVERYTHING if self.capture is None else Capture.of(self.capture),
        )

    def observing(self) -> Observing:
        """Return how the run is looked at; raise InvalidInputError."""
        return as_observing(
            self.pick("watch", self.watch),
            self.pick("system_metrics", self.system_metrics, True),
            self.pick("total", self.total),
            self.pick("log_every", self.log_every, 1),
        )


def _run(
    asked: _Asked, experiment: str | None, name: str | None, resume: str, rev: str | None = None
) -> Run:
    """Start a run as it was asked for, or one that is forked from a revision."""
    observing = asked.observing()
    wanted = as_strategy(asked.pick("strategy", asked.strategy))
    start = replace(asked.start(wanted), experiment=experiment, name=name, resume=resume)
    passed_to = as_sinks(asked.pick("sinks", asked.sinks))
    opened, made = open_repo(asked.repo, clock)
    base = forked_from(opened, rev) if rev is not None else None
    if base is not None:
        start = replace(start, experiment=experiment or opened.commit(base.commit).experiment)
    run = _started(
        start, opened, made, base, observing=observing, config=asked.known, strategy=wanted
    )
    if base is not None and run.resumed is None:
        run._live.state.metrics.go_on_after(_last_step(opened, opened.commit(base.commit)))
    if passed_to and not run.rank:
        run._live.beside(Followers(run._live, passed_to))
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
    base: Base | None,
    *,
    observing: Observing,
    config: Config,
    strategy: Strategy,
) -> Run:
    if made:
        say(f"created repository {repo.path}")
    launched = ranks.launch(os.environ, frameworks.processes)
    if launched is not None:
        os.environ[RANK_VARIABLE] = str(os.getpid())
    if launched is not None and launched.rank:
        joined = _of_rank(start, repo, launched, observing, strategy)
        if joined is not None:
            return joined
    notebook.begin_again()
    if start.seed is not None:
        rng.seed_all(start.seed, frameworks.loaded())
    keep = start.retention or of_config(repo, say)
    live = _begun(replace(start, retention=keep), repo, base)
    if not live.joined:  # `cas run` has said it
        say(f"run {live.state.run} in {repo.path}")
    begun = Run(live, keep, strategy)
    if launched is not None and not live.joined:
        ranks.announce(repo, launched, live.state, live.base)
    begun._surround(Around(launched, export.at_end(repo, config, Path.cwd())))
    begun._observe(observing)
    notebook.begun(begun, begun.finish)
    return begun


def _begun(start: Start, repo: Repo, base: Base | None) -> Live:
    """Begin a run, or go on with one, once all that were lost are committed."""
    lost: list[str] = []
    with suppress(CasError, OSError):  # it hinders no other run, and the next command says why
        lost = recover_lost(repo)
    gone_on = ""
    try:
        live = begin(repo, start, base=base)
        gone_on = live.state.run
    finally:
        for run in lost:
            if run != gone_on:  # of that one it has been said how it broke off
                say(said(repo, run))
    return live


def _of_rank(
    start: Start,
    repo: Repo,
    launched: Launch,
    observing: Observing,
    strategy: Strategy | None,
) -> Run | None:
    """Return the run of rank 0 as another rank has it; None where there is none to join."""
    from cas.tracking.rankrun import RankLive, RankRun

    if JOIN_VARIABLE in os.environ:
        state, base = joined_state(repo), None
    else:
        state, base = ranks.found(repo, launched)
    if state is None:
        say(
            f"rank {launched.rank} found no run of rank 0 in {repo.path}: it begins one of its own "
            "(is that folder on a disk that all ranks share?)"
        )
        return None
    if start.seed is not None:
        rng.seed_all(start.seed, frameworks.loaded())
    live = RankLive.of(repo, state, launched, base)
    if base is not None:
        state.metrics.go_on_after(_last_step(repo, repo.commit(base)))
    run = RankRun(live, strategy=strategy)
    run._surround(Around(launched))
    run._observe(replace(observing, system=None))
    return run
