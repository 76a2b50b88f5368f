"""Going on where the newest root is lost, and bringing back the commits that it may have named.

A root is small, and all that it listed and named stands in packs that are there still. What its
refs were nobody knows; but a commit says which run it is of, and which one it followed. Nothing is
taken away: what can be read is kept, under a name of its own where no other is sure.
Format: docs/format/ordering.md.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from cas.errors import CasError, CorruptionError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, COMMIT, DRAFT, PREVIOUS, RUN, Commit
from cas.repo import root as roots
from cas.repo.check.strays import Strays, strays
from cas.repo.layout import HEADS, JOURNALS, MAIN, OPEN, RUNS, TAGS
from cas.repo.repo import LOST, Repo, check_ref
from cas.repo.root import FIRST_PREVIOUS, Operation, Root
from cas.repo.transaction import Transaction, transact

WHAT: Final = "fsck --repair"
FOUND: Final = f"{TAGS}found-"


def go_on(repo: Repo) -> Root:
    """Publish a root behind one that cannot be read; it is as the newest that can be.

    Where there is none at all it names nothing. That a root is lost is noted down, so that nothing
    is collected before somebody has said that it is given up. Raises ConflictError.
    """
    operation = Operation(os.urandom(16), repo.who, WHAT, repo.clock())
    numbers = sorted(roots.numbers(repo.backend))
    top = max(numbers, default=0)
    base = next(_readable(repo, numbers), None)
    if base is None:
        after = Root(seq=top + 1, previous=FIRST_PREVIOUS, operation=operation)
    else:
        after = replace(base.follow(operation), seq=top + 1)
    repo.backend.write_hint(LOST, str(max(top, repo.hinted())))
    root = roots.publish(repo.backend, after, os.urandom(16))
    repo.settled(root)
    return root


def _readable(repo: Repo, numbers: list[int]) -> Iterator[Root]:
    for seq in reversed(numbers):
        with suppress(CasError):
            yield roots.read(repo.backend, seq)


def bring_back(repo: Repo) -> dict[str, CommitId]:
    """Copy whole commits from packs that no root lists, and give them names; return those.

    A commit of a run goes on where its run is, any other where the one before it is; else it gets a
    tag. Raises CorruptionError when what they need is taken away meanwhile.
    """
    found = strays(repo, partial(_is_of_use, repo))
    if not found.commits:
        return {}

    def build(transaction: Transaction) -> dict[str, CommitId]:
        writer = transaction.writer
        if not all(map(writer.has, found.relied)):
            raise CorruptionError("what is brought back needs something that is gone: try again")
        for header, body in found.records(repo.backend):
            writer.copy(header, body)
        for id in found.commits:
            payload = found.payload(id)
            if payload is not None:
                transaction.hold(id, payload)
        named = _named(transaction.root, found)
        for name, tip in named.items():
            transaction.set_ref(name, tip)
        return named

    return transact(repo, WHAT, build)


def _is_of_use(repo: Repo, commit: Commit) -> bool:
    """Say whether a commit is more than a draft of a run that has ended."""
    if commit.kind != DRAFT or commit.journal is None:
        return commit.kind != DRAFT
    name = f"{commit.journal.run.hex()}.journal"
    with suppress(OSError):
        repo.ops.stat(os.fspath(repo.path / JOURNALS / name))
        return True
    return False


def _named(root: Root, found: Strays) -> dict[str, CommitId]:
    named: dict[str, CommitId] = {}
    for tip in found.tips():
        likely = _name(root, found, tip)
        named[f"{FOUND}{tip.short}" if likely in named else likely] = tip
    return named


def _name(root: Root, found: Strays, tip: CommitId) -> str:
    """Return the ref that most likely was at a commit: one that is where its history began."""
    commit, before = found.commits[tip], _before(found, tip)
    for name in _candidates(root, commit, before):
        with suppress(CasError):
            if root.refs.get(name) == before:
                return check_ref(name)
    return f"{FOUND}{tip.short}"


def _candidates(root: Root, commit: Commit, before: CommitId | None) -> Iterator[str]:
    if commit.experiment and commit.run and commit.kind in {RUN, CHECKPOINT, DRAFT}:
        yield f"{OPEN if commit.kind == DRAFT else RUNS}{commit.experiment}/{commit.run}"
    elif commit.kind == COMMIT:
        at = [name for name, id in root.refs.items() if id == before and name.startswith(HEADS)]
        yield from at if len(at) == 1 else ()
        yield MAIN


def _before(found: Strays, tip: CommitId) -> CommitId | None:
    """Return the newest commit in a history that is no stray, None where it has none."""
    at: CommitId | None = tip
    while at is not None and at in found.commits:
        parents = found.commits[at].parents
        at = next((parent.commit for parent in parents if parent.role == PREVIOUS), None)
    return at
