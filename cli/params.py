"""Options of the form K=V."""

import re
from collections.abc import Iterable
from typing import Final

from cas.errors import InvalidInputError

POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
SIZE: Final = re.compile(r"([0-9]{1,18})([KMGT]?)(I?)B?")


def size(text: str, option: str) -> int:
    """Return a number of bytes such as `2GB`, `512MiB` or `900kb`; raise InvalidInputError."""
    match = SIZE.fullmatch(text.upper())
    if match is None or (match[3] and not match[2]):
        raise InvalidInputError(f"{option} takes a size such as 500MB or 2GiB, not {text!r}")
    amount: int = int(match[1]) * (1024 if match[3] else 1000) ** POWERS[match[2]]
    return amount


def pairs(texts: Iterable[str], option: str) -> list[tuple[str, str]]:
    """Return the names and values of options such as `-p lr=0.1`; raise InvalidInputError."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInputError(f"{option} takes NAME=VALUE, not {text!r}")
        found.append((name, value))
    return found
