"""The group `cas`: global options, and a command's module only when it is asked for."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from cas import __version__
from cas.errors import NotFoundError

from . import exits
from .session import Session, pass_session

# Every command with its help line, so that `cas --help` imports none of them. A command stands in
# the module of its own name.
SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Record": {
        "init": "Make a new repository.",
        "run": "Run COMMAND and track it: its code, arguments, output, results.",
        "commit": "Commit files and directories.",
        "tag": "Give a commit a fixed name, or list and delete such names.",
        "label": "Label a run, or list labels.",
        "note": "Note something about a run, or show its notes.",
    },
    "Look": {
        "log": "List the runs, or the history of a revision.",
        "show": "Show all that a commit says.",
        "metrics": "Show the metrics of a run, write them to a file, or make a run of one.",
        "diff": "Compare two revisions by meaning.",
        "ls": "List what a revision holds.",
        "cat": "Write a file of a revision to standard output.",
        "whence": "Say which commits a file belongs to.",
        "why": "Say what keeps something, or that nothing does.",
        "du": "Show what the repository takes, or what REV takes, and of what.",
        "status": "Show where the repository is and how it does.",
        "reflog": "List the operations: who did what when, and which refs moved.",
    },
    "Get back": {
        "checkout": "Write a revision's files into a directory.",
        "export": "Write the whole record of REV as one document.",
        "reproduce": "Run REV again from its hash alone and say whether it came out the same.",
    },
    "Keep in order": {
        "undo": "Take back an operation.",
        "archive": "Hide runs from the lists that show all of them.",
        "rm": "Remove runs, with their checkpoints.",
        "prune": "Let go of checkpoints by a policy.",
        "gc": "Delete what nothing keeps any more.",
        "repack": "Store weights by what changed in them.",
        "fsck": "Check every promise that the format makes.",
        "recover": "Commit runs whose process is gone, as crashed.",
        "config": "Show or change settings.",
    },
}
COMMANDS: Final = {name: line for part in SECTIONS.values() for name, line in part.items()}

REVISIONS: Final = (
    "A revision is a full or unique short hash; a name such as `main`, EXPERIMENT/RUN or a tag; "
    "EXPERIMENT@latest, @best, @min=METRIC or @max=METRIC, also after EXPERIMENT/RUN; then ~N goes "
    "back along `previous` and ^ROLE along a role. REV:PATH names something in it."
)


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with this name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{cmd_name}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called, or say which ones have a name like it."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f": did you mean `cas {near[0]}`?" if near else ""
            ctx.fail(f"no command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how to name a revision, and what the exit codes mean."""
        with formatter.section("Revisions"):
            formatter.write_text(REVISIONS)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in exits.MEANINGS])


def _enter(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:
    """Go to each folder in turn, as git does."""
    for folder in value:
        if not folder:
            continue
        try:
            os.chdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("folder", folder) from None
    return value


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-C",
    "folder",
    metavar="DIR",
    multiple=True,
    is_eager=True,
    callback=_enter,
    expose_value=False,
    help="Work as if started in DIR.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell what is done.")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
@click.version_option(__version__, message="cas %(version)s")
@pass_session
def group(session: Session, verbose: bool, debug: bool) -> None:
    """Git for machine-learning runs: store, compare and repeat them, by hash."""
    session.verbose = verbose
    session.debug = debug
    try:
        session.folder = Path.cwd()
    except FileNotFoundError:
        raise NotFoundError("folder", ".", "it was deleted: go to another one") from None
