"""Zip archives: where the bytes of each member lie, from a directory that is taken strictly.

One member follows the other, each has in front of it the header that the directory tells of, and
the directory fills the end of the file. Nothing is unpacked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Final

from cas.objects.containers.found import MAX_HEADER, OddError, check_text, read_exactly

MAGIC: Final = b"PK\x03\x04"
# Signature, flags, method, length of the name, of the extra field.
LOCAL: Final = Struct("<4s2xHH16xHH")
# The same; with both sizes, the length of the comment, and where the member begins.
ENTRY: Final = Struct("<4s4xHH8xIIHHH8xI")
END: Final = Struct("<4s4xHHIIH")  # signature, entries (twice), size, offset, comment
LOCATOR: Final = Struct("<4s4xQ4x")  # signature, offset of the larger end
LARGE_END: Final = Struct("<4s20xQQQQ")  # signature, entries (twice), size, offset
ENTRY_MAGIC: Final = b"PK\x01\x02"
END_MAGIC: Final = b"PK\x05\x06"
LOCATOR_MAGIC: Final = b"PK\x06\x07"
LARGE_END_MAGIC: Final = b"PK\x06\x06"
EXTRA: Final = Struct("<HH")  # kind and length of an extra field
LARGE: Final = 1  # the kind that holds what 32 bits do not
LARGE_NUMBER: Final = Struct("<Q")
FULL: Final = 0xFFFFFFFF
ENCRYPTED: Final = 0x41  # also with its headers hidden
STORED: Final = 0
MAX_GAP: Final = 24  # behind a member: its sizes once more, where they were not known in front


@dataclass(frozen=True, slots=True)
class Member:
    """The bytes of a member, from `offset` on; when it is `stored` they are its content."""

    name: str
    offset: int
    nbytes: int
    stored: bool


def members(file: BinaryIO, size: int) -> list[Member]:
    """Return the members of an archive of `size` bytes, in the order in which they lie."""
    start, length, count = _place(file, size)
    if length > MAX_HEADER:
        raise OddError(f"a directory of {length} bytes")
    entries = sorted(_entries(read_exactly(file, start, length)), key=lambda entry: entry.offset)
    if len(entries) != count:
        raise OddError("the directory has another number of entries than it says")
    found: dict[str, Member] = {}
    end = 0
    for entry in entries:
        if not end <= entry.offset <= end + MAX_GAP or entry.name in found:
            raise OddError(f"{entry.name!r} does not follow the member before, or stands twice")
        member = _placed(file, entry, start)
        found[entry.name] = member
        end = member.offset + member.nbytes
    if start > end + MAX_GAP:
        raise OddError("the directory does not follow the last member")
    return list(found.values())


def _place(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return where the directory lies, its length and the number of its entries."""
    end = size - END.size
    if end < 0:
        raise OddError("too short")
    magic, here, entries, length, start, comment = END.unpack(read_exactly(file, end, END.size))
    if magic != END_MAGIC or here != entries or comment:
        raise OddError("the archive does not end where it should")
    at = end - LOCATOR.size
    if at >= LARGE_END.size:
        magic, large = LOCATOR.unpack(read_exactly(file, at, LOCATOR.size))
        if magic == LOCATOR_MAGIC:
            end = at - LARGE_END.size
            raw = LARGE_END.unpack(read_exactly(file, end, LARGE_END.size))
            magic, here, entries, length, start = raw
            if magic != LARGE_END_MAGIC or large != end or here != entries:
                raise OddError("the archive does not end where it should")
    if start + length != end:
        raise OddError("the directory does not fill the end of the archive")
    return start, length, entries


def _entries(directory: bytes) -> Iterator[Member]:
    """Yield what a directory tells: members with the offsets of their headers."""
    at = 0
    while at < len(directory):
        if at + ENTRY.size > len(directory):
            raise OddError("the directory is cut short")
        magic, flags, method, stored, nbytes, name, extra, comment, offset = ENTRY.unpack_from(
            directory, at
        )
        at += ENTRY.size
        rest = directory[at + name : at + name + extra]
        raw = directory[at : at + name]
        at += name + extra + comment
        if magic != ENTRY_MAGIC or flags & ENCRYPTED or at > len(directory):
            raise OddError("an entry of the directory is damaged, or encrypted")
        if FULL in {stored, nbytes, offset}:
            nbytes, stored, offset = _large(rest, (nbytes, stored, offset))
        if method == STORED and stored != nbytes:
            raise OddError(f"{raw!r} is stored as it is, and has two sizes")
        yield Member(check_text(raw.decode()), offset, stored, method == STORED)


def _large(extra: bytes, numbers: tuple[int, ...]) -> Iterator[int]:
    """Yield numbers, from the extra field those that do not fit in 32 bits."""
    at = 0
    while at + EXTRA.size <= len(extra):
        kind, length = EXTRA.unpack_from(extra, at)
        at += EXTRA.size
        if kind == LARGE:
            break
        at += length
    else:
        raise OddError("a large member without its sizes")
    end = min(at + length, len(extra))
    for number in numbers:
        if number != FULL:
            yield number
            continue
        if at + LARGE_NUMBER.size > end:
            raise OddError("a large member without its sizes")
        yield LARGE_NUMBER.unpack_from(extra, at)[0]
        at += LARGE_NUMBER.size


def _placed(file: BinaryIO, entry: Member, end: int) -> Member:
    """Return a member with the offset of its bytes, from the header in front of them."""
    name = entry.name.encode()
    start = entry.offset + LOCAL.size + len(name)
    if start > end:
        raise OddError(f"{entry.name!r} begins outside of the archive")
    raw = read_exactly(file, entry.offset, LOCAL.size + len(name))
    magic, flags, method, length, extra = LOCAL.unpack_from(raw)
    stored = method == STORED and not flags & ENCRYPTED
    if magic != MAGIC or length != len(name) or raw[LOCAL.size :] != name or stored != entry.stored:
        raise OddError(f"{entry.name!r} has another header than the directory says")
    if start + extra + entry.nbytes > end:
        raise OddError(f"{entry.name!r} ends outside of the archive")
    return Member(entry.name, start + extra, entry.nbytes, entry.stored)
