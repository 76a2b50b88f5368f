"""The code that a run executes, as it lies in the working tree.

With git: what is tracked, and what is neither tracked nor ignored, with uncommitted changes;
without: the folder of the entry point. Nothing is written into the user's git, not even its index,
and nothing here fails a run: what could not be had is told in `problems`.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cas.errors import NotFoundError
from cas.tracking.captured import gitstate
from cas.tracking.captured.gitprogram import Git
from cas.tracking.captured.gitstate import GitState
from cas.tracking.captured.installed import tried
from cas.tracking.privacy.redaction import in_force
from cas.tracking.privacy.secretfiles import is_secret_file
from cas.tracking.privacy.secrets import Taken, find, scrub_file, scrub_text, valid_text

FILE: Final = "file"
LINK: Final = "link"
# Where there is no git to say what belongs to a project, a file is code by its ending.
_CODE: Final = (
    "py pyi pyx pxd ipynb sh bash r jl c h cc cpp hpp cu cuh rs go js ts sql proto lua m java"
)
_TEXT: Final = "toml cfg ini yaml yml json txt md rst gin"
CODE: Final = frozenset(f".{ending}" for ending in _CODE.split())
TEXT: Final = frozenset(f".{ending}" for ending in _TEXT.split())
NAMES: Final = frozenset({"makefile", "dockerfile", "pipfile", "snakefile", "justfile"})
SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
MAX_FILE: Final = 10 * 1024 * 1024
MAX_LISTED: Final = 1000
SECRET_NAME: Final = "a secret stands in its name, or in where it leads"
_METADATA: Final = frozenset({b".git", b".cas"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What is captured at most; what goes beyond is left out and listed."""

    file_bytes: int = MAX_FILE
    files: int = 20_000
    total_bytes: int = 100 * 1024 * 1024
    visited: int = 100_000
    # These two hold where there is no git.
    code_bytes: int = 1024 * 1024
    text_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One captured file or link; `path` is relative to the top, with `/`."""

    path: bytes
    absolute: str | Path  # as text for most: thousands of paths take a while to make
    kind: str
    mode: int
    size: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that was not captured, and why; the last may stand for all further ones."""

    path: bytes
    reason: str
    size: int | None = None

    def __str__(self) -> str:
        name = scrub_text(valid_text(os.fsdecode(self.path)))[0]
        size = "" if self.size is None else f" ({self.size} bytes)"
        return f"{name}{size}: {self.reason}" if name else self.reason


