"""Bombs: inputs that are small, and would take all memory, all time or all of the disk.

Each is tried in bounded memory and time, and refused with an error that has a name.
"""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Final

import zstandard

from cas.codec.base import codec_for, delta_for
from cas.errors import CorruptionError
from cas.ids import BlobId, ObjectId, digest
from cas.objects import canonical
from cas.objects.containers.files import contents_in
from cas.objects.document import read_document
from cas.objects.edges import parse
from cas.objects.kind import Kind
from cas.objects.manifest import State, TensorRow
from cas.objects.pystate import unflatten
from cas.store.indexfile import IndexFile
from cas.store.pack import FOOTER_HEAD, FOOTER_MAGIC, TRAILER, Footer, PackClass, PackInfo
from cas.store.pack import read_footer as pack_footer
from cas.store.recipe import MAX_PIECES, Recipe
from cas.store.record import MAX_WHOLE, RECIPE, RecordHeader
from cas.store.segment import MAGIC, Segment
from cas.store.segment import TRAILER as INDEX_END
from tests.support.stores import Shelf
from tests.support.tensorfiles import (
    archive,
    gguf,
    gguf_text,
    number,
    state_dict,
    tensor,
    text,
    with_header,
)

MIB: Final = 1 << 20
MERSENNE: Final = 2**61 - 1  # Python's hash of an int is what is left when it is divided by this
Bomb = Callable[[], object]


def _opaque(data: bytes) -> None:
    """A tensor file that is none is opaque bytes: say so as an error."""
    if contents_in(io.BytesIO(data)) is not None:
        return
    raise CorruptionError("opaque bytes")


def _array(count: int, item: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + item * count


def _frame(size: int, *, states: int | None = None) -> bytes:
    """Return a small zstd frame of zeros, whose header may say another size."""
    raw = zstandard.ZstdCompressor(level=3).compress(bytes(size))
    if states is None:
        return raw
    # Magic, a descriptor with eight bytes of content size and one segment, then the blocks.
    head = zstandard.frame_header_size(raw)
    return raw[:4] + b"\xe0" + struct.pack("<Q", states) + raw[head:]


def _window(log: int, size: int) -> bytes:
    """Return a frame of one block of zeros that asks for a window of 2^log bytes."""
    head = b"\x28\xb5\x2f\xfd\x80" + bytes([log - 10 << 3]) + struct.pack("<I", size)
    return head + ((size << 3) | 0b011).to_bytes(3, "little") + b"\0"


def _zstd(body: bytes, size: int) -> object:
    return codec_for(1).decode(body, size)


def _rows(*lengths: int) -> bytes:
    return struct.pack(f"<{len(lengths)}I", *lengths)


def _record(**wrong: Any) -> object:
    fields = {"kind": 1, "codec": 0, "depth": 0, "size": 5, "stored": 5} | wrong
    front = (b"CASR", 1, fields["kind"], fields["codec"], fields["depth"])
    raw = RecordHeader.LAYOUT.pack(*front, bytes(32), fields["size"], fields["stored"], bytes(8))
    return RecordHeader.from_bytes(raw)


def _footer(rows: int, bases: int) -> object:
    return Footer.from_bytes(FOOTER_HEAD.pack(FOOTER_MAGIC, 1, rows, bases))


def _trailer(start: int, length: int = 200) -> object:
    shelf, raw = Shelf(), bytes(100)
    raw += TRAILER.pack(start, digest(b""), FOOTER_MAGIC, 1)
    info = PackInfo(b"\1" * 16, length, digest(b""), PackClass.DATA)
    shelf.backend.put_new(info.key, raw)
    return pack_footer(shelf.backend, info)


def _index(rows: int, packs: int) -> object:
    raw = b"CASI\2\0\0\0" + bytes(64) + INDEX_END.pack(rows, packs, bytes(32), MAGIC, 2)
    shelf = Shelf()
    shelf.backend.put_new("index/00.idx", raw)
    try:
        Segment.from_bytes(raw)
    except CorruptionError:
        return IndexFile.open(shelf.backend, "index/00.idx", len(raw))
    return None


def _recipes(levels: int, *, itself: bool = False, sizes: int | None = None) -> object:
    """Store a recipe of recipes of recipes, each of many pieces, and read it whole."""
    shelf = Shelf()
    writer = shelf.writer()
    id, size = ObjectId(writer.blob(b"x")), 1
    for level in range(levels):
        count = 64 if sizes is None else MAX_PIECES
        top = ObjectId(digest(b"%d" % level))
        inner = top if itself else id
        recipe = Recipe((size,) * count, inner * count)
        size = recipe.size if sizes is None else sizes
        body = recipe.to_bytes()
        writer.copy(RecordHeader.of(Kind.BLOB, RECIPE, top, size, body), body)
        id = top
    shelf.publish(writer)
    return shelf.store.read(Kind.BLOB, id)


def _deltas(kind: str) -> object:
    """Store deltas that lead nowhere, and read one."""
    shelf = Shelf()
    writer = shelf.writer()
    ids = [ObjectId(digest(b"%d" % n)) for n in range(9)]
    base = {"itself": 0, "each other": 1, "nothing": 8, "another size": 7}[kind]
    small = ObjectId(writer.blob(b"xy"))
    for number_ in range(2):
        to = {"each other": ids[1 - number_], "another size": small}.get(kind, ids[base])
        body = bytes(to) + b"\1\0" + bytes(4) + bytes(64)
        header = RecordHeader.of(Kind.BLOB, 3, ids[number_], 64, body, depth=1 + number_)
        writer.copy(header, body)
    shelf.publish(writer)
    return shelf.store.read(Kind.BLOB, ids[0])


def _state(value: Any) -> object:
    return unflatten(canonical.decode(canonical.encode(value)), lambda *_: None)


def _colliding(count: int, kind: str) -> object:
    """A dict all of whose keys have one hash, so that each is compared with all before."""
    keys: list[Any] = []
    for at in range(1, count + 1):
        if kind == "ints":
            value = MERSENNE * (at + 16)
            keys.append(["int", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)])
        else:
            keys.append(["complex", float(1_000_003 * at), float(-at)])
    return _state(["dict", *(item for key in keys for item in (key, None))])


