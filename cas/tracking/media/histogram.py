"""Histograms: counts and edges, in as few bytes as a million of them ask for."""

import sys
from dataclasses import dataclass
from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError
from cas.objects import canonical
from cas.tracking.media.content import Content, Prepared, as_array, ready

BINS: Final = 64
MAX_BINS: Final = 4096
EPSILON: Final = 2.0**-52
TINY: Final = 1e-280
LARGE: Final = 1e307
WIDTHS: Final = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How many numbers fell between each edge and the next; NaN and infinities are apart."""

    counts: Any
    edges: Any
    nan: int = 0
    inf: int = 0

    def __eq__(self, other: object) -> bool:
        import numpy as np

        if not isinstance(other, Histogram):
            return NotImplemented
        return (
            np.array_equal(self.counts, other.counts)
            and np.array_equal(self.edges, other.edges)
            and (self.nan, self.inf) == (other.nan, other.inf)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none


def prepare(values: object, bins: int = BINS) -> Prepared:
    """Copy numbers, or a histogram that is made already; raise InvalidInputError."""
    if isinstance(values, Histogram):
        return ready(Content("hist", to_bytes(values)))
    if type(bins) is not int or not 0 < bins <= MAX_BINS:
        raise InvalidInputError(f"a histogram has 1 to {MAX_BINS} bins, not {bins!r}")
    array = as_array(values, "a histogram's data")
    if array.dtype.kind == "c":
        raise InvalidInputError("complex numbers have no histogram: take their absolute values")
    return Prepared(array.nbytes, lambda: Content("hist", to_bytes(count(array, bins))))


def count(array: Any, bins: int) -> Histogram:
    """Return the histogram of an array between its least and its greatest number."""
    import numpy as np

    flat = array.reshape(-1).astype(np.float64, copy=False)
    finite = np.isfinite(flat)
    nan = inf = 0
    if not finite.all():
        nan = int(np.isnan(flat).sum())
        inf = int(len(flat) - finite.sum()) - nan
        flat = flat[finite]
    low, high = (float(flat.min()), float(flat.max())) if len(flat) else (0.0, 1.0)
    scale = _scale(low, high)
    counts, edges = np.histogram(flat * scale, bins, ends(low * scale, high * scale, bins))
    most = sys.float_info.max * scale
    return Histogram(counts, np.clip(edges, -most, most) / scale, nan, inf)


def ends(low: float, high: float, bins: int, precision: float = EPSILON) -> tuple[float, float]:
    """Return where a histogram begins and ends, so that numbers fit between all its edges."""
    tiny = TINY if precision == EPSILON else TINY**0.125  # of float32 and shorter
    least = max(4 * bins * precision * max(abs(low), abs(high)), tiny)
    if high - low > least:
        return low, high
    half = max(least, 0.5)
    return low - half, high + half


def _scale(low: float, high: float) -> float:
    """Return by what both are multiplied, so that what is computed of them stays a number."""
    return 1.0 if max(abs(low), abs(high)) < LARGE else 0.0625


def _even(first: float, last: float, count: int) -> Any:
    import numpy as np

    scale = _scale(first, last)
    return np.linspace(first * scale, last * scale, count) / scale


def to_bytes(histogram: Histogram) -> bytes:
    """Return the content: counts as narrow as they fit, edges by their ends where they are even."""
    import numpy as np

    counts, edges = np.asarray(histogram.counts), np.asarray(histogram.edges, np.float64)
    if counts.ndim != 1 or not 0 < len(counts) <= MAX_BINS or edges.shape != (len(counts) + 1,):
        raise InvalidInputError("a histogram has up to 4,096 counts, and one edge more than counts")
    if counts.dtype.kind not in "iu" or counts.min() < 0:
        raise InvalidInputError("the counts of a histogram are whole numbers from 0 on")
    if not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
        raise InvalidInputError("the edges of a histogram are numbers that go up")
    width = next(width for width in WIDTHS if int(counts.max()) < 2 ** (8 * width))
    even = _even(edges[0], edges[-1], len(edges))
    ends = edges[[0, -1]] if np.array_equal(even, edges) else edges
    return canonical.encode(
        {
            "bins": len(counts),
            "counts": counts.astype(f"<u{width}").tobytes(),
            "edges": ends.astype("<f8").tobytes(),
            "nan": int(histogram.nan),
            "inf": int(histogram.inf),
        }
    )


def decode(format: str, data: bytes, options: dict[str, Any]) -> Histogram:
    """Return a histogram; raise CorruptionError."""
    told = canonical.decode(data)
    try:
        return _of_fields(told if isinstance(told, dict) else {})
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptionError(f"not a histogram: {error!r}") from error


def _of_fields(fields: dict[str, Any]) -> Histogram:
    import numpy as np

    bins, raw, ends = fields["bins"], fields["counts"], fields["edges"]
    width = len(raw) // bins
    if not 0 < bins <= MAX_BINS or len(raw) != bins * width or width not in WIDTHS:
        raise ValueError("its counts do not fit its bins")
    counts = np.frombuffer(raw, f"<u{width}").astype(np.int64)
    edges = np.frombuffer(ends, "<f8").astype(np.float64)
    if not np.isfinite(edges).all():
        raise ValueError("its edges are no numbers")
    if len(edges) == 2 and bins > 1:
        edges = _even(edges[0], edges[1], bins + 1)
    if len(edges) != bins + 1:
        raise ValueError("its edges do not fit its bins")
    return Histogram(counts, edges, fields["nan"], fields["inf"])
