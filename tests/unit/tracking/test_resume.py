"""With torch: a fork goes on exactly as the run that it was forked from."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import cas
from tests.support.runs import environment, opened, points, python

torch: Any = pytest.importorskip("torch")


class Training:
    """A model with dropout, data in a shuffled order, a schedule: everything that is random."""

    def __init__(self) -> None:
        nn, data = torch.nn, torch.utils.data
        self.model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=5)
        x = torch.arange(512, dtype=torch.float32).reshape(64, 8) / 512
        self.loader = data.DataLoader(
            data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=16, shuffle=True
        )

    @property
    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def epoch(self, run: cas.Run) -> None:
        for x, y in self.loader:
            loss = torch.nn.functional.mse_loss(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            run.log({"loss": loss, "lr": self.scheduler.get_last_lr()[0]})
        self.scheduler.step()


def test_a_fork_resumes_to_the_same_losses_to_the_bit(here: Path) -> None:
    whole = cas.track("a", name="whole", seed=5)
    training = Training()
    for epoch in range(5):
        training.epoch(whole)
        whole.save_checkpoint(**training.parts, epoch=epoch)
    whole.finish()
    torch.manual_seed(99)
    fork = cas.fork("a/whole~4", name="fork")
    again = Training()
    loaded = fork.load_checkpoint(**again.parts)
    assert loaded.epoch == 1
    for epoch in range(2, 5):
        again.epoch(fork)
        fork.save_checkpoint(**again.parts, epoch=epoch)
    fork.finish()
    repo = opened(here)
    tips = [repo.root.refs[f"runs/a/{name}"] for name in ("whole", "fork")]
    first, second = (points(repo, repo.commit(tip)) for tip in tips)
    for metric in ("loss", "lr"):
        assert [value for _, value in second[metric]] == [v for _, v in first[metric][8:]]
    ends = [repo.commit(repo.commit(tip).parents[0].commit).payload for tip in tips]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_the_example_trains_forks_and_reproduces(here: Path) -> None:
    pytest.importorskip("sklearn")
    shutil.copy(Path(__file__).parents[3] / "docs" / "examples" / "train.py", here)
    env = environment()
    python(here, "train.py", "--name", "base", "--epochs", "3", env=env)
    python(here, "train.py", "--name", "longer", "--fork", "digits/base~2", "--epochs", "3")
    repo = opened(here)
    tips = [repo.root.refs[f"runs/digits/{name}"] for name in ("base", "longer")]
    ends = [repo.commit(repo.commit(tip).parents[0].commit).payload for tip in tips]
    assert ends[0] == ends[1]
    done = python(here, "-m", "cas", "reproduce", "digits/longer")
    assert done.stdout.startswith("identical: digits/longer, 3 metrics, 1 checkpoint, 1 artifact")
