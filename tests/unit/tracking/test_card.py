"""A run in a notebook can be read, whatever its names and numbers are."""

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from cas.tracking import card


def shown(
    params: dict[str, Any] | None = None,
    curves: dict[str, list[float]] | None = None,
    name: str = "exp/r",
    status: str = "running",
) -> str:
    """Return the card of a run, which has to be well-formed."""
    drawn = curves or {}
    summary = {
        key: {"last": values[-1], "min": min(values), "max": max(values), "last_step": len(values)}
        for key, values in drawn.items()
    }
    told = card.html(name, status, params or {}, summary, drawn.__getitem__)
    ET.fromstring(told)
    return told


def cells(told: str) -> list[str]:
    root = ET.fromstring(told)
    return ["".join(cell.itertext()) for cell in root.iter() if cell.tag in {"td", "th"}]


def test_it_tells_status_step_params_and_values() -> None:
    told = shown({"lr": 0.1, "net": {"deep": True, "none": {}}}, {"loss": [3.0, 1.0, 2.0]})
    assert "exp/r" in told
    assert "running, step 3" in told
    assert cells(told)[:8] == ["param", "", "lr", "0.1", "net.deep", "True", "net.none", "{}"]
    assert cells(told)[8:] == ["metric", "last", "min", "max", "", "loss", "2", "1", "3", ""]


def test_names_and_values_are_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script>\"'&"
    told = shown({evil: evil}, {evil: [1.0]}, name=evil, status=evil)
    root = ET.fromstring(told)
    assert not [one for one in root.iter() if one.tag == "script"]
    assert "".join(root.itertext()).count(evil) == 5
    assert all(set(one.attrib) <= KNOWN for one in root.iter())


KNOWN = {
    "style", "width", "height", "role", "fill", "stroke", "points", "colspan", "stroke-width",
    "stroke-linecap", "stroke-linejoin",
}  # fmt: skip


def test_what_cannot_be_printed_stands_as_an_escape() -> None:
    told = shown({"a\0b": "x\u202ey\n\n z\ud800"})
    assert cells(told)[2:] == ["a\\x00b", "x\\u202ey z\\ud800"]


def test_of_very_many_it_says_how_many_more_there_are() -> None:
    told = shown({f"p{n:03}": n for n in range(50)}, {f"m{n:03}": [1.0] for n in range(50)})
    assert told.count("<svg") == card.ROWS
    assert [one for one in cells(told) if "more" in one] == [
        "… and 30 more params", "… and 30 more metrics",
    ]  # fmt: skip
    assert "more" not in shown({f"p{n}": n for n in range(card.ROWS)})


def test_long_names_keep_their_ends() -> None:
    told = shown({"layers." * 50 + "weight": "v" * 500}, name="e/" + "n" * 500)
    name, value = cells(told)[2:]
    assert len(name) == card.LONG_NAME
    assert name.startswith("layers.")
    assert name.endswith("weight")
    assert len(value) == card.LONG
    assert "n" * 200 not in told


@pytest.mark.parametrize("status", ["running", "finished", "failed", "interrupted", "lost"])
def test_each_status_has_a_colour(status: str) -> None:
    assert card.COLORS.get(status, card.OTHER) in shown(status=status)


def test_a_run_without_anything_is_a_line() -> None:
    assert "<table" not in shown()
    assert "step" not in shown()


def drawn(values: list[float]) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'points="([^"]*)"', card.sparkline(values))
    return [[(float(x), float(y)) for x, y in re.findall(r"(\S+),(\S+)", line)] for line in lines]


def test_no_spike_is_lost_among_very_many_points() -> None:
    values = [1.0] * 100_000
    values[54_321] = 9.0
    (line,) = drawn(values)
    assert len(line) <= card.DRAWN
    top = [x for x, y in line if y == 2]
    assert top == [pytest.approx(2 + 156 * 54_321 / 99_999, abs=0.1)]


def test_the_last_point_is_where_the_curve_ends() -> None:
    (line,) = drawn([float(n) for n in range(1001)])
    assert [line[0], line[-1]] == [(2, card.HEIGHT - 2), (card.WIDTH - 2, 2)]


def test_one_point_is_a_dot_and_parts_without_numbers_are_gaps() -> None:
    assert drawn([5.0]) == [[(2, card.HEIGHT / 2)] * 2]
    assert len(drawn([1.0] * 500 + [math.nan] * 500 + [2.0] * 500)) == 2
    assert [len(line) for line in drawn([1.0, math.nan, 2.0])] == [2, 2]  # two dots
