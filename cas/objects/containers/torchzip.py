"""Archives of `torch.save`: a zip of stored members, `data.pkl` and one record per storage.

Strict: nothing compressed or encrypted, no two records over one another, sizes that agree; the
pickle is read as data by `statedict`.
"""

import zipfile
from io import RawIOBase
from struct import Struct
from typing import Any, BinaryIO, Final

from cas.objects.containers import statedict
from cas.objects.containers.found import (
    MAX_HEADER,
    FoundTensor,
    OddError,
    read_exactly,
    size_of,
)
from cas.objects.containers.statedict import Tensor
from cas.objects.manifest import DTYPES

MAGIC: Final = b"PK\x03\x04"
LOCAL: Final = Struct("<4s22xHH")  # signature, length of the name, length of the extra field
ENCRYPTED: Final = 0x1
PICKLE: Final = "data.pkl"
ORDER: Final = "byteorder"
DATA: Final = "data/"

Spans = dict[str, tuple[int, int]]  # offset and size in the file, by name


def read(file: BinaryIO, size: int) -> list[FoundTensor]:
    """Return the tensors of a torch.save file of `size` bytes, in the order of the pickle."""
    if size < LOCAL.size or read_exactly(file, 0, len(MAGIC)) != MAGIC:
        raise OddError("not a zip archive")
    spans = _spans(file, size)
    if PICKLE not in spans:
        raise OddError(f"no {PICKLE} in the archive")
    if ORDER in spans and _content(file, spans[ORDER]) != b"little":
        raise OddError("big-endian, or nobody knows")
    found = statedict.read(_content(file, spans[PICKLE]))
    return [_placed(name, tensor, spans) for name, tensor in found]


def _spans(file: BinaryIO, size: int) -> Spans:
    """Return where each member's bytes lie, by its name below the archive's one folder."""
    members = sorted(_directory(file, size), key=lambda member: member.header_offset)
    folder = members[0].filename.partition("/")[0] + "/" if members else "/"
    spans: Spans = {}
    end = 0
    for member in members:
        if member.header_offset < end:
            raise OddError(f"{member.filename!r} lies over another member")
        offset = _start(file, member, size)
        end = offset + member.file_size
        name = member.filename.removeprefix(folder)
        if end > size or name in spans or name == member.filename:
            raise OddError(f"{member.filename!r} leaves the file, or stands twice")
        spans[name] = (offset, member.file_size)
    return spans


def _directory(file: BinaryIO, size: int) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_Metered(file, size)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError) as error:
        raise OddError(f"no zip archive: {error}") from error
    for member in members:
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored or member.file_size != member.compress_size or member.flag_bits & ENCRYPTED:
            raise OddError(f"{member.filename!r} is not stored as it is")
    return members


def _start(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> int:
    """Return where a member's bytes begin, from the header in front of them."""
    at = member.header_offset
    if not 0 <= at <= size - LOCAL.size:
        raise OddError(f"{member.filename!r} begins outside of the file")
    signature, name, extra = LOCAL.unpack(read_exactly(file, at, LOCAL.size))
    raw = read_exactly(file, at + LOCAL.size, name)
    if signature != MAGIC or raw != member.orig_filename.encode():
        raise OddError(f"{member.filename!r} has another header than the directory says")
    return at + LOCAL.size + int(name) + int(extra)


def _content(file: BinaryIO, span: tuple[int, int]) -> bytes:
    offset, length = span
    if length > MAX_HEADER:
        raise OddError(f"a header of {length} bytes")
    return read_exactly(file, offset, length)


def _placed(name: str, tensor: Tensor, spans: Spans) -> FoundTensor:
    storage = tensor.storage
    span = spans.get(f"{DATA}{storage.key}")
    width = DTYPES[storage.dtype] if storage.dtype else 1
    if span is None or span[1] != storage.count * width:
        raise OddError(f"the storage of {name!r} is missing or has another size")
    nbytes = size_of(tensor.dtype, tensor.shape)
    if tensor.start * DTYPES[tensor.dtype] > span[1]:
        raise OddError(f"{name!r} begins outside of its storage")
    whole = tensor.plain and tensor.start == 0 and nbytes == span[1] and _row_major(tensor)
    return FoundTensor(name, tensor.dtype, tensor.shape, span[0] if whole else None, nbytes)


def _row_major(tensor: Tensor) -> bool:
    step = 1
    for length, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if length == 0:
            return True
        if length > 1 and stride != step:
            return False
        step *= length
    return True


class _Metered(RawIOBase):
    """A file of which only so much may be read: a directory can claim any size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._left = MAX_HEADER + 256 * 1024

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> Any:
        rest = max(self._size - self._file.tell(), 0)
        length = rest if size is None or size < 0 else min(size, rest)
        self._left -= length
        if self._left < 0:
            raise OddError("the archive's directory is too large")
        return self._file.read(length)
