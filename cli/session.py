"""One command's session: the repository, the clock, the user, the terminal and the output.

The only place in cas that reads the clock, the environment and the terminal for a command.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cas.errors import CasError, NoRepositoryError, ReadOnlyError, StorageFullError
from cas.progress import SILENT, Progress

from .exits import printable

if TYPE_CHECKING:
    from cas.repo.repo import Repo


class Session:
    """What a command works with; everything is opened when it is first asked for."""

    def __init__(self) -> None:
        self.folder = Path()
        self.verbose = False
        self.debug = False
        self.json = False

    def clock(self) -> int:
        """Return microseconds since the epoch."""
        return time.time_ns() // 1000

    @cached_property
    def now(self) -> int:
        """The moment that this command takes as now, in microseconds since the epoch."""
        return self.clock()

    @cached_property
    def who(self) -> str:
        """The user at this host; a uid without an entry in the password file is fine."""
        return f"{_user()}@{os.uname().nodename}"

    @cached_property
    def place(self) -> Path:
        """The repository's folder: CAS_DIR, or found by walking up; raise NoRepositoryError."""
        from cas.repo.place import find

        given = os.environ.get("CAS_DIR", "")
        try:
            return find(Path.cwd() / given)
        except NoRepositoryError:
            if not given:
                raise
            raise NoRepositoryError(f"{printable(given)}, as CAS_DIR says,") from None

    @cached_property
    def new_place(self) -> Path:
        """The folder where a new repository belongs: CAS_DIR, beside git's, or `.cas` here."""
        from cas.repo.place import FOLDER, IN_GIT, default

        given = os.environ.get("CAS_DIR")
        if not given:
            return default(Path.cwd())
        path = Path.cwd() / given
        return path if path.name in {FOLDER, IN_GIT} else path / FOLDER

    @cached_property
    def repo(self) -> "Repo":
        """The repository, for reading."""
        from cas.repo.repo import Repo

        repo = Repo.open(self.place, who=self.who, clock=self.clock)
        repo.tell = lambda message: self.say(f"cas: warning: {message}")
        return repo

    def writing(self) -> "Repo":
        """Return the repository for a command that writes; lost runs of this host come first."""
        from cas.tracking.ends.recovery import recover_lost, said

        repo = self.repo
        try:
            for run in recover_lost(repo):
                self.say(f"cas: {said(repo, run)}")
        except (ReadOnlyError, StorageFullError):
            pass  # the command itself meets the same, and may be the one that frees space
        except CasError as error:
            self.say(f"cas: lost runs could not be recovered: {error}")
        return repo

    def writing_or_new(self) -> "Repo":
        """Return the repository for a command that may make one, and says so."""
        try:
            return self.writing()
        except NoRepositoryError:
            repo = self.create()
            self.say(f"cas: made a repository in {repo.path}")
            return repo

    def create(self) -> "Repo":
        """Make a new repository where one belongs."""
        from cas.repo.collect import reserve
        from cas.repo.repo import Repo

        return reserve.made(Repo.create(self.new_place, who=self.who, clock=self.clock))

    @cached_property
    def terminal(self) -> bool:
        """Whether results go to a terminal."""
        return sys.stdout.isatty()

    @cached_property
    def width(self) -> int | None:
        """How many columns a line of results may have; None where nobody counts."""
        try:
            return os.get_terminal_size(sys.stdout.fileno()).columns or None
        except (OSError, ValueError):  # no terminal, or no file at all
            return None

    @cached_property
    def colour(self) -> bool:
        """Whether results may have colours."""
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return self.terminal and not plain

    @cached_property
    def progress(self) -> Progress:
        """Where long operations report: standard error, if it is a terminal."""
        return TerminalProgress() if sys.stderr.isatty() else SILENT

    def confirm(self, question: str) -> bool:
        """Ask on a terminal; without one the answer is no."""
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        return click.confirm(question, err=True)

    def paint(self, text: str, **style: Any) -> str:
        """Return the text in colours where they are wanted."""
        return click.style(text, **style) if text and self.colour else text

    def say(self, text: str) -> None:
        """Tell the user something that is no result."""
        self._wipe()
        print(printable_lines(text), file=sys.stderr)

    def note(self, text: str) -> None:
        """Tell what is done, with -v only."""
        if self.verbose:
            self.say(text)

    def emit(
        self,
        value: object,
        lines: Iterable[str] | Callable[[], Iterable[str]],
        *,
        paged: bool = False,
    ) -> None:
        """Print a result: `value` with --json, else `lines`; `paged` where they may be many."""
        if self.json:
            self._dump(value)
            return
        drawn = lines() if callable(lines) else lines
        if paged and self.terminal:
            from .pager import page

            page(self._wiped(drawn))
            return
        for line in self._wiped(drawn):
            print(line)

    def _wiped(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._wipe()
            yield line

    def show(self, **values: object) -> None:
        """Print named values: one JSON object, or a line each."""
        from .render import facts

        self.emit(values, lambda: facts(values))

    def _wipe(self) -> None:
        """Take away a line of progress that would stand in front of what comes."""
        if "progress" in vars(self) and (shown := self.progress) is not SILENT:
            shown.finish()

    def _dump(self, value: object) -> None:
        import json

        from cas.plain import plain

        print(json.dumps(_finite(plain(value)), indent=2))


pass_session = click.make_pass_decorator(Session)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` to a command; the session then prints JSON."""

    def remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.ensure_object(Session).json = value

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=remember, help="Print JSON."
    )(command)


class TerminalProgress:
    """Progress as one line that is written over, at most ten times a second."""

    EVERY_S = 0.1
    IN_BYTES = frozenset({"read", "store files", "write files"})  # the others count things

    def __init__(self) -> None:
        self._what = ""
        self._total: int | None = None
        self._done = 0
        self._next = 0.0
        self._shown = False

    def start(self, what: str, total: int | None = None) -> None:
        """Begin an operation."""
        self._what, self._total, self._done, self._next = what, total, 0, 0.0

    def advance(self, units: int = 1) -> None:
        """Count, and write the line when it is due."""
        self._done += units
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.EVERY_S
            sys.stderr.write(f"\r\x1b[K{self._what}: {self._line()}")
            sys.stderr.flush()
            self._shown = True

    def _line(self) -> str:
        from .render import human_bytes

        told = human_bytes if self._what in self.IN_BYTES else "{:,}".format
        # More than was expected, as of a file that grows: the total would only be wrong.
        if self._total is None or self._done > self._total:
            return told(self._done)
        return f"{told(self._done)} of {told(self._total)}"

    def finish(self) -> None:
        """Wipe the line, if one was written."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def printable_lines(text: str) -> str:
    """Return text without control characters but for its line ends."""
    return "\n".join(map(printable, text.split("\n")))


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def _finite(value: Any) -> Any:
    """Return JSON data with the numbers that JSON does not know as text."""
    match value:
        case float():
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(str(value), value)
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
    return value
