"""The page on the architecture names every module, and no other."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "architecture.md"
HEADING = re.compile(r"^### `(?P<folder>[a-z/]+)/`$(?P<text>.*?)(?=^##)", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"`([a-z_]+\.py)`")


def rooms(page: str) -> dict[str, list[str]]:
    """Return the files that the page names for each folder."""
    return {
        found["folder"]: [name for line in rows(found["text"]) for name in FILE.findall(line)]
        for found in HEADING.finditer(page)
    }


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


ROOMS = rooms(PAGE.read_text(encoding="utf-8"))
FOLDERS = sorted(
    str(path.parent.relative_to(TOP))
    for top in ("cas", "cli")
    for path in (TOP / top).rglob("__init__.py")
)


def test_every_room_is_there_and_no_other() -> None:
    assert sorted(ROOMS) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_is_named_once_and_exists(folder: str) -> None:
    # That of a room says only what the line below its heading says.
    ignored = set() if folder == "cas" else {"__init__.py"}
    files = {path.name for path in (TOP / folder).glob("*.py")} - ignored
    named = ROOMS[folder]
    assert set(named) == files
    assert len(named) == len(files), f"named twice in {folder}"


def test_a_module_that_is_missing_or_gone_is_noticed() -> None:
    page = "### `cas/x/`\n\n| file | |\n|---|---|\n| `a.py` | what |\n| `b.py` `c.py` |\n\n## End\n"
    assert rooms(page) == {"cas/x": ["a.py", "b.py", "c.py"]}


def test_files_stand_in_the_order_of_their_names() -> None:
    for folder, names in ROOMS.items():
        assert folder == "cli" or names == sorted(names), folder


def test_every_format_page_can_be_found_from_here() -> None:
    text = PAGE.read_text(encoding="utf-8")
    pages = {path.name for path in (TOP / "docs" / "format").glob("*.md")}
    assert pages <= set(re.findall(r"\(format/([a-z]+\.md)", text))
