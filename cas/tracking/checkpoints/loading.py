"""What of a stored state fits into a part, such as a model that has changed since.

Goes by the keys of `state_dict()` and by the shapes under them, of an optimizer by its groups of
parameters; what is neither is passed on as it is, and the part itself decides.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from cas.errors import InvalidInputError

SHOWN: Final = 3
GROUPS: Final = "param_groups"


@dataclass(frozen=True, slots=True)
class Report:
    """How a stored state differs from the part that it was loaded into; empty where it fits.

    `missing` are keys of the part that the checkpoint lacks, `unexpected` those that only it has.
    `shapes` has the stored shape and the part's own, `dtypes` likewise: values are converted.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None
    dtypes: Mapping[str, tuple[str, str]] | None = None

    @property
    def fits(self) -> bool:
        """Whether every key is on both sides, in the same shape."""
        return not (self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        told = [
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", tuple(self.shapes or ())),
            ("of another dtype", tuple(self.dtypes or ())),
        ]
        return "; ".join(f"{what}: {_few(keys)}" for what, keys in told if keys) or "all of it fits"


def fit(name: str, part: object, stored: object, *, strict: bool) -> tuple[object, Report]:
    """Return the state to load into a part, and how it differs from what the part has.

    Strict, it is all that is stored; raises InvalidInputError where that does not fit. Else what
    does not fit is as the part has it already.
    """
    own = _state_dict(part)
    if own is None or not _is_map(own) or not _is_map(stored):
        return stored, Report()
    assert isinstance(stored, dict)
    report = compared(own, stored)
    if report.fits:
        return stored, report
    if strict:
        raise InvalidInputError(
            f"{name} does not take the stored state ({report}); strict=False loads what fits"
        )
    partial = type(own)()
    for key, value in own.items():
        taken = key in stored and key not in (report.shapes or {})
        partial[key] = stored[key] if taken else value
    return partial, report


def left_out(model: object, report: Report) -> frozenset[int]:
    """Return the ids of the parameters of a model that got no stored value."""
    named = getattr(model, "named_parameters", None)
    lacking = {*report.missing, *(report.shapes or ())}
    if not lacking or not callable(named):
        return frozenset()
    return frozenset(id(parameter) for name, parameter in named() if name in lacking)


def fit_optimizer(
    name: str, part: object, stored: object, *, strict: bool, without: Collection[int]
) -> tuple[object, Report]:
    """Return the state to load into an optimizer as `fit` does; into anything else, what `fit` has.

    Not strict, parameters in `without`, by their ids, begin anew: what is known of their steps is
    of another shape, and the optimizer would only find out at its next step. One with other groups
    stays as it is.
    """
    groups = getattr(part, GROUPS, None)
    if not isinstance(groups, list) or not _is_optimizer(stored):
        return fit(name, part, stored, strict=strict)
    kept = stored[GROUPS]
    own_sizes = tuple(len(group["params"]) for group in groups)
    sizes = tuple(len(group["params"]) for group in kept)
    if own_sizes != sizes:
        if strict:
            raise InvalidInputError(
                f"{name} does not take the stored state: that has groups of {_listed(sizes)} "
                f"parameters, {name} of {_listed(own_sizes)}; strict=False leaves it as it is"
            )
        return _state_dict(part), Report(shapes={GROUPS: (sizes, own_sizes)})
    own = [parameter for group in groups for parameter in group["params"]]
    numbers = [number for group in kept for number in group["params"]]
    anew = {number for number, one in zip(numbers, own, strict=True) if id(one) in without}
    if strict or not anew:
        return stored, Report()
    state = {number: one for number, one in stored["state"].items() if number not in anew}
    return {**stored, "state": state}, Report(missing=tuple(f"state[{it}]" for it in sorted(anew)))


def _is_optimizer(stored: object) -> TypeGuard[dict[str, Any]]:
    """Say whether this is what an optimizer of torch has as its state."""
    if not isinstance(stored, dict) or not isinstance(stored.get("state"), dict):
        return False
    groups = stored.get(GROUPS)
    return isinstance(groups, list) and all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups
    )


def _listed(sizes: tuple[int, ...]) -> str:
    return " and ".join(map(str, sizes)) or "no"


def compared(own: Mapping[str, Any], stored: Mapping[str, Any]) -> Report:
    """Return how a stored state differs from a part's own."""
    shared = [key for key in own if key in stored]
    forms = {key: (_form(stored[key]), _form(own[key])) for key in shared}
    known = {key: (a, b) for key, (a, b) in forms.items() if a is not None and b is not None}
    shapes = {key: (a[0], b[0]) for key, (a, b) in known.items() if a[0] != b[0]}
    dtypes = {key: (a[1], b[1]) for key, (a, b) in known.items() if a[1] != b[1]}
    return Report(
        missing=tuple(key for key in own if key not in stored),
        unexpected=tuple(key for key in stored if key not in own),
        shapes=shapes or None,
        dtypes=dtypes or None,
    )


def _state_dict(part: object) -> Any:
    state_dict = getattr(part, "state_dict", None)
    return state_dict() if callable(state_dict) else None


def _is_map(state: object) -> bool:
    """Say whether a state is a flat map of names to arrays or tensors, as that of a model."""
    return (
        isinstance(state, dict)
        and all(type(key) is str for key in state)
        and any(_form(value) is not None for value in state.values())
    )


def _form(value: object) -> tuple[tuple[int, ...], str] | None:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return None
    return tuple(shape), str(dtype).rpartition(".")[2]


def _few(keys: tuple[str, ...]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more
