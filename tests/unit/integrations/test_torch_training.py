"""What a training run saves comes back exactly, loads, and goes on in the same way."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler as schedules  # noqa: E402

from cas.integrations import torch as adapter  # noqa: E402
from tests.support.exact import same  # noqa: E402
from tests.support.states import through_bytes  # noqa: E402

optim = torch.optim

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda params: optim.SGD(params, lr=0.1),
    "SGD momentum": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": optim.Adam,
    "Adam amsgrad": lambda params: optim.Adam(params, amsgrad=True, foreach=True),
    "Adam capturable rate": lambda params: optim.Adam(params, lr=torch.tensor(0.01)),
    "AdamW": lambda params: optim.AdamW(params, fused=True),
    "Adamax": optim.Adamax,
    "NAdam": optim.NAdam,
    "RAdam": optim.RAdam,
    "Adagrad": optim.Adagrad,
    "Adadelta": optim.Adadelta,
    "RMSprop": lambda params: optim.RMSprop(params, momentum=0.9, centered=True),
    "Rprop": optim.Rprop,
    "ASGD": optim.ASGD,
    "LBFGS": lambda params: optim.LBFGS(params, max_iter=3),
    "SparseAdam": optim.SparseAdam,
    "Adafactor": optim.Adafactor,
    "Muon": optim.Muon,
}


class Training:
    """A tiny model and its optimizer, on fixed data."""

    def __init__(self, make: Callable[[Any], Any], *, sparse: bool) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Embedding(5, 4, sparse=sparse)
        self.optimizer = make(self.model.parameters())

    def step(self) -> None:
        def closure() -> Any:
            self.optimizer.zero_grad()
            loss = (self.model(torch.tensor([0, 2, 2, 4])) - 1.0).pow(2).sum()
            loss.backward()
            return loss

        self.optimizer.step(closure)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if hasattr(optim, name.split()[0])])
def test_optimizers_go_on_where_they_were(name: str) -> None:
    make, sparse = OPTIMIZERS[name], name == "SparseAdam"
    first, second = Training(make, sparse=sparse), Training(make, sparse=sparse)
    first.step()
    first.step()
    saved = {"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}

    found = through_bytes(saved, [adapter.ADAPTER])

    assert same(found, saved)
    second.model.load_state_dict(found["model"])
    second.optimizer.load_state_dict(found["optimizer"])
    first.step()
    second.step()
    assert same(second.model.state_dict(), first.model.state_dict())
    assert same(second.optimizer.state_dict(), first.optimizer.state_dict())


class Halving:
    """A callable with a state of its own, which LambdaLR saves."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return float(0.5**epoch)


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: schedules.StepLR(o, 2),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [1, 2, 2, 5]),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 2),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.5, total_steps=10),
    "OneCycleLR linear": lambda o: schedules.OneCycleLR(
        o, 0.5, total_steps=10, anneal_strategy="linear", three_phase=True
    ),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "CyclicLR exp_range": lambda o: schedules.CyclicLR(o, 0.01, 0.1, mode="exp_range", gamma=0.9),
    "CyclicLR scale_fn": lambda o: schedules.CyclicLR(o, 0.01, 0.1, scale_fn=lambda x: 0.5 * x),
    "LinearLR": schedules.LinearLR,
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.ConstantLR(o), schedules.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o), schedules.ExponentialLR(o, 0.9)]
    ),
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda epoch: 0.9**epoch),
    "LambdaLR object": lambda o: schedules.LambdaLR(o, [Halving()]),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda _: 0.9),
    "PolynomialLR": schedules.PolynomialLR,
    "ConstantLR": schedules.ConstantLR,
}


