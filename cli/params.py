"""Options of the form K=V."""

from collections.abc import Iterable

from cas.errors import InvalidInputError


def size(text: str, option: str) -> int:
    """Return a number of bytes such as `2GB`, `512MiB` or `900kb`; raise InvalidInputError."""
    from cas.repo.retain import amounts

    try:
        return amounts.size(text)
    except ValueError as error:
        raise InvalidInputError(f"{option} takes {error}, not {text!r}") from error


def pairs(texts: Iterable[str], option: str) -> list[tuple[str, str]]:
    """Return the names and values of options such as `-p lr=0.1`; raise InvalidInputError."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInputError(f"{option} takes NAME=VALUE, not {text!r}")
        found.append((name, value))
    return found
