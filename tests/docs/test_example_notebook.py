"""The example notebook works in a real kernel: its run shows itself, and its code is the cells."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import checkpoints, only_run, opened, points, run, text

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "notebook.ipynb"
EXECUTE = Path(sys.executable).parent / "jupyter-execute"

pytestmark = pytest.mark.slow


def executed(folder: Path) -> list[dict[str, Any]]:
    """Execute the notebook of a folder as a server of notebooks would; return its code cells."""
    pytest.importorskip("torch")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    home = folder.parent / "home"  # a kernel leaves its connections and its history there
    told = {"JPY_SESSION_NAME": str(folder / NOTEBOOK.name), "HOME": str(home)}
    run(folder, EXECUTE, NOTEBOOK.name, "--output", "executed", env=told)
    cells: list[dict[str, Any]] = json.loads((folder / "executed.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    shutil.copy(NOTEBOOK, made)
    return made


def outputs(cells: list[dict[str, Any]], kind: str) -> list[str]:
    """Return what the cells have put out of one kind, `text/html` or a stream such as `stdout`."""
    found = [output for cell in cells for output in cell["outputs"]]
    told = [
        one.get("data", {}).get(kind) or (one.get("name") == kind and one["text"]) for one in found
    ]
    return ["".join(one) for one in told if one]


def test_the_notebook_works_and_its_cells_are_the_code(folder: Path) -> None:
    cells = executed(folder)
    (shown,) = outputs(cells, "text/html")
    assert "running" in shown
    assert shown.count("<svg") == 1
    assert "<td>lr</td><td>0.02</td>" in re.sub(r' style="[^"]*"', "", shown)
    *_, read = outputs(cells, "stdout")
    values, table, weights = read.splitlines()
    assert values.startswith("{'lr': 0.02, 'width': 32} loss 0.0")
    assert table == "x sine model 10"
    assert weights == "True"

    repo = opened(folder)
    id, commit = only_run(repo)
    assert (commit.experiment, commit.status) == ("waves", "finished")
    assert len(points(repo, commit)["loss"]) == 300
    assert [one.step for _, one in checkpoints(repo, id)] == [299]
    sources = ["".join(cell["source"]) for cell in cells]
    typed = "\n".join(f"# In [{n}]\n{it}\n" for n, it in enumerate(sources[:-1], start=1))
    assert text(repo, commit, "cells.py") == typed  # all up to the one that finished it
    assert text(repo, commit, "notebook.ipynb") == NOTEBOOK.read_text()


def test_a_cell_that_is_executed_again_ends_the_run_that_it_began(folder: Path) -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    again = cells["start"] | {"id": "start-again"}
    notebook["cells"] = [cells["data"], cells["start"], again, cells["train"], cells["end"]]
    (folder / NOTEBOOK.name).write_text(json.dumps(notebook))
    executed(folder)
    repo = opened(folder)
    refs = repo.refresh().refs
    assert not [ref for ref in refs if ref.startswith("open/")]
    ended = [repo.commit(id) for ref, id in refs.items() if ref.startswith("runs/")]
    assert [commit.status for commit in ended] == ["finished"] * 2
    assert sorted(len(points(repo, commit)) for commit in ended) == [0, 1]
