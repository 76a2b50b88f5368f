"""The kinds of things that are logged, and how each is read back."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from cas.errors import CorruptionError, UnsupportedError
from cas.objects.document import read_document

Decode = Callable[[str, bytes, dict[str, Any]], Any]

# Kinds of documents are read as they were written; the other ones know their own formats.
DOCUMENTS: Final = frozenset(
    {"confusion_matrix", "pr_curve", "roc_curve", "learning_curves", "graph", "embedding"}
)
HOMES: Final = {
    name: f"cas.tracking.media.{name}"
    for name in ("image", "audio", "figure", "table", "histogram")
}


def value_of(kind: str, format: str, data: bytes, options: dict[str, Any]) -> Any:
    """Return what was logged; raise UnsupportedError for a kind that is not known here."""
    if kind == "text":
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CorruptionError(f"a text is none: {error}") from error
    if kind in DOCUMENTS:
        return read_document(data)
    if kind not in HOMES:
        raise UnsupportedError(f"what is a {kind}? This cas does not know: read its .bytes()")
    decode: Decode = import_module(HOMES[kind]).decode
    return decode(format, data, options)
