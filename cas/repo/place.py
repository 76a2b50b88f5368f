"""Where the repository of a folder is.

Beside git it is the folder `cas` inside git's common directory: work trees share it, and neither
`git clean -fdx` nor `git stash -a` can touch it. Elsewhere it is `.cas/`. Found by walking up, by
reading git's own small pointer files; git itself is not run.
Format: docs/format/layout.md.
"""

import os
from pathlib import Path

from cas.errors import NoRepositoryError
from cas.repo.layout import FORMAT, ROOTS

FOLDER = ".cas"
IN_GIT = "cas"


def find(start: Path) -> Path:
    """Return the repository at or above `start`; raise NoRepositoryError."""
    start = start.absolute()
    for folder in (start, *start.parents):
        for candidate in _candidates(folder):
            # A folder that cannot be looked into is passed by.
            if os.path.isfile(candidate / FORMAT):
                return candidate
        # Inside a repository; any project may have a file called `format`.
        if os.path.isfile(folder / FORMAT) and os.path.isdir(folder / ROOTS):
            return folder
    raise NoRepositoryError(str(start))


def default(start: Path) -> Path:
    """Return where a new repository for `start` belongs: beside its git one, else right here."""
    start = start.absolute()
    for folder in (start, *start.parents):
        common = git_common(folder)
        if common is not None:
            return common / IN_GIT
    return start / FOLDER


def git_top(start: Path) -> Path | None:
    """Return the top of the git work tree that `start` is in."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if git_common(folder) is not None:
            return folder
    return None


def git_common(folder: Path) -> Path | None:
    """Return git's common directory when `folder` is the top of a git work tree."""
    dot = folder / ".git"
    try:
        if dot.is_dir():
            return dot if (dot / "HEAD").exists() else None
        if not dot.is_file():
            return None
        pointer = dot.read_text().strip()
        if not pointer.startswith("gitdir: "):
            return None
        git = (folder / pointer.removeprefix("gitdir: ")).resolve()
        shared = git / "commondir"
        common = (git / shared.read_text().strip()).resolve() if shared.is_file() else git
        return common if (common / "HEAD").exists() else None
    except (OSError, ValueError):  # it cannot be read, or does not hold a path
        return None


def _candidates(folder: Path) -> list[Path]:
    common = git_common(folder)
    beside = [] if common is None else [common / IN_GIT]
    return [folder / FOLDER, *beside]
