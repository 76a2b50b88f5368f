"""Manifests come back equal, and damaged ones are an error of ours."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CasError
from cas.ids import BlobId, ObjectId, blob_id
from cas.objects import canonical
from cas.objects.manifest import (
    DTYPES,
    INLINE_LIMIT,
    Column,
    Manifest,
    Series,
    SeriesRow,
    State,
    TensorRow,
    manifest_from_bytes,
)

ids = st.binary(min_size=32, max_size=32).map(lambda raw: BlobId(ObjectId(raw)))
keys = st.text(max_size=5) | st.integers(-5, 5)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=4),
)


@st.composite
def tensor_rows(draw: st.DrawFn) -> TensorRow:
    path = tuple(draw(st.lists(keys, max_size=4)))
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    nbytes = DTYPES[dtype]
    for length in shape:
        nbytes *= length
    if nbytes > INLINE_LIMIT:
        return TensorRow(path, dtype, shape, draw(ids), None)
    data = draw(st.binary(min_size=nbytes, max_size=nbytes))
    return TensorRow(path, dtype, shape, blob_id(data), data)


@st.composite
def series_rows(draw: st.DrawFn) -> SeriesRow:
    count = draw(st.integers(0, 20))
    size = count * 8
    steps, metric = (draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    return SeriesRow(draw(st.text(max_size=5)), count, Column.of(steps), Column.of(metric))


states = st.builds(State, values, st.lists(tensor_rows(), max_size=5).map(tuple))
series = (
    st.lists(series_rows(), max_size=5, unique_by=lambda row: row.name)
    .map(lambda rows: tuple(sorted(rows, key=lambda row: row.name)))
    .map(Series)
)
manifests = states | series


@given(manifests)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    raw = manifest.to_bytes()
    canonical.check(raw)
    back = manifest_from_bytes(raw)
    assert type(back) is type(manifest)
    assert back.rows == manifest.rows
    assert back.to_bytes() == raw
    assert (back.id, back.size) == (manifest.id, manifest.size)
    assert type(manifest).from_bytes(raw).rows == manifest.rows


@given(manifests)
def test_what_is_small_stands_inside_and_the_rest_are_blobs(manifest: Manifest) -> None:
    sizes = [
        size
        for row in manifest.rows
        for size in ([row.nbytes] if isinstance(row, TensorRow) else [row.count * 8] * 2)
    ]
    assert len(list(manifest.blobs())) == sum(size > INLINE_LIMIT for size in sizes)
    assert manifest.size == sum(sizes)


@given(manifests, st.data())
def test_a_damaged_manifest_is_an_error_of_ours(manifest: Manifest, data: st.DataObject) -> None:
    raw = bytearray(manifest.to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        back = manifest_from_bytes(raw)
    except CasError:
        return
    assert manifest_from_bytes(back.to_bytes()).rows == back.rows
