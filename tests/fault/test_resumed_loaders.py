"""The same with torch's DataLoader: workers, an augmentation that is random, mid-epoch."""

import sys
from pathlib import Path

import pytest

from cas.tracking.view import RunView
from tests.fault.test_resumed_runs import last_state
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
from torch.utils.data import DataLoader, Dataset

class Noisy(Dataset):
    '''Rows with noise of their own: what a worker draws does not depend on who draws.'''
    epoch = 0
    def __len__(self):
        return 96
    def __getitem__(self, row):
        drawn = torch.Generator().manual_seed(1000 * self.epoch + row)
        x = torch.arange(8.0) * row / 768 + torch.rand(8, generator=drawn) / 10
        return x, x.sum(0, keepdim=True)

class Batches:
    '''Epochs of a DataLoader that know how many batches the loop has had, not the workers.'''
    def __init__(self, data, size):
        self.data, self.size, self.epoch, self.at = data, size, 0, 0
    def __iter__(self):
        own = torch.Generator().manual_seed(self.epoch)  # the loop's generator stays as it is
        order = torch.randperm(len(self.data), generator=own).split(self.size)
        self.data.epoch = self.epoch
        rest = [rows.tolist() for rows in order[self.at :]]
        for batch in DataLoader(self.data, batch_sampler=rest, num_workers=2, generator=own):
            self.at += 1
            yield batch
        self.epoch, self.at = self.epoch + 1, 0
    def state_dict(self):
        return {'epoch': self.epoch, 'at': self.at}
    def load_state_dict(self, state):
        self.epoch, self.at = state['epoch'], state['at']

torch.set_num_threads(1)
run = cas.track('a', name='x', resume='auto', seed=3, system_metrics=False, log_every={'lr': 5},
                strategy={'save_steps': 5})
model = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.3), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40)
data = Batches(Noisy(), 8)
parts = dict(model=model, optimizer=optimizer, scheduler=scheduler, data=data)
run.register(**parts)
step = 0
if run.resumed is not None:
    loaded = run.load_checkpoint(**parts)
    assert loaded.lacks == (), loaded.lacks
    step = loaded.step
print(step, flush=True)
while data.epoch < 3:
    for x, y in data:
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        lr = scheduler.get_last_lr()[0]
        run.log_metrics({'loss': loss, 'lr': lr}, step=step, epoch=data.epoch)
        if step % 4 == 0:
            run.log_histogram('first', model[0].weight, step=step)
        if run.should_save(step):
            run.save_checkpoint(step=step, epoch=data.epoch)
        if len(sys.argv) > 1:
            time.sleep(0.05)
run.save_checkpoint(step=step, epoch=data.epoch)
run.finish()
"""


def test_with_workers_a_run_that_is_killed_mid_epoch_ends_with_the_same_weights(
    tmp_path: Path,
) -> None:
    folders = {name: tmp_path / name for name in ("once", "killed")}
    for folder in folders.values():
        folder.mkdir()
    python(folders["once"], script(folders["once"], TRAIN))
    path = script(folders["killed"], TRAIN)
    child = started(folders["killed"], sys.executable, path, "slowly")
    assert child.stdout is not None
    child.stdout.readline()
    repo = opened(folders["killed"])

    def saved() -> list[int]:
        tip = repo.refresh().refs.get("runs/a/x")
        return [commit.step or 0 for _, commit in checkpoints(repo, tip)] if tip else []

    eventually(lambda: max(saved(), default=0) >= 15)  # of 36, 12 in an epoch
    killed(child)
    begun = int(python(folders["killed"], path).stdout)
    assert begun in saved()
    assert begun % 12 > 0
    repos = [opened(folder) for folder in folders.values()]
    assert last_state(repos[0])[1] == last_state(repos[1])[1]
    ends = [repo.commit(repo.root.refs["runs/a/x"]) for repo in repos]
    assert points(repos[0], ends[0]) == points(repos[1], ends[1])
    assert len(points(repos[0], ends[0])["lr"]) < 10
    for name in ("summary.json", "epochs", "logged"):
        one, other = (r.lookup(end.tree, name.encode()) for r, end in zip(repos, ends, strict=True))
        assert one is not None
        assert one == other
    views = [RunView(repo, repo.root.refs["runs/a/x"]) for repo in repos]
    steps = [[item.step for item in view.logged("first")] for view in views]
    assert steps == [list(range(4, 37, 4))] * 2
