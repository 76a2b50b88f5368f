"""The example that resumes: killed twice, within an epoch, it ends as if it had not been."""

import shutil
import sys
from pathlib import Path

import pytest

from cas.errors import CasError
from cas.objects.commit import Commit
from cas.repo.repo import Repo
from tests.support.runs import cas, checkpoints, eventually, killed, opened, points, python, started

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "resume.py"
RUN = "runs/digits/resumed"
# Python reads this before it starts the program, which then waits within one of its steps.
PAUSE = """
import os, time
from torch.optim.optimizer import register_optimizer_step_post_hook

steps = []

def wait(*given):
    steps.append(None)
    if len(steps) == int(os.environ["PAUSE_IN"]):
        time.sleep(600)

if "PAUSE_IN" in os.environ:
    register_optimizer_step_post_hook(wait)
"""


def stored(folder: Path) -> list[int | None]:
    """Return the steps of the checkpoints that would survive now, in order."""
    try:
        repo = opened(folder)
    except (CasError, OSError):  # it is not there yet, or half made
        return []
    tip = repo.refresh().refs.get(RUN)
    return [commit.step for _, commit in checkpoints(repo, tip)] if tip is not None else []


def kill(folder: Path, pause: Path, *, within: int, last: int) -> None:
    """Kill the program within one of its steps, once the last checkpoint before that is stored."""
    told = {"PYTHONPATH": str(pause), "PAUSE_IN": str(within)}
    child = started(folder, sys.executable, PROGRAM.name, **told)
    eventually(lambda: last in stored(folder), f"a checkpoint of step {last}")
    killed(child)
    assert stored(folder)[-1] == last


def finished(repo: Repo) -> Commit:
    """Return the last commit of the run, which has ended well."""
    commit = repo.commit(repo.refresh().refs[RUN])
    assert commit.status == "finished"
    return commit


@pytest.mark.slow
def test_killed_within_an_epoch_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    folders = [tmp_path / name for name in ("whole", "killed", "pause")]
    for folder in folders:
        folder.mkdir()
    whole, broken, pause = folders
    (pause / "sitecustomize.py").write_text(PAUSE)
    for folder in (whole, broken):
        shutil.copy(PROGRAM, folder)

    # An epoch has 38 steps: both times it dies within one, some steps after a checkpoint.
    kill(broken, pause, within=50, last=40)
    kill(broken, pause, within=60, last=80)

    ends = [python(folder, PROGRAM.name) for folder in (whole, broken)]
    assert "goes on" not in ends[0].stderr
    assert "digits/resumed was cut off after step" in ends[1].stderr
    best = [end.stdout.splitlines()[-1] for end in ends]
    assert best[0].startswith("the best is of step ")
    assert best[0] == best[1]
    one, other = opened(whole), opened(broken)
    saved = [checkpoints(repo, repo.refresh().refs[RUN]) for repo in (one, other)]
    states = [[(commit.step, commit.payload) for _, commit in each] for each in saved]
    assert states[0] == states[1]
    assert states[0][-1][0] == 152
    assert points(one, finished(one)) == points(other, finished(other))
    assert cas(broken, "log", "digits/resumed").stdout.count(" kept") == 2
