"""Names say what they may hold, and unnamed runs get friendly ones."""

import subprocess
import sys

import pytest

from cas.errors import InvalidInputError
from cas.tracking import names
from cas.tracking.names import check_name, make_name, two_words


@pytest.mark.parametrize("name", ["a", "v1.2_final-3", "_x", "größe", "実験1", "हिन्दी", "A" * 100])
def test_valid_names_come_back(name: str) -> None:
    assert check_name(name, "run") == name


def test_other_names_than_a_runs_have_parts() -> None:
    assert check_name("vision/mnist/cnn", "experiment") == "vision/mnist/cnn"
    with pytest.raises(InvalidInputError, match="contains '/'"):
        check_name("vision/mnist", "run")


@pytest.mark.parametrize(
    "name",
    [
        "", "a/", "/a", "a//b", ".a", "a/.b", "-a", "a..b", "a b", "a@b", "a~1", "a^b", "a:b",
        "a\n", "a\u200db", "A" * 101, "\u0301a", "a\udcff",
    ],
)  # fmt: skip
def test_a_bad_name_is_refused_and_told_what_is_allowed(name: str) -> None:
    with pytest.raises(InvalidInputError, match="allowed: letters, digits"):
        check_name(name, "tag")


def test_letters_are_composed_so_that_one_name_is_one_ref() -> None:
    assert check_name("cafe\u0301", "dataset") == "caf\u00e9"


def test_a_name_is_text() -> None:
    with pytest.raises(InvalidInputError, match="not int"):
        check_name(3, "run")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name"),
    [("train", "train"), ("my script (2)", "my-script-2"), ("..x--y", "x-y"), ("@@", "script")],
)
def test_any_text_becomes_a_valid_name(text: str, name: str) -> None:
    assert make_name(text, "script") == name
    assert check_name(make_name(text, "script"), "run") == name


def test_two_words_are_chosen_by_the_bytes_alone() -> None:
    assert two_words(b"\0\0\0\0") == two_words(b"\0\0\0\0more")
    first, second = two_words(b"abcd").split("-")
    assert check_name(f"{first}-{second}", "run")
    assert len({two_words(bytes([i, 0, j, 0])) for i in range(128) for j in range(128)}) == 128**2
    with pytest.raises(InvalidInputError):
        two_words(b"abc")


def test_every_word_is_a_plain_one() -> None:
    for words in (names._ADJECTIVES.split(), names._NOUNS.split()):
        assert len(words) == len(set(words)) >= 128
        assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_names_and_journal_load_without_what_is_heavy() -> None:
    code = (
        "import cas.tracking.journals.journal, cas.tracking.names, sys;"
        "print(*{'numpy', 'torch', 'subprocess', 'tempfile'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout.split() == []
