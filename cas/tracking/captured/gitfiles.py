"""Commit and branch of a working tree, read from git's files where git itself cannot be asked.

Without the program, or where it distrusts the owner of the files. Only small text files are read,
and nothing is believed but what looks like a commit's digest.
"""

import os
import re
from pathlib import Path
from typing import Final

from cas.tracking.privacy.secrets import scrub_text, valid_text

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCHES: Final = "refs/heads/"
MAX_FILE: Final = 16 * 1024 * 1024


def git_folder(place: Path) -> Path | None:
    """Return the metadata of the working tree that a folder lies in, None outside of one."""
    for folder in (place, *place.parents):
        found = folder / ".git"
        if found.is_dir():
            return found
        if found.is_file():
            told = _text(found).partition("gitdir:")[2].strip()  # a work tree, or a submodule
            return Path(os.path.normpath(folder / told)) if told else None
    return None


def head(git: Path) -> dict[str, str]:
    """Return `commit` and `branch` as far as git's files tell them; raise OSError."""
    told = _text(git / "HEAD").strip()
    ref = told.partition("ref:")[2].strip()
    found: dict[str, str] = {}
    if ref.startswith(_BRANCHES):
        found["branch"] = scrub_text(valid_text(ref.removeprefix(_BRANCHES)))[0]
    commit = _resolved(git, ref) if ref else told
    return {"commit": commit, **found} if _COMMIT.fullmatch(commit) else found


def _resolved(git: Path, ref: str) -> str:
    """Return what a ref points at: a file of its own, or a line among the packed ones."""
    shared = git / "commondir"
    common = Path(os.path.normpath(git / _text(shared).strip())) if shared.is_file() else git
    if ".." in ref.split("/"):
        return ""
    for folder in (git, common):
        if (folder / ref).is_file():
            return _text(folder / ref).strip()
    packed = common / "packed-refs"
    for line in _text(packed).splitlines() if packed.is_file() else ():
        commit, _, name = line.partition(" ")
        if name == ref:
            return commit
    return ""


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        return os.fsdecode(file.read(MAX_FILE))
