"""The rules of a retention policy as options, and what they say."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from cas.errors import InvalidInputError
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import PREFIX, WORDS, flag, policy

from . import render

Command = TypeVar("Command", bound=Callable[..., Any])


def keep_options(command: Command) -> Command:
    """Add an option for each rule; the command gets them by their words."""
    for name, word in reversed(list(WORDS.items())):
        if not word.takes:
            command = click.option(flag(name), name, is_flag=True, help=word.about)(command)
            continue
        command = click.option(
            flag(name), name, multiple=word.many, metavar=word.takes, help=word.about
        )(command)
    return command


def from_flags(given: Mapping[str, Any]) -> Keep | None:
    """Return the policy that options say, None for none; raise InvalidInputError."""
    said = {name: given[name] for name in WORDS if given[name]}
    keep = policy({name: _value(name, text) for name, text in said.items()})
    return None if keep.empty else keep


def _value(name: str, given: Any) -> Any:
    word = WORDS[name]
    if not word.takes:
        return given
    texts = given if word.many else [given]
    values = []
    for text in texts:
        try:
            values.append(word.read(text))
        except ValueError as error:
            raise InvalidInputError(f"{flag(name)} takes {error}, not {text!r}") from error
    return (
        {key: count for value in values for key, count in value.items()} if word.many else values[0]
    )


def vocabulary() -> list[str]:
    """Return what can be said, as lines."""
    rows = [(f"{flag(name)} {word.takes}".rstrip(), word.about) for name, word in WORDS.items()]
    return [
        "What to keep of each run; what any rule keeps stays:",
        "",
        *(f"  {line}" for line in render.table(rows)),
        "",
        "Whatever the rules say, these stay: what a tag or another fixed name points at, what",
        "other commits were made from, and the newest checkpoint of each run.",
        f"For good: `cas config {PREFIX}last 3`, `cas config {PREFIX}budget 200GB`, …",
    ]