def _tensors(shape: tuple[int, ...]) -> object:
    """A state whose tensor is larger than anything."""
    row = TensorRow(("w",), "float32", shape, BlobId(ObjectId(bytes(32))), None)
    return State.from_bytes(State(["ndarray", 0], (row,)).to_bytes())


def _node(**fields: Any) -> object:
    whole: dict[str, Any] = {"v": 1, "level": 0, "names": [], "kinds": b"", "modes": [],
                             "sizes": [], "ids": b"", "links": []} | fields  # fmt: skip
    return parse(Kind.TREE, canonical.encode(whole))


def _delta_on(kind: str) -> Bomb:
    return lambda: _deltas(kind)


def _zip(**options: Any) -> bytes:
    """Return an archive that says something else of itself than it is."""
    raw = bytearray(archive(state_dict({"w": tensor("0", (4,))}), {"0": bytes(16)}))
    end = raw.rindex(b"PK\5\6")
    for at, layout, value in options["changes"]:
        place = end + at if at >= 0 else raw.index(b"PK\1\2") - at
        struct.pack_into(layout, raw, place, value)
    return bytes(raw)


def _deflated(data: bytes, name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, data)
    return out.getvalue()


def _pickled(operations: bytes) -> bytes:
    return archive(b"\x80\2" + operations, {"0": bytes(16)})


def _laughs(depth: int) -> bytes:
    """Lists of lists that are all one and the same: 2^depth when written out."""
    made = b"]q\0"
    for level in range(depth):
        made += b"]q" + bytes([level + 1]) + b"(h" + bytes([level]) + b"h" + bytes([level]) + b"e"
    return made + b"."


