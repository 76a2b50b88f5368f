"""Figures: plotly's as their own JSON, matplotlib's as a picture."""

import io
import json
from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError
from cas.tracking.media import image
from cas.tracking.media.content import Content, Prepared, clean, library, ready
from cas.tracking.privacy.secrets import scrub_bytes

PLOTLY: Final = "plotly.json"
PICTURES: Final = ("png", "svg")
DATA: Final = "bdata"  # numbers in base64, in a figure of plotly: no text to look for secrets in


def is_figure(value: object) -> bool:
    """Say whether a value is a figure of a library that is known here."""
    if library(value) == "plotly":
        return hasattr(value, "to_plotly_json") and hasattr(value, "add_trace")
    return library(value) == "matplotlib" and hasattr(value, "savefig")


def prepare(figure: object, format: str = "png", dpi: int | None = None) -> Prepared:
    """Copy a figure; `format` of one of matplotlib is png or svg. Raises InvalidInputError."""
    given: Any = figure
    if not is_figure(figure):
        kind = type(figure).__name__
        hint = "; its .figure is" if is_figure(getattr(figure, "figure", None)) else ""
        raise InvalidInputError(f"a {kind} is no figure of matplotlib or plotly{hint}")
    if library(figure) == "plotly":
        text: str = given.to_json()
        spec = text.encode()
        return Prepared(
            len(spec), lambda: Content(PLOTLY, json.dumps(_clean(json.loads(spec))).encode())
        )
    if format not in PICTURES:
        raise InvalidInputError(f"a figure is stored as {' or '.join(PICTURES)}, not {format!r}")
    # Drawn at once: the library is not made for threads, and the figure may be drawn on later.
    target = io.BytesIO()
    options = {} if dpi is None else {"dpi": dpi}
    plain = {"Software": None} if format == "png" else {"Date": None}
    from matplotlib import rc_context

    # Else each SVG has names of its own in it, drawn at random, and equal figures have no equal id.
    with rc_context({"svg.hashsalt": "cas"}):
        given.savefig(target, format=format, metadata=plain, **options)
    picture = target.getvalue()
    return ready(Content(format, scrub_bytes(picture)[0] if format == "svg" else picture))


def decode(format: str, data: bytes, options: dict[str, Any]) -> Any:
    """Return a figure of plotly as the dict it is made of, another as an image of PIL, or SVG."""
    if format != PLOTLY:
        return image.decode(format, data, {})
    try:
        return json.loads(data)
    except ValueError as error:
        raise CorruptionError(f"not a figure of plotly: {error}") from error


def _clean(value: object) -> Any:
    if isinstance(value, dict):
        return {key: item if key == DATA else _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return clean(value)
