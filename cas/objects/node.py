"""Tree nodes: one piece of a directory, held as columns.

A directory is one leaf, or inner nodes over leaves (`tree.py` splits and joins them). The columns
stay as they are stored: nothing makes an object per entry unless somebody iterates. A node that is
built is valid, whatever it was built from.

Format: docs/format/tree.md.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import ge
from typing import ClassVar, Self

from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.ids import Buffer, ObjectId, TreeId, blob_id, tree_id
from cas.objects import canonical
from cas.objects.fields import Fields

VERSION = 1
MAX_NAME = 4096
MAX_LINK = 65_536
MAX_ENTRIES = 4096
MAX_LEVEL = 255
MAX_SIZE = 2**63 - 1
MODE_BITS = 0o777
NAMED_ONLY = 0x80


class EntryKind(IntEnum):
    """What an entry of a directory is."""

    FILE = 1
    LINK = 2
    TREE = 3
    STATE = 4
    SERIES = 5


KINDS = {int(kind): kind for kind in EntryKind}
RESERVED = frozenset({6, 7})
WITH_MODE = frozenset({EntryKind.FILE, EntryKind.TREE})
# A link has no object that could be missing, so it is never only named.
KIND_BYTES = frozenset({*KINDS, *(kind | NAMED_ONLY for kind in KINDS)}) - {
    EntryKind.LINK | NAMED_ONLY
}
RESERVED_BYTES = RESERVED | {kind | NAMED_ONLY for kind in RESERVED}

_INTS = frozenset({int})
_NAMES = frozenset({str, bytes})
_BINS = frozenset({bytes})


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory; `stored` is false when its target is only named, not kept.

    The id of a LINK is the blob id of its target bytes; no object is stored for it.
    """

    name: bytes
    kind: EntryKind
    id: ObjectId
    size: int
    mode: int = 0
    link: bytes | None = None
    stored: bool = True

    @classmethod
    def to_link(cls, name: bytes, target: bytes) -> Self:
        """Return the entry of a symbolic link."""
        return cls(name, EntryKind.LINK, blob_id(target), len(target), link=target)


