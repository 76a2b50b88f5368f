"""Who needs a commit: the names that point at it, and the commits that were made from it."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from cas.ids import CommitId
from cas.objects.commit import BASE_MODEL, DATASET, RESUMED_FROM, Commit
from cas.repo import layout
from cas.repo.repo import Repo
from cas.repo.retain.choice import Read

INPUTS = (DATASET, BASE_MODEL, RESUMED_FROM)
# The rooms whose names stand for what somebody chose, each with its word.
NAMED = {
    layout.TAGS: "tag",
    layout.HEADS: "head",
    layout.MODELS: "model",
    layout.DATASETS: "dataset",
}


@dataclass(frozen=True, slots=True)
class Use:
    """One way in which a commit is needed: a ref is at it, or a commit has an edge to it."""

    commit: CommitId
    by: str
    role: str = ""
    ref: str = ""

    def __str__(self) -> str:
        return f"{self.role} of {self.by}" if self.role else self.by


class Uses:
    """Looks for the uses of some commits, in as many goes as it takes; reads each commit once."""

    def __init__(self, read: Read, wanted: Collection[CommitId]) -> None:
        """Look for what needs the commits `wanted`."""
        self._read = read
        self._wanted = wanted
        self._seen: set[CommitId] = set()

    def among(self, refs: Mapping[str, CommitId]) -> Iterator[Use]:
        """Yield the uses by these refs, and by what they reach that no earlier go has reached.

        What only a wanted commit leads to is not looked at.
        """
        # Holds last: any other name says more.
        for name in sorted(refs, key=lambda name: (name.startswith(layout.HOLDS), name)):
            if refs[name] in self._wanted:
                yield Use(refs[name], told(name), ref=name)
            else:
                yield from self._below(name, refs[name])

    def _below(self, name: str, tip: CommitId) -> Iterator[Use]:
        pending = [tip]
        while pending:
            id = pending.pop()
            if id in self._seen:
                continue
            self._seen.add(id)
            commit = self._read(id)
            for parent in commit.parents:
                if parent.commit in self._wanted:
                    # The runs of a reproduction are named as what they repeat.
                    again = name.startswith(layout.REPRODUCTIONS)
                    by = None if again else commit.full_name
                    yield Use(parent.commit, by or told(name), parent.role)
                else:
                    pending.append(parent.commit)


def reader(repo: Repo) -> Read:
    """Return a reader of commits that reads each one once."""
    return cache(repo.commit)


def after(
    refs: Mapping[str, CommitId], changes: Iterable[tuple[str, CommitId | None]]
) -> dict[str, CommitId]:
    """Return the refs as they are once these have been moved, or dropped with None."""
    moved = dict(refs)
    for name, new in changes:
        moved.pop(name, None)
        if new is not None:
            moved[name] = new
    return moved


def told(ref: str) -> str:
    """Return how people call a ref: `tag v1`."""
    room, _, rest = ref.partition("/")
    word = {**NAMED, layout.RUNS: "run", layout.OPEN: "open run", layout.HOLDS: "hold"}
    return f"{word[f'{room}/']} {rest}" if f"{room}/" in word else ref


def called(id: CommitId, commit: Commit) -> str:
    """Return how people call a commit: its run and step, or its kind and hash."""
    if commit.run is None:
        return f"{commit.kind} {id.short}"
    return f"{commit.full_name}{'' if commit.step is None else f', step {commit.step}'}"
