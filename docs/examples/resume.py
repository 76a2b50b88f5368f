"""A training loop that may be killed at any moment, by `kill -9` and in the middle of an epoch too.

Started again it goes on and ends with the same weights, to the bit. Then the best is tested.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import cas

EPOCHS = 4


class Batches:
    """Shuffled batches, epoch after epoch, that know where they are: so a checkpoint can too."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self.tensors, self.epoch, self.position = tensors, 0, 0

    def __iter__(self):
        shuffled = torch.Generator().manual_seed(self.epoch)
        batches = torch.randperm(len(self.tensors[0]), generator=shuffled).split(32)
        while self.position < len(batches):
            rows = batches[self.position]
            self.position += 1
            yield tuple(tensor[rows] for tensor in self.tensors)
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).float().mean().item()
    model.train()
    return right


digits = load_digits()
images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
train = Batches(images[:1200], labels[:1200])

strategy = cas.Strategy(
    save_steps=20, save_epochs=1, save_total_limit=2, monitor="val_accuracy", mode="max"
)
with cas.track("digits", name="resumed", seed=0, resume="auto", strategy=strategy) as run:
    run.track_dataset({"images": digits.data, "labels": digits.target}, name="digits")
    # Not above: the run has seeded what makes the first weights.
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    run.register(model=model, optimizer=optimizer, data=train)
    step = 0
    if run.resumed:
        step = run.load_checkpoint(model=model, optimizer=optimizer, data=train).step

    while (epoch := train.epoch) < EPOCHS:
        for x, y in train:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            run.log({"loss": loss.item()}, step)
            if run.should_save(step):
                run.save_checkpoint(step=step)
        scores = {"val_accuracy": accuracy(model, images[1200:1500], labels[1200:1500])}
        print(f"epoch {epoch}: {scores}")
        if run.should_save(step, scores, epoch=epoch):
            run.save_checkpoint(step=step, epoch=epoch, metrics=scores)

    best = run.load_checkpoint("best", model=model)
    tested = accuracy(model, images[1500:], labels[1500:])
    run.log({"test_accuracy": tested}, best.step)
    print(f"the best is of step {best.step}: test accuracy {tested:.3f}")
