"""Recorded code in a folder of its own: where its command runs, and with which arguments."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cas.errors import NotFoundError, RefusedError
from cas.ids import CommitId
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.trees import checkout
from cas.tracking.captured.command import restart


@dataclass(frozen=True, slots=True)
class Input:
    """Data that goes back to where it stood, relative to the top of the code."""

    commit: CommitId
    at: str


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A folder that holds recorded code, and the command that was recorded with it.

    `entry` is the script's place in the code, None when it is not part of it. All that is written
    stays in `folder`, data included that stood above the top of the code.
    """

    folder: Path
    top: Path
    command: Mapping[str, Any]
    entry: str | None

    @classmethod
    def within(
        cls,
        folder: Path,
        command: Mapping[str, Any],
        *,
        entry: str | None,
        inputs: Sequence[Input],
        before: str,
    ) -> Self:
        """Choose the top so far down in a folder that what stood above it stays in the folder.

        It and the folders above it are called as they were `before`: a program may say their names.
        """
        places = [*(one.at for one in inputs), str(command.get("cwd") or ".")]
        depth = max(Path(os.path.normpath(place)).parts.count("..") for place in places)
        names = ["up"] * depth + ["code"]
        known = [name for name in Path(before).parts if name not in {os.sep, "..", "."}]
        names[max(len(names) - len(known), 0) :] = known[-len(names) :]
        return cls(folder, folder.joinpath(*names), command, entry)

    @property
    def cwd(self) -> Path:
        """The folder to run in."""
        return Path(os.path.normpath(self.top / str(self.command.get("cwd") or ".")))

    @property
    def shown(self) -> str:
        """The command, as a person would type it."""
        return shlex.join(self.argv("python"))

    def argv(self, python: str) -> list[str]:
        """Return the command's arguments, the script where it lies now."""
        argv = list(map(str, self.command["argv"]))
        program = self.command["kind"] == "command"
        place = self.command.get("script") if program else self._script()
        if isinstance(place, int) and 0 <= place < len(argv):
            argv[place] = self._moved(argv[place], python, called=program and place == 0)
        return argv if program else restart({**self.command, "argv": argv}, python)

    def _script(self) -> int | None:
        return 0 if self.command["kind"] == "script" else None

    def _moved(self, given: str, python: str, *, called: bool) -> str:
        if self.entry is None:
            # An installed program: the one of the interpreter that runs it now.
            beside = Path(python).parent / os.path.basename(given)
            return str(beside) if os.path.isabs(python) and beside.is_file() else given
        path = os.path.relpath(self.top / self.entry, self.cwd)
        # Without a folder it would be looked for on PATH.
        return os.path.join(".", path) if called and not os.path.dirname(path) else path


def rebuild(repo: Repo, place: Rebuilt, code: Entry, inputs: Iterable[Input]) -> Rebuilt:
    """Write the code and the inputs into an empty folder; raise NotFoundError or RefusedError."""
    place.top.mkdir(parents=True)
    checkout.execute(repo, checkout.plan(repo, code, place.top), force=True)
    for one in inputs:
        _place(repo, one, Path(os.path.normpath(place.top / one.at)), place.folder)
    _clear_way(place.cwd, place.folder)
    place.cwd.mkdir(parents=True, exist_ok=True)
    return place


def _place(repo: Repo, one: Input, target: Path, folder: Path) -> None:
    _clear_way(target, folder)
    commit = repo.commit(one.commit)
    entry = repo.lookup(commit.payload, b"data") if commit.payload else None
    if entry is None:
        raise NotFoundError("data of input", one.commit.short)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder's contents go into the target, a file goes there under its own name.
    into = target if entry.kind is EntryKind.TREE else target.parent
    named = replace(entry, name=os.fsencode(target.name))
    checkout.execute(repo, checkout.plan(repo, named, into), force=True)


def _clear_way(target: Path, folder: Path) -> None:
    """Take links of the recorded code out of the way: they may lead to the user's own files."""
    if not target.is_relative_to(folder):
        raise RefusedError(f"{target} does not stay inside the reproduction's folder")
    at = folder
    for part in target.relative_to(folder).parts:
        at /= part
        if at.is_symlink():
            at.unlink()
