"""Each part of what is captured can be switched off, and a record says so."""

from dataclasses import replace

import pytest

from cas.errors import InvalidInputError
from cas.tracking.captured.parts import Capture, was_captured

NOTHING = Capture(*[False] * 8)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("all", Capture()),
        ("", Capture()),
        ("none", NOTHING),
        ("-packages, -hardware", Capture(packages=False, hardware=False)),
        ("code,git", replace(NOTHING, code=True, git=True)),
        ({"rng": False}, Capture(rng=False)),
        ({}, Capture()),
        (None, Capture()),
    ],
)
def test_parts_are_told_in_words_or_one_by_one(told: object, expected: Capture) -> None:
    assert Capture.of(told) == expected  # type: ignore[arg-type]


def test_what_is_given_first_counts() -> None:
    assert Capture.of(Capture(git=False), "none") == Capture(git=False)
    assert Capture.of(None, "none", {"git": False}) == NOTHING


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ("code,gti", "capture: no part 'gti'; there are code, git, environment, packages"),
        ({"gti": True}, "capture: no part 'gti'"),
        ({"git": 1}, "capture.git is true or false, not 1"),
    ],
)
def test_what_makes_no_sense_is_named(told: object, error: str) -> None:
    with pytest.raises(InvalidInputError, match=error):
        Capture.of(told)  # type: ignore[arg-type]


def test_a_document_names_what_was_switched_off() -> None:
    parts = Capture(code=False, rng=False)
    assert parts.off == ("code", "rng")
    assert parts.mark({"a": 1}, "code", "git") == {"a": 1, "not_captured": ["code"]}
    assert parts.mark({"a": 1}, "git") == {"a": 1}
    assert not was_captured({"not_captured": ["code"]}, "code")
    assert was_captured({"not_captured": ["code"]}, "git")
    assert was_captured(None, "code")
