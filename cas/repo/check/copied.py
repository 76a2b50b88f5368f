"""A copy of a repository that was taken while others wrote to it, with `cp -r` or `rsync`.

Its newest roots may list packs that had not come yet, or were gone again, when packs were copied.
Such a copy opens at the newest root of which everything is here. Nothing is written to it before
`copiedrepair` has made one whole root of all that came, with a number behind all others.
Whether a folder is a copy is known by its `format` file: that file's number and time of change are
noted down in a hint, and no copy has the same.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.backend.local import LocalBackend
from cas.errors import CasError
from cas.repo import root as roots
from cas.repo.layout import FORMAT
from cas.repo.root import Root
from cas.store.pack import PackInfo

if TYPE_CHECKING:
    from cas.repo.repo import Repo

HINT: Final = "place"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A root of which not everything is here."""

    seq: int
    why: str

    def __str__(self) -> str:
        return f"root {self.seq} ({self.why})"


def is_home(repo: "Repo") -> bool:
    """Say whether this folder was found whole before, and is still the one that it was then."""
    noted = repo.backend.read_hint(HINT)
    return noted is not None and noted == _mark(repo)


def settle_in(repo: "Repo") -> None:
    """Note down that this folder is whole."""
    repo.backend.write_hint(HINT, _mark(repo))


def _mark(repo: "Repo") -> str:
    try:
        state = repo.ops.stat(os.fspath(repo.path / FORMAT))
    except OSError:
        return ""
    return f"{state.st_ino} {state.st_ctime_ns}"


def newest_whole(backend: LocalBackend) -> tuple[Root | None, list[Skipped]]:
    """Return the newest root that is here with all of its packs, and those that are not.

    None when there is no such root: that is no copy of a repository, but a damaged one.
    """
    is_here = present(backend)
    skipped: list[Skipped] = []
    for seq in sorted(roots.numbers(backend), reverse=True):
        try:
            root = roots.read(backend, seq)
        except CasError as error:
            skipped.append(Skipped(seq, str(error)))
            continue
        missing = next((info for info in root.packs if not is_here(info)), None)
        if missing is None:
            return root, skipped
        skipped.append(Skipped(seq, f"{missing.key} is not here whole"))
    return None, []


def present(backend: LocalBackend) -> Callable[[PackInfo], bool]:
    """Return what says whether a pack is here as its root says; each is looked at once."""
    known: dict[PackInfo, bool] = {}

    def is_here(info: PackInfo) -> bool:
        # Of files that are as long as they should be nothing is doubted here: damage is no reason
        # to go back to an older root.
        if info not in known:
            known[info] = backend.size(info.key) == info.length
        return known[info]

    return is_here