@dataclass(frozen=True, slots=True)
class Source:
    """The captured code; `info` holds nothing of the host, so that it can be compared."""

    top: Path
    cwd: str | None
    files: tuple[SourceFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def without_git(self) -> "Source":
        """Return the same without what git says of it."""
        kept = {key: value for key, value in self.info.items() if key not in {"git", "submodules"}}
        return replace(self, info=kept)

    def without(self, places: Iterable[Path]) -> "Source":
        """Return the same without the files at and below these places."""
        top = os.path.realpath(self.top)
        gone = [os.fsencode(os.path.relpath(os.path.realpath(place), top)) for place in places]
        below = tuple(path + b"/" for path in gone)
        kept = [it for it in self.files if it.path not in gone and not it.path.startswith(below)]
        return replace(self, files=tuple(kept))


def capture_source(
    entry: Path | None, cwd: Path, *, program: bool = False, limits: Limits | None = None
) -> Source:
    """Return the code around the entry point, or around `cwd` when that is nobody's project.

    With `program` it is one that the user started in its folder, whether or not it is a file there.
    """
    limits = limits or Limits()
    try:
        return _capture(_own(entry), Path(os.path.abspath(cwd)), limits, program=program)
    except (OSError, ValueError) as error:
        return Source(cwd, ".", problems=(f"the code could not be captured: {error}",))


def read_source(file: SourceFile, *, limit: int = MAX_FILE) -> bytes:
    """Return a captured file's bytes without secrets, or a link's target; raise NotFoundError.

    A file that has grown since is read up to `limit` bytes.
    """
    return read_clean(file, limit=limit)[0]


def read_clean(file: SourceFile, *, limit: int = MAX_FILE) -> tuple[bytes, list[Taken]]:
    """Return the same, and the secrets that were taken out."""
    try:
        if file.kind == LINK:
            return os.readlink(os.fsencode(file.absolute)), []
        with open(file.absolute, "rb") as content:
            return scrub_file(content.read(limit))
    except OSError as error:
        raise NotFoundError("source file", str(file.absolute), error.strerror or "") from error


def _capture(entry: Path | None, cwd: Path, limits: Limits, *, program: bool) -> Source:
    places = dict.fromkeys([entry.parent, cwd] if entry else [cwd])
    problems: list[str] = []
    known: dict[str, Any] = {}
    git = Git()
    for place in places:
        state = gitstate.read(place, git)
        problems.extend(state.problems)
        known = known or state.info
        if state.top is not None:
            source = _from_git(state, state.top, limits)
            return _completed(source, entry, cwd, problems)
    if entry is None and program:
        return _completed(_from_folder(cwd, None, limits, known), None, cwd, problems)
    if entry is None:
        problems.append("no script and no git repository: no code was captured")
        return _completed(Source(cwd, "."), None, cwd, problems)
    return _completed(_from_folder(entry.parent, entry, limits, known), entry, cwd, problems)


def _from_git(state: GitState, top: Path, limits: Limits) -> Source:
    nested = [LeftOut(path, "a repository of its own") for path in state.nested]
    nested += [LeftOut(path, "a submodule whose files are not there") for path in state.empty]
    paths, cut = _bounded(state.paths, limits)
    files, left_out = _select(_described(top, paths), limits)
    info = {"git": state.info, "submodules": state.submodules}
    return Source(top, None, files, _listed([*nested, *left_out, *cut]), info)


def _from_folder(folder: Path, entry: Path | None, limits: Limits, git: dict[str, Any]) -> Source:
    """Return the code of a folder, with what is known of git although it could not be asked."""
    paths, cut = _bounded(list(_walk(folder, limits.visited)), limits)
    own = None if entry is None else str(entry)
    chosen = [
        file
        for file in _described(folder, paths)
        if file.absolute == own or _is_code(file.path, file.size, limits)
    ]
    files, left_out = _select(chosen, limits)
    return Source(folder, None, files, _listed([*left_out, *cut]), {"git": git})


def _bounded(paths: Sequence[bytes], limits: Limits) -> tuple[Sequence[bytes], list[LeftOut]]:
    """Return the paths that are looked at, code first, and what stands for the others."""
    if len(paths) <= limits.visited:
        return paths, []
    first = sorted(paths, key=lambda path: (_ending(path) not in CODE, path))
    rest = LeftOut(b"", f"what lies beyond {limits.visited} files was not looked at")
    return first[: limits.visited], [rest]


def _completed(source: Source, entry: Path | None, cwd: Path, problems: list[str]) -> Source:
    """Add where the entry point and the current folder lie in the tree, if they do."""
    info = {key: value for key, value in source.info.items() if value}
    # The entry itself may be a link in the tree, the folders above it lead there.
    inside = _relative(entry.parent, source.top, entry.name) if entry else None
    if inside is not None:
        info["entry"] = inside
    place = _relative(cwd, source.top)
    if place is not None:
        info["cwd"] = place
    return replace(source, info=info, cwd=place, problems=tuple(problems))


def _select(
    files: Iterable[SourceFile], limits: Limits
) -> tuple[tuple[SourceFile, ...], list[LeftOut]]:
    """Part files into those to capture and those that a limit or a secret leaves out."""
    chosen: list[SourceFile] = []
    left_out: list[LeftOut] = []
    room = limits.total_bytes
    files = list(files)
    telling = _telling(files)
    # Code first: when the room ends, it is data that is left out.
    for file in sorted(files, key=lambda file: (_ending(file.path) not in CODE, file.path)):
        reason = SECRET_NAME if file.path in telling else ""
        reason = reason or _reason(file, len(chosen), room, limits)
        if reason:
            left_out.append(LeftOut(file.path, reason, file.size))
        else:
            chosen.append(file)
            room -= file.size
    chosen.sort(key=lambda file: file.path)
    return tuple(chosen), left_out


def _telling(files: Sequence[SourceFile]) -> frozenset[bytes]:
    """Return the paths of files that have a secret in their names, and of links that lead to one.

    A name cannot be changed without changing the code, so that these are left out.
    """
    rules = replace(in_force(), pii=())  # a folder may be called like a person
    names = {file.path: os.fsdecode(file.path) for file in files}
    for file in files:
        if file.kind == LINK:
            names[file.path] += f"\n{tried(lambda at=file.absolute: os.readlink(at)) or ''}"  # type: ignore[misc]
    if not find("\n".join(names.values()), rules):  # one look costs little
        return frozenset()
    return frozenset(path for path, name in names.items() if find(name, rules))


def _reason(file: SourceFile, count: int, room: int, limits: Limits) -> str:
    if is_secret_file(os.fsdecode(file.path)):
        return "named like a file of secrets"
    if file.size > limits.file_bytes:
        return f"larger than {limits.file_bytes} bytes"
    if count >= limits.files:
        return f"more than {limits.files} files"
    if file.size > room:
        return f"more than {limits.total_bytes} bytes in all"
    return ""


def _described(top: Path, paths: Iterable[bytes]) -> Iterator[SourceFile]:
    """Yield what is a file or link now; what was deleted since is not part of the state."""
    root = os.fsencode(top)
    for path in paths:
        if not _METADATA.isdisjoint(path.split(b"/")):
            continue
        absolute = os.path.join(root, path)
        try:
            status = os.lstat(absolute)
        except OSError:
            continue
        place = os.fsdecode(absolute)
        if stat.S_ISREG(status.st_mode):
            # As git does: the other bits are the umask's, and differ between equal runs.
            mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            yield SourceFile(path, place, FILE, mode, status.st_size)
        elif stat.S_ISLNK(status.st_mode):
            yield SourceFile(path, place, LINK, 0, status.st_size)


def _walk(folder: Path, most: int) -> Iterator[bytes]:
    """Yield up to `most` + 1 paths below a folder, and of a home or root folder only its own."""
    # A user without a name has no home, and a system may have no place for temporary files.
    homes = {tried(Path.home), tried(lambda: Path(tempfile.gettempdir())), Path(folder.anchor)}
    deep = folder not in homes
    root = os.fsencode(folder)
    count = 0
    for current, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if deep and _is_walked(current, name))
        for name in sorted(files):
            yield os.path.relpath(os.path.join(current, name), root)
            count += 1
            if count > most:
                return


