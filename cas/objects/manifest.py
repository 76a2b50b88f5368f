"""Manifests: one structured artifact each, a state (weights) or a series (metric histories).

A manifest names the blobs that hold its data, row by row in columns; data of at most INLINE_LIMIT
bytes stands in the manifest itself and is stored nowhere else. What `State.value` means is known to
`pystate.py` alone.

Format: docs/format/manifest.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import ClassVar, Self

from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.ids import BlobId, Buffer, ManifestId, blob_id, manifest_id
from cas.objects import canonical
from cas.objects.canonical import Value
from cas.objects.fields import Fields

VERSION = 1
INLINE_LIMIT = 64
MAX_DIMENSIONS = 64
MAX_NBYTES = 2**63
MAX_LENGTH = 2**63 - 1
POINT_SIZE = 8

# The size of an element in bytes, under torch's names.
DTYPES: dict[str, int] = {
    "bool": 1,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
}

_TEXTS = frozenset({str})
_LISTS = frozenset({list})
_KEYS = frozenset({str, int})
_INTS = frozenset({int})
_DATA: frozenset[type] = frozenset({bytes, type(None)})


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor of a state: row-major, little-endian bytes; `data` exactly when they are few."""

    path: tuple[str | int, ...]
    dtype: str
    shape: tuple[int, ...]
    id: BlobId
    data: bytes | None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InvalidInputError(f"{self.label}: dtype {self.dtype!r} is not known")
        if len(self.shape) > MAX_DIMENSIONS:
            raise InvalidInputError(f"{self.label}: more than {MAX_DIMENSIONS} dimensions")
        if not all(0 <= length <= MAX_LENGTH for length in self.shape):
            raise InvalidInputError(f"{self.label}: shape {self.shape} is out of range")
        _check_inline(self.label, self.id, self.data, self.nbytes)

    @property
    def nbytes(self) -> int:
        """The size of the tensor's data."""
        return prod(self.shape) * DTYPES[self.dtype]

    @property
    def label(self) -> str:
        """The path as people read it."""
        return ".".join(map(str, self.path)) or "tensor"


@dataclass(frozen=True, slots=True)
class State:
    """A nested Python value and the tensors that it refers to by row number."""

    value: Value
    rows: tuple[TensorRow, ...]

    KIND: ClassVar[str] = "state"
    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"v", "kind", "value", "paths", "dtypes", "shapes", "ids", "data"}
    )

    @property
    def id(self) -> ManifestId:
        """The id of this manifest."""
        return manifest_id(self.to_bytes())

    @property
    def size(self) -> int:
        """The bytes of all tensors together."""
        return sum(row.nbytes for row in self.rows)

    def blobs(self) -> Iterator[BlobId]:
        """Yield the id of every blob that this manifest needs."""
        return (row.id for row in self.rows if row.data is None)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        rows = self.rows
        return canonical.encode(
            {
                "v": VERSION,
                "kind": self.KIND,
                "value": self.value,
                "paths": [list(row.path) for row in rows],
                "dtypes": [row.dtype for row in rows],
                "shapes": [list(row.shape) for row in rows],
                "ids": b"".join(row.id for row in rows),
                "data": [row.data for row in rows],
            }
        )

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read a state manifest; raise CorruptionError or UnsupportedError."""
        return cls._from_fields(_opened(raw, cls.KIND))

    @classmethod
    def _from_fields(cls, fields: Fields) -> Self:
        fields.expect(cls.FIELDS)
        paths = fields.column("paths", _LISTS)
        count = len(paths)
        dtypes = fields.column("dtypes", _TEXTS, count)
        shapes = fields.column("shapes", _LISTS, count)
        ids = fields.ids("ids", count)
        data = fields.column("data", _DATA, count)
        if not {type(key) for path in paths for key in path} <= _KEYS:
            raise CorruptionError("state: paths holds a key that is neither text nor int")
        if not {type(length) for shape in shapes for length in shape} <= _INTS:
            raise CorruptionError("state: shapes holds a length that is no int")
        try:
            rows = tuple(
                TensorRow(tuple(path), dtype, tuple(shape), BlobId(id), inline)
                for path, dtype, shape, id, inline in zip(
                    paths, dtypes, shapes, ids, data, strict=True
                )
            )
        except InvalidInputError as error:
            raise CorruptionError(f"state: {error}") from error
        return cls(fields.any("value"), rows)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a series: its blob, and the bytes themselves exactly when they are few."""

    id: BlobId
    data: bytes | None

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the column with these bytes, which the caller stores when `data` is None."""
        return cls(blob_id(data), data if len(data) <= INLINE_LIMIT else None)


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One history: `count` steps (int64) and as many values (float64), little-endian."""

    name: str
    count: int
    steps: Column
    values: Column

    def __post_init__(self) -> None:
        for column in (self.steps, self.values):
            _check_inline(self.name, column.id, column.data, self.count * POINT_SIZE)


