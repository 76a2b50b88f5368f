"""The page on the commands says what the help texts say."""

import runpy
from pathlib import Path

from cas.cli.exits import MEANINGS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_not_stale() -> None:
    page = runpy.run_path(str(DOCS / "generate_cli.py"))["page"]()
    written = (DOCS / "cli.md").read_text("utf-8")
    assert written == page, "run `python docs/generate_cli.py`"


def test_every_exit_code_is_on_the_page() -> None:
    written = (DOCS / "cli.md").read_text("utf-8")
    assert all(f"| {code} | {meaning} |" in written for code, meaning in MEANINGS)