@dataclass(frozen=True, slots=True)
class Child:
    """One row of an inner node: the last name below it, and what is below."""

    last: bytes
    id: TreeId
    size: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One tree node as columns; raises InvalidInputError when they make no valid node.

    A leaf (level 0) has `kinds`, `modes` and `links`; an inner node has `counts`. A name is text,
    or bytes when it is not valid UTF-8.
    """

    level: int
    names: Sequence[str | bytes]
    ids: bytes
    sizes: Sequence[int]
    kinds: bytes = b""
    modes: Sequence[int] = ()
    links: Sequence[bytes] = ()
    counts: Sequence[int] = ()

    LEAF_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"v", "level", "names", "kinds", "modes", "sizes", "ids", "links"}
    )
    INNER_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"v", "level", "names", "ids", "sizes", "counts"}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.level <= MAX_LEVEL:
            raise InvalidInputError(f"a tree node has level 0 to {MAX_LEVEL}, not {self.level}")
        if len(self.names) > MAX_ENTRIES:
            raise InvalidInputError(f"a tree node has at most {MAX_ENTRIES} rows")
        check_names(self.names)
        if min(self.sizes, default=0) < 0 or sum(self.sizes) > MAX_SIZE:
            raise InvalidInputError("the sizes in a tree node are out of range")
        if self.level:
            self._check_inner()
        else:
            self._check_leaf()

    @property
    def id(self) -> TreeId:
        """The id of this node."""
        return tree_id(self.to_bytes())

    @property
    def size(self) -> int:
        """The bytes of all entries below."""
        return sum(self.sizes)

    @property
    def count(self) -> int:
        """The number of entries below."""
        return sum(self.counts) if self.level else len(self.names)

    @property
    def last(self) -> bytes | None:
        """The last name below, None in an empty directory."""
        return raw_name(self.names[-1]) if self.names else None

    def id_at(self, row: int) -> ObjectId:
        """Return the id in one row."""
        size = ObjectId.SIZE
        return ObjectId(self.ids[row * size : (row + 1) * size])

    def entries(self) -> Iterator[Entry]:
        """Yield the entries of a leaf in order."""
        if self.level:
            raise InvalidInputError("an inner tree node has children, not entries")
        links = iter(self.links)
        for row, byte in enumerate(self.kinds):
            link = next(links) if byte == EntryKind.LINK else None
            yield self._entry(row, link)

    def children(self) -> Iterator[Child]:
        """Yield the rows of an inner node in order."""
        if not self.level:
            raise InvalidInputError("a leaf has entries, not children")
        yield from map(self.child_at, range(len(self.names)))

    def child_at(self, row: int) -> Child:
        """Return one row of an inner node."""
        name = raw_name(self.names[row])
        return Child(name, TreeId(self.id_at(row)), self.sizes[row], self.counts[row])

    def row_of(self, name: bytes) -> int:
        """Return the first row whose name is not before `name`, by bisection."""
        return bisect_left(self.names, name, key=raw_name)

    def find(self, name: bytes) -> Entry | None:
        """Return the entry of a leaf with this name, None when there is none."""
        row = self.row_of(name)
        if row == len(self.names) or raw_name(self.names[row]) != name:
            return None
        if self.kinds[row] != EntryKind.LINK:
            return self._entry(row, None)
        return self._entry(row, self.links[self.kinds[:row].count(EntryKind.LINK)])

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        columns: dict[str, object] = {
            "v": VERSION,
            "level": self.level,
            "names": list(self.names),
            "ids": bytes(self.ids),
            "sizes": list(self.sizes),
        }
        if self.level:
            columns["counts"] = list(self.counts)
        else:
            columns |= {
                "kinds": bytes(self.kinds),
                "modes": list(self.modes),
                "links": list(self.links),
            }
        return canonical.encode(columns)

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """Read a node; raise CorruptionError or UnsupportedError."""
        fields = Fields("tree", raw, VERSION)
        level = fields.natural("level")
        fields.expect(cls.INNER_FIELDS if level else cls.LEAF_FIELDS)
        names = fields.column("names", _NAMES)
        count = len(names)
        ids = fields.packed("ids", ObjectId.SIZE, count)
        sizes = fields.column("sizes", _INTS, count)
        try:
            if level:
                counts = fields.column("counts", _INTS, count)
                return cls(level=level, names=names, ids=ids, sizes=sizes, counts=counts)
            return cls(
                level=level,
                names=names,
                ids=ids,
                sizes=sizes,
                kinds=fields.packed("kinds", 1, count),
                modes=fields.column("modes", _INTS, count),
                links=fields.column("links", _BINS),
            )
        except InvalidInputError as error:
            raise CorruptionError(f"tree: {error}") from error

    def _entry(self, row: int, link: bytes | None) -> Entry:
        byte = self.kinds[row]
        return Entry(
            raw_name(self.names[row]),
            KINDS[byte & ~NAMED_ONLY],
            self.id_at(row),
            self.sizes[row],
            self.modes[row],
            link,
            byte < NAMED_ONLY,
        )

    def _check_inner(self) -> None:
        rows = len(self.names)
        columns = {len(self.sizes), len(self.counts)}
        if columns != {rows} or len(self.ids) != rows * ObjectId.SIZE:
            raise InvalidInputError("the columns of a tree node differ in length")
        if rows < 2:
            raise InvalidInputError("an inner tree node has at least two children")
        if min(self.counts) < 1 or sum(self.counts) > MAX_SIZE:
            raise InvalidInputError("the counts in a tree node are out of range")

    def _check_leaf(self) -> None:
        rows = len(self.names)
        columns = {len(self.sizes), len(self.kinds), len(self.modes)}
        if columns != {rows} or len(self.ids) != rows * ObjectId.SIZE:
            raise InvalidInputError("the columns of a tree node differ in length")
        seen = set(self.kinds)
        if not seen <= KIND_BYTES:
            if seen <= KIND_BYTES | RESERVED_BYTES:
                raise UnsupportedError("a tree has kinds of entry that are not known to this cas")
            raise InvalidInputError("a tree node has a kind of entry that does not exist")
        for byte, mode in set(zip(self.kinds, self.modes, strict=True)):
            if mode & ~(MODE_BITS if KINDS[byte & ~NAMED_ONLY] in WITH_MODE else 0):
                raise InvalidInputError(f"entry kind {byte} cannot have mode {mode:o}")
        self._check_links()

    def _check_links(self) -> None:
        if EntryKind.LINK not in self.kinds and not self.links:
            return
        rows = [row for row, byte in enumerate(self.kinds) if byte == EntryKind.LINK]
        if len(rows) != len(self.links):
            raise InvalidInputError(f"{len(rows)} links have {len(self.links)} targets")
        for row, target in zip(rows, self.links, strict=True):
            if not 0 < len(target) <= MAX_LINK or b"\0" in target:
                raise InvalidInputError(f"link {self.names[row]!r} has a target that cannot be")
            if self.sizes[row] != len(target) or self.id_at(row) != blob_id(target):
                raise InvalidInputError(f"link {self.names[row]!r} is not what its id names")


def raw_name(name: str | bytes) -> bytes:
    """Return a name as the operating system has it."""
    return name.encode() if isinstance(name, str) else name


def stored_name(name: bytes) -> str | bytes:
    """Return a name as a node holds it: text, or bytes when they are not valid UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def check_names(names: Sequence[str | bytes]) -> None:
    """Refuse names that no directory can have, and names out of order; raise InvalidInputError."""
    texts = [name for name in names if isinstance(name, str)]
    raws = names if len(texts) == len(names) else [raw_name(name) for name in names]
    # Code points sort as their UTF-8 bytes do, so a column of text is compared as it is.
    if any(map(ge, raws, raws[1:])):
        raise InvalidInputError("the names in a tree are not in strict raw-byte order")
    if len(texts) < len(names) or _suspicious(texts):
        for name in names:
            check_name(name)


def check_name(name: str | bytes) -> None:
    """Refuse a name that no directory can have, or in another form; raise InvalidInputError."""
    raw = raw_name(name)
    if raw in {b"", b".", b".."} or b"/" in raw or b"\0" in raw:
        raise InvalidInputError(f"{name!r} cannot be a name in a directory")
    if len(raw) > MAX_NAME:
        raise InvalidInputError(f"a name has at most {MAX_NAME} bytes: {name[:40]!r}…")
    if isinstance(name, bytes) and isinstance(stored_name(name), str):
        raise InvalidInputError(f"{name!r} is valid UTF-8 and must be text")


def _suspicious(texts: list[str]) -> bool:
    """Say whether one of the names may be wrong, at a fraction of the cost of checking each."""
    joined = "/".join(texts)
    return (
        joined.count("/") >= max(len(texts), 1)
        or "\0" in joined
        or not {"", ".", ".."}.isdisjoint(texts)
        or max(map(len, texts), default=0) > MAX_NAME // 4
    )
