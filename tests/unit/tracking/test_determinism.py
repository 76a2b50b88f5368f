"""A reproducible environment is made as far as it can be, and the rest is told."""

from pathlib import Path

import cas
from tests.support.runs import opened, python, script

PROGRAM = """
import random, numpy as np, torch
with cas.track("a", name=sys.argv[1]) as run:
    told = run.create_reproducible_environment(7, threads=1)
    print(len(told), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())
    print(random.random(), np.random.rand(), torch.rand(1).item(), os.environ["OMP_NUM_THREADS"])
    print(os.environ["CUBLAS_WORKSPACE_CONFIG"], torch.backends.cudnn.benchmark)
"""


def test_a_reproducible_environment(here: Path) -> None:
    path = script(here, PROGRAM)
    outputs = [python(here, path, name, env={"PYTHONHASHSEED": "0"}).stdout for name in ("x", "y")]
    assert outputs[0] == outputs[1]
    assert outputs[0].splitlines()[0] == "0 True 1"
    assert outputs[0].splitlines()[2] == ":4096:8 False"
    repo = opened(here)
    commit = repo.commit(repo.root.refs["runs/a/x"])
    assert repo.document(commit.tree, "seeds.json") == {"seed": 7}
    assert cas.open_run("a/x").metadata["reproducible"] == {
        "seed": 7,
        "threads": 1,
        "not_deterministic": [],
    }


def test_what_it_cannot_do_is_told(here: Path) -> None:
    text = """
sys.modules["jax"] = os
with cas.track("a", name="x") as run:
    for problem in run.create_reproducible_environment():
        print(problem)
"""
    told = python(here, script(here, text)).stdout
    assert "PYTHONHASHSEED" in told
    assert "threads=" in told
    assert "jax is in use" in told


def test_seeds_can_be_set_later(here: Path) -> None:
    text = """
import random
with cas.track("a", name="x") as run:
    run.set_seeds(3)
    print(random.random())
random.seed(3)
print(random.random())
"""
    first, second = python(here, script(here, text)).stdout.split()
    assert first == second
    repo = opened(here)
    commit = repo.commit(repo.root.refs["runs/a/x"])
    assert repo.document(commit.tree, "seeds.json") == {"seed": 3}
