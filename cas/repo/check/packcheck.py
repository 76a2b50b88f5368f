"""Checking packs and index files, and what fsck says of anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cas.backend.base import Span
from cas.backend.local import LocalBackend
from cas.errors import CasError, CorruptionError
from cas.ids import ObjectId
from cas.repo import headers
from cas.store.index import Place
from cas.store.indexfile import IndexFile
from cas.store.merge import agree
from cas.store.pack import HEADER, PackInfo, Row, check_header, read_footer
from cas.store.pinned import PinnedStore
from cas.store.record import KINDS

ERROR: Final = "error"
WARNING: Final = "warning"
INFO: Final = "info"
PACK: Final = "pack"
HALF: Final = "half"  # a record that is found by look-ups, of an object that is not whole


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or worth knowing, about one named thing."""

    severity: str
    what: str
    name: str
    detail: str


Found = tuple[ObjectId, Finding]


def structure(backend: LocalBackend, pack: PackInfo) -> Finding | None:
    """Check a listed pack's length, header and footer."""
    try:
        _check_structure(backend, pack)
    except CasError as error:
        return Finding(ERROR, PACK, pack.key, str(error))
    return None


def _check_structure(backend: LocalBackend, pack: PackInfo) -> None:
    size = backend.size(pack.key)
    if size is None:
        raise CorruptionError("it is listed, and its file is missing")
    if size != pack.length:
        raise CorruptionError(f"it is listed with {pack.length} bytes, and has {size}")
    (raw,) = backend.read(pack.key, [Span(0, HEADER.size)])
    check_header(raw, pack)
    problem = headers.unaccounted(read_footer(backend, pack).rows, HEADER.size)
    if problem is not None:
        raise CorruptionError(f"its footer does not account for the bytes from {problem} on")


def index_problem(
    backend: LocalBackend, key: str, store: PinnedStore, listed: Mapping[bytes, PackInfo]
) -> str | None:
    """Return what is wrong with an index file; rows of packs that are not listed do not count."""
    size = backend.size(key)
    if size is None:
        return None  # it was merged into another one meanwhile
    footers = {info.name: store.rows(info) for info in store.packs if info.name in listed}
    try:
        file = IndexFile.open(backend, key, size)
        file.check()
        agrees = agree(file, footers)
    except CasError as error:
        return str(error)
    return None if agrees else "it does not say what the footers of its packs say"


def damaged(place: Place, error: CasError) -> Found:
    """Return what to tell of a record that is not as it should be."""
    detail = f"{error} (at {place.row.offset} in {place.pack.key})"
    return place.row.id, Finding(ERROR, "damaged", record_name(place.row), detail)


def record_name(row: Row) -> str:
    """Return what an object is called by kind and id."""
    kind = KINDS.get(row.kind)
    return f"{kind.name.lower() if kind else 'object'} {row.id}"
