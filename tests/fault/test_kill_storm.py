"""Processes are killed at any moment, again and again: what was acknowledged is there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.actors import ROOT
from tests.support.runs import environment
from tests.support.torture import amount, tell

pytestmark = pytest.mark.torture


def storm(folder: Path, kills: int, planted: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a storm to its end; `planted` is run before it."""
    start = "import runpy; runpy.run_module('tests.support.storm', run_name='__main__')"
    code = f"{planted}\n{start}"
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), "1", str(kills)],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    done = storm(tmp_path, amount(15, 2000))
    assert done.returncode == 0, done.stderr
    tell(f"kill storm: {(tmp_path / 'told').read_text()}")


def test_an_answer_that_comes_too_early_is_caught(tmp_path: Path) -> None:
    """A planted bug: half of the transactions tell of their success and publish nothing."""
    planted = """
import os
from cas.repo import transaction
publish = transaction._publish
transaction._publish = lambda tx, *rest: os.urandom(1)[0] < 128 or publish(tx, *rest)
"""
    done = storm(tmp_path, 15, planted)
    assert done.returncode != 0
    assert "kills" in done.stderr or "Error" in done.stderr, done.stderr
