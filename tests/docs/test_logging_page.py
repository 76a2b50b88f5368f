"""The page on logging works: its blocks are one program, and it names every call there is."""

import re
from pathlib import Path

import pytest

import cas
from tests.docs.blocks import blocks
from tests.support.runs import python

PAGE = (Path(__file__).parents[2] / "docs" / "logging.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    program = "".join(block.text for block in blocks(PAGE) if block.language == "python")
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    done = python(tmp_path, tmp_path / "page.py")
    assert "'val/samples': 2" in done.stdout
    assert "warning" not in done.stderr


def test_every_call_has_an_example() -> None:
    calls = {
        name
        for name in dir(cas.Run)
        if re.match(r"log_|track_|watch_model|use$|set_seeds|create_|add_metadata|alert", name)
    }
    missing = {name for name in calls if f"{name}(" not in PAGE and f"`{name}`" not in PAGE}
    assert missing <= {"log_params", "log_metrics"}
