"""Whatever happens to the content of something logged, reading it says which trouble it is."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cas.errors import CasError, CorruptionError, UnsupportedError
from cas.tracking.media import audio, histogram, image, table
from cas.tracking.media.kinds import value_of

WAV = audio.prepare(audio.Audio(np.arange(10).astype(np.int16), 8000)).encode()
HISTOGRAM = histogram.prepare(np.arange(10.0), 4).encode()
TABLE = table.prepare({"a": [1.5, None], "b": ["x", "y"]}).encode()
PNG = image.prepare(image.Image(np.zeros((4, 4), np.uint8))).encode()
PARQUET = table.prepare(pa.table({"a": [1, 2], "b": ["x", "y"]})).encode()
CONTENTS = {
    "audio": WAV,
    "histogram": HISTOGRAM,
    "image": PNG,
    "table": TABLE,
    "table of Parquet": PARQUET,
}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda raw: b"",
    "cut short": lambda raw: raw[: len(raw) // 2],
    "overwritten": lambda raw: b"\0" * len(raw),
    "something else": lambda raw: b"{}",
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_has_a_name(kind: str, damage: Callable[[bytes], bytes]) -> None:
    content = CONTENTS[kind]
    with pytest.raises(CorruptionError):
        value_of(kind.split(maxsplit=1)[0], content.format, damage(content.value), {})


@pytest.mark.parametrize("kind", CONTENTS)
@given(at=st.integers(0, 200), byte=st.integers(0, 255))
def test_no_byte_makes_it_anything_else_than_a_value_or_one_of_our_errors(
    kind: str, at: int, byte: int
) -> None:
    content = CONTENTS[kind]
    raw = bytearray(content.value)
    raw[at % len(raw)] = byte
    with suppress(CasError):
        value_of(kind.split(maxsplit=1)[0], content.format, bytes(raw), dict(content.options))


def test_a_kind_of_a_newer_version_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="hologram"):
        value_of("hologram", "x", b"", {})
    with pytest.raises(CorruptionError, match="text"):
        value_of("text", "txt", b"\xff", {})


numbers = arrays.arrays(
    st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_]),
    st.integers(0, 30),
)


@given(values=numbers, bins=st.integers(1, 70))
def test_a_histogram_counts_every_number(values: Any, bins: int) -> None:
    content = histogram.prepare(values, bins).encode()
    found = value_of("histogram", content.format, content.value, {})
    floats = values.astype(float)
    assert len(found.counts) == bins
    assert found.counts.sum() == np.isfinite(floats).sum()
    assert (found.nan, found.inf) == (np.isnan(floats).sum(), np.isinf(floats).sum())
    assert (np.diff(found.edges) >= 0).all()
    again = histogram.prepare(found).encode()
    assert again == content


@given(
    counts=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20),
    width=st.floats(1e-3, 1e3),
)
def test_a_histogram_that_is_given_comes_back(counts: list[int], width: float) -> None:
    edges = np.cumsum(np.full(len(counts) + 1, width)) ** 1.5
    made = histogram.Histogram(np.array(counts), edges, 3, 4)
    content = histogram.prepare(made).encode()
    assert value_of("histogram", content.format, content.value, {}) == made
