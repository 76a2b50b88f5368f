"""Names are refused where on some platform they would leave, and only there."""

import re
from itertools import product

import pytest

from cas.repo.trees import names
from cas.repo.trees.names import refusal, shown

ODD_BUT_FINE = [
    b"a", b" ", b"...", b"a.", b"a ", b"-", b"~", b":b:c", b"ab:c", b"x\\y", b"CON", b"nul.txt",
    b"\xff", b"\n", b"\x1b", "é".encode(), b"e\xcc\x81", "\u202e".encode() + b"x", b".gitignore",
    b".github", b".case", b"git", b"cas", b"git~", b"git~x", b"agit~1", b"x.git", b".git-x", b"..a",
    b".a", b"a..", b"$INDEX_ALLOCATION", b"12:30", b"\xc3.git", b"n" * 255,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_BUT_FINE)
def test_an_odd_name_is_fine(name: bytes) -> None:
    assert refusal(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"", "no name"),
        (b"..", "no name"),
        (b"a/b", "no name"),
        (b"a\0", "no name"),
        (b"C:", "absolute"),
        (b"c:evil", "absolute"),
        (b"\\evil", "absolute"),
        (b"x\\..\\y", "leaves its folder"),
        (b".. ", "leaves its folder"),
        (b"..:stream", "leaves its folder"),
        (b".git", "metadata"),
        (b".GiT. .", "metadata"),
        (b".git::$INDEX_ALLOCATION", "metadata"),
        (b"x\\.cas\\y", "metadata"),
        (b"GIT~1", "metadata"),
        (".ca\u017f".encode(), "metadata"),
        (".\u200cgit".encode(), "metadata"),
        ("\ufeff.cas".encode(), "metadata"),
    ],
)
def test_a_dangerous_name_is_refused_with_its_reason(name: bytes, reason: str) -> None:
    assert reason in (refusal(name) or "")


def test_a_plain_name_that_is_not_looked_at_closely_would_not_be_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = [b"", b"a", b"C", b"git", b"CAS", b".", b"..", b".git", b"-", b"_", b"~1", b":", b" "]
    made = {b"".join(found) for found in product(parts, repeat=4)}
    plain = [name for name in made if names._PLAIN.fullmatch(name)]
    monkeypatch.setattr(names, "_PLAIN", re.compile(rb"(?!)"))
    assert len(plain) > 1000
    assert [name for name in plain if refusal(name)] == []


def test_a_path_is_shown_on_one_line() -> None:
    assert shown("é/ü.txt".encode()) == "é/ü.txt"
    assert shown(b"a\nb") == "a\\nb"
    assert shown(b"\xff") == "\\xff"
    assert shown("\u202eexe".encode()) == "\\u202eexe"
