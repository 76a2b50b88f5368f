"""A storm of SIGKILL: processes that work on one repository and are killed at any moment.

This module is a program of its own, so that it can fork: it loads everything once, and then starts
worker after worker. What a worker is told is acknowledged it says in one line, and only then; when
they are dead, another process looks for all of it. `python -m tests.support.storm FOLDER SEED N`.
"""

import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

import cas as package
from cas.backend.files import FileOps
from cas.cli.main import run as command
from cas.errors import ConflictError, RefusedError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import PREVIOUS
from cas.repo.check import fsck
from cas.repo.layout import HOLDS, RUNS, TAGS
from cas.repo.repo import Repo
from cas.tracking.ends.recovery import recover_lost
from tests.support.builders import Clock, commit_files, noise, read_tree, set_ref
from tests.support.runs import points

Say = Callable[..., None]
Step = Callable[[Repo, random.Random, Say], None]
PLACE = ".cas"
KEPT, PRUNED = "kept", "pruned"  # experiments
PATIENCE_S = 5.0
MOST_TAGS = 25
LATE_S = 2.0  # a second of the metrics may be lost, and as much again on a busy machine
EVERY = 25  # rounds, after which every byte is read


class Heard:
    """What a worker says, as far as it was read."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._said = b""

    def wait(self, lines: int) -> None:
        """Wait until so many lines were said, but not for ever."""
        end = time.monotonic() + PATIENCE_S
        while self._said.count(b"\n") < lines and (left := end - time.monotonic()) > 0:
            if not select.select([self._pipe], [], [], left)[0]:
                return
            data = os.read(self._pipe, 1 << 16)
            if not data:
                return
            self._said += data

    def rest(self) -> list[str]:
        """Return all that was said by one who is dead."""
        while data := os.read(self._pipe, 1 << 16):
            self._said += data
        os.close(self._pipe)
        return self._said.decode().splitlines()


class Storm:
    """What was acknowledged, and the rounds of killing."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.path = folder / PLACE
        self.rng = random.Random(seed)
        self.tags: dict[str, str] = {}
        self.saved: list[tuple[str, str]] = []
        self.logged: dict[str, int] = {}
        self.kills = 0
        self.told = 0

    def round(self, workers: int, *, full: bool) -> None:
        """Start some workers, kill each at a random moment, and look for what they told."""
        seeds = [self.rng.randrange(1 << 60) for _ in range(workers)]
        children = [self._start(seed) for seed in seeds]
        for pid, heard in children:
            # A busy machine must not kill them all before they have begun.
            heard.wait(self.rng.choice((0, 1, 1, 2, 6)))
            time.sleep(self.rng.random() * self.rng.choice((0.01, 0.03, 0.1)))
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            os.waitpid(pid, 0)
            self.kills += 1
            for line in heard.rest():
                self._take(line.split(), killed)
        self._look(full=full)

    def _start(self, seed: int) -> "tuple[int, Heard]":
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return pid, Heard(reading)

        def say(*words: object) -> None:
            os.write(writing, (" ".join(map(str, words)) + "\n").encode())

        try:
            work(self.path, random.Random(seed), say, sorted(self.tags))
        except BaseException:
            say("error", *repr(traceback.format_exc()).split())
        os._exit(1)

    def _take(self, words: list[str], killed: float) -> None:
        self.told += 1
        match words:
            case ["tag", name, id]:
                self.tags[name] = id
            case ["dropping", name]:
                self.tags.pop(name, None)
            case ["saved", run, id]:
                self.saved.append((run, id))
            case ["logged", run, step, when]:
                if float(when) < killed - LATE_S:
                    self.logged[run] = int(step)
            case ["error", *rest]:
                raise AssertionError(" ".join(rest))

    def _look(self, *, full: bool) -> None:
        """Look for all that was told, in a process that never forks again."""
        pid = os.fork()
        if not pid:
            try:
                look(self, full=full)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"after {self.kills} kills"
        self.saved, self.logged = [], {}


def work(path: Path, rng: random.Random, say: Say, tags: list[str]) -> None:
    """Do one thing after another, until killed; `tags` may be dropped."""
    steps: list[Step] = [commit, commit, partial(drop, tags), track, track, maintain]
    repo = Repo.open(path, who="ada@host", clock=clock)
    while True:
        with suppress(ConflictError, RefusedError):
            rng.choice(steps)(repo, rng, say)


def clock() -> int:
    return time.time_ns() // 1000


