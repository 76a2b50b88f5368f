"""What every kind of thing that is logged has in common: copied at once, encoded later."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.objects.document import document
from cas.tracking.privacy.secrets import scrub_text, valid_text

LIBRARIES: Final = frozenset({"PIL", "matplotlib", "pandas", "plotly", "polars", "pyarrow"})


@dataclass(frozen=True, slots=True)
class Content:
    """Something in the form in which it is stored: bytes, or a value that becomes a state."""

    format: str
    value: Any
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A copy of what was given, its bytes in memory, and how its content is made, on any thread."""

    nbytes: int
    encode: Callable[[], Content]


def ready(content: Content) -> Prepared:
    """Return what is encoded already."""
    size = len(content.value) if isinstance(content.value, bytes) else 0
    return Prepared(size, lambda: content)


def json_content(value: object, **options: Any) -> Content:
    """Return plain data as a JSON document without secrets."""
    return Content("json", document(clean(value)), options)


def clean(value: object) -> Any:
    """Return plain data with the secrets taken out of its texts."""
    if isinstance(value, str):
        return scrub_text(valid_text(value))[0]
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def as_array(value: object, what: str) -> Any:
    """Return a copy as a NumPy array of numbers; a tensor comes from wherever it is.

    Types that NumPy lacks become float32. Raises InvalidInputError for what is no array.
    """
    import numpy as np

    given: Any = value
    if callable(getattr(given, "detach", None)):
        given = _dense(given.detach().cpu())
        if str(given.dtype).rpartition(".")[2].startswith(("bfloat", "float8", "float4")):
            given = given.float()
        given = given.resolve_conj().resolve_neg().numpy()
    try:
        array = np.array(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{what} is no array: {error}") from error
    if array.dtype.kind not in "biufc":
        raise InvalidInputError(f"{what} is an array of {array.dtype}, not of numbers")
    return array


def whole(value: object, what: str) -> int:
    """Return a whole number, also one of NumPy or a tensor; raise InvalidInputError."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # it raises TypeError for all else
    except TypeError as error:
        raise InvalidInputError(f"{what} is a whole number, not {value!r}") from error


def library(value: object) -> str:
    """Return which known library a value's class, or one that it is made of, comes from, or ""."""
    kind: Any = type(value)
    return _library(kind)


@lru_cache(256)
def _library(kind: type) -> str:
    homes = (one.__module__.partition(".")[0] for one in kind.__mro__)
    return next((home for home in homes if home in LIBRARIES), "")


def _dense(tensor: Any) -> Any:
    """Return a tensor that is sparse or quantized as one that NumPy can have."""
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if str(tensor.layout) == "torch.strided" else tensor.to_dense()
