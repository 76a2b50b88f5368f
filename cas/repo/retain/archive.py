"""Archive: hide finished work from the lists that show everything by default.

A run is archived while a ref `archived/EXPERIMENT/RUN` stands beside its own. Nothing else changes:
its names resolve, its checkpoints are kept and pruned as ever, and it can be shown at any time.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cas.ids import CommitId
from cas.repo.layout import ARCHIVED, RUNS
from cas.repo.repo import Repo
from cas.repo.retain.choice import bare, runs_meant

if TYPE_CHECKING:
    from cas.repo.transaction import Transaction

LISTED: Final = 8


def archived(refs: Mapping[str, CommitId]) -> frozenset[str]:
    """Return the refs of the runs that are archived."""
    return frozenset(RUNS + ref.removeprefix(ARCHIVED) for ref in refs if ref.startswith(ARCHIVED))


def archive(repo: Repo, words: Sequence[str]) -> tuple[str, ...]:
    """Hide the runs that words name; return those that were not hidden, by name.

    A word is EXPERIMENT or EXPERIMENT/RUN. Raises NotFoundError for one that names no run.
    """
    from cas.plain import few  # only what is called by `cas log` is imported with this module
    from cas.repo.transaction import transact

    def build(transaction: "Transaction") -> tuple[str, ...]:
        refs = transaction.root.refs
        names = _selected(refs, RUNS, words)
        new = tuple(name for name in names if ARCHIVED + name not in refs)
        for name in new:
            transaction.set_ref(ARCHIVED + name, refs[RUNS + name])
        return new

    return transact(repo, f"archive {few(words, LISTED)}", build)


def restore(repo: Repo, words: Sequence[str]) -> tuple[str, ...]:
    """Show the runs that words name again; return their names, raise NotFoundError."""
    from cas.plain import few
    from cas.repo.transaction import transact

    def build(transaction: "Transaction") -> tuple[str, ...]:
        names = _selected(transaction.root.refs, ARCHIVED, words)
        for name in names:
            transaction.set_ref(ARCHIVED + name, None)
        return names

    return transact(repo, f"bring back {few(words, LISTED)}", build)


def _selected(refs: Mapping[str, CommitId], room: str, words: Sequence[str]) -> tuple[str, ...]:
    names = sorted(ref.removeprefix(room) for ref in refs if ref.startswith(room))
    what = "run or experiment" if room == RUNS else "archived run or experiment"
    hint = "`cas log --all` lists archived runs too"
    return tuple(runs_meant(names, words, lambda word: (bare(word),), what=what, hint=hint))
