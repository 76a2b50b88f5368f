"""Loading what fits of a checkpoint, and saying what does not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError, NotFoundError
from cas.tracking.checkpoints.loading import compared, fit


class Part:
    """A model of arrays that takes only what it has itself."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        assert state.keys() == self.state.keys()
        self.state = dict(state)


OLD = {"a": np.ones(3), "b": np.ones((2, 2), np.float32), "gone": np.ones(1)}


def changed() -> Part:
    return Part(a=np.zeros(3), b=np.zeros((2, 3), np.float32), new=np.full(1, 5.0))


def test_a_report_names_every_difference() -> None:
    report = compared(changed().state, OLD)
    assert report.missing == ("new",)
    assert report.unexpected == ("gone",)
    assert report.shapes == {"b": ((2, 2), (2, 3))}
    assert report.dtypes is None
    assert str(report) == "missing: new; unexpected: gone; of another shape: b"
    assert not report.fits


def test_a_dtype_is_reported_and_fits() -> None:
    report = compared({"a": np.zeros(3, np.float32)}, {"a": np.zeros(3)})
    assert report.fits
    assert report.dtypes == {"a": ("float64", "float32")}
    assert str(compared(OLD, OLD)) == "all of it fits"


def test_strictly_it_fits_or_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"model does not take the stored state.*strict"):
        fit("model", changed(), OLD, strict=True)
    assert fit("model", Part(**OLD), OLD, strict=True)[0] is OLD


def test_otherwise_what_does_not_fit_stays_as_it_is() -> None:
    state, report = fit("model", changed(), OLD, strict=False)
    assert isinstance(state, dict)
    assert list(state) == ["a", "b", "new"]
    assert state["a"] is OLD["a"]
    assert (state["b"].shape, state["new"][0]) == ((2, 3), 5.0)
    assert report.missing == ("new",)


def test_what_is_no_map_of_tensors_is_the_parts_own_business() -> None:
    for stored in ({"lr": 0.1}, [1, 2], 5, {1: np.ones(2)}):
        assert fit("optimizer", Part(lr=1), stored, strict=True)[0] is stored


def test_through_a_run(here: Path) -> None:
    with cas.track("a") as run:
        run.save_checkpoint(model=Part(**OLD), step=1)
        model = changed()
        with pytest.raises(InvalidInputError, match="of another shape: b"):
            run.load_checkpoint(model=model)
        assert model.state["a"][0] == 0
        loaded = run.load_checkpoint(model=model, strict=False)
        assert model.state["a"][0] == 1
        assert loaded.reports["model"].unexpected == ("gone",)
        with pytest.raises(NotFoundError, match="optimizer in checkpoint"):
            run.load_checkpoint(optimizer=Part(lr=1))
        assert run.load_checkpoint(optimizer=Part(lr=1), strict=False).reports == {}


def test_a_model_of_torch_that_has_grown(here: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    nn = torch.nn
    old = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    new = nn.Sequential(nn.Linear(4, 3).to(torch.bfloat16), nn.Linear(3, 5), nn.Linear(5, 5))
    head = new[1].weight.clone()
    with cas.track("a") as run:
        run.save_checkpoint(model=old, step=1)
        report = run.load_checkpoint(model=new, strict=False).reports["model"]
    assert report.missing == ("2.weight", "2.bias")
    assert report.shapes == {"1.weight": ((2, 3), (5, 3)), "1.bias": ((2,), (5,))}
    assert report.dtypes == {
        "0.weight": ("float32", "bfloat16"),
        "0.bias": ("float32", "bfloat16"),
    }
    assert torch.equal(new[0].weight, old[0].weight.to(torch.bfloat16))
    assert torch.equal(new[1].weight, head)


def test_a_map_location_moves_what_is_returned(here: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    tied = torch.ones(100)
    with cas.track("a") as run:
        run.save_checkpoint(model={"a": tied, "b": tied, "deep": [(tied + 1,)]}, step=1)
        state = run.load_checkpoint(map_location="meta", restore_rng=False).state["model"]
        assert state["a"].device.type == "meta"
        assert state["b"] is state["a"]
        assert state["deep"][0][0].device.type == "meta"
        kept = run.load_checkpoint(map_location={"cuda:0": "meta"}).state["model"]
        assert kept["a"].device.type == "cpu"
        mapped = run.load_checkpoint(map_location={"cpu": "meta"}, restore_rng=False)
        assert mapped.state["model"]["a"].device.type == "meta"


def trained(torch: Any, outputs: int) -> tuple[Any, Any]:
    """A model of two layers and its optimizer, a step on."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, outputs))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    train(torch, model, optimizer)
    return model, optimizer


def train(torch: Any, model: Any, optimizer: Any) -> None:
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()


def test_what_does_not_fit_of_a_model_begins_anew_in_its_optimizer(here: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    with cas.track("a") as run:
        model, optimizer = trained(torch, 2)
        run.save_checkpoint(model=model, optimizer=optimizer, step=1)
        grown, other = trained(torch, 5)
        loaded = run.load_checkpoint(model=grown, optimizer=other, strict=False)
        assert loaded.reports["optimizer"].missing == ("state[2]", "state[3]")
        first, _, last, _ = grown.parameters()
        expected = optimizer.state[next(iter(model.parameters()))]["exp_avg"]
        assert torch.equal(other.state[first]["exp_avg"], expected)
        assert "exp_avg" not in other.state[last]
        train(torch, grown, other)  # with moments of another shape it would fail here
        assert other.state[last]["exp_avg"].shape == last.shape


def test_an_optimizer_of_other_groups_is_refused_before_anything_is_loaded(here: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    with cas.track("a") as run:
        model, optimizer = trained(torch, 2)
        run.save_checkpoint(model=model, optimizer=optimizer, step=1)
        again, _ = trained(torch, 2)
        before = {name: value.clone() for name, value in again.state_dict().items()}
        other = torch.optim.AdamW([{"params": again[0].parameters()}, {"params": again[1].weight}])
        told = "stored state: that has groups of 4 parameters, optimizer of 2 and 1"
        with pytest.raises(InvalidInputError, match=told):
            run.load_checkpoint(model=again, optimizer=other)
        assert all(torch.equal(again.state_dict()[name], value) for name, value in before.items())
        loaded = run.load_checkpoint(model=again, optimizer=other, strict=False)
        assert str(loaded.reports["optimizer"]) == "of another shape: param_groups"
        assert torch.equal(again[0].weight, model[0].weight)
        assert other.param_groups[0]["lr"] == 1e-3
