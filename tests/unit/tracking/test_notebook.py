"""Runs in a notebook: shown, begun again, and recorded as the cells that were executed."""

import math
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import cas
from cas.repo.repo import Repo
from cas.tracking import card, notebook
from cas.tracking.card import sparkline
from tests.support.runs import text


class Shell:
    """IPython as far as cas asks it: what was typed, and which cell runs."""

    def __init__(self) -> None:
        self.history_manager = SimpleNamespace(input_hist_raw=[""])
        self.id: str | None = None

    def run(self, typed: str, id: str | None = None) -> None:
        """Begin to execute a cell."""
        self.history_manager.input_hist_raw.append(typed)
        self.id = id

    def get_parent(self) -> dict[str, dict[str, str]]:
        return {"metadata": {} if self.id is None else {"cellId": self.id}}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    running = Shell()
    module = ModuleType("IPython")
    module.get_ipython = lambda: running  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    yield running
    notebook._open.clear()


def test_the_code_of_a_run_is_the_cells_that_were_executed(here: Path, shell: Shell) -> None:
    shell.run("import cas\n%matplotlib inline")
    shell.run("run = cas.track('nb', name='r')")
    run = cas.track("nb", name="r")
    shell.run("token = 'ghp_" + "a1B2c3D4e5F6" * 3 + "'\nrun.log({'loss': 1})")
    run.log({"loss": 1.0})
    shell.run("run.finish()")
    id = run.finish()
    repo = Repo.open(here / ".cas")
    assert id is not None
    told = text(repo, repo.commit(id), "cells.py")
    assert told.startswith("# In [1]\nimport cas\n%matplotlib inline\n\n# In [2]\nrun = cas.track")
    assert "# In [4]\nrun.finish()" in told
    assert "a1B2c3" not in told


def test_a_crashed_notebook_has_left_the_cells_up_to_its_start(here: Path, shell: Shell) -> None:
    shell.run("run = cas.track('nb', name='r')")
    with cas.track("nb", name="r") as run:
        draft = run.repo.commit(run.repo.refresh().refs["open/nb/r"])
        assert "cas.track" in text(run.repo, draft, "cells.py")


def test_a_cell_that_is_executed_again_ends_its_run(here: Path, shell: Shell) -> None:
    shell.run("run = cas.track('nb')", id="c1")
    first = cas.track("nb")
    shell.run("other = cas.track('nb')", id="c2")
    other = cas.track("nb")
    shell.run("run = cas.track('nb')  # edited", id="c1")
    second = cas.track("nb")
    repo = Repo.open(here / ".cas")
    assert repo.commit(repo.root.refs[f"runs/{first.name}"]).status == "finished"
    assert {f"open/{run.name}" in repo.root.refs for run in (other, second)} == {True}
    other.finish()
    second.finish()
    assert not notebook._open


def test_without_ids_it_is_the_same_cell_that_has_the_same_text(here: Path, shell: Shell) -> None:
    for _ in range(2):
        shell.run("run = cas.track('nb')")
        last = cas.track("nb")
    repo = Repo.open(here / ".cas")
    assert len([ref for ref in repo.root.refs if ref.startswith("open/")]) == 1
    last.finish()


def test_a_run_shows_itself(here: Path) -> None:
    with cas.track("exp", name="r", params={"lr": 0.5, "m": {"<b>": "x" * 100}}) as run:
        for step in range(1000):
            run.log({"loss": 1 / (step + 1), "odd": math.nan}, step)
        shown = run._repr_html_()
        assert shown is not None
        ET.fromstring(shown.replace("&mdash;", "-"))
        assert "exp/r" in shown
        assert "running" in shown
        assert "m.&lt;b&gt;" in shown
        assert "x" * 60 not in shown
        assert shown.count("<svg") == 1
    assert "finished" in (run._repr_html_() or "")


def test_a_script_has_no_cells(here: Path) -> None:
    assert notebook.files() == {}
    assert notebook.cell() is None
    with cas.track("exp", name="r") as run:
        assert not notebook._open
    assert run.name == "exp/r"


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([], 0),
        ([math.nan], 0),
        ([1.0], 1),
        ([1.0, 2.0, 3.0], 1),
        ([1.0, math.nan, 2.0, math.inf, 3.0], 3),
        ([1e308, -1e308], 1),
        ([0.5] * 10_000, 1),
    ],
)
def test_a_curve_is_drawn_within_its_frame(values: list[float], lines: int) -> None:
    drawn = sparkline(values)
    assert drawn.count("<polyline") == lines
    for points in re.findall(r'points="([^"]*)"', drawn):
        pairs = [tuple(map(float, pair.split(","))) for pair in points.split()]
        assert len(pairs) <= card.DRAWN
        assert all(0 <= x <= card.WIDTH and 0 <= y <= card.HEIGHT for x, y in pairs)
