"""Killed at any moment and gone on with, a run ends with the same weights, to the bit."""

import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cas.objects.kind import Kind
from cas.objects.manifest import State
from cas.repo.repo import Repo
from tests.support.builders import whole
from tests.support.runs import (
    checkpoints,
    eventually,
    killed,
    opened,
    points,
    python,
    script,
    started,
)

pytest.importorskip("torch")

TRAIN = """
import torch
from torch import nn

class Sampler:
    '''Shuffled batches that know where they are: their state says what comes next.'''
    def __init__(self, length, size):
        self.length, self.size, self.at, self.order = length, size, 0, None
    def __iter__(self):
        if self.order is None:
            self.order, self.at = torch.randperm(self.length), 0
        while self.at < self.length:
            batch = self.order[self.at : self.at + self.size]
            self.at += self.size
            yield batch
        self.order = None
    def state_dict(self):
        return {'order': self.order, 'at': self.at}
    def load_state_dict(self, state):
        self.order, self.at = state['order'], state['at']

torch.set_num_threads(1)
run = cas.track('a', name='x', resume='auto', seed=3, system_metrics=False,
                strategy={'save_steps': 7}, retention={'last': 2})
model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.3), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
sampler = Sampler(120, 8)
x = torch.arange(120 * 16, dtype=torch.float32).reshape(120, 16) / 1920
run.register(model=model, optimizer=optimizer, scheduler=scheduler, data=sampler)
step = epoch = 0
if run.resumed is not None:
    loaded = run.load_checkpoint(
        model=model, optimizer=optimizer, scheduler=scheduler, data=sampler
    )
    assert loaded.lacks == (), loaded.lacks
    step, epoch = loaded.step, loaded.epoch
print(step, flush=True)
while epoch < 6:
    for batch in sampler:
        loss = nn.functional.mse_loss(model(x[batch]), x[batch].sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        run.log_metrics({'loss': loss, 'lr': scheduler.get_last_lr()[0]}, step=step)
        time.sleep(0.012)  # 90 steps: it is never done before it was killed twice
        if run.should_save(step):
            run.save_checkpoint(step=step, epoch=epoch)
    epoch += 1
run.save_checkpoint(step=step, epoch=epoch)
run.finish()
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    python(folder, script(folder, TRAIN))
    return folder


def last_state(repo: Repo) -> Any:
    """The rows of the last state of the run, with all of its data there."""
    id, commit = checkpoints(repo, repo.refresh().refs["runs/a/x"])[-1]
    assert commit.payload is not None
    entry = repo.lookup(commit.payload, b"state")
    assert entry is not None
    state = repo.manifest(entry.id)  # type: ignore[arg-type]  # the entry of a state
    assert isinstance(state, State)
    for row in state.rows:
        assert row.data is not None or repo.store.read(Kind.BLOB, row.id)
    return id, state


@pytest.mark.parametrize("seed", range(2))
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_weights(
    uninterrupted: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    path = script(tmp_path, TRAIN)
    begun = []
    for number in range(2):
        child = started(tmp_path, sys.executable, path)
        assert child.stdout is not None
        begun.append(int(child.stdout.readline()))
        if not number:  # the first one comes as far as a checkpoint
            eventually(lambda: "runs/a/x" in opened(tmp_path).root.refs)
        time.sleep(rng.uniform(0.0, 0.4))
        killed(child)
    done = python(tmp_path, path)
    begun.append(int(done.stdout))
    one, other = opened(uninterrupted), opened(tmp_path)
    assert last_state(one)[1] == last_state(other)[1]
    ends = [repo.commit(repo.root.refs["runs/a/x"]) for repo in (one, other)]
    assert points(one, ends[0]) == points(other, ends[1])
    assert [end.status for end in ends] == ["finished", "finished"]
    assert begun == sorted(begun)
    assert begun[0] == 0 < begun[-1] < 90
    assert whole(other)
    shutil.rmtree(tmp_path)
