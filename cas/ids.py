"""Object identity: the BLAKE3 digests that name every object.

A blob's id is the plain BLAKE3-256 of its bytes, what `b3sum` prints. The other kinds hash their
canonical bytes in derive-key mode under a context of their own, so that no blob can pose as a
commit. The only home of `blake3`, which is always called single-threaded: its own pool hangs in a
forked child.

Format: docs/format/objects.md.
"""

from typing import ClassVar, NewType, Self

from blake3 import blake3

from cas.errors import InvalidInputError

Buffer = bytes | bytearray | memoryview


class ObjectId(bytes):
    """The 32-byte digest that names an object; prints as hex, sorts as bytes."""

    SIZE: ClassVar[int] = 32
    __slots__ = ()

    def __new__(cls, digest: Buffer) -> Self:
        """Take a digest of exactly 32 bytes; raise InvalidInputError for another length."""
        if len(digest) != cls.SIZE:
            raise InvalidInputError(f"an object id is {cls.SIZE} bytes, not {len(digest)}")
        return super().__new__(cls, digest)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id from its full hex form."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise InvalidInputError(f"not an object id: {text!r}") from error

    @property
    def short(self) -> str:
        """The first ten hex digits, for people."""
        return self[:5].hex()

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"ObjectId({self.hex()!r})"


BlobId = NewType("BlobId", ObjectId)
ManifestId = NewType("ManifestId", ObjectId)
TreeId = NewType("TreeId", ObjectId)
CommitId = NewType("CommitId", ObjectId)

MANIFEST_CONTEXT = "cas 2026-11 manifest"
TREE_CONTEXT = "cas 2026-11 tree"
COMMIT_CONTEXT = "cas 2026-11 commit"


def blob_id(data: Buffer) -> BlobId:
    """Return the id of the blob with these bytes."""
    return BlobId(ObjectId(blake3(data).digest()))


def manifest_id(canonical: Buffer) -> ManifestId:
    """Return the id of the manifest with these canonical bytes."""
    return ManifestId(_derived(canonical, MANIFEST_CONTEXT))


def tree_id(canonical: Buffer) -> TreeId:
    """Return the id of the tree node with these canonical bytes."""
    return TreeId(_derived(canonical, TREE_CONTEXT))


def commit_id(canonical: Buffer) -> CommitId:
    """Return the id of the commit with these canonical bytes."""
    return CommitId(_derived(canonical, COMMIT_CONTEXT))


def digest(*parts: Buffer, size: int = 32) -> bytes:
    """Return the plain BLAKE3 of the parts joined, for checksums that name nothing."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest(length=size)


class BlobHasher:
    """The id of a blob whose bytes come piece by piece."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def update(self, data: Buffer) -> None:
        """Take the next bytes."""
        self._hasher.update(data)

    def id(self) -> BlobId:
        """Return the id of all bytes so far."""
        return BlobId(ObjectId(self._hasher.digest()))


def _derived(canonical: Buffer, context: str) -> ObjectId:
    return ObjectId(blake3(canonical, derive_key_context=context).digest())