def _npy(line: bytes, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    size = struct.pack(
        "<H" if version == b"\1\0" else "<I", len(line) if length is None else length
    )
    return b"\x93NUMPY" + version + size + line


def _array_line(shape: str, descr: str = "<f4") -> bytes:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()


BOMBS: Final[Mapping[str, Bomb]] = {
    # Canonical bytes
    "8 Mi empty arrays": lambda: canonical.decode(_array(8 * MIB, b"\x90")),
    "8 Mi empty maps": lambda: canonical.decode(_array(8 * MIB, b"\x80")),
    "300,000 arrays of one": lambda: canonical.decode(_array(300_000, b"\x91\xc0")),
    "an array of 2^32 items": lambda: canonical.decode(b"\xdd\xff\xff\xff\xff\xc0"),
    "a map of 2^32 items": lambda: canonical.decode(b"\xdf\xff\xff\xff\xff\xa1a\xc0"),
    "a text of 4 GiB": lambda: canonical.decode(b"\xdb\xff\xff\xff\xffa"),
    "bytes of 4 GiB": lambda: canonical.decode(b"\xc6\xff\xff\xff\xffa"),
    "an extension of 4 GiB": lambda: canonical.decode(b"\xc9\xff\xff\xff\xff\1a"),
    "arrays a million deep": lambda: canonical.decode(b"\x91" * MIB + b"\xc0"),
    "maps a million deep": lambda: canonical.decode(b"\x81\xa1a" * MIB + b"\xc0"),
    "arrays 600 deep": lambda: canonical.decode(b"\x91" * 600 + b"\xc0"),
    "bytes behind the value": lambda: canonical.decode(b"\xc0" + bytes(MIB)),
    "what cannot be read is not written": lambda: canonical.encode([[]] * 300_000),
    # Values of states
    "ints of one hash": lambda: _colliding(20_000, "ints"),
    "complex numbers of one hash": lambda: _colliding(20_000, "complex"),
    "a list as a key": lambda: _state(["dict", ["list"], 1]),
    "a state of 2^64 bytes": lambda: _tensors((2**62,)),
    "a shape of 64 dimensions": lambda: _tensors((2**62,) * 64),
    "a shape of 65 dimensions": lambda: _tensors((1,) * 65),
    # Trees
    "a node of 5000 rows": lambda: _node(names=[f"{n:05}" for n in range(5000)], kinds=b"\1" * 5000,
                                         modes=[0] * 5000, sizes=[0] * 5000, ids=bytes(160_000)),
    "sizes beyond all": lambda: _node(names=["a", "b"], kinds=b"\1\1", modes=[0, 0],
                                      sizes=[2**63 - 1, 1], ids=bytes(64)),
    "a name of 5000 bytes": lambda: _node(names=["a" * 5000], kinds=b"\1", modes=[0], sizes=[0],
                                          ids=bytes(32)),
    "a level of 300": lambda: parse(Kind.TREE, canonical.encode(
        {"v": 1, "level": 300, "names": ["a", "b"], "ids": bytes(64), "sizes": [1, 1],
         "counts": [1, 1]})),
    # Records, packs, indexes
    "a record of 2^62 bytes": lambda: _record(size=2**62),
    "a record just too large": lambda: _record(size=MAX_WHOLE + 1),
    "a delta 200 deep": lambda: _record(codec=3, depth=200),
    "a footer of 2^32 rows": lambda: _footer(2**32 - 1, 0),
    "a footer of 2^32 bases": lambda: _footer(0, 2**32 - 1),
    "a footer that begins behind the pack": lambda: _trailer(2**62),
    "a footer that begins at 0": lambda: _trailer(0),
    "a pack of 2^62 bytes": lambda: _trailer(100, 2**62),
    "an index of 2^60 rows": lambda: _index(2**60, 0),
    "an index of 2^32 packs": lambda: _index(0, 2**32 - 1),
    "an index whose counts wrap around": lambda: _index(2**58, 4),
    # Recipes and deltas
    "a recipe of 2^32 pieces": lambda: Recipe.from_bytes(bytes(32) + b"\xff" * 4 + bytes(40), 1),
    "a recipe of none": lambda: Recipe.from_bytes(bytes(36), 0),
    "sizes that wrap around": lambda: Recipe.from_bytes(
        Recipe((2**64 - 1, 2), bytes(64)).to_bytes(), 1),
    "recipes four deep": lambda: _recipes(4),
    "a recipe of itself": lambda: _recipes(1, itself=True),
    "a recipe that says 2^62": lambda: _recipes(1, sizes=2**62),
    "a recipe that says nothing": lambda: _recipes(1, sizes=0),
    **{f"a delta on {kind}": _delta_on(kind)
       for kind in ("itself", "each other", "nothing", "another size")},
    # Codecs
    "a frame of another size": lambda: _zstd(_frame(32 * MIB), 100),
    "a frame that says little": lambda: _zstd(_frame(32 * MIB, states=100), 100),
    "a frame that says much": lambda: _zstd(_frame(100, states=2**62), 100),
    "a window of 1 GiB": lambda: _zstd(_window(30, 1000), 1000),
    "a window of 16 MiB": lambda: _zstd(_window(24, 1000), 1000),
    "frames one after another": lambda: _zstd(_frame(100) * 2, 100),
    "a skippable frame": lambda: _zstd(b"\x50\x2a\x4d\x18\xff\xff\xff\x7f" + bytes(9), 100),
    "planes of rows of 4 GiB": lambda: codec_for(2).decode(b"\4\1" + _rows(*[2**32 - 1] * 5), 400),
    "planes whose frame says much": lambda: codec_for(2).decode(
        b"\1\0" + _rows(len(_frame(9, states=2**40)), 0) + _frame(9, states=2**40), 9),
    "a delta of rows of 4 GiB": lambda: delta_for(3).decode_into(
        b"\4\0" + _rows(*[2**32 - 1] * 5), bytes(400), memoryview(bytearray(400))),
    "a sparse delta of 2^32 words": lambda: delta_for(4).decode_into(
        b"\4\0" + struct.pack("<II", 400, 2**32 - 1) + bytes(64), bytes(400),
        memoryview(bytearray(400))),
    "a sparse delta that marks all": lambda: delta_for(4).decode_into(
        b"\1\0" + struct.pack("<II", 400, 1) + _rows(0, 0, 0) + b"\xff" * 50 + b"\1", bytes(400),
        memoryview(bytearray(400))),
    # Documents
    "a document of 100,000 lists in lists": lambda: read_document(b"[" * 100_000),
    "a document of 100,000 maps in maps": lambda: read_document(b'{"a":' * 100_000),
    "a document of one endless number": lambda: read_document(b"9" * MIB),
    "a document of 90 MiB": lambda: read_document(b"[" + b"[]," * (30 * MIB) + b"0]"),
    # Tensor files
    "safetensors: a header of 2^63": lambda: _opaque(struct.pack("<Q", 2**63) + b"{}" + bytes(99)),
    "safetensors: JSON in JSON": lambda: _opaque(with_header('{"a":' * 100_000, b"")),
    "safetensors: a million lists": lambda: _opaque(
        with_header('{"a":[' + "[]," * MIB + "0]}", b"")),
    "safetensors: a shape of a million ones": lambda: _opaque(with_header(
        '{"a":{"dtype":"U8","data_offsets":[0,1],"shape":[' + "1," * MIB + "1]}}", b"\0")),
    "safetensors: a number of a million digits": lambda: _opaque(with_header(
        '{"a":{"dtype":"U8","data_offsets":[0,1],"shape":[' + "9" * MIB + "]}}", b"\0")),
    "safetensors: all tensors on one place": lambda: _opaque(with_header(
        "{" + ",".join(f'"{n}":{{"dtype":"U8","data_offsets":[0,99],"shape":[99]}}'
                       for n in range(20_000)) + "}", bytes(99))),
    "npy: a line of 4 GiB": lambda: _opaque(_npy(b"{" * 99, b"\2\0", 2**32 - 1)),
    "npy: 2^60 numbers": lambda: _opaque(_npy(_array_line(f"{2**60},"))),
    "npy: a shape of 20,000 ones": lambda: _opaque(_npy(_array_line("1, " * 19_999 + "1"))),
    "npy: an object": lambda: _opaque(_npy(_array_line("1,", "|O")) + bytes(8)),
    "npy: a line without end": lambda: _opaque(_npy(b"{'descr': '" + b"<" * 60_000)),
    "zip: 65535 members that are not there": lambda: _opaque(_zip(
        changes=[(8, "<H", 65_535), (10, "<H", 65_535)])),
    "zip: a directory of 4 GiB": lambda: _opaque(_zip(changes=[(12, "<I", 2**32 - 2)])),
    "zip: a directory on the members": lambda: _opaque(_zip(changes=[(16, "<I", 0)])),
    "zip: a member of 4 GiB": lambda: _opaque(_zip(changes=[(-20, "<I", 2**32 - 2)])),
    "zip: all members on one place": lambda: _opaque(_zip(changes=[(-42, "<I", 99)])),
    "zip: deflated zeros": lambda: _opaque(_deflated(bytes(64 * MIB), "archive/data.pkl")),
    "zip: a zip in a zip": lambda: _opaque(_deflated(_deflated(bytes(MIB), "a"), "b")),
    "pickle: lists doubled 200 times": lambda: _opaque(_pickled(_laughs(200))),
    "pickle: tuples 100,000 deep": lambda: _opaque(_pickled(b")" + b"\x85" * 100_000 + b".")),
    "pickle: a memo of 2^32": lambda: _opaque(_pickled(b"}r\xff\xff\xff\xffj\xff\xff\xff\xff.")),
    "pickle: a text of 4 GiB": lambda: _opaque(_pickled(b"X\xff\xff\xff\xffabc.")),
    "pickle: 4 Mi operations": lambda: _opaque(_pickled(b"}" + b"}0" * (2 * MIB) + b".")),
    "pickle: a storage of 2^31 numbers": lambda: _opaque(_pickled(
        b"}(" + text("w") + tensor("0", (2, 2), count=2**31 - 1) + b"u.")),
    "pickle: a shape of 10,000 ones": lambda: _opaque(_pickled(
        b"}(" + text("w") + tensor("0", (1,) * 10_000, strides=(1,) * 10_000) + b"u.")),
    "pickle: marks without end": lambda: _opaque(_pickled(b"(" * MIB + number(1) + b".")),
    "gguf: 2^63 tensors": lambda: _opaque(gguf({}, claims=(2**63, 0))),
    "gguf: 2^63 values": lambda: _opaque(gguf({}, claims=(0, 2**63))),
    "gguf: a text of 2^63": lambda: _opaque(gguf({}, [("a", 8, struct.pack("<Q", 2**63))])),
    "gguf: an array of 2^60 numbers": lambda: _opaque(
        gguf({}, [("a", 9, struct.pack("<IQ", 6, 2**60))])),
    "gguf: an array of 2^40 texts": lambda: _opaque(
        gguf({}, [("a", 9, struct.pack("<IQ", 8, 2**40))])),
    "gguf: an array of arrays": lambda: _opaque(
        gguf({}, [("a", 9, struct.pack("<IQ", 9, 2**20) + bytes(2**20))])),
    "gguf: 2^60 numbers in a tensor": lambda: _opaque(gguf({"w": (0, [2**60], b"")})),
    "gguf: an alignment of 2^31": lambda: _opaque(
        gguf({}, [("general.alignment", 4, struct.pack("<I", 2**31))])),
    "gguf: 200,000 keys": lambda: _opaque(gguf({}, claims=(0, 200_000)) + b"".join(
        gguf_text(f"{n:07}") + b"\0\0\0\0\0" for n in range(200_000))),
}  # fmt: skip