def commit(repo: Repo, rng: random.Random, say: Say) -> None:
    name = f"{TAGS}t{rng.randrange(1 << 60)}"
    sizes = [rng.choice((100, 5000, 70_000, 300_000)) for _ in range(2)]
    contents = {str(n): noise(rng.randrange(20), size) for n, size in enumerate(sizes)}
    say("tag", name, commit_files(repo, contents, ref=name, payload={"w": contents["0"]}))


def drop(tags: list[str], repo: Repo, rng: random.Random, say: Say) -> None:
    """Drop some of the tags that were known at the start: nobody else will yet tell of them."""
    for name in rng.sample(tags, max(0, len(tags) - MOST_TAGS)):
        say("dropping", name)
        id = repo.refresh().refs.get(name)
        set_ref(repo, name, None)
        if id is not None:
            set_ref(repo, f"{HOLDS}{id}", None)


def track(repo: Repo, rng: random.Random, say: Say) -> None:
    name = f"r{rng.randrange(1 << 60)}"
    experiment = rng.choice((KEPT, PRUNED))
    run = package.track(experiment, name=name, repo=repo.path)
    for step in range(rng.randrange(1, 60)):
        run.log({"loss": step})
        say("logged", f"{experiment}/{name}", step, time.monotonic())
        if step % 10 == 9:
            weights = np.random.default_rng(step).normal(size=rng.choice((50, 9000)))
            say(
                "saved",
                f"{experiment}/{name}",
                run.save_checkpoint(model={"w": weights}, step=step).commit,
            )
        time.sleep(0.001)
    run.finish()


def maintain(repo: Repo, rng: random.Random, say: Say) -> None:
    os.environ["CAS_DIR"] = str(repo.path)
    words = rng.choice(
        [["gc"], ["gc"], ["repack"], ["prune", "--keep-last", "1", "--yes", PRUNED], ["log"]]
    )
    code = command(words)
    # No run yet to be pruned, or somebody else was first: neither is a failure.
    assert code in {0, 3, 5, 6}, f"{words}: {code}"


def look(storm: Storm, *, full: bool) -> None:
    """Recover as the next command does, and find all that was acknowledged."""
    repo = Repo.open(storm.path, who="ada@host", clock=Clock())
    recover_lost(repo)
    refs = repo.refresh().refs
    for name, id in storm.tags.items():
        assert str(refs.get(name)) == id, f"{name} is {refs.get(name)}, and was told to be {id}"
    for run, id in storm.saved:
        kept(repo, refs[f"{RUNS}{run}"], id, payload=run.startswith(KEPT))
    for run, step in storm.logged.items():
        have = points(repo, repo.commit(refs[f"{RUNS}{run}"])).get("loss", [])
        assert len(have) > step, f"metrics of {run}: {len(have)}, where step {step} was told of"
    if full:
        found = [each for each in fsck.check(repo, full=True) if each.severity != fsck.INFO]
        assert not found, found
        for name in storm.tags:
            held = repo.commit(refs[name])
            assert held.payload is not None
            assert read_tree(repo, held.tree)["0"] == read_tree(repo, held.payload)["w"]


def kept(repo: Repo, tip: CommitId, wanted: str, *, payload: bool) -> None:
    """Insist that a checkpoint is in the history of a run, with its weights."""
    id: CommitId | None = tip
    while id is not None and str(id) != wanted:
        before = [edge.commit for edge in repo.commit(id).parents if edge.role == PREVIOUS]
        id = before[0] if before else None
    assert id is not None, f"checkpoint {wanted} is not in the history of {tip}"
    found = repo.commit(id)
    if payload:
        assert found.payload is not None
        assert read_tree(repo, ObjectId(bytes(found.payload)))


def main(folder: str, seed: str, kills: str) -> None:
    # A killed process loses nothing that it has written: what is slow is left out.
    for name in ("fsync", "fsync_dir"):
        setattr(FileOps, name, lambda *_: None)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    top = Path(folder)
    (top / "work").mkdir()
    os.chdir(top / "work")
    Repo.create(top / PLACE, who="ada@host", clock=clock).backend.close()
    storm, rounds = Storm(top, int(seed)), 0
    while storm.kills < int(kills):
        rounds += 1
        storm.round(storm.rng.choice((1, 1, 2, 3)), full=rounds % EVERY == 0)
    storm.round(1, full=True)
    (top / "told").write_text(f"{storm.kills} kills, {storm.told} lines, {len(storm.tags)} tags")


if __name__ == "__main__":
    main(*sys.argv[1:])
