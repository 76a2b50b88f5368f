"""Processes that use one repository at the same time; `Actor` starts and reads one.

A writer says what it has committed once that is acknowledged, one line each. What a commit must
hold stands in its message, as the numbers of contents, so anybody can compare it bit for bit.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

from cas.errors import ConflictError, NotFoundError
from cas.ids import CommitId
from cas.objects.commit import COMMIT, DATASET, INPUT, PREVIOUS, Commit, Parent
from cas.repo.collect import gc
from cas.repo.layout import DATASETS, HOLDS, MODELS, TAGS
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from tests.support.builders import Clock, read_tree, reopened, write_files
from tests.support.crashing import Quick

ROOT = Path(__file__).resolve().parents[2]
SIZES = (100, 3000, 20_000, 270_000, 530_000)  # in a metadata pack, in a data pack, cut
SHARED = 12  # contents that everybody writes, so that they die and come back
KEEP = f"{TAGS}keep-"
DROP = f"{TAGS}drop-"
READY = "ready"
Numbers = Mapping[str, int]


def content(number: int) -> bytes:
    """Return the content with this number."""
    return blake3(b"%d" % number).digest(length=SIZES[number % len(SIZES)] + number % 1000)


def files(numbers: Numbers) -> dict[str, bytes]:
    return {name: content(number) for name, number in numbers.items()}


def check(repo: Repo, id: CommitId, *, payload: bool = True) -> None:
    """Compare a commit, and with `payload` what it holds, with what its message says."""
    commit = repo.commit(id)
    told = json.loads(commit.message)
    assert read_tree(repo, commit.tree) == files(told["record"]), f"record of {id}"
    if payload and commit.payload is not None:
        assert read_tree(repo, commit.payload) == files(told["payload"]), f"payload of {id}"
    for parent in commit.parents:
        repo.commit(parent.commit)


def opened(path: Path) -> Repo:
    return reopened(Repo.open(path, who="ada@host", clock=Clock()), Quick())


class Writer:
    """Commits to a ref of its own, to tags that stay, to tags that others drop, and inputs."""

    def __init__(self, repo: Repo, name: str, rng: random.Random) -> None:
        self.repo = repo
        self.name = name
        self.rng = rng

    def run(self, stop: Callable[[], bool]) -> None:
        number = 0
        while not stop():
            step = self.rng.choice([self.move, self.keep, self.throw, self.throw, self.use_input])
            ref, id = step(number)
            say(ref, str(id))
            number += 1

    def move(self, number: int) -> tuple[str, CommitId]:
        """Move the own ref, half of the time without the commit before, which so dies."""
        return self._commit(f"{MODELS}{self.name}", number, after=self.rng.random() < 0.5)

    def keep(self, number: int) -> tuple[str, CommitId]:
        return self._commit(f"{KEEP}{self.name}-{os.getpid()}-{number}", number)

    def throw(self, number: int) -> tuple[str, CommitId]:
        return self._commit(f"{DROP}{self.name}-{number % 3}", number)

    def use_input(self, number: int) -> tuple[str, CommitId]:
        """Commit an input that is the same commit for all, and something made from it."""
        which = self.rng.randrange(4)
        told = {"record": {"i": which}, "payload": {"d": which + 4}}

        def make(tx: Transaction) -> CommitId:
            tree, payload = (write_files(tx, files(told[part])) for part in ("record", "payload"))
            message = json.dumps(told)
            id = tx.record(Commit(kind=INPUT, tree=tree, payload=payload, message=message))
            tx.set_ref(f"{DATASETS}{which}", id)
            return id

        id = transact(self.repo, "input", make)
        ref = f"{KEEP}{self.name}-{os.getpid()}-{number}"
        try:
            return self._commit(ref, number, (Parent(DATASET, id),))
        except NotFoundError:
            return self._commit(ref, number)  # somebody dropped it, and gc took it

    def _commit(
        self, ref: str, number: int, parents: tuple[Parent, ...] = (), *, after: bool = False
    ) -> tuple[str, CommitId]:
        own = self.rng.randrange(1000, 10**7)
        told = {
            "record": {"a": self.rng.randrange(SHARED), "b": self.rng.choice([own, own - 1])},
            "payload": {"w": self.rng.randrange(SHARED), "x": self.rng.choice([own, 3, 4])},
        }
        message = json.dumps(told | {"of": [self.name, os.getpid(), number]})

        def make(tx: Transaction) -> CommitId:
            tree, payload = (write_files(tx, files(told[part])) for part in ("record", "payload"))
            old = tx.ref(ref)
            before = (Parent(PREVIOUS, old),) if after and old else ()
            commit = Commit(
                kind=COMMIT, tree=tree, payload=payload, parents=before + parents, message=message
            )
            id = tx.record(commit)
            if old is not None and not before:
                tx.set_ref(f"{HOLDS}{old}", None)
            tx.set_ref(ref, id)
            return id

        return ref, transact(self.repo, f"commit {number}", make)


def drop(repo: Repo, rng: random.Random, stop: Callable[[], bool]) -> None:
    """Drop tags and inputs with their holds."""
    done = 0
    while not stop():
        done += 1
        names = [name for name in repo.refresh().refs if name.startswith((DROP, DATASETS))]
        for name in rng.sample(names, min(2, len(names))):

            def forget(tx: Transaction, name: str = name) -> None:
                id = tx.ref(name)
                if id is not None:
                    tx.set_ref(name, None)
                    tx.set_ref(f"{HOLDS}{id}", None)

            transact(repo, "drop", forget)
    say("drop", str(done))


def collect(repo: Repo, _: random.Random, stop: Callable[[], bool]) -> None:
    """Collect again and again; one that is outrun by writers tries once more."""
    done = outrun = 0
    while not stop():
        try:
            gc.execute(repo, gc.plan(repo))
            done += 1
        except ConflictError:
            outrun += 1
    say("collect", f"{done}")
    say("outrun", f"{outrun}")


def look(repo: Repo, rng: random.Random, stop: Callable[[], bool]) -> None:
    """Read what refs and holds keep; what is gone must have been let go of meanwhile."""
    done = 0
    while not stop():
        refs = repo.refresh().refs
        if not refs:
            continue
        name = rng.choice(sorted(refs))
        needed = {name, f"{HOLDS}{refs[name]}"} & refs.keys()
        try:
            check(repo, refs[name], payload=f"{HOLDS}{refs[name]}" in refs)
            done += 1
        except NotFoundError:
            now = repo.refresh().refs
            if all(now.get(ref) == refs[ref] for ref in needed):
                raise
    say("look", f"{done}")


def write(repo: Repo, rng: random.Random, stop: Callable[[], bool]) -> None:
    Writer(repo, f"w{rng.randrange(10**9)}", rng).run(stop)


ROLES = {"write": write, "drop": drop, "collect": collect, "look": look}


def say(*words: str) -> None:
    """Tell it in one call, so that no line is torn when the process ends."""
    os.write(1, (" ".join(words) + "\n").encode())


def main(role: str, folder: str, seed: str, rounds: str) -> None:
    path = Path(folder)
    left = int(rounds)

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0 or (path / "stop").exists()

    repo = opened(path)
    say(READY)
    ROLES[role](repo, random.Random(int(seed)), stop)


class Actor:
    """One such process."""

    def __init__(self, role: str, path: Path, seed: int, rounds: int = 1_000_000) -> None:
        words = ["-m", "tests.support.actors", role, str(path), str(seed), str(rounds)]
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            bufsize=0,  # or a line that is read would take others along
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().decode() == f"{READY}\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def kill_after(self, seconds: float) -> Iterator[tuple[str, str]]:
        """Let it run on, end it without warning, and yield what it said."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.finished(killed=True)

    def finished(self, *, killed: bool = False) -> Iterator[tuple[str, str]]:
        """Wait for the end, insist that it was a good one, and yield what was said."""
        out, err = self.process.communicate()
        assert killed or self.process.returncode == 0, err
        assert not err, err
        for line in out.decode().splitlines():
            first, _, second = line.partition(" ")
            yield first, second


if __name__ == "__main__":
    main(*sys.argv[1:])
