"""The examples of the page on checkpoints work: killed on the way, and not."""

import signal
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.support.runs import checkpoints, opened, python

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


@pytest.mark.slow
def test_the_program_ends_alike_killed_or_not(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = [block.text for block in blocks(PAGE.read_text("utf-8")) if block.language == "python"]
    assert len(code) == 3
    ends = []
    for name in ("once", "twice"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.py").write_text("\n".join(code))
        if name == "twice":
            python(folder, "train.py", "--die", code=-signal.SIGKILL)
        done = python(folder, "train.py")
        assert ("it goes on after step 40" in done.stderr) == (name == "twice")
        _, told, report = done.stdout.splitlines()
        assert told == "100 ('data',)"
        assert report == "of another shape: 2.weight, 2.bias"
        repo = opened(folder)
        found = checkpoints(repo, repo.root.refs["runs/curve/first"])
        assert [commit.step for _, commit in found] == [20, 40, 60, 80, 100, 100]
        ends.append(found[-1][1].payload)
    assert ends[0] == ends[1]
