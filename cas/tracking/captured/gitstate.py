"""What git says of a working tree; asks the program, and writes nothing.

No optional lock is taken, so that the index is not refreshed; no pager, prompt, monitor or lazy
fetch is started.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cas.tracking.captured.gitfiles import git_folder, head
from cas.tracking.privacy.secrets import scrub_text, scrub_url, valid_text

SECONDS: Final = 20
MAX_TAGS: Final = 100
_SETTINGS: Final = ("-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
_ENVIRONMENT: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}
_STATUS: Final = ("--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames")
_NO_WORK_TREE: Final = (b"not a git repository", b"must be run in a work tree")
_SUBMODULE: Final = b"160000"
# The kinds of changes, and how many fields stand before the path.
_CHANGES: Final = {b"1": 7, b"2": 8, b"u": 9}


@dataclass(frozen=True, slots=True)
class GitState:
    """A working tree as git sees it; `top` is None where there is none, or git cannot be asked."""

    top: Path | None = None
    paths: tuple[bytes, ...] = ()
    nested: tuple[bytes, ...] = ()
    submodules: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Status:
    """What `git status` told."""

    info: dict[str, Any] = field(default_factory=dict)
    untracked: list[bytes] = field(default_factory=list)
    deleted: set[bytes] = field(default_factory=set)


def read(place: Path) -> GitState:
    """Return the state of the working tree that `place` lies in."""
    git = _Git(place)
    answer = git.ask("rev-parse", "--show-toplevel", "--is-shallow-repository")
    top, _, shallow = answer.removesuffix(b"\n").rpartition(b"\n")
    if not top:
        return GitState(info=_unasked(git), problems=tuple(git.problems))
    git.place = Path(os.fsdecode(top))
    status = _parsed(git.ask("status", *_STATUS))
    if "commit" not in status.info:
        commit = git.ask("rev-parse", "--quiet", "--verify", "HEAD", may_fail=True)
        status.info |= {"commit": _text(commit.strip())} if commit else {}
    if "commit" in status.info:
        status.info |= {} if "branch" in status.info else {"detached": True}
        status.info |= {"tags": tags} if (tags := _tags(git)) else {}
    status.info |= {"shallow": True} if shallow == b"true" else {}
    if remote := _remote(git, status.info.get("branch")):
        status.info["remote"] = remote
    tracked, submodules = _tracked(git.ask("ls-files", "-z", "--stage"))
    nested = {path for path in status.untracked if path.endswith(b"/")}
    paths = (tracked | set(status.untracked)) - status.deleted - nested
    return GitState(
        top=git.place,
        paths=tuple(sorted(paths)),
        nested=tuple(sorted(nested)),
        submodules=submodules,
        info=status.info,
        problems=tuple(git.problems),
    )


def _unasked(git: "_Git") -> dict[str, Any]:
    """Return what git's files tell of a working tree for which git gives no answer."""
    if not git.problems:
        return {}
    try:
        folder = git_folder(git.place)
        return {} if folder is None else dict(head(folder))
    except (OSError, ValueError) as error:
        git.problems.append(f"git's files cannot be read: {error}")
        return {}


class _Git:
    """The program, asked in one place; what it does not answer is noted."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.problems: list[str] = []

    def ask(self, *arguments: str, may_fail: bool = False) -> bytes:
        """Return what git prints, nothing when it fails."""
        import subprocess

        try:
            answer = subprocess.run(
                ["git", *_SETTINGS, *arguments],
                cwd=self.place,
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.problems.append(f"git {arguments[0]} took more than {SECONDS} seconds")
            return b""
        except (OSError, ValueError) as error:
            if any((folder / ".git").exists() for folder in (self.place, *self.place.parents)):
                self.problems.append(f"git cannot be started: {error}")
            return b""
        if answer.returncode == 0:
            return answer.stdout
        if not may_fail and not any(text in answer.stderr for text in _NO_WORK_TREE):
            reason = _text(answer.stderr.strip()).splitlines()
            self.problems.append(f"git {arguments[0]} failed: {reason[0] if reason else '?'}")
        return b""


def _parsed(answer: bytes) -> _Status:
    """Read `git status --porcelain=v2 --branch -z`."""
    status = _Status()
    if not answer:
        return status
    status.info["dirty"] = False
    fields = iter(answer.split(b"\0"))
    for line in fields:
        kind, _, rest = line.partition(b" ")
        if kind == b"#":
            _header(rest, status.info)
        elif kind == b"?":
            status.untracked.append(rest)
        elif kind in _CHANGES:
            path = rest.split(b" ", _CHANGES[kind])[-1]
            if rest[1:2] == b"D":
                status.deleted.add(path)
            if kind == b"2":
                next(fields, None)  # the name before
        else:
            continue
        status.info["dirty"] |= kind != b"#"
    return status


def _header(text: bytes, info: dict[str, Any]) -> None:
    key, _, value = text.partition(b" ")
    # `(initial)` and `(detached)` are no commit and no branch.
    if key == b"branch.oid" and value != b"(initial)":
        info["commit"] = _text(value)
    elif key == b"branch.head" and value != b"(detached)":
        info["branch"] = scrub_text(_text(value))[0]


def _tracked(answer: bytes) -> tuple[set[bytes], dict[str, str]]:
    """Return the tracked paths, and the commit of each submodule."""
    paths: set[bytes] = set()
    submodules: dict[str, str] = {}
    for line in answer.split(b"\0"):
        about, tab, path = line.partition(b"\t")
        if about.startswith(_SUBMODULE):
            submodules[_text(path)] = _text(about.split(b" ")[1])
        elif tab:
            paths.add(path)
    return paths, submodules


def _tags(git: _Git) -> list[str]:
    """Return the tags of the current commit, in order; a very long list is cut."""
    names = git.ask("tag", "--points-at", "HEAD", may_fail=True).splitlines()
    return [scrub_text(_text(name))[0] for name in names[:MAX_TAGS]]


def _remote(git: _Git, branch: str | None) -> str | None:
    """Return the address of the branch's remote, of `origin`, or of the only one."""
    found: dict[str, str] = {}
    asked = git.ask(
        "config", "-z", "--get-regexp", r"^(remote|branch)\..*\.(url|remote)$", may_fail=True
    )
    for line in asked.split(b"\0"):
        key, _, value = line.partition(b"\n")
        found.setdefault(_text(key), _text(value))
    name = found.get(f"branch.{branch}.remote") or "origin"
    urls = [
        value for key, value in found.items() if key.startswith("remote.") and key.endswith(".url")
    ]
    url = found.get(f"remote.{name}.url") or (urls[0] if len(urls) == 1 else None)
    return scrub_url(url) if url else None


def _text(raw: bytes) -> str:
    return valid_text(os.fsdecode(raw))
