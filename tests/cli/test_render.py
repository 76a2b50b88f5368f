"""Text for people: wide cells, lines that are cut, progress that leaves nothing behind."""

import pytest
from click import style

from cas.cli import render
from cas.cli.session import Session, TerminalProgress


def test_a_cell_that_is_very_wide_does_not_push_other_rows_aside() -> None:
    long = "n" * 90
    assert render.table([("ab", "1"), (long, "2"), ("abc", "3")]) == [
        "ab   1",
        f"{long}  2",
        "abc  3",
    ]
    assert render.table([(long, "2"), (long + "x", "3")]) == [f"{long}   2", f"{long}x  3"]


@pytest.mark.parametrize(
    ("stored", "given", "text"),
    [
        (3_000_000, 12_000_000, "3.0 MB of 12.0 MB given (25 %)"),
        (1_004, 1_000, "1.0 kB of 1.0 kB given (100 %)"),
        (0, 0, "0 B of 0 B given"),
        (41_200, 30_000, "41.2 kB: 30.0 kB given, the rest is bookkeeping"),
    ],
)
def test_what_was_stored_of_what_was_given(stored: int, given: int, text: str) -> None:
    assert render.human_share(stored, given) == text


@pytest.mark.parametrize(
    ("text", "width", "left"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("ab" + style("cdef", fg="red"), 4, "ab\x1b[31mc…\x1b[0m"),
        (style("ab", fg="red"), 2, style("ab", fg="red")),
    ],
)
def test_a_line_is_cut_where_the_terminal_ends(text: str, width: int, left: str) -> None:
    assert render.cut(text, width) == left
    assert render.shown(render.cut(text, width)) <= width


def test_nothing_is_painted_as_nothing() -> None:
    session = Session()
    session.colour = True
    assert session.paint("", bold=True) == ""
    assert session.paint("x", bold=True) == style("x", bold=True)


def test_progress_is_wiped_before_anything_else_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = Session()
    session.progress = TerminalProgress()
    session.say("first")
    session.progress.start("count", 3)
    session.progress.advance()
    session.emit(None, ["line"])
    session.progress.finish()
    assert capsys.readouterr() == ("line\n", "first\n\r\x1b[Kcount: 1 of 3\r\x1b[K")


@pytest.mark.parametrize(
    ("what", "total", "line"),
    [
        ("store files", None, "store files: 2.5 MB"),
        ("write files", 3_000_000, "write files: 2.5 MB of 3.0 MB"),
        ("repack", 3_000_000, "repack: 2,500,000 of 3,000,000"),
        ("count", 2, "count: 2,500,000"),
    ],
)
def test_progress_is_told_in_bytes_or_in_things(
    capsys: pytest.CaptureFixture[str], what: str, total: int | None, line: str
) -> None:
    progress = TerminalProgress()
    progress.start(what, total)
    progress.advance(2_500_000)
    assert capsys.readouterr().err == f"\r\x1b[K{line}"
