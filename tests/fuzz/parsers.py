"""What is fuzzed of the formats of our own: parsers, inputs that they take, how to call them.

Where a format has a digest over what it holds, the digest is made right again, so that the inputs
get behind it. A parser says what it made of an input, as a word that tells one way from another.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from cas.backend.memory import MemoryBackend
from cas.codec.base import codec_for
from cas.errors import CorruptionError
from cas.ids import blob_id, digest
from cas.objects import canonical
from cas.objects.canonical import Value
from cas.objects.document import read_document
from cas.objects.edges import parse, references
from cas.objects.framework import Framework
from cas.objects.kind import Kind
from cas.objects.manifest import State, manifest_from_bytes
from cas.objects.pystate import tags, unflatten
from cas.objects.states import load_state
from cas.repo import config
from cas.repo import root as roots
from cas.repo.layout import root_key, snapshot_key
from cas.repo.repo import Repo, check_format
from cas.repo.root import ROOT_MAGIC, SNAPSHOT_MAGIC, envelope
from cas.repo.trees.statcache import Known, key_of
from cas.store.indexfile import IndexFile
from cas.store.merge import merge
from cas.store.pack import (
    FOOTER_MAGIC,
    HEADER,
    TRAILER,
    VERSION,
    PackClass,
    PackInfo,
    Row,
    check_header,
    read_footer,
    rebuilt_footer,
)
from cas.store.packed import PackedStore
from cas.store.recipe import Recipe
from cas.store.record import RECIPE, RecordHeader
from cas.store.segment import COUNTS, MAGIC, Segment
from cas.store.segment import TRAILER as INDEX_END
from cas.store.segment import VERSION as INDEX_VERSION
from cas.tracking.journals.journal import read_journal
from cas.tracking.journals.state import RunState
from tests.fuzz.fuzzing import MOST, Target
from tests.support.specimen import Specimen

PACK: Final = b"\x07" * 16


def targets(specimen: Specimen, folder: Path) -> dict[str, Target]:
    """Return the parsers of all that a repository stores; files are written in `folder`."""
    by_kind: dict[Kind, list[bytes]] = {kind: [] for kind in Kind}
    for kind, data in specimen.objects.values():
        by_kind[kind].append(data)
    files = specimen.files
    packs = [data for key, data in files.items() if key.startswith("packs/") and len(data) < 2000]
    journal = next(data for key, data in files.items() if key.startswith("journals/"))
    return {
        "record": Target(_records(specimen), _record),
        "pack": Target([_unsealed(raw) for raw in packs], _pack),
        "recipe": Target([_recipe_columns(n) for n in (1, 2, 7)], _recipe),
        "index": Target(_indexes(specimen), _index),
        "root": Target(_bodies(files, "roots/"), _root, [b"refs_set", b"condemned"]),
        "snapshot": Target(_bodies(files, "snapshots/"), _snapshot),
        "manifest": Target(by_kind[Kind.MANIFEST], _manifest),
        "tree": Target(by_kind[Kind.TREE], _object(Kind.TREE)),
        "commit": Target(by_kind[Kind.COMMIT], _object(Kind.COMMIT)),
        "state": Target(_values(), _state_value),
        "journal": Target([journal], _Journal(folder)),
        "frames": Target([canonical.encode(f) for f in _frames()], _frame),
        "config": Target(_configs(files["config.json"]), _Config(folder), [b"retention.", b"null"]),
        "format": Target([files["format"]], _format, [b"requires x", b"version "]),
        "stat cache": Target(_known_values(), _known),
        "document": Target([b'{"a": [1, 2.5, "x", null]}\n', b"[NaN, 1e999]"], _document),
    }


def _records(specimen: Specimen) -> list[bytes]:
    return [specimen.files[r.key][r.start : r.stop] for r in specimen.records]


def _record(data: bytes) -> object:
    header = RecordHeader.from_bytes(data)
    body = data[RecordHeader.SIZE :]
    sound = header.checksum(body) == header.check
    if header.codec == RECIPE:
        return sound, len(Recipe.from_bytes(body, header.size).sizes)
    if header.size > MOST or header.depth:
        return sound, header.depth
    decoded = codec_for(header.codec).decode(body, header.size)
    assert len(decoded) == header.size
    if header.kind is Kind.BLOB:
        return sound, header.codec
    return sound, sum(1 for _ in references(parse(header.kind, decoded, strict=True)))


def _unsealed(raw: bytes) -> bytes:
    """Return a pack without what stands over it, which is made right again."""
    (start, *_) = TRAILER.unpack_from(raw, len(raw) - TRAILER.size)
    return struct.pack("<I", start) + raw[: -TRAILER.size]


def _pack(data: bytes) -> object:
    if len(data) < 4:
        raise CorruptionError("too short")
    (start,) = struct.unpack_from("<I", data)
    raw = data[4:]
    check = digest(raw[start:])
    raw += TRAILER.pack(start, check, FOOTER_MAGIC, VERSION)
    name = raw[8:24] if len(raw) >= HEADER.size else PACK
    kind = PackClass.DATA if raw[5:6] == b"\2" else PackClass.METADATA
    info = PackInfo(name.ljust(16, b"\0"), len(raw), check, kind)
    backend = MemoryBackend()
    backend.put_new(info.key, raw)
    walked = rebuilt_footer(backend, info)
    footer = read_footer(backend, info)
    check_header(raw[: HEADER.size], info)
    store = PackedStore(backend, lambda: [info])
    got = 0
    for row in [*footer, *walked]:
        if row.kind in {1, 2, 3, 4} and row.size <= MOST:
            got += _got(store, row)
    return len(footer), len(walked), got


def _got(store: PackedStore, row: Row) -> int:
    try:
        data = store.read(Kind(row.kind), row.id)
    except LookupError:
        return 0
    except CorruptionError:
        return 1
    assert row.kind != Kind.BLOB or blob_id(data) == row.id, "bytes under another id"
    return 2


def _recipe_columns(count: int) -> bytes:
    sizes = struct.pack(f"<{count}Q", *range(1, count + 1))
    return struct.pack("<IQ", count, sum(range(count + 1))) + sizes + bytes(32 * count)


def _recipe(data: bytes) -> object:
    if len(data) < 12:
        raise CorruptionError("too short")
    count, size = struct.unpack_from("<IQ", data)
    columns = data[12:]
    recipe = Recipe.from_bytes(Recipe.HEAD.pack(digest(columns), count) + columns, size)
    assert sum(length for _, length in recipe.pieces()) == size
    return len(recipe.sizes)


def _indexes(specimen: Specimen) -> list[bytes]:
    """Return index files with the counts of rows and packs in front, and no digests."""
    made = []
    rows = [Row(r.id, r.start, 1, 1, r.kind, 0, 0) for r in specimen.records]
    for count in (1, 3, len(rows)):
        part = sorted(row.to_bytes() for row in rows[:count])
        raw = merge([Segment(b"".join(part), (PACK,))]).to_bytes()
        made.append(struct.pack("<QI", count, 1) + raw[: -INDEX_END.size])
    return made


def _index(data: bytes) -> object:
    if len(data) < 24:
        raise CorruptionError("too short")
    rows, packs = struct.unpack_from("<QI", data)
    raw = data[12:]
    # The digests of blocks, and the one over them, are what they would be.
    at = 8 + rows * Row.SIZE
    blocks = -(-rows * Row.SIZE // (128 * Row.SIZE))
    table_at = at + packs * 16 + blocks * 8
    if table_at + 8 * blocks == len(raw):
        checks = (digest(raw[8 + n * 8192 : min(8 + (n + 1) * 8192, at)], size=8)
                  for n in range(blocks))  # fmt: skip
        raw = raw[:table_at] + b"".join(checks)
    check = digest(raw[at:], COUNTS.pack(rows, packs))
    raw += INDEX_END.pack(rows, packs, check, MAGIC, INDEX_VERSION)
    backend = MemoryBackend()
    backend.put_new("index/00.idx", raw)
    file = IndexFile.open(backend, "index/00.idx", len(raw))
    wanted = [row.id for row in Segment.from_bytes(raw)][:4]
    file.check()
    return len(file), sum(len(file.find(id, int.from_bytes(id[:8], "big"))) for id in wanted)


def _bodies(files: Any, prefix: str) -> list[bytes]:
    return [raw[44:] for key, raw in files.items() if key.startswith(prefix)]


def _root(body: bytes) -> object:
    value = canonical.decode(body)
    backend = MemoryBackend()
    if isinstance(value, dict):
        # Snapshots that it may name are not there: what stands in the root itself is looked at.
        value |= {"refs_base": None, "packs_base": None, "refs_gone": [], "packs_gone": []}
        value |= {"seq": 1} if type(value.get("seq")) is int else {}
        body = canonical.encode(value)
    backend.put_new(root_key(1), envelope(ROOT_MAGIC, body))
    found = roots.read(backend, 1)
    follow = found.follow(found.operation)
    roots.publish(backend, follow, bytes(16))
    assert roots.read(backend, follow.seq).refs == found.refs
    return len(found.refs), len(found.packs), len(found.condemned), len(found.tombstones)


def _snapshot(body: bytes) -> object:
    backend = MemoryBackend()
    backend.put_new(snapshot_key(PACK), envelope(SNAPSHOT_MAGIC, body))
    empty: dict[str, Any] = {"names": b"", "lengths": [], "footers": b"", "kinds": b""}
    value: dict[str, Any] = {
        "v": 1, "seq": 1, "previous": bytes(32), "operation": [bytes(16), "a", "b", 1],
        "changes": [], "refs_base": None, "packs_base": None, "refs_set": {}, "refs_gone": [],
        "packs_added": empty, "packs_gone": [], "condemned": empty, "tombstones": [],
    }  # fmt: skip
    value["refs_base" if b"\xa3ids" in body else "packs_base"] = [PACK, digest(body)]
    backend.put_new(root_key(1), envelope(ROOT_MAGIC, canonical.encode(value)))
    found = roots.read(backend, 1)
    return len(found.refs), len(found.packs)


def _object(kind: Kind) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        loose = parse(kind, data)
        try:
            strict = parse(kind, data, strict=True)
        except CorruptionError:
            return sum(1 for _ in references(loose)), False
        assert strict == loose
        assert cast("Any", strict).to_bytes() == data
        return sum(1 for _ in references(loose)), True

    return run


def _manifest(data: bytes) -> object:
    found = manifest_from_bytes(data)
    if isinstance(found, State) and found.size <= MOST:
        value = load_state(found, (), lambda id, nbytes: memoryview(bytearray(nbytes)))
        return sorted(tags(found.value)), type(value).__name__
    return type(found).__name__, sum(1 for _ in references(found)), found.size > 0


def _values() -> list[bytes]:
    values: list[Value] = [
        ["dict", "a", 1, "b", ["list", 1, 2.5, None], 3, ["tuple", True, b"x"]],
        ["odict", "k", ["complex", 1.0, 2.0], "n", ["int", b"\0" * 9 + b"\1"]],
        ["state_dict", ["odict"], "w", ["ndarray", 0], "v", ["ndarray", 0, ">"]],
        ["counter", "x", 3, ["tuple", 1, 2], 4],
        ["list", ["numpy", "float32", b"\0\0\0\0"], ["numpy", "int8", b"\7"]],
    ]
    return [canonical.encode(value) for value in values]


def _state_value(data: bytes) -> object:
    value = canonical.decode(data)

    def make(framework: Framework, row: int, extra: tuple[str, ...]) -> object:
        if row < 0:
            raise CorruptionError("no such row")
        return object()

    return type(unflatten(value, make)).__name__, sorted(tags(value))


def _frames() -> list[dict[str, Any]]:
    columns = {"steps": [struct.pack("<q", 1)], "values": [struct.pack("<d", 1)],
               "times": [struct.pack("<d", 1)]}  # fmt: skip
    entry = {"kind": 1, "id": bytes(32), "size": 3, "mode": 0o644}
    return [
        {"t": "params", "params": {"lr": 0.1, "n": {"deep": [1]}}},
        {"t": "points", "names": ["loss"], **columns},
        {"t": "parent", "role": "dataset", "commit": bytes(32), "path": "", "attrs": {"a": 1}},
        {"t": "artifact", "path": "a/b", **entry},
        {"t": "artifact", "path": b"a/\xff", **entry},
        {"t": "commit", "commit": bytes(32), "seq": 1},
        {"t": "finish", "status": "finished"},
        {"t": "odd", "more": 1},
    ]


def _frame(data: bytes) -> object:
    """Apply a frame between two that are right."""
    state = RunState("exp/a", "runs/exp/a", bytes(16))
    first, second = _frames()[:2]
    state.replay([first, canonical.decode(data), second])
    return len(state.params), len(state.artifacts), state.seq, state.status


class _Journal:
    """A whole journal, read from a file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"

    def __call__(self, data: bytes) -> object:
        # Behind the header each frame gets its check again, as far as the lengths go.
        at, out = 0, b""
        while len(data) - at >= 12:
            (length,) = struct.unpack_from("<I", data, at)
            body = data[at + 12 : at + 12 + length]
            out += struct.pack("<I", length) + digest(body, size=8) + body
            at += 12 + length
        self._path.write_bytes(out + data[at:])
        journal = read_journal(self._path)
        state = RunState("exp/a", "runs/exp/a", bytes(16))
        state.replay(journal.frames)
        return len(journal.frames), journal.torn


