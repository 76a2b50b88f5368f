"""A model that is watched tells its norms, histograms and learning rates."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cas
from cas.errors import TrackingError


def trained(
    run: cas.Run, *, every: int, steps: int, hook: bool = True, histograms: bool = True
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.SGD([{"params": [model.weight]}], lr=0.5)
    watch = run.watch_model(model, optimizer if hook else None, every=every, histograms=histograms)
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(torch.ones(1, 3)).sum() * (step + 1)
        loss.backward()
        if watch is not None and not hook:
            watch()
        optimizer.step()
        run.log({"loss": loss})


def test_every_so_many_steps_of_the_optimizer(here: Path) -> None:
    with cas.track("a", name="x") as run:
        trained(run, every=2, steps=5)
    view = cas.open_run("a/x")
    norms = view.metrics["grad_norm/weight"]
    assert norms.steps.tolist() == [0, 2, 4]
    assert norms.values.tolist() == pytest.approx([np.sqrt(6), 3 * np.sqrt(6), 5 * np.sqrt(6)])
    assert view.metrics["grad_norm"].values.tolist() == norms.values.tolist()
    assert view.metrics["learning_rate"].values.tolist() == [0.5] * 3
    assert "param_norm/weight" in view.metrics
    assert "param_norm/bias" not in view.metrics
    assert view.metrics["loss"].steps.tolist() == [0, 1, 2, 3, 4]
    (histogram,) = view.logged("grads/weight")
    assert histogram.step == 0
    assert histogram.value().counts.sum() == 6
    assert view.keys() == {"histogram": {"grads/weight": 1, "params/weight": 1}}


def test_without_an_optimizer_it_is_called(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.log({"before": 1}, step=9)
        trained(run, every=5, steps=6, hook=False, histograms=False)
    view = cas.open_run("a/x")
    assert view.metrics["grad_norm"].steps.tolist() == [10, 15]
    assert "learning_rate" not in view.metrics
    assert view.keys() == {}


def test_groups_have_their_own_learning_rates(here: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    optimizer = torch.optim.SGD(
        [
            {"params": model[0].parameters(), "lr": 0.1, "name": "body"},
            {"params": model[1].parameters(), "lr": 0.2},
        ]
    )
    with cas.track("a", name="x") as run:
        run.watch_model(model, optimizer, every=1)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    view = cas.open_run("a/x")
    assert view.metrics["learning_rate/body"].values.tolist() == [0.1]
    assert view.metrics["learning_rate/1"].values.tolist() == [0.2]
    assert len(view.keys()["histogram"]) == 8


def test_numbers_that_are_none_do_not_end_the_training(here: Path) -> None:
    with cas.track("a", name="x") as run:
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.watch_model(model, optimizer, every=1)
        (model(torch.ones(1, 3)).sum() * float("nan")).backward()
        optimizer.step()
        model.weight.grad = None
        optimizer.step()
    view = cas.open_run("a/x")
    assert np.isnan(view.metrics["grad_norm"].values).all()
    assert view.logged("grads/weight")[0].value().nan == 3


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
)
def test_parameters_of_any_type_are_measured(here: Path, dtype: torch.dtype) -> None:
    model = torch.nn.Linear(30, 1, dtype=dtype)
    model.weight.grad = torch.full((1, 30), 2, dtype=dtype)
    sparse = torch.nn.Embedding(50, 3, sparse=True)
    sparse(torch.tensor([4, 4, 7])).sum().backward()
    both = torch.nn.ModuleDict({"line": model, "words": sparse})
    with cas.track("a", name="x") as run:
        watch = run.watch_model(both, every=1)
        assert watch is not None
        watch()
    view = cas.open_run("a/x")
    norm = view.metrics["grad_norm/line.weight"].values[0]
    assert norm == pytest.approx(np.sqrt(30 * 4), rel=1e-3)
    assert view.metrics["grad_norm/words.weight"].values[0] == pytest.approx(np.sqrt(3 * 5))
    assert view.logged("grads/line.weight")[0].value().counts.sum() == 30


def test_a_model_that_is_watched_again_is_looked_at_once(here: Path) -> None:
    models = [torch.nn.Linear(3, 1) for _ in range(2)]
    optimizer = torch.optim.SGD([*models[0].parameters(), *models[1].parameters()], lr=0.1)
    with cas.track("a", name="x") as run:
        run.watch_model(models[0], optimizer, every=1)
        run.watch_model(models[0], optimizer, every=2)
        run.watch_model(models[1], optimizer, every=5)
        assert len(optimizer._optimizer_step_pre_hooks) == 2
        for _ in range(4):
            optimizer.step()
    assert cas.open_run("a/x").metrics["param_norm"].steps.tolist() == [0, 0, 2]


def test_the_watch_ends_with_the_run_and_its_errors_are_the_runs(here: Path) -> None:
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = cas.track("a", name="x")
    run.watch_model(object())
    run.watch_model(model, optimizer, every=0)
    run.watch_model(model, optimizer, every=1)
    model.named_parameters = None  # type: ignore[method-assign, assignment]
    optimizer.step()
    with pytest.raises(TrackingError, match=r"3 calls"):
        run.finish()
    optimizer.step()
    assert not optimizer._optimizer_step_pre_hooks
