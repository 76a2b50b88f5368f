"""Watching a model while it trains: norms and histograms of parameters and gradients.

It looks at every N-th step of the optimizer, just before that changes the parameters: the gradients
are there then. What it finds stands at the number of that step.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.tracking.captured import frameworks

EVERY: Final = 100
HISTOGRAMS_EVERY: Final = 10  # looks between two with histograms

Numbers = Callable[[Mapping[str, float], int], None]
Show = Callable[[str, object, int], None]


class ModelWatch:
    """A model that is watched; with an optimizer it looks by itself, else when it is called."""

    def __init__(
        self,
        model: object,
        optimizer: object,
        *,
        every: int,
        histograms: bool,
        step: int,
        tell: "Callable[[ModelWatch, int], None]",
    ) -> None:
        if not callable(getattr(model, "named_parameters", None)):
            kind = type(model).__name__
            raise InvalidInputError(f"a {kind} has no named_parameters() to watch")
        if type(every) is not int or every < 1:
            raise InvalidInputError(f"every is a number of steps from 1 on, not {every!r}")
        self._model: Any = model
        self._optimizer: Any = optimizer
        self._every = every
        self._histograms = histograms
        self._step = step
        self._tell = tell
        self._looks = 0
        self._hook: Any = None

    def same(self, other: "ModelWatch") -> bool:
        """Say whether the other one watches the same model with the same optimizer."""
        return self._model is other._model and self._optimizer is other._optimizer

    def begin(self) -> None:
        """Look by itself, where there is an optimizer to hang on to."""
        if self._optimizer is not None:
            self._hook = self._optimizer.register_step_pre_hook(lambda *_: self())

    def end(self) -> None:
        """Look no more."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def __call__(self) -> None:
        """Count one step, and look if it is its turn."""
        step, self._step = self._step, self._step + 1
        if step % self._every == 0:
            self._tell(self, step)

    def look(self, step: int, numbers: Numbers, show: Show) -> None:
        """Tell of the model as it is now."""
        adapter = frameworks.module("torch")
        known = [(name, one) for name, one in self._model.named_parameters() if one.requires_grad]
        found = dict(_rates(self._optimizer))
        kinds = {
            "param": [(name, one.detach()) for name, one in known],
            "grad": [(name, one.grad.detach()) for name, one in known if one.grad is not None],
        }
        for kind, tensors in kinds.items():
            norms = adapter.norms([tensor for _, tensor in tensors])
            found |= {
                f"{kind}_norm/{name}": norm for (name, _), norm in zip(tensors, norms, strict=True)
            }
            if norms:
                found[f"{kind}_norm"] = sum(norm * norm for norm in norms) ** 0.5
        numbers(found, step)
        if self._histograms and self._looks % HISTOGRAMS_EVERY == 0:
            for kind, tensors in kinds.items():
                for name, tensor in tensors:
                    show(f"{kind}s/{name}", adapter.counted(tensor), step)
        self._looks += 1


def _rates(optimizer: Any) -> Iterable[tuple[str, float]]:
    """Yield the learning rate of each group of an optimizer."""
    groups = getattr(optimizer, "param_groups", [])
    for number, group in enumerate(groups):
        if "lr" in group:
            alone = len(groups) == 1
            name = "learning_rate" if alone else f"learning_rate/{group.get('name', number)}"
            yield name, float(group["lr"])
