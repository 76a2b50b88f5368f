"""Commands whose every file operation fails once, or fails from then on, and what must hold."""

import errno
import gc as memory
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from click import ClickException

from cas.backend.files import FileOps
from cas.cli.main import _invoke
from cas.cli.session import Session
from cas.errors import CasError, OutcomeUnknownError
from cas.repo.check import fsck
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from tests.support.builders import Clock, RunBuilder, commit_files, noise, repository, set_ref
from tests.support.drift import drift_run
from tests.support.faulty import NAMES, SHORT, Fault, FaultyOps, RecordingOps, everywhere

OPENS = frozenset({"open_new", "open_read", "open_direct", "fsync_dir", "scandir"})
READS = frozenset({"open_read", "open_direct", "pread", "pread_into", "scandir", "stat", "fstat"})
GROWS = frozenset({"open_new", "write", "fsync", "link", "rename", "mkdir"})
ANY = NAMES | OPENS | READS | {"write", "truncate", "fsync", "close", "lock", "chmod", "chown"}
# Where each error may come from; EINTR as where Python cannot try again by itself.
ERRORS: dict[int | str, frozenset[str]] = {
    errno.EIO: ANY,
    errno.ENOSPC: GROWS,
    errno.EDQUOT: GROWS,
    errno.EMFILE: OPENS,
    errno.EACCES: NAMES | OPENS | {"stat", "chmod", "chown"},
    errno.EROFS: NAMES | {"truncate", "chmod", "chown"},
    errno.EINTR: ANY - {"close", "lock"},
    SHORT: frozenset({"pread", "pread_into", "write"}),
}
PROJECT = "project"
Shape = tuple[tuple[str, ...], int, object]


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that a user does in a project; with `parts`, in more than one transaction."""

    run: Callable[[], object]
    parts: bool = False
    empty: bool = False  # in a project without a repository


def cas(*words: str) -> Callable[[], object]:
    """Return what runs a command line, and raises what it would tell."""
    return lambda: _invoke(list(words), Session())


COMMANDS = {
    "init": Command(cas("init"), empty=True),
    "commit": Command(cas("commit", "a.txt", "sub", "-m", "more")),
    "tag": Command(cas("tag", "kept", "HEAD")),
    "untag": Command(cas("tag", "-d", "old")),
    "config": Command(cas("config", "author", "Ada")),
    "prune": Command(cas("prune", "--keep-last", "1", "--yes")),
    "gc": Command(cas("gc"), parts=True),
    "repack": Command(cas("repack"), parts=True),
    "undo": Command(cas("undo", "--yes")),
    "rm": Command(cas("rm", "exp/one", "--yes")),
    "archive": Command(cas("archive", "exp/one")),
    "repair": Command(cas("fsck", "--repair"), parts=True),
    "why": Command(cas("why", "HEAD:a.txt")),
    "reflog": Command(cas("reflog")),
    "fsck": Command(cas("fsck", "--full")),
    "log": Command(cas("log")),
    "du": Command(cas("du")),
    "checkout": Command(cas("checkout", "HEAD", "--to", "out")),
}
READING = frozenset({"fsck", "repair", "why", "reflog", "log", "du", "checkout"})


def origin(folder: Path) -> Path:
    """Make a project that has everything that the commands deal with."""
    project = folder / PROJECT
    project.mkdir(parents=True)
    repo = repository(project)
    commit_files(repo, {"a.txt": b"first", "sub": {"b": noise(1, 70_000)}})
    commit_files(repo, {"a.txt": b"first", "gone": noise(2, 70_000)}, ref="tags/old")
    commit_files(repo, {"gone": noise(3, 90_000), "sub": {"b": noise(1, 70_000)}}, ref="tags/gone")
    set_ref(repo, "tags/gone", None)
    drift_run(repo, "exp/drift", steps=3, size=9000)
    run = RunBuilder(repo, "exp/one")
    for step in range(3):
        run.checkpoint(step, {"w": noise(10 + step, 2000)}, value=float(step))
    run.finish()
    set_ref(repo, f"{HOLDS}{run.ids[0]}", None)
    repo.backend.close()
    with chdir(project):
        cas("tag", "undone", "HEAD")()
    (project / "a.txt").write_bytes(b"second")
    (project / "sub").mkdir()
    (project / "sub" / "b").write_bytes(noise(4, 70_000))
    return project


def shape(project: Path) -> Shape | None:
    """Return what tells whether a command took place: names, holds, settings."""
    if not (project / ".cas" / "format").exists():
        return None
    repo = Repo.open(project / ".cas", who="ada", clock=Clock())
    refs = repo.refresh().refs
    names = tuple(sorted(name for name in refs if not name.startswith(HOLDS)))
    main = repo.commit(refs["heads/main"]).message if "heads/main" in refs else None
    config = project / ".cas" / "config.json"
    settings = config.read_bytes() if config.exists() else b""
    repo.backend.close()
    return names, len(refs) - len(names), (main, settings)


def files(project: Path) -> dict[str, bytes]:
    """Return the user's files."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and ".cas" not in path.parts and "out" not in path.parts
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command under a fault."""

    error: BaseException | None
    happened: list[tuple[str, str]]
    calls: list[tuple[str, str]]


class Place:
    """A copy of a project that is made anew for each command."""

    def __init__(self, origin: Path, folder: Path) -> None:
        self._origin = origin
        self.project = folder / PROJECT

    def attempt(self, command: Command, ops: FileOps) -> BaseException | None:
        """Run a command in a fresh copy; return what it raised."""
        shutil.rmtree(self.project, ignore_errors=True)
        shutil.copytree(self._origin, self.project)
        if command.empty:
            shutil.rmtree(self.project / ".cas")
        with chdir(self.project), everywhere(ops):
            try:
                command.run()
            except (Exception, SystemExit) as error:
                return _light(error)
        return None

    def sites(self, command: Command) -> list[str]:
        """Return the operations of a command, in order."""
        ops = RecordingOps()
        error = self.attempt(command, ops)
        assert error is None, error
        return [name for name, _ in ops.calls]


def faults(sites: list[str]) -> Iterator[Fault]:
    """Yield each way in which each operation may fail, once and from then on."""
    for kind, where in ERRORS.items():
        for at, name in enumerate(sites, 1):
            if name in where:
                yield Fault(at, kind)
                yield Fault(at, kind, onwards=True)


class Masked(FaultyOps):
    """File operations of which only those fail from then on that may fail so."""

    def _due(self, operation: str) -> Fault | None:
        fault = super()._due(operation)
        if fault is None or isinstance(fault.raises, type):
            return fault
        return fault if operation in ERRORS[fault.raises] else None


def check(place: Place, command: Command, fault: Fault, wanted: Shape | None) -> str:
    """Let a command meet a fault; insist on success or a typed error, and on whole data.

    Returns what came of it in a word.
    """
    before = shape(place._origin) if not command.empty else None
    ops = Masked(fault)
    open_before = _open_files()
    error = place.attempt(command, ops)
    said = f"{fault} at {ops.happened[:1]}: {error!r}"
    if _open_files() - open_before:
        memory.collect()  # what is in a cycle is closed with it
    assert not _open_files() - open_before, f"left open after {said}: {ops.opened}"
    assert files(place.project) == files(place._origin), f"the user's files after {said}"
    after = shape(place.project)
    # The kernel may do half of what it is asked for at any time, and then has not failed.
    assert fault.raises != SHORT or fault.onwards or error is None, said
    if error is None:
        assert after == wanted, f"success without effect: {said}"
    else:
        assert isinstance(error, CasError | ClickException), f"untyped: {said}"
        told = isinstance(error, OutcomeUnknownError)
        allowed = [before, wanted] if told or command.parts else [before]
        assert after in allowed, f"not told that it took place: {said}"
    if after is not None:
        sound(place.project / ".cas", said)
    return "success" if error is None else type(error).__name__


def sound(path: Path, said: str) -> None:
    """Insist on a whole repository in which the next commands work."""
    repo = Repo.open(path, who="ada", clock=Clock())
    troubles = [found for found in fsck.check(repo, full=True) if found.severity != fsck.INFO]
    assert not troubles, f"{troubles} after {said}"
    commit_files(repo, {"next": b"next"}, ref="tags/next")
    repo.backend.close()


def _light(error: BaseException) -> BaseException:
    """Return an error that holds on to nothing that was open when it came."""
    chain, seen = [error], set[int]()
    while chain:
        one = chain.pop()
        one.__traceback__ = None
        seen.add(id(one))
        chain += [e for e in (one.__cause__, one.__context__) if e and id(e) not in seen]
    return error


def _open_files() -> Counter[str]:
    """Return the files below the project that this process holds open."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if PROJECT in path:
            found[path] += 1
    return found
