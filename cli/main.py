"""`main`: the entry of the command `cas`, and the one place where errors become exit codes.

Nothing heavy is imported here: `cas --version` answers before click is.
"""

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from cas import __version__

if TYPE_CHECKING:
    from .session import Session

LONG = 300


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    _open_streams()
    sys.exit(run(sys.argv[1:]))


def _open_streams() -> None:
    """Let nothing that is opened later take the place of a standard stream that was closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: SIM115


def run(args: list[str], session: "Session | None" = None) -> int:
    """Run one command line; return its exit code. Errors become one line on standard error."""
    if args == ["--version"]:
        print(f"cas {__version__}")  # noqa: T201
        return 0
    from .session import Session

    session = session or Session()
    try:
        code = _invoke(args or ["--help"], session)
        sys.stdout.flush()
    except BrokenPipeError:
        return _give_up_output()
    except BaseException as error:
        return _report(error, session)
    return code


def _invoke(args: list[str], session: "Session") -> int:
    """Run the command; its own return value, if it is a number, is the exit code."""
    from click.exceptions import Exit

    from .group import group

    if "_CAS_COMPLETE" in os.environ:
        group.main(args, prog_name="cas")
    # A name that is not Unicode must not end a listing halfway.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with group.make_context("cas", args, obj=session) as context:
            result = group.invoke(context)
    except Exit as done:
        return done.exit_code
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _report(error: BaseException, session: "Session") -> int:
    """Tell of an error in one line; return the exit code."""
    if "progress" in vars(session):
        session.progress.finish()
    if session.debug:
        import traceback

        traceback.print_exception(error)
    message, code = _told(error)
    if message:
        try:
            print(f"cas: {' '.join(map(_word, message.split()))}", file=sys.stderr, flush=True)  # noqa: T201
        except BrokenPipeError:
            return _give_up_output()
    return code


def _word(word: str) -> str:
    """Return a word of a message; of one that nobody can read, both ends."""
    return word if len(word) <= LONG else f"{word[: LONG // 2]}…{word[-LONG // 2 :]}"


def _told(error: BaseException) -> tuple[str, int]:
    """Return what to tell of an error, nothing for some, and the exit code."""
    from click.exceptions import Abort, ClickException, UsageError

    from cas.errors import BackendError, CasError

    from . import exits

    message = exits.printable(error)
    match error:
        case CasError():
            message, code = f"{message}{exits.advice(error)}", exits.code_of(error)
        case KeyboardInterrupt() | Abort():
            message, code = "", exits.INTERRUPTED
        case UsageError(ctx=context):
            place = context.command_path if context else "cas"
            message = f"{error.format_message()} (`{place} --help` tells more)"
            code = error.exit_code
        case ClickException():
            message, code = error.format_message(), error.exit_code
        case OSError():
            told = exits.from_os(error)
            message, code = str(told), exits.code_of(told)
        case MemoryError():
            message, code = "out of memory", exits.code_of(BackendError(""))
        case SystemExit(code=int(code)):
            message = ""
        case _:
            message = f"internal error: {type(error).__name__}: {message}"
            message, code = f"{message}; run again with `cas --debug ...`", exits.INTERNAL
    return message, code


def _give_up_output() -> int:
    """Whoever read our output is gone: say nothing more, also not while Python ends."""
    from contextlib import suppress

    from .exits import BROKEN_PIPE

    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
