"""Where the repository of a folder is.

Beside git it is the folder `cas` inside git's common directory: work trees share it, and neither
`git clean -fdx` nor `git stash -a` can touch it. Elsewhere it is `.cas/`. Found by walking up, by
reading git's own small pointer files; git itself is not run.
Format: docs/format/layout.md.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from cas.errors import NoRepositoryError
from cas.repo.layout import FORMAT, ROOTS

FOLDER = ".cas"
IN_GIT = "cas"
MAX_POINTER: Final = 64 * 1024  # of one of git's pointer files
# File systems that only one kernel has mounted at a time, so that its locks are all there are.
LOCAL: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "tmpfs", "overlay"}
)


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
        pointer = _line(dot)
        if not pointer.startswith("gitdir: "):
            return None
        git = (folder / pointer.removeprefix("gitdir: ")).resolve()
        shared = git / "commondir"
        common = (git / _line(shared)).resolve() if shared.is_file() else git
        return common if (common / "HEAD").exists() else None
    except (OSError, ValueError, RuntimeError):  # it cannot be read, or leads nowhere
        return None


def is_local(path: Path) -> bool:
    """Say whether a folder is known to be on a file system that no other host can have mounted."""
    with suppress(OSError, ValueError):
        raw = os.fsencode(os.path.realpath(path))
        best, kind = b"", ""
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            fields = line.split()
            at = fields[4].decode("unicode_escape").encode("latin-1")  # spaces stand as \040
            inside = raw == at or raw.startswith(at.rstrip(b"/") + b"/")
            if inside and len(at) >= len(best):  # of two at one place the later one is seen
                best, kind = at, fields[fields.index(b"-") + 1].decode()
        return kind in LOCAL
    return False


def _line(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_POINTER).decode().strip()


def _candidates(folder: Path) -> list[Path]:
    common = git_common(folder)
    beside = [] if common is None else [common / IN_GIT]
    return [folder / FOLDER, *beside]
