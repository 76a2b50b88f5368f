"""Processes that move a few refs as fast as they can, and what each of them saw.

Each process writes a line for every update and look: when it began and ended by a clock that all
processes of a machine share, which root it saw or made, and of an update the ref and its old value.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cas.backend.files import OPS
from cas.ids import CommitId, ObjectId
from cas.objects.commit import COMMIT, Commit
from cas.repo import root as roots
from cas.repo import transaction
from cas.repo.layout import MODELS, TAGS
from cas.repo.repo import Repo
from cas.repo.root import Root
from cas.repo.transaction import Transaction, transact
from tests.support.builders import Clock, write_files
from tests.support.crashing import Quick

ROOT = Path(__file__).resolve().parents[2]
REFS = tuple(f"{MODELS}{name}" for name in ("a", "b", "c"))
VALUES = 97  # each ref goes through these commits in turn


@dataclass(frozen=True, slots=True)
class Seen:
    """An update of a ref from an old value, or a look at root `seq`, for which both are empty."""

    who: str
    began: int
    ended: int
    seq: int
    ref: str
    old: str
    attempts: int


def prepare(repo: Repo) -> None:
    """Make the commits that refs will point at."""

    def make(tx: Transaction) -> None:
        tree = write_files(tx, {"a": b"a"})
        ids = [tx.record(Commit(kind=COMMIT, tree=tree, message=str(n))) for n in range(VALUES)]
        for number, id in enumerate(ids):
            tx.set_ref(f"{TAGS}{number:04d}", id)
        for ref in REFS:
            tx.set_ref(ref, ids[0])

    transact(repo, "prepare", make)


def following(repo: Repo) -> dict[CommitId, CommitId]:
    """Return which commit comes after which."""
    refs = repo.refresh().refs
    ids = [refs[f"{TAGS}{number:04d}"] for number in range(VALUES)]
    return dict(zip(ids, [*ids[1:], ids[0]], strict=True))


def main(folder: str, number: str, updates: str, durable: str, planted: str = "") -> None:
    if planted:  # a writer that does not look whether a ref has moved
        vars(transaction)["_agrees"] = lambda *_: True
    who, ops = f"w{number}", OPS if durable == "durable" else Quick()
    repo = Repo.open(Path(folder), who=who, clock=Clock(), ops=ops)
    after = following(repo)
    lines = []
    os.write(1, b"ready\n")
    sys.stdin.readline()
    for count in range(int(updates)):
        ref = REFS[(count + int(number)) % len(REFS)]

        attempts = 0

        def move(tx: Transaction, ref: str = ref) -> CommitId:
            nonlocal attempts
            attempts += 1
            old = tx.ref(ref)
            assert old is not None
            tx.set_ref(ref, after[old])
            return old

        began = time.monotonic_ns()
        old = transact(repo, "move", move)
        lines.append([who, began, time.monotonic_ns(), 0, ref, str(old), attempts])
        if count % 5 == 0:
            began = time.monotonic_ns()
            seq = repo.refresh().seq
            lines.append([who, began, time.monotonic_ns(), seq, "", "", 0])
    sys.stdout.write(json.dumps(lines))


def race(
    path: Path, processes: int, updates: int, *, durable: bool = False, planted: bool = False
) -> tuple[list[Seen], float]:
    """Let processes update refs at the same time; return what they saw, and how long it took."""
    words = ["durable" if durable else "quick", *(["planted"] if planted else [])]
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.writers",
                str(path),
                str(n),
                str(updates),
                *words,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        began = time.monotonic()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        seen = []
        for child in children:
            out, _ = child.communicate()
            assert child.returncode == 0
            seen += [Seen(*line) for line in json.loads(out)]
        return seen, time.monotonic() - began
    finally:
        for child in children:
            child.kill()
            child.communicate()


def unlinearizable(repo: Repo, seen: Sequence[Seen], first: int) -> str | None:
    """Return what contradicts that all updates happened one after the other, in the order of roots.

    `first` is the number of the root before them.
    """
    after, newest = following(repo), repo.refresh().seq
    todo: dict[str, list[Seen]] = {}
    for one in sorted(seen, key=lambda one: -one.began):
        if one.ref:
            todo.setdefault(one.who, []).append(one)
    values = dict(roots.read(repo.backend, first).refs)
    placed = [one for one in seen if not one.ref]
    for root in _chain(repo, first + 1, newest):
        mine = todo.get(root.operation.who)
        if not mine:
            return f"root {root.seq} is an update that nobody acknowledged"
        placed.append(replace(mine.pop(), seq=root.seq))
        if wrong := _wrong(root, placed[-1], values, after):
            return wrong
    if any(todo.values()):
        return "an update that was acknowledged has no root"
    if values != dict(repo.root.refs):
        return "the refs are not what the updates made of them"
    return _out_of_time(placed)


def _chain(repo: Repo, first: int, last: int) -> Iterator[Root]:
    known = None
    for seq in range(first, last + 1):
        known = roots.read(repo.backend, seq, known)
        yield known


def _wrong(
    root: Root, one: Seen, values: dict[str, CommitId], after: Mapping[CommitId, CommitId]
) -> str | None:
    """Hold one root to what was acknowledged and to the values before it, and go on with it."""
    old, (change,) = CommitId(ObjectId.parse(one.old)), root.changes
    if (change.name, change.old, change.new) != (one.ref, old, after[old]):
        return f"root {root.seq} is not the update that was acknowledged"
    if values[one.ref] != old:
        return f"root {root.seq} moves {one.ref} from a value that it had not: an update is lost"
    values[one.ref] = after[old]
    return None


def _out_of_time(seen: Sequence[Seen]) -> str | None:
    """Say which update or look did not see what had been acknowledged before it began."""
    ends = sorted(seen, key=lambda one: one.ended)
    known = at = 0
    for one in sorted(seen, key=lambda one: one.began):
        while ends[at].ended < one.began:
            known, at = max(known, ends[at].seq), at + 1
        if one.seq < known + bool(one.ref):
            return f"root {one.seq} came after root {known} had been seen"
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
