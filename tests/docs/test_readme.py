"""The README is one screen, and its example runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_one_screen() -> None:
    assert len(TEXT.splitlines()) <= 80


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = (block.text for block in blocks(TEXT) if block.language == "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 16
    (tmp_path / "train.py").write_text(example, encoding="utf-8")
    path = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env=path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 3, done.stderr
    assert "cas: finished sine/" in done.stderr
