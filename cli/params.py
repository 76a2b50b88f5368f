"""Options of the form K=V."""

from collections.abc import Iterable

from cas.errors import InvalidInputError


def pairs(texts: Iterable[str], option: str) -> list[tuple[str, str]]:
    """Return the names and values of options such as `-p lr=0.1`; raise InvalidInputError."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInputError(f"{option} takes NAME=VALUE, not {text!r}")
        found.append((name, value))
    return found
