"""What is taken out of captured text besides secrets, and what is left in: a user's own rules."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cas.errors import InvalidInputError, no_such

# Kinds of personal data that are taken out on request.
EMAIL: Final = "email"
PHONE: Final = "phone"
IBAN: Final = "iban"
CARD: Final = "card"
PERSONAL: Final = (EMAIL, PHONE, IBAN, CARD)
# On a line that has one of these, the user says, is no secret.
MARKS: Final = ("pragma: allowlist secret", "gitleaks:allow", "cas: no secret")
_KEYS: Final = ("allow", "names", "pii")


@dataclass(frozen=True, slots=True)
class Redaction:
    """What the filter takes out and leaves in.

    `pii` are the kinds of personal data to take out of text and tables: email, phone, iban, card.
    `allow` are regular expressions: a value that one of them matches whole is no secret. `names`
    are further names whose values are taken out whatever they look like. Raises InvalidInputError
    for a kind or an expression that is none.
    """

    pii: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.pii:
            if kind not in PERSONAL:
                raise no_such("redaction.pii: no kind", kind, PERSONAL)
        for pattern in self.allow:
            try:
                re.compile(pattern)
            except re.error as error:
                text = f"redaction.allow: {pattern!r} is no regular expression: {error}"
                raise InvalidInputError(text) from error

    @classmethod
    def of(cls, given: "Redaction | Mapping[str, Any] | None") -> "Redaction":
        """Return the rules that a config tells, or those given; raise InvalidInputError.

        `pii` may be true, for all kinds.
        """
        if isinstance(given, Redaction):
            return given
        told = dict(given or {})
        for key in told:
            if key not in _KEYS:
                raise no_such("redaction: no key", key, _KEYS)
        if isinstance(told.get("pii"), bool):
            told["pii"] = PERSONAL if told["pii"] else ()
        return cls(**{key: _texts(key, value) for key, value in told.items()})

    def as_words(self) -> dict[str, Any]:
        """Return the rules as plain data, as `of` takes them; what is not set is missing."""
        told = {"allow": self.allow, "names": self.names, "pii": self.pii}
        return {key: list(value) for key, value in told.items() if value}

    def allows(self, value: str) -> bool:
        """Say whether the user told that this value is no secret."""
        return bool(self.allow) and _any_of(self.allow).fullmatch(value) is not None

    @property
    def words(self) -> frozenset[str]:
        """`names` in lower case."""
        return frozenset(map(str.lower, self.names))

    @property
    def named(self) -> re.Pattern[str] | None:
        """What finds the value of one of `names`, quoted or bare, as its last group."""
        return _assigned(self.names) if self.names else None


def use(rules: Redaction) -> None:
    """Let these rules hold for all that this process captures from now on."""
    _rules.in_force = rules


def in_force() -> Redaction:
    """Return the rules that hold for what this process captures."""
    return _rules.in_force


class _Rules:
    """The rules of this process: every captured text passes them, wherever it comes from."""

    def __init__(self) -> None:
        self.in_force = Redaction()


_rules = _Rules()


def _texts(key: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidInputError(f"redaction.{key}: expected a list of texts, not {given!r}")
    return tuple(str(one) for one in given)


@lru_cache(maxsize=8)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{one})" for one in patterns))


@lru_cache(maxsize=8)
def _assigned(names: tuple[str, ...]) -> re.Pattern[str]:
    words = "|".join(re.escape(name) for name in names)
    return re.compile(
        rf"(?<![A-Za-z0-9])(?:{words})\\?[\"']?\]?\s{{0,16}}(?:[:=]=?>?|\s)\s{{0,16}}"
        r"(?:[rbuRBU]?\\?[\"']([^\"'\\\r\n]{1,512})|([^\s\"',;\\()\[\]{}]{1,512}))",
        re.IGNORECASE,
    )
