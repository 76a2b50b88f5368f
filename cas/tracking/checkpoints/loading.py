"""What of a stored state fits into a part, such as a model that has changed since.

Goes by the keys of `state_dict()` and by the shapes under them; what is no map of them is passed
on as it is, and the part itself decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import InvalidInputError

SHOWN: Final = 3


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