def _is_walked(current: bytes, name: bytes) -> bool:
    if name.startswith(b".") or os.fsdecode(name) in SKIPPED:
        return False
    place = os.path.join(current, name)
    return not any(os.path.exists(os.path.join(place, mark)) for mark in (b"pyvenv.cfg", b".git"))


def _is_code(path: bytes, size: int, limits: Limits) -> bool:
    ending = _ending(path)
    if ending in CODE:
        return size <= limits.code_bytes
    plain = ending in TEXT or os.path.basename(path).decode("utf-8", "replace").lower() in NAMES
    return plain and size <= limits.text_bytes


def _ending(path: bytes) -> str:
    return os.path.splitext(path)[1].decode("utf-8", "replace").lower()


def _listed(left_out: list[LeftOut]) -> tuple[LeftOut, ...]:
    """Return the list in order, cut where nobody would read on."""
    listed = sorted(left_out, key=lambda item: item.path)
    if len(listed) > MAX_LISTED:
        more = len(listed) - MAX_LISTED
        listed = [*listed[:MAX_LISTED], LeftOut(b"", f"and {more} more")]
    return tuple(listed)


def _own(entry: Path | None) -> Path | None:
    """Return the entry point unless it is an installed program, as `torchrun` or `pytest`."""
    if entry is None or not SKIPPED.isdisjoint(entry.parts):
        return None
    entry = Path(os.path.abspath(entry))
    for prefix in {sys.prefix, sys.base_prefix, "/usr/local"}:
        for folder in ("bin", "lib", "lib64", "Scripts"):
            if entry.is_relative_to(Path(prefix, folder)):
                return None
    return entry


def _relative(folder: Path, top: Path, name: str = "") -> str | None:
    real = Path(os.path.realpath(folder))
    root = Path(os.path.realpath(top))
    if not real.is_relative_to(root):
        return None
    return valid_text(scrub_text((real.relative_to(root) / name).as_posix())[0])
