"""Write `docs/cli.md` from the help texts of the commands: `python docs/generate_cli.py`."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from cas.cli.exits import MEANINGS
from cas.cli.group import REVISIONS, SECTIONS, group

PAGE = Path(__file__).with_name("cli.md")
HEAD = """\
# Commands

Written by `docs/generate_cli.py` from the help texts; `cas COMMAND --help` says the same.

    cas [OPTIONS] COMMAND [ARGS]...
"""


def page() -> str:
    """Return the page as the commands are now."""
    context = click.Context(group, info_name="cas", help_option_names=["-h", "--help"])
    parts = [HEAD, *_table("option", _options(group, context))]
    for title, commands in SECTIONS.items():
        parts += [f"\n## {title}\n", *(part for name in commands for part in _command(name))]
    parts += ["\n## Revisions\n", REVISIONS]
    codes = [(f"{code}", meaning) for code, meaning in MEANINGS]
    parts += ["\n## Exit codes\n", *_table("code", codes)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)) + "\n"


def _command(name: str) -> Iterator[str]:
    command = group.get_command(click.Context(group, info_name="cas"), name)
    assert command is not None, name
    context = click.Context(command, info_name=f"cas {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"### cas {name}\n"
    yield f"    cas {name} {usage}\n"
    yield from (f"{' '.join(text.split())}\n" for text in _help(command).split("\n\n"))
    options = [row for row in _options(command, context) if not row[0].endswith("--help`")]
    if options:
        yield from _table("option", options)
        yield ""


def _help(command: click.Command) -> str:
    return (command.help or "").partition("\f")[0].strip()


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    records = (param.get_help_record(context) for param in command.get_params(context))
    return [(f"`{record[0]}`", record[1]) for record in records if record and record[1]]


def _table(head: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head} | |"
    yield "|---|---|"
    yield from (f"| {_cell(one)} | {_cell(two)} |" for one, two in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
