"""The examples of the format pages are true: each is decoded and comes back byte for byte.

A block that starts with ```` ```hex NAME ```` holds one thing in hex; white space and what follows
a `#` do not count. `CODECS` says how each NAME is read and written. A line `Its id is `…`.` right
below a block is checked too.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cas.codec.base import DeltaCodec
from cas.codec.delta import DELTA
from cas.codec.element import Element
from cas.codec.planes import PLANES, Planes
from cas.codec.sparse import SPARSE_DELTA
from cas.ids import ObjectId, blob_id
from cas.objects import canonical
from cas.objects.commit import Commit
from cas.objects.document import document, read_document
from cas.objects.edges import Object
from cas.objects.manifest import Series, State
from cas.objects.node import Node
from cas.repo.root import RootFile
from cas.store.recipe import Recipe
from cas.store.segment import Segment
from cas.tracking.journals.journal import scan_frames, to_frame
from tests.support import formats

PAGES = Path(__file__).parents[2] / "docs" / "format"
BLOCK = re.compile(
    r"^```hex[ ]+(?P<name>[^\n]+)\n(?P<text>.*?)^```$(?:\s+Its id is `(?P<id>[^`]*)`)?",
    re.DOTALL | re.MULTILINE,
)
COMMENT = re.compile(r"#[^\n]*")


@dataclass(frozen=True, slots=True)
class Codec:
    """How one kind of example is read and written, and what its id is where it has one."""

    from_bytes: Callable[[bytes], Any]
    to_bytes: Callable[[Any], bytes]
    id: Callable[[Any], ObjectId] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One block of a page."""

    page: str
    name: str
    text: str
    id: str | None

    def raw(self) -> bytes:
        return bytes.fromhex(COMMENT.sub("", self.text))


def value(kind: Any, *, has_id: bool = False) -> Codec:
    """The codec of a class with the pair `to_bytes` and `from_bytes`."""
    return Codec(kind.from_bytes, lambda made: made.to_bytes(), _own_id if has_id else None)


def _own_id(made: Object) -> ObjectId:
    return blob_id(made) if isinstance(made, bytes) else made.id


def _frames(raw: bytes) -> list[Any]:
    frames = list(scan_frames(raw))
    assert frames[-1][1] == len(raw), "the example has a torn frame"
    return [canonical.decode(payload) for payload, _ in frames]


def _journal(values: list[Any]) -> bytes:
    return b"".join(map(to_frame, values))


def _delta(codec: DeltaCodec) -> Codec:
    """Against four times 1 in float32, the base of the examples."""
    base = bytes.fromhex("0000803f") * 4

    def decode(raw: bytes) -> bytes:
        target = bytearray(len(base))
        codec.decode_into(raw, base, memoryview(target))
        assert target == bytes.fromhex("0000803f 0100803f 0000803f feff7f3f")
        return bytes(target)

    return Codec(decode, lambda data: bytes(codec.encode(data, base, Element(4, floating=True))))


def _planes(raw: bytes) -> bytes:
    data = bytes(PLANES.decode(raw, 65))
    assert data[:6] == bytes.fromhex("803f 843f 883f")
    return data


# One line for each NAME that a page may use.
CODECS: dict[str, Codec] = {
    "Blob": Codec(bytes, bytes, _own_id),
    "Document": Codec(read_document, document),
    "Tree": value(Node, has_id=True),
    "State": value(State, has_id=True),
    "Series": value(Series, has_id=True),
    "Commit": value(Commit, has_id=True),
    "Journal": Codec(_frames, _journal),
    "Record": Codec(formats.read_record, formats.write_record),
    "Recipe": Codec(formats.read_recipe, Recipe.to_bytes),
    "Pack": Codec(formats.read_pack, formats.write_pack),
    "Index": value(Segment),
    "Root": value(RootFile),
    "Snapshot": Codec(formats.read_snapshot, formats.write_snapshot),
    "Planes": Codec(_planes, lambda data: bytes(Planes(Element(2, floating=True)).encode(data))),
    "Delta": _delta(DELTA),
    "SparseDelta": _delta(SPARSE_DELTA),
    "Format": Codec(formats.read_format, formats.write_format),
    "StatCache": Codec(formats.read_known, formats.write_known),
}


def examples(page: str, text: str) -> Iterator[Example]:
    for found in BLOCK.finditer(text):
        yield Example(page, found["name"].strip(), found["text"], found["id"])


EXAMPLES = [
    example
    for path in sorted(PAGES.glob("*.md"))
    for example in examples(path.name, path.read_text())
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.page}-{example.name}")
def test_an_example_comes_back_byte_for_byte(example: Example) -> None:
    assert example.name in CODECS, f"{example.page}: no codec for {example.name!r}"
    codec = CODECS[example.name]
    made = codec.from_bytes(example.raw())
    assert codec.to_bytes(made) == example.raw()
    if example.id is not None:
        assert codec.id is not None, f"{example.page}: {example.name} has no id"
        assert str(codec.id(made)) == example.id


def test_the_pages_of_the_objects_have_an_example_of_each() -> None:
    shown = {(example.page, example.name) for example in EXAMPLES if example.id}
    assert shown >= {
        ("objects.md", "Blob"),
        ("tree.md", "Tree"),
        ("manifest.md", "State"),
        ("manifest.md", "Series"),
        ("commit.md", "Commit"),
    }


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.name)
def test_every_block_of_hex_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert len(re.findall(r"^```hex", text, re.MULTILINE)) == len(list(examples(path.name, text)))


def test_comments_and_white_space_do_not_count() -> None:
    page = "# x\n```hex Blob\n68 65 # he\n\n6C6c # ll 00\n```\n\nIts id is `00`.\n```hex\n00\n```\n"
    (example,) = examples("x.md", page)
    assert (example.name, example.raw(), example.id) == ("Blob", b"hell", "00")
