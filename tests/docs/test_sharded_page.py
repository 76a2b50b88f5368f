"""The example of the page on sharded checkpoints works: as two processes, and on as one."""

import sys
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.support.runs import checkpoints, names, opened, run

PAGE = Path(__file__).parents[2] / "docs" / "sharded.md"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
ALONE = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_save_and_one_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (code,) = [
        block.text for block in blocks(PAGE.read_text("utf-8")) if block.language == "python"
    ]
    (tmp_path / "train.py").write_text(code)
    first = run(tmp_path, *TORCHRUN, "2", "train.py", env=ALONE).stdout.split()
    assert first[::2] == ["0", "0"]
    assert first[1] == first[3]
    second = run(tmp_path, *TORCHRUN, "1", "train.py", env=ALONE).stdout.split()
    assert second[0] == "20"
    repo = opened(tmp_path)
    found = checkpoints(repo, repo.root.refs["runs/sharded/first"])
    assert [commit.step for _, commit in found] == [10, 20, 30, 40]
    shards = [repo.lookup(commit.payload, b"shards") for _, commit in found if commit.payload]
    assert [names(repo, one.id) for one in shards if one] == [["0", "1"], ["0", "1"], ["0"], ["0"]]