class _Config:
    """A config file, with all that is made of it."""

    def __init__(self, folder: Path) -> None:
        self._repo = Repo(folder, who="ada", clock=lambda: 1)
        self._path = folder / "config.json"

    def __call__(self, data: bytes) -> object:
        self._path.write_bytes(data)
        values = config.load(self._repo)
        for key in config.SETTINGS:
            config.get(self._repo, key)
        if hasattr(config, "policy"):
            config.policy(self._repo)
        return sorted(values.keys() & config.SETTINGS.keys())


def _configs(raw: bytes) -> list[bytes]:
    more = (
        b'{"retention.last": 3, "retention.best": 2, "retention.min": {"loss": 1}, "mode": "min"}'
    )
    return [raw, more, b'{"retention.within": "7d", "retention.budget": "2GB", "repack": "auto"}']


def _format(data: bytes) -> object:
    check_format(data, "here")
    return len(data.splitlines())


KNOWN: Final = key_of(b"/data", "full")


def _known_values() -> list[bytes]:
    rows = b"a\0" + bytes(44) + b"bc\0" + b"\1" * 44
    return [Known.of(KNOWN, rows, bytes(64), 7, None).raw[16:]]


def _known(data: bytes) -> object:
    raw = digest(KNOWN, data, size=16) + data
    known = Known.from_bytes(KNOWN, raw)
    rows = b"a\0" + bytes(44)
    return known.tree is None, known.is_still(rows), len(list(known.ids_of(rows)))


def _document(data: bytes) -> object:
    return type(read_document(data)).__name__
