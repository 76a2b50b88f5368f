"""The example of several processes: two train and save, one has the whole model."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.runs import checkpoints, opened, points, python, run

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "distributed.py"
TORCHRUN = Path(sys.executable).parent / "torchrun"


@pytest.mark.slow
def test_what_two_processes_saved_is_one_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    shutil.copy(PROGRAM, tmp_path)
    run(tmp_path, TORCHRUN, "--standalone", "--nproc-per-node", "2", PROGRAM.name)
    repo = opened(tmp_path)
    refs = repo.refresh().refs
    assert [ref for ref in refs if ref.startswith("runs/")] == ["runs/digits/sharded"]
    trained = checkpoints(repo, refs["runs/digits/sharded"])
    assert [commit.step for _, commit in trained] == [20, 40, 60]
    logged = points(repo, repo.commit(refs["runs/digits/sharded"]))
    assert {name: len(values) for name, values in logged.items()} == {"loss": 60, "loss/rank1": 60}

    said = python(tmp_path, PROGRAM.name).stdout
    told = re.fullmatch(r"step 60: test accuracy (0\.\d+)\n", said)
    assert told is not None, said
    assert float(told[1]) > 0.8  # by chance it would be 0.1
    tested = repo.commit(repo.refresh().refs["runs/digits/tested"])
    assert [parent.commit for parent in tested.parents_of("evaluates")] == [trained[-1][0]]
    assert tested.status == "finished"