@dataclass(frozen=True, slots=True)
class Series:
    """Metric histories, sorted by name."""

    rows: tuple[SeriesRow, ...]

    KIND: ClassVar[str] = "series"
    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"v", "kind", "names", "counts", "steps", "values", "steps_data", "values_data"}
    )

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if any(left >= right for left, right in pairwise(names)):
            raise InvalidInputError("a series has its rows sorted by name, each name once")

    @property
    def id(self) -> ManifestId:
        """The id of this manifest."""
        return manifest_id(self.to_bytes())

    @property
    def size(self) -> int:
        """The bytes of all columns together."""
        return sum(row.count * POINT_SIZE * 2 for row in self.rows)

    def blobs(self) -> Iterator[BlobId]:
        """Yield the id of every blob that this manifest needs."""
        columns = (column for row in self.rows for column in (row.steps, row.values))
        return (column.id for column in columns if column.data is None)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        rows = self.rows
        return canonical.encode(
            {
                "v": VERSION,
                "kind": self.KIND,
                "names": [row.name for row in rows],
                "counts": [row.count for row in rows],
                "steps": b"".join(row.steps.id for row in rows),
                "values": b"".join(row.values.id for row in rows),
                "steps_data": [row.steps.data for row in rows],
                "values_data": [row.values.data for row in rows],
            }
        )

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read a series manifest; raise CorruptionError or UnsupportedError."""
        return cls._from_fields(_opened(raw, cls.KIND))

    @classmethod
    def _from_fields(cls, fields: Fields) -> Self:
        fields.expect(cls.FIELDS)
        names = fields.column("names", _TEXTS)
        counts = fields.column("counts", _INTS, len(names))
        try:
            steps = _columns(fields, "steps", len(names))
            values = _columns(fields, "values", len(names))
            return cls(tuple(map(SeriesRow, names, counts, steps, values)))
        except InvalidInputError as error:
            raise CorruptionError(f"series: {error}") from error


Manifest = State | Series


def manifest_from_bytes(raw: Buffer) -> Manifest:
    """Read a manifest of any kind; raise CorruptionError or UnsupportedError."""
    fields = Fields("manifest", raw, VERSION)
    kind = fields.take("kind", str)
    for known in (State, Series):
        if kind == known.KIND:
            fields.what = kind
            return known._from_fields(fields)
    raise UnsupportedError(f"manifest kind {kind!r} is not known to this cas")


def _opened(raw: Buffer, kind: str) -> Fields:
    fields = Fields(kind, raw, VERSION)
    if fields.take("kind", str) != kind:
        raise CorruptionError(f"a {kind} manifest was expected, not {fields.any('kind')!r}")
    return fields


def _columns(fields: Fields, name: str, count: int) -> list[Column]:
    data = fields.column(f"{name}_data", _DATA, count)
    return [
        Column(BlobId(id), inline) for id, inline in zip(fields.ids(name, count), data, strict=True)
    ]


def _check_inline(label: str, id: BlobId, data: bytes | None, nbytes: int) -> None:
    """Refuse a size out of range and data that is not inline exactly when it is small."""
    if nbytes > MAX_NBYTES:
        raise InvalidInputError(f"{label}: {nbytes} bytes are more than {MAX_NBYTES}")
    if (data is not None) != (nbytes <= INLINE_LIMIT):
        raise InvalidInputError(f"{label}: data stands inline exactly up to {INLINE_LIMIT} bytes")
    if data is not None and len(data) != nbytes:
        raise InvalidInputError(f"{label}: {len(data)} bytes of data, not {nbytes}")
    if data is not None and blob_id(data) != id:
        raise InvalidInputError(f"{label}: the data is not what its id names")
