"""The words of a retention policy, one table for flags, settings and what runs record.

A policy as plain data is a map of these words: in the config as `retention.last`, … , in a run's
record, and in any YAML or JSON that a user reads it from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import InvalidInputError, UnsupportedError, no_such
from cas.repo.retain import amounts
from cas.repo.retain.retention import Keep

PREFIX: Final = "retention."
RUNS: Final = "runs"  # the setting beside the rules: whether runs follow them as they go


@dataclass(frozen=True, slots=True)
class Word:
    """One rule: what it takes, what it means, and how its value is read from text."""

    takes: str
    about: str
    read: Callable[[str], Any]

    @property
    def many(self) -> bool:
        """Whether it can be said several times, each time of another metric."""
        return self.takes.startswith("METRIC")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) <= 10**9):
        raise ValueError("a whole number from 1")
    return int(text)


def _metrics(text: str) -> dict[str, int]:
    found = {}
    for part in text.split(","):
        metric, _, count = part.rpartition("=")
        if not metric.strip():
            raise ValueError("METRIC=N, or several with commas between")
        try:
            found[metric.strip()] = _count(count.strip())
        except ValueError:
            raise ValueError("METRIC=N with N from 1") from None
    return found


def _span(text: str) -> str:
    if amounts.span(text) < 1:
        raise ValueError("a span of 1s or more")
    return text


def _size(text: str) -> str:
    if amounts.size(text) < 1:
        raise ValueError("a size of 1 byte or more")
    return text


def _switch(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("true or false")
    return text == "true"


WORDS: Final[Mapping[str, Word]] = {
    "last": Word("N", "The last N of each run.", _count),
    "best": Word("N", "The best N: what was saved as that, then by the run's monitor.", _count),
    "min": Word("METRIC=N", "The N lowest by a metric.", _metrics),
    "max": Word("METRIC=N", "The N highest by a metric.", _metrics),
    "every": Word("N", "The first of every N steps.", _count),
    "hourly": Word("N", "The newest of each of the last N hours (UTC) that have one.", _count),
    "daily": Word("N", "The same of days.", _count),
    "weekly": Word("N", "The same of weeks, from Monday.", _count),
    "monthly": Word("N", "The same of months.", _count),
    "yearly": Word("N", "The same of years.", _count),
    "within": Word("SPAN", "All that are no older than a span such as 7d or 36h.", _span),
    "tagged": Word("", "What has a tag: of itself, only that.", _switch),
    "budget": Word(
        "SIZE",
        "Of what the others keep, drop the worst by the monitor, then the oldest, until the rest "
        "takes no more than SIZE, such as 200GB.",
        _size,
    ),
}


def flag(name: str) -> str:
    """Return the option that says a rule on the command line."""
    return "--budget" if name == "budget" else f"--keep-{name}"


def policy(words: Mapping[str, Any]) -> Keep:
    """Return the policy that plain data says; raise InvalidInputError naming what is wrong."""
    for name in words:
        if name not in WORDS:
            raise no_such("no retention rule", name, WORDS)
    return Keep(**{name: value for name, value in words.items() if value is not None})


def as_policy(told: "Keep | Mapping[str, Any] | None") -> Keep | None:
    """Return what a user gave as a policy; None for none, and for one that says nothing."""
    if told is None or isinstance(told, Keep):
        keep = told
    elif isinstance(told, Mapping):
        keep = policy(told)
    else:
        raise InvalidInputError(
            f"retention is a cas.Keep or a map such as {{'last': 3}}, not {told!r}"
        )
    return None if keep is None or keep.empty else keep


def as_words(keep: Keep) -> dict[str, Any]:
    """Return a policy as plain data: what it says, and nothing of what it does not."""
    values = {name: getattr(keep, name) for name in WORDS}
    plain = {key: dict(it) if isinstance(it, Mapping) else it for key, it in values.items()}
    return {name: value for name, value in plain.items() if value}


def settled(values: Mapping[str, Any]) -> Keep | None:
    """Return the policy among a repository's settings, None for none.

    Raises InvalidInputError for a value that makes no sense, and UnsupportedError for a rule that a
    newer version has set: without it more would go than somebody meant.
    """
    words = {key.removeprefix(PREFIX): it for key, it in values.items() if key.startswith(PREFIX)}
    words.pop(RUNS, None)
    if unknown := sorted(words.keys() - WORDS.keys()):
        raise UnsupportedError(f"this cas does not know the setting {PREFIX}{unknown[0]}")
    try:
        return as_policy(words)
    except InvalidInputError as error:
        raise InvalidInputError(f"in the config, {PREFIX}{error}") from error


def as_flags(keep: Keep) -> str:
    """Return a policy as it is said on the command line."""
    return " ".join(_spoken(name, value) for name, value in as_words(keep).items())


def _spoken(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{flag(name)} {metric}={count}" for metric, count in value.items())
    return flag(name) if value is True else f"{flag(name)} {value}"
