"""What git says of a working tree and its submodules: commit, branch, and which files it has."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cas.tracking.captured.gitfiles import git_folder, head
from cas.tracking.captured.gitprogram import Git, text_of
from cas.tracking.captured.installed import tried
from cas.tracking.privacy.secrets import scrub_text, scrub_url

MAX_TAGS: Final = 100
MAX_SUBMODULES: Final = 200
_STATUS: Final = (
    *("--porcelain=v2", "--branch", "--no-ahead-behind", "-z"),
    *("--untracked-files=all", "--no-renames", "--ignore-submodules=none"),
)
_SUBMODULE: Final = b"160000"
# The kinds of changes, and how many fields stand before the path.
_CHANGES: Final = {b"1": 7, b"2": 8, b"u": 9}


@dataclass(frozen=True, slots=True)
class GitState:
    """A working tree as git sees it; `top` is None where there is none, or git cannot be asked.

    `paths` has the files of submodules too, `empty` the submodules whose files are not there.
    """

    top: Path | None = None
    paths: tuple[bytes, ...] = ()
    nested: tuple[bytes, ...] = ()
    empty: tuple[bytes, ...] = ()
    submodules: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Status:
    """What `git status` told."""

    info: dict[str, Any] = field(default_factory=dict)
    untracked: list[bytes] = field(default_factory=list)
    deleted: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Submodules:
    """The submodules of a working tree, and theirs: what lies there, not what is committed."""

    paths: set[bytes] = field(default_factory=set)
    commits: dict[bytes, str] = field(default_factory=dict)
    nested: list[bytes] = field(default_factory=list)
    empty: list[bytes] = field(default_factory=list)


def read(place: Path, git: Git | None = None) -> GitState:
    """Return the state of the working tree that `place` lies in; `git` may have been asked before.

    Problems are those of this question alone.
    """
    git = git or Git()
    before = len(git.problems)
    answer = git.ask(place, "rev-parse", "--show-toplevel", "--is-shallow-repository")
    top, _, shallow = answer.removesuffix(b"\n").rpartition(b"\n")
    if not top:
        return GitState(info=_unasked(git, place), problems=tuple(git.problems[before:]))
    place = Path(os.fsdecode(top))
    status = _parsed(git.ask(place, "status", *_STATUS))
    if "commit" not in status.info:
        commit = git.ask(place, "rev-parse", "--quiet", "--verify", "HEAD", may_fail=True)
        status.info |= {"commit": text_of(commit.strip())} if commit else {}
    tracked, links = _tracked(git.ask(place, "ls-files", "-z", "--stage"))
    below = _submodules(git, place, links)
    if "dirty" not in status.info:  # it was not answered: only the files tell of a branch
        status.info |= _unasked(git, place)
    elif "commit" in status.info:
        status.info |= {} if "branch" in status.info else {"detached": True}
    if "commit" in status.info and (tags := _tags(git, place)):
        status.info["tags"] = tags
    status.info |= {"shallow": True} if shallow == b"true" else {}
    if remote := _remote(git, place, status.info.get("branch")):
        status.info["remote"] = remote
    nested = {path for path in status.untracked if path.endswith(b"/")}
    paths = (tracked | set(status.untracked)) - status.deleted - nested
    return GitState(
        top=place,
        paths=tuple(sorted(paths | below.paths)),
        nested=tuple(sorted([*nested, *below.nested])),
        empty=tuple(sorted(below.empty)),
        submodules={scrub_text(text_of(p))[0]: id for p, id in sorted(below.commits.items())},
        info=status.info,
        problems=tuple(git.problems[before:]),
    )


def _submodules(git: Git, top: Path, links: dict[bytes, str]) -> _Submodules:
    """Return the files of submodules, and the commit that each is at."""
    found = _Submodules()
    waiting = sorted(links.items())
    while waiting:
        path, commit = waiting.pop(0)
        place = Path(os.fsdecode(os.path.join(os.fsencode(top), path)))
        folder = git_folder(place) if (place / ".git").exists() else None
        # One behind a link is somebody else's.
        own = os.path.realpath(place) == os.path.join(os.path.realpath(top), os.fsdecode(path))
        if folder is None or not own or len(found.commits) >= MAX_SUBMODULES:
            found.commits[path] = commit
            found.empty.append(path)
            continue
        told = tried(lambda at=folder: head(at)) or {}  # type: ignore[misc]
        found.commits[path] = told.get("commit", commit)
        tracked, deeper = _tracked(git.ask(place, "ls-files", "-z", "--stage"))
        others = git.ask(place, "ls-files", "-z", "--others", "--exclude-standard").split(b"\0")
        for one in {*tracked, *others} - {b""}:
            within = b"%s/%s" % (path, one)
            if one.endswith(b"/"):
                found.nested.append(within)
            else:
                found.paths.add(within)
        waiting += [(b"%s/%s" % (path, one), id) for one, id in sorted(deeper.items())]
    return found


def _unasked(git: Git, place: Path) -> dict[str, Any]:
    """Return what git's files tell of a working tree for which git gives no answer."""
    if not git.problems:
        return {}
    try:
        folder = git_folder(place)
        return {} if folder is None else dict(head(folder))
    except (OSError, ValueError) as error:
        git.problems.append(f"git's files cannot be read: {error}")
        return {}


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
        info["commit"] = text_of(value)
    elif key == b"branch.head" and value != b"(detached)":
        info["branch"] = scrub_text(text_of(value))[0]


def _tracked(answer: bytes) -> tuple[set[bytes], dict[bytes, str]]:
    """Return the tracked paths, and the commit of each submodule."""
    paths: set[bytes] = set()
    submodules: dict[bytes, str] = {}
    for line in answer.split(b"\0"):
        about, tab, path = line.partition(b"\t")
        if about.startswith(_SUBMODULE):
            submodules[path] = text_of(about.split(b" ")[1])
        elif tab:
            paths.add(path)
    return paths, submodules


def _tags(git: Git, place: Path) -> list[str]:
    """Return the tags of the current commit, in order; a very long list is cut."""
    asked = ("for-each-ref", "--points-at=HEAD", "--format=%(refname:strip=2)", "refs/tags")
    names = git.ask(place, *asked, may_fail=True).splitlines()
    return [scrub_text(text_of(name))[0] for name in names[:MAX_TAGS]]


def _remote(git: Git, place: Path, branch: str | None) -> str | None:
    """Return the address of the branch's remote, of `origin`, or of the only one."""
    found: dict[str, str] = {}
    wanted = r"^(remote|branch)\..*\.(url|remote)$"
    asked = git.ask(place, "config", "-z", "--get-regexp", wanted, may_fail=True)
    for line in asked.split(b"\0"):
        key, _, value = line.partition(b"\n")
        found.setdefault(text_of(key), text_of(value))
    name = found.get(f"branch.{branch}.remote") or "origin"
    urls = [
        value for key, value in found.items() if key.startswith("remote.") and key.endswith(".url")
    ]
    url = found.get(f"remote.{name}.url") or (urls[0] if len(urls) == 1 else None)
    return scrub_url(url) if url else None
