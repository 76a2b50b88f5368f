"""What every kind of thing that is logged has in common: copied at once, encoded later."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cas.errors import InvalidInputError
from cas.objects.document import document
from cas.tracking.privacy.secrets import scrub_text, valid_text


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
        given = given.detach().cpu()
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


def library(value: object) -> str:
    """Return the name of the library that a value's type comes from."""
    return type(value).__module__.partition(".")[0]
