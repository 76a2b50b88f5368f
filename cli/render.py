"""Values as text for people: tables, sizes, times."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from cas import plain

from .exits import printable

human_bytes = plain.human_bytes
human_share = plain.human_share
AGES = ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600), (86400 * 30, "days", 86400))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WIDE = 64  # an id; a cell that is wider does not push the rest of all other rows aside


def table(rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Return rows of cells as aligned lines; the columns in `right` stand to the right.

    Cells may hold colours: what a terminal does not show takes no room.
    """
    kept = [list(row) for row in rows]
    widths = [_width(map(shown, column)) for column in zip(*kept, strict=True)]
    towards = set(right)
    return [
        "  ".join(
            pad(cell, width, left=number not in towards)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in kept
    ]


def _width(cells: Iterable[int]) -> int:
    kept = list(cells)
    return max((width for width in kept if width <= WIDE), default=max(kept))


def shown(text: str) -> int:
    """Return how many columns a text takes on a terminal, colours not counted."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    from unicodedata import combining, east_asian_width

    from click import unstyle

    bare = unstyle(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in bare)


def pad(text: str, width: int, *, left: bool = True) -> str:
    """Return the text with spaces on one side."""
    space = " " * (width - shown(text))
    return text + space if left else space + text


def cut(text: str, width: int) -> str:
    """Return as much of a text as fits into this many columns; colours do not leak out of it."""
    if shown(text) <= width:
        return text
    import re

    kept, room = "", width - 1
    for part in re.split("(\x1b\\[[0-9;]*m)", text):
        if part.startswith("\x1b"):
            kept += part
            continue
        for char in part:
            room -= shown(char)
            if room < 0:
                return f"{kept}…" + ("\x1b[0m" if "\x1b" in kept else "")
            kept += char
    return kept


def ago(now: int, then: int | None) -> str:
    """Return a moment as people say it: `5 min ago`, or the date when it is long past."""
    if then is None:
        return "-"
    seconds = (now - then) // 1_000_000
    for limit, unit, length in AGES:
        if 0 <= seconds < limit:
            return f"{seconds // length} {unit} ago".replace("1 days", "1 day")
    return iso(then)[:10]


def iso(moment: int | None) -> str:
    """Return microseconds since the epoch as ISO 8601, in UTC."""
    if moment is None:
        return ""
    try:
        return (EPOCH + timedelta(microseconds=moment)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{moment} µs"


def moment(now: int, then: int | None, *, terminal: bool) -> str:
    """Return a moment for a terminal, where `ago` reads best, or for anything else."""
    if terminal or then is None:
        return ago(now, then)
    return iso(then - then % 1_000_000)


def freed(nbytes: int | None) -> str:
    """Return what gc would give back; None is not known."""
    return "an unknown amount" if nbytes is None else human_bytes(nbytes)


def number(value: float | None) -> str:
    """Return a metric's value with the digits that people compare."""
    return "-" if value is None else f"{value:.6g}"


def count(amount: int, noun: str) -> str:
    """Return an amount and its noun: `1 run`, `2 runs`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def facts(values: Mapping[str, object]) -> list[str]:
    """Return named values as lines: `freed bytes` become a readable size."""
    return table([(f"{_label(name)}:", _fact(name, value)) for name, value in values.items()])


def first_line(message: str) -> str:
    """Return the first line of a message, safe to print."""
    return printable(message.strip().split("\n", 1)[0])


def _label(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _fact(name: str, value: object) -> str:
    if isinstance(value, int) and name.endswith("_bytes"):
        return human_bytes(value)
    return "-" if value is None else printable(str(value))