def make_optimizer() -> Any:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 0.25)
    return optim.SGD([weight], lr=0.1, momentum=0.9)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_go_on_where_they_were(name: str) -> None:
    optimizer, fresh = make_optimizer(), make_optimizer()
    scheduler = SCHEDULERS[name](optimizer)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    saved = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}

    found = through_bytes(saved, [adapter.ADAPTER])

    assert same(found, saved)
    loaded = SCHEDULERS[name](fresh)
    fresh.load_state_dict(found["optimizer"])
    loaded.load_state_dict(found["scheduler"])
    assert same(loaded.state_dict(), scheduler.state_dict())
    for _ in range(3):
        for one, rates in ((optimizer, scheduler), (fresh, loaded)):
            one.step()
            rates.step()
        assert loaded.get_last_lr() == scheduler.get_last_lr()


def test_the_plateau_scheduler_goes_on_where_it_was() -> None:
    optimizer, fresh = make_optimizer(), make_optimizer()
    scheduler, loaded = (
        schedules.ReduceLROnPlateau(one, patience=1, cooldown=1) for one in (optimizer, fresh)
    )
    for loss in (3.0, torch.tensor(2.5), 2.6, 2.7):
        scheduler.step(loss)
    saved = scheduler.state_dict()

    found = through_bytes(saved, [adapter.ADAPTER])

    assert same(found, saved)
    loaded.load_state_dict(found)
    fresh.load_state_dict(optimizer.state_dict())
    for loss in (2.8, 2.9, 3.0, 3.1):
        scheduler.step(loss)
        loaded.step(loss)
    assert loaded.get_last_lr() == scheduler.get_last_lr()
    assert loaded.get_last_lr()[0] < 0.1


def test_the_other_parts_of_a_training_run_come_back() -> None:
    model = torch.nn.Linear(3, 2)
    average = torch.optim.swa_utils.AveragedModel(model)
    scaler = torch.amp.GradScaler("cpu")
    generator = torch.Generator().manual_seed(7)
    saved = {
        "average": average.state_dict(),
        "scaler": scaler.state_dict(),
        "generator": generator.get_state(),
    }
    found = through_bytes(saved, [adapter.ADAPTER])
    assert same(found, saved)
    average.load_state_dict(found["average"])
    scaler.load_state_dict(found["scaler"])
    assert same(torch.Generator().set_state(found["generator"]).get_state(), saved["generator"])


def test_random_numbers_go_on_where_they_were() -> None:
    torch.manual_seed(3)
    torch.rand(5)
    state = adapter.rng_state()
    expected = torch.rand(4), torch.randn(3)

    adapter.set_rng_state(through_bytes(state, [adapter.ADAPTER]))

    assert same((torch.rand(4), torch.randn(3)), expected)


def test_states_of_devices_that_are_not_here_are_left_out() -> None:
    state = adapter.rng_state()
    state["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)
    if torch.cuda.device_count() == 0:
        adapter.set_rng_state(state)
    assert same(adapter.rng_state()["cpu"], state["cpu"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_random_numbers_of_a_device_go_on_where_they_were() -> None:
    adapter.set_seeds(5)
    torch.rand(5, device="cuda")
    state = adapter.rng_state()
    expected = torch.rand(4, device="cuda").cpu()
    adapter.set_rng_state(through_bytes(state, [adapter.ADAPTER]))
    assert same(torch.rand(4, device="cuda").cpu(), expected)


def test_seeds_fix_the_sequence() -> None:
    adapter.set_seeds(11)
    first = torch.rand(3)
    adapter.set_seeds(11)
    assert same(torch.rand(3), first)


def test_settings_and_versions_are_plain_values() -> None:
    settings, versions = adapter.determinism(), adapter.versions()
    assert settings["deterministic_algorithms"] is False
    assert settings["matmul_precision"] == "highest"
    assert settings["num_threads"] == torch.get_num_threads()
    assert versions["torch"] == torch.__version__
    assert {type(value) for value in {**settings, **versions}.values()} <= {
        bool,
        int,
        str,
        type(None),
    }


def test_a_flag_that_was_set_is_told() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        settings = adapter.determinism()
    finally:
        torch.use_deterministic_algorithms(False)
    assert settings["deterministic_algorithms"] is True
    assert settings["deterministic_warn_only"] is True
