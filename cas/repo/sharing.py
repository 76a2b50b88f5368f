"""A repository that a group writes to: what is there, and all that comes.

Whatever is made in a repository takes group and mode from its folder, whatever the umask says. So
sharing is to open that one folder to its group, and what is below it already.
Format: docs/format/layout.md.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE, S_IRWXU, S_ISDIR, S_ISGID, S_IXGRP, S_IXOTH
from typing import Final

from cas.backend.files import OPS, FileOps, while_writing
from cas.backend.local import create_local

TO_GROUP: Final = 3  # how far the bits of a file's owner are from its group's


@dataclass(frozen=True, slots=True)
class Shared:
    """What was shared: the group, what belongs to others, and a folder above that is closed."""

    group: int
    others: tuple[str, ...]
    closed: Path | None


def share(path: Path, *, ops: FileOps = OPS) -> Shared:
    """Open a repository's folder to its group, which is made where it is missing.

    Files of other users stay as they are and are returned: only their owners can share them.
    """
    create_local(path, ops=ops).close()
    top = os.fspath(path.absolute())
    try:
        group = ops.stat(top).st_gid
        others = tuple(_open_below(ops, top, group))
        if not _open(ops, top, group):
            others = (top, *others)
    except OSError as error:
        raise while_writing(error, top) from error
    return Shared(group, others, _closed_above(ops, path.absolute()))


def _open_below(ops: FileOps, folder: str, group: int) -> list[str]:
    """Open all that is below a folder; return what could not be."""
    others = []
    for entry in sorted(ops.scandir(folder), key=lambda entry: entry.name):
        if entry.is_symlink():
            continue
        try:
            if entry.is_dir():
                others += _open_below(ops, entry.path, group)
            if not _open(ops, entry.path, group):
                others.append(entry.path)
        except FileNotFoundError:
            continue  # a file on its way to its name
    return others


def _open(ops: FileOps, path: str, group: int) -> bool:
    """Give the group what the owner may do; say whether it has it now."""
    state = ops.stat(path)
    mode = S_IMODE(state.st_mode)
    wanted = mode | (mode & S_IRWXU) >> TO_GROUP
    if S_ISDIR(state.st_mode):
        wanted |= S_ISGID
    try:
        if state.st_gid != group:
            ops.chown(path, group)
        if wanted != mode:
            ops.chmod(path, wanted)
    except PermissionError:
        return False
    return True


def _closed_above(ops: FileOps, path: Path) -> Path | None:
    """Return the lowest folder above that neither a group nor everybody can pass through."""
    for folder in path.parents:
        if not ops.stat(os.fspath(folder)).st_mode & (S_IXGRP | S_IXOTH):
            return folder
    return None
