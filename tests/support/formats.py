"""Stored things read and written whole, for the examples of the format pages."""

from typing import Any

from cas.backend.base import Span
from cas.backend.memory import MemoryBackend
from cas.objects import canonical
from cas.repo.repo import check_format
from cas.repo.root import SNAPSHOT_MAGIC, envelope, opened
from cas.repo.trees.statcache import Known, key_of
from cas.store.pack import HEADER, TRAILER, PackClass, PackInfo, PackWriter, check_header, pack_key
from cas.store.packed import PackedStore
from cas.store.recipe import Recipe
from cas.store.record import RecordHeader

Record = tuple[RecordHeader, bytes]


def read_record(raw: bytes) -> Record:
    """Read one record with its body, which must be what its checksum says."""
    header, body = RecordHeader.from_bytes(raw), raw[RecordHeader.SIZE :]
    assert (header.stored, header.check) == (len(body), header.checksum(body))
    return header, body


def write_record(record: Record) -> bytes:
    header, body = record
    return header.to_bytes() + body


def read_recipe(raw: bytes) -> Recipe:
    """Read a recipe of a blob of whatever size."""
    (count,) = Recipe.HEAD.unpack_from(raw)[1:]
    start = Recipe.HEAD.size
    sizes = [raw[start + 8 * n : start + 8 * n + 8] for n in range(count)]
    return Recipe.from_bytes(raw, sum(int.from_bytes(size, "little") for size in sizes))


def read_pack(raw: bytes) -> tuple[bytes, PackClass, list[Record]]:
    """Read a whole pack as a repository does that lists it; records in the order of the file."""
    _, _, kind, name = HEADER.unpack_from(raw)
    _, check, _, _ = TRAILER.unpack_from(raw, len(raw) - TRAILER.size)
    info = PackInfo(name, len(raw), check, PackClass(kind))
    check_header(raw[: HEADER.size], info)
    backend = MemoryBackend()
    backend.put_new(info.key, raw)
    places = list(PackedStore(backend, lambda: [info]).index.starting(b""))
    places.sort(key=lambda place: place.row.offset)
    records = [place.row.span for place in places]
    return name, info.kind, [read_record(part) for part in backend.read(info.key, records)]


def write_pack(pack: tuple[bytes, PackClass, list[Record]]) -> bytes:
    name, kind, records = pack
    backend = MemoryBackend()
    writer = PackWriter(backend, name, kind)
    for header, body in records:
        writer.add(header, body)
    writer.seal()
    (raw,) = backend.read(pack_key(name), [Span(0, None)])
    return raw


def read_snapshot(raw: bytes) -> Any:
    return canonical.check(opened(raw, SNAPSHOT_MAGIC, "the example")[0])


def write_snapshot(value: Any) -> bytes:
    return envelope(SNAPSHOT_MAGIC, canonical.encode(value))


def read_format(raw: bytes) -> list[str]:
    check_format(raw, "the example")
    return raw.decode().splitlines()


def write_format(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


KNOWN_KEY = key_of(b"/data", "full")


def read_known(raw: bytes) -> Known:
    """Read a value of the stat cache for the folder `/data`."""
    return Known.from_bytes(KNOWN_KEY, raw)


def write_known(known: Known) -> bytes:
    rows = known.raw[known.rows_at :]
    ids = b"".join(known.ids_of(rows))
    return Known.of(KNOWN_KEY, rows, ids, known.newest, known.tree).raw
