"""What the documents point at is there: links, and files that are named."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
PAGES = [TOP / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
# `cas/repo/repo.py`, `tests/protocol/`, `docs/generate_cli.py`: files and folders of this project.
NAMED = re.compile(r"`((?:cas|cli|docs|tests|benchmarks)/[\w./]+)`")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = {found["target"] for found in LINK.finditer(page.read_text(encoding="utf-8"))}
    local = {target.partition("#")[0] for target in targets if "://" not in target}
    assert not [target for target in local if target and not (page.parent / target).exists()]


@every_page
def test_files_that_are_named_are_there(page: Path) -> None:
    # A name in capitals stands for one that the reader chooses.
    named = {name for name in NAMED.findall(page.read_text(encoding="utf-8")) if name.islower()}
    assert not [name for name in sorted(named) if not (TOP / name).exists()]
