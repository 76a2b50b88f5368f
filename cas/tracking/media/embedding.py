"""Embeddings: vectors, bit for bit, with a label or more facts for each."""

from collections.abc import Mapping, Sequence

from cas.errors import InvalidInputError
from cas.tracking.captured.capture import as_data
from cas.tracking.media.content import Content, Prepared, as_array, clean


def prepare(
    vectors: object,
    labels: Sequence[object] | None = None,
    metadata: Mapping[str, Sequence[object]] | None = None,
) -> Prepared:
    """Copy n x d vectors and what is said of each; raise InvalidInputError for what is none."""
    array = as_array(vectors, "an embedding")
    if array.ndim != 2:
        raise InvalidInputError(f"an embedding is n x d vectors, not of shape {array.shape}")
    told = {str(name): _column(column) for name, column in (metadata or {}).items()}
    names = None if labels is None else _column(labels)
    for name, column in {"labels": names, **told}.items():
        if column is not None and len(column) != len(array):
            raise InvalidInputError(f"{len(array)} vectors, but {len(column)} of {name}")
    value = {"vectors": array, "labels": names, "metadata": told}
    return Prepared(array.nbytes, lambda: Content("state", value))


def _column(given: Sequence[object]) -> list[object]:
    items = given.tolist() if hasattr(given, "tolist") else list(given)
    told: list[object] = clean(as_data(items))
    return told
