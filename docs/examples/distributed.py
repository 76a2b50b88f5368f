"""A model that lies over several processes, of which each saves its own part.

`torchrun --nproc-per-node 2 distributed.py` trains it. Then `python distributed.py`, one process,
reads what all of them have saved and tests the whole model.
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import cas

STEPS = 60
digits = load_digits()
images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def train() -> None:
    dist.init_process_group("gloo")
    rank, count = dist.get_rank(), dist.get_world_size()
    # All processes have one run, and what is logged says of which it is: `loss`, `loss/rank1`, …
    with cas.track("digits", name="sharded", seed=0) as run:
        model = network()
        fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        own = slice(rank, 1500, count)
        for step in range(1, STEPS + 1):
            loss = nn.functional.cross_entropy(model(images[own]), labels[own])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log({"loss": loss.item()}, step)
            if step % 20 == 0:
                weights, moments = get_state_dict(model, optimizer)
                run.save_sharded({"model": weights, "optimizer": moments}, step=step)
    dist.destroy_process_group()


def test() -> None:
    with cas.track("digits", name="tested") as run:
        run.use("digits/sharded@latest", role="evaluates")
        model = network()
        state = {"model": model.state_dict()}  # of the optimizer it reads nothing
        loaded = run.load_sharded(state, "digits/sharded@latest", restore_rng=False)
        model.load_state_dict(state["model"])
        with torch.no_grad():
            right = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()
        run.log({"test_accuracy": right}, loaded.step)
        print(f"step {loaded.step}: test accuracy {right:.3f}")


if __name__ == "__main__":
    if dist.is_torchelastic_launched():
        train()
    else:
        test()
